//! Definitions of kinds: what a CustomResourceDefinition brings once it is established, and what its
//! schema makes of an object.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::refusal::Cause;
use super::store::{Key, State};

pub(super) const GROUP: &str = "apiextensions.k8s.io";
pub(super) const PLURAL: &str = "customresourcedefinitions";

/// The kinds of all established definitions.
pub(super) fn established(state: &State) -> Vec<Kind> {
    let definitions = state.objects.range(Key::first(GROUP, PLURAL)..);
    definitions
        .take_while(|(key, _)| key.is_of(GROUP, PLURAL))
        .filter(|(_, object)| is_established(&object.body))
        .flat_map(|(_, object)| kinds(&object.body))
        .collect()
}

fn is_established(body: &Value) -> bool {
    let conditions = body.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| c["type"] == "Established" && c["status"] == "True")
}

fn kinds(body: &Value) -> Vec<Kind> {
    let spec = &body["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&names["kind"]);
    let singular = match names["singular"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => kind.to_lowercase(),
    };
    let short = names["shortNames"].as_array().into_iter().flatten();
    let short: Vec<String> = short.map(text).collect();
    let versions = spec["versions"].as_array().into_iter().flatten();
    versions
        .filter(|version| version["served"] == true)
        .map(|version| Kind {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            plural: text(&names["plural"]),
            singular: singular.clone(),
            kind: kind.clone(),
            short: short.clone(),
            namespaced: spec["scope"] == "Namespaced",
            status: version.pointer("/subresources/status").is_some(),
            generation: true,
            schema: Some(Arc::new(
                version
                    .pointer("/schema/openAPIV3Schema")
                    .cloned()
                    .unwrap_or(json!({})),
            )),
        })
        .collect()
}

/// Versions in the order in which clients prefer them: v2, v1, v1beta1, v1alpha1, others.
pub(super) fn rank(version: &str) -> (u8, std::cmp::Reverse<u64>, std::cmp::Reverse<u64>) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let at = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let major: u64 = rest[..at].parse().ok()?;
        let (stage, minor) = match &rest[at..] {
            "" => (0, ""),
            beta if beta.starts_with("beta") => (1, &beta[4..]),
            alpha if alpha.starts_with("alpha") => (2, &alpha[5..]),
            _ => return None,
        };
        let minor = if minor.is_empty() {
            0
        } else {
            minor.parse().ok()?
        };
        Some((stage, std::cmp::Reverse(major), std::cmp::Reverse(minor)))
    };
    parsed().unwrap_or((3, std::cmp::Reverse(0), std::cmp::Reverse(0)))
}

/// What is wrong with a definition.
pub(super) fn check(body: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &body["spec"];
    let text = |at: &str| spec.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let name = body
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let expected = format!("{}.{}", text("/names/plural"), text("/group"));
    if name != expected {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    for (at, field) in [
        ("/group", "spec.group"),
        ("/scope", "spec.scope"),
        ("/names/plural", "spec.names.plural"),
        ("/names/kind", "spec.names.kind"),
    ] {
        if text(at).is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    let stored = versions.iter().filter(|v| v["storage"] == true).count();
    if stored != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &json!(versions.len()), why));
    }
    for (n, version) in versions.iter().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            let field = format!("spec.versions[{n}].schema.openAPIV3Schema");
            causes.push(Cause::required(&field, "schemas are required"));
        }
    }
    causes
}

/// Fills in what the server fills in.
pub(super) fn fill(body: &mut Value) {
    let kind = body.pointer("/spec/names/kind").and_then(Value::as_str);
    let Some(kind) = kind.map(str::to_owned) else {
        return;
    };
    let Some(names) = body
        .pointer_mut("/spec/names")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    names
        .entry("singular")
        .or_insert_with(|| kind.to_lowercase().into());
    names
        .entry("listKind")
        .or_insert_with(|| format!("{kind}List").into());
    if let Some(spec) = body["spec"].as_object_mut() {
        spec.entry("conversion")
            .or_insert_with(|| json!({"strategy": "None"}));
    }
}

