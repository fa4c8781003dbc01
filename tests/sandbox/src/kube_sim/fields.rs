//! Which fields an object has: paths to its leaves, as `managedFields` writes them, and what differs
//! between two versions of it.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value, json};

use super::kinds::Kind;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A field of a map.
    Field(String),
    /// An item of a list that is found by keys: these keys and values, as JSON.
    Key(String),
    /// An item of a set: its value, as JSON.
    Item(String),
}

/// From the object to one of its fields.
pub(super) type Path = Vec<Step>;
/// Several fields.
pub(super) type Fields = BTreeSet<Path>;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let all: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", all.join(","))
            }
            Step::Item(value) => write!(f, "[={value}]"),
        }
    }
}

/// As a conflict names it: `.spec.containers[name="a"].image`.
pub(super) fn shown(path: &[Step]) -> String {
    path.iter().map(ToString::to_string).collect()
}

/// How a list or map is taken: as one value, or by what is in it.
enum Shape {
    Whole,
    ByKeys(Vec<String>),
    ByValue,
}

/// What is known of the fields of a kind.
pub(super) struct Schema<'a>(pub(super) &'a Kind);

/// Lists of built-in kinds by the name of their field, and the keys of their items.
const KEYED: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("imagePullSecrets", &["name"]),
    ("hostAliases", &["ip"]),
    (
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    ("conditions", &["type"]),
    ("secrets", &["name"]),
    ("webhooks", &["name"]),
];

/// Maps of built-in kinds that are one value.
const WHOLE: &[&str] = &[
    "selector",
    "nodeSelector",
    "labelSelector",
    "podSelector",
    "namespaceSelector",
    "fieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "resourceFieldRef",
    "roleRef",
    "claimRef",
];

impl Schema<'_> {
    fn shape(&self, path: &[Step]) -> Shape {
        let fields: Vec<&str> = path
            .iter()
            .filter_map(|step| match step {
                Step::Field(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        match fields.as_slice() {
            ["metadata", "finalizers"] => return Shape::ByValue,
            ["metadata", "ownerReferences"] => return Shape::ByKeys(vec!["uid".into()]),
            ["metadata", ..] => return Shape::Whole,
            _ => {}
        }
        if let Some(schema) = &self.0.schema {
            return of_definition(schema, path);
        }
        let last = fields.last().copied().unwrap_or_default();
        if last == "ports" {
            let port = if self.0.kind == "Service" {
                "port"
            } else {
                "containerPort"
            };
            return match self.0.kind.as_str() {
                "Endpoints" | "NetworkPolicy" => Shape::Whole,
                _ => Shape::ByKeys(vec![port.into(), "protocol".into()]),
            };
        }
        if last == "finalizers" && self.0.kind == "Namespace" {
            return Shape::Whole;
        }
        let keyed = KEYED.iter().find(|(name, _)| *name == last);
        keyed.map_or(Shape::Whole, |(_, keys)| {
            Shape::ByKeys(keys.iter().map(|k| (*k).to_owned()).collect())
        })
    }

    /// Whether a map is one value.
    fn whole(&self, path: &[Step]) -> bool {
        let Some(Step::Field(last)) = path.last() else {
            return false;
        };
        match &self.0.schema {
            Some(schema) => at(schema, path)["x-kubernetes-map-type"] == "atomic",
            None => WHOLE.contains(&last.as_str()),
        }
    }

    /// What a value consists of; nothing when it counts as one.
    fn parts<'v>(&self, path: &[Step], value: &'v Value) -> Option<Vec<(Step, &'v Value)>> {
        match value {
            Value::Object(_) if self.whole(path) => None,
            Value::Object(fields) => Some(
                fields
                    .iter()
                    .map(|(name, value)| (Step::Field(name.clone()), value))
                    .collect(),
            ),
            Value::Array(items) => match self.shape(path) {
                Shape::Whole => None,
                Shape::ByValue => Some(
                    items
                        .iter()
                        .map(|item| (Step::Item(item.to_string()), item))
                        .collect(),
                ),
                Shape::ByKeys(keys) => items
                    .iter()
                    .map(|item| Some((Step::Key(key_of(&keys, item)?), item)))
                    .collect(),
            },
            _ => None,
        }
    }
}

/// The part of a schema that a path leads to.
fn at<'a>(schema: &'a Value, path: &[Step]) -> &'a Value {
    let mut here = schema;
    for step in path {
        here = match step {
            Step::Field(name) => match here["properties"].get(name) {
                Some(below) => below,
                None => &here["additionalProperties"],
            },
            Step::Key(_) | Step::Item(_) => &here["items"],
        };
    }
    here
}

fn of_definition(schema: &Value, path: &[Step]) -> Shape {
    let list = at(schema, path);
    match list["x-kubernetes-list-type"].as_str() {
        Some("set") => Shape::ByValue,
        Some("map") => {
            let keys = list["x-kubernetes-list-map-keys"].as_array();
            let keys = keys.into_iter().flatten().filter_map(Value::as_str);
            Shape::ByKeys(keys.map(str::to_owned).collect())
        }
        _ => Shape::Whole,
    }
}

/// The keys of an item and their values. A port without a protocol is TCP.
fn key_of(keys: &[String], item: &Value) -> Option<String> {
    let mut found = Map::new();
    for key in keys {
        let value = match (item.get(key), key.as_str()) {
            (Some(value), _) => value.clone(),
            (None, "protocol") => json!("TCP"),
            (None, _) => return None,
        };
        found.insert(key.clone(), value);
    }
    Some(Value::Object(found).to_string())
}

/// What nobody manages: it says which object it is, or is the server's own.
fn is_unmanaged(path: &[Step]) -> bool {
    let names: Vec<&str> = path
        .iter()
        .map(|step| match step {
            Step::Field(name) => name.as_str(),
            _ => "",
        })
        .collect();
    match names.as_slice() {
        [] | ["apiVersion" | "kind" | "metadata"] => true,
        ["metadata", field, ..] => !matches!(
            *field,
            "labels" | "annotations" | "finalizers" | "ownerReferences" | "generateName"
        ),
        _ => false,
    }
}

/// The leaves that whoever applies this object says something about.
pub(super) fn applied(schema: &Schema<'_>, value: &Value) -> Fields {
    let mut fields = Fields::new();
    collect(schema, &mut Vec::new(), value, false, &mut fields);
    fields
}

fn collect(schema: &Schema<'_>, path: &mut Path, value: &Value, all: bool, into: &mut Fields) {
    let parts = schema.parts(path, value);
    let is_item = matches!(path.last(), Some(Step::Key(_) | Step::Item(_)));
    let is_leaf = parts.as_ref().is_none_or(Vec::is_empty);
    if (is_leaf || is_item || all) && !is_unmanaged(path) {
        into.insert(path.clone());
    }
    for (step, value) in parts.into_iter().flatten() {
        path.push(step);
        collect(schema, path, value, all, into);
        path.pop();
    }
}

/// What differs between two versions of an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) set: Fields,
    pub(super) removed: Fields,
}

pub(super) fn compare(schema: &Schema<'_>, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    compare_at(schema, &mut Vec::new(), old, new, &mut difference);
    difference
}