/// A definition becomes one that is served.
pub(super) fn establish(body: &mut Value, now: &str) {
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": "True", "lastTransitionTime": now,
            "reason": reason, "message": message})
    };
    let versions = body["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<Value> = versions
        .filter(|v| v["storage"] == true)
        .map(|v| v["name"].clone())
        .collect();
    body["status"] = json!({
        "acceptedNames": body["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
}

/// Drops the fields that a schema does not name, as the server does without a word.
pub(super) fn prune(schema: &Value, value: &mut Value) {
    // The outermost three are the server's own.
    let keep = ["apiVersion", "kind", "metadata"];
    prune_below(schema, value, &keep);
}

fn prune_below(schema: &Value, value: &mut Value, keep: &[&str]) {
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    match value {
        Value::Object(fields) => {
            // Whole objects inside bring their own three.
            let embedded = schema["x-kubernetes-embedded-resource"] == true;
            let properties = schema["properties"].as_object();
            let additional = schema
                .get("additionalProperties")
                .filter(|a| **a != json!(false));
            fields.retain(|name, value| {
                if keep.contains(&name.as_str())
                    || (embedded && ["apiVersion", "kind", "metadata"].contains(&name.as_str()))
                {
                    return true;
                }
                match (properties.and_then(|p| p.get(name)), additional) {
                    (Some(below), _) | (None, Some(below)) => {
                        prune_below(below, value, &[]);
                        true
                    }
                    (None, None) => open,
                }
            });
        }
        Value::Array(items) => {
            let below = schema.get("items").cloned().unwrap_or(Value::Null);
            for item in items {
                prune_below(&below, item, &[]);
            }
        }
        _ => {}
    }
}

/// Gives absent fields the defaults of the schema.
pub(super) fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, below) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = below.get("default")
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    default(below, value);
                }
            }
            if let Some(below) = schema.get("additionalProperties") {
                fields.values_mut().for_each(|value| default(below, value));
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.get("items") {
                items.iter_mut().for_each(|item| default(below, item));
            }
        }
        _ => {}
    }
}

/// What a schema has against an object: missing fields, wrong types, values outside an enumeration.
/// Patterns, bounds and CEL rules are not looked at.
pub(super) fn validate(schema: &Value, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let empty = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    for (name, below) in properties {
        if let Some(value) = value.get(name)
            && !["apiVersion", "kind", "metadata"].contains(&name.as_str())
        {
            validate_at(name, below, value, &mut causes);
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if value.get(name).is_none() {
            causes.push(Cause::required(name, ""));
        }
    }
    causes
}

fn validate_at(path: &str, schema: &Value, value: &Value, causes: &mut Vec<Cause>) {
    let found = match value {
        Value::Null => return,
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = schema["type"].as_str().unwrap_or_default();
    let either =
        schema["x-kubernetes-int-or-string"] == true && matches!(found, "integer" | "string");
    let fits = wanted.is_empty()
        || either
        || wanted == found
        || (wanted == "number" && found == "integer");
    if !fits {
        causes.push(Cause {
            reason: "FieldValueInvalid",
            field: path.to_owned(),
            message: format!(
                "Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}"
            ),
        });
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            field: path.to_owned(),
            message: format!(
                "Unsupported value: {value}: supported values: {}",
                allowed.join(", ")
            ),
        });
    }
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap_or_default();
                if !fields.contains_key(name) {
                    causes.push(Cause::required(&format!("{path}.{name}"), ""));
                }
            }
            for (name, value) in fields {
                let below = schema["properties"].get(name);
                if let Some(below) = below.or_else(|| schema.get("additionalProperties")) {
                    validate_at(&format!("{path}.{name}"), below, value, causes);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.get("items") {
                for (n, item) in items.iter().enumerate() {
                    validate_at(&format!("{path}[{n}]"), below, item, causes);
                }
            }
        }
        _ => {}
    }
}