fn compare_at(
    schema: &Schema<'_>,
    path: &mut Path,
    old: &Value,
    new: &Value,
    into: &mut Difference,
) {
    let (before, after) = match (schema.parts(path, old), schema.parts(path, new)) {
        (Some(before), Some(after)) => (before, after),
        (None, None) if old == new => return,
        (None, None) => {
            if !is_unmanaged(path) {
                into.set.insert(path.clone());
            }
            return;
        }
        (before, _) => {
            // It was one value and is several now, or the other way round.
            let removed = &mut Fields::new();
            collect(schema, path, old, false, removed);
            if before.is_some() {
                into.removed.append(removed);
            }
            collect(schema, path, new, true, &mut into.set);
            return;
        }
    };
    for (step, value) in &before {
        path.push(step.clone());
        match after.iter().find(|(other, _)| other == step) {
            Some((_, other)) => compare_at(schema, path, value, other, into),
            None => collect(schema, path, value, true, &mut into.removed),
        }
        path.pop();
    }
    for (step, value) in &after {
        if before.iter().all(|(other, _)| other != step) {
            path.push(step.clone());
            collect(schema, path, value, true, &mut into.set);
            path.pop();
        }
    }
}

/// What is there, with what is applied laid over it.
pub(super) fn merge(schema: &Schema<'_>, path: &mut Path, live: &Value, applied: &Value) -> Value {
    let (Some(there), Some(ours)) = (schema.parts(path, live), schema.parts(path, applied)) else {
        return applied.clone();
    };
    let mut merged: Vec<(Step, Value)> = Vec::new();
    for (step, value) in &there {
        let other = ours.iter().find(|(other, _)| other == step);
        path.push(step.clone());
        let value = match other {
            Some((_, other)) => merge(schema, path, value, other),
            None => (*value).clone(),
        };
        path.pop();
        merged.push((step.clone(), value));
    }
    for (step, value) in ours {
        if there.iter().all(|(other, _)| *other != step) {
            merged.push((step, value.clone()));
        }
    }
    match live {
        Value::Array(_) => merged.into_iter().map(|(_, value)| value).collect(),
        _ => merged
            .into_iter()
            .filter_map(|(step, value)| match step {
                Step::Field(name) => Some((name, value)),
                _ => None,
            })
            .collect::<Map<_, _>>()
            .into(),
    }
}

/// Takes a field away, and maps and lists that are empty without it.
pub(super) fn remove(schema: &Schema<'_>, value: &mut Value, path: &[Step]) {
    remove_at(schema, value, path, 0);
}

fn remove_at(schema: &Schema<'_>, value: &mut Value, path: &[Step], depth: usize) {
    let Some(step) = path.get(depth) else {
        return;
    };
    let last = depth + 1 == path.len();
    let index = match schema.parts(&path[..depth], value) {
        Some(parts) => parts.iter().position(|(other, _)| other == step),
        None => None,
    };
    let Some(index) = index else {
        return;
    };
    let emptied = |child: &Value| match child {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match (value, step) {
        (Value::Object(fields), Step::Field(name)) => {
            let Some(child) = fields.get_mut(name) else {
                return;
            };
            if !last {
                remove_at(schema, child, path, depth + 1);
            }
            if last || emptied(child) {
                fields.remove(name);
            }
        }
        (Value::Array(items), _) if last => {
            items.remove(index);
        }
        (Value::Array(items), _) => remove_at(schema, &mut items[index], path, depth + 1),
        _ => {}
    }
}

/// As `fieldsV1` of `managedFields`.
pub(super) fn to_v1(fields: &Fields) -> Value {
    let mut root = Map::new();
    for path in fields {
        let mut here = &mut root;
        for step in path {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Key(keys) => format!("k:{keys}"),
                Step::Item(value) => format!("v:{value}"),
            };
            let below = here.entry(name).or_insert_with(|| json!({}));
            let Value::Object(below) = below else {
                unreachable!("only maps are put in");
            };
            here = below;
        }
    }
    // What is owned itself and has something owned below it says so.
    for path in fields {
        let mut here = &mut root;
        for step in path {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Key(keys) => format!("k:{keys}"),
                Step::Item(value) => format!("v:{value}"),
            };
            let Some(Value::Object(below)) = here.get_mut(&name) else {
                unreachable!("it was put in above");
            };
            here = below;
        }
        if !here.is_empty() {
            here.insert(".".into(), json!({}));
        }
    }
    Value::Object(root)
}
