//! Who manages which field: server-side apply, and what every other write does to it.

use serde_json::{Value, json};

use super::fields::{self, Fields, Path, Schema, Step};

/// A field that somebody else manages: who, and which.
pub(super) type Conflict = (String, String);

/// How a manager came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Whoever writes: a name, the version it speaks, and the subresource it writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) subresource: String,
}

/// A writer and what it manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) writer: Writer,
    pub(super) operation: Operation,
    pub(super) time: String,
    pub(super) fields: Fields,
}

impl Manager {
    /// Appliers are the same whatever version they speak.
    fn is(&self, writer: &Writer, operation: Operation) -> bool {
        self.operation == operation
            && self.writer.name == writer.name
            && self.writer.subresource == writer.subresource
            && (operation == Operation::Apply || self.writer.version == writer.version)
    }

    /// As a conflict names it.
    fn shown(&self) -> String {
        let Writer {
            name,
            version,
            subresource,
        } = &self.writer;
        let sub = match subresource.as_str() {
            "" => String::new(),
            sub => format!(" with subresource {sub:?}"),
        };
        match self.operation {
            Operation::Apply => format!("{name:?}{sub}"),
            Operation::Update => format!("{name:?}{sub} using {version}"),
        }
    }

    fn to_value(&self) -> Value {
        let mut value = json!({
            "manager": self.writer.name,
            "operation": match self.operation { Operation::Apply => "Apply", Operation::Update => "Update" },
            "apiVersion": self.writer.version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields::to_v1(&self.fields),
        });
        if !self.writer.subresource.is_empty() {
            value["subresource"] = self.writer.subresource.clone().into();
        }
        value
    }
}

/// `metadata.managedFields`.
pub(super) fn managed_fields(managers: &[Manager]) -> Value {
    managers.iter().map(Manager::to_value).collect()
}

/// Lays `config` over `live`, as this writer's whole opinion.
///
/// # Errors
/// With the fields that others manage and that would change: who, and which.
pub(super) fn apply(
    schema: &Schema<'_>,
    live: &Value,
    managers: &[Manager],
    config: &Value,
    writer: &Writer,
    force: bool,
    now: &str,
) -> Result<(Value, Vec<Manager>), Vec<Conflict>> {
    let ours = fields::applied(schema, config);
    let is_us = |m: &&Manager| m.is(writer, Operation::Apply);
    let before = managers.iter().find(is_us).map(|m| m.fields.clone());
    let others: Vec<&Manager> = managers.iter().filter(|m| !is_us(m)).collect();

    let mut merged = fields::merge(schema, &mut Vec::new(), live, config);
    let dropped = before.unwrap_or_default();
    // What is deeper goes first, so that a list's item is still found by its key.
    let mut dropped: Vec<&Path> = dropped.difference(&ours).collect();
    dropped.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in dropped {
        let is_item = matches!(path.last(), Some(Step::Key(_) | Step::Item(_)));
        let kept = |field: &Path| field == path || (is_item && field.starts_with(path));
        if !others.iter().any(|m| m.fields.iter().any(kept)) && !is_key(path) {
            fields::remove(schema, &mut merged, path);
        }
    }

    let difference = fields::compare(schema, live, &merged);
    let mut conflicts: Vec<Conflict> = others
        .iter()
        .flat_map(|m| {
            let theirs = m.fields.intersection(&difference.set);
            theirs.map(|path| (m.shown(), fields::shown(path)))
        })
        .collect();
    if !conflicts.is_empty() && !force {
        conflicts.sort();
        return Err(conflicts);
    }
    let mut after: Vec<Manager> = others
        .into_iter()
        .map(|m| without(m, &[&difference.set, &difference.removed]))
        .collect();
    after.push(Manager {
        writer: writer.clone(),
        operation: Operation::Apply,
        time: now.to_owned(),
        fields: ours,
    });
    Ok((merged, settled(after, managers)))
}

/// A field that an item of a list is found by goes with the item and not alone.
fn is_key(path: &[Step]) -> bool {
    let [.., Step::Key(keys), Step::Field(name)] = path else {
        return false;
    };
    let keys: Value = serde_json::from_str(keys).unwrap_or_default();
    keys.get(name).is_some()
}

/// Who manages what after a write that is no apply.
pub(super) fn update(
    schema: &Schema<'_>,
    live: &Value,
    new: &Value,
    managers: &[Manager],
    writer: &Writer,
    now: &str,
) -> Vec<Manager> {
    let difference = fields::compare(schema, live, new);
    let gone = [&difference.set, &difference.removed];
    let is_us = |m: &&Manager| m.is(writer, Operation::Update);
    let mut after: Vec<Manager> = managers
        .iter()
        .filter(|m| !is_us(m))
        .map(|m| without(m, &gone))
        .collect();
    let before = managers.iter().find(is_us);
    let mut ours = before.map(|m| m.fields.clone()).unwrap_or_default();
    ours.retain(|path| !difference.removed.contains(path));
    ours.extend(difference.set.iter().cloned());
    after.push(Manager {
        writer: writer.clone(),
        operation: Operation::Update,
        time: now.to_owned(),
        fields: ours,
    });
    settled(after, managers)
}

fn without(manager: &Manager, gone: &[&Fields]) -> Manager {
    let mut manager = manager.clone();
    manager
        .fields
        .retain(|path| !gone.iter().any(|gone| gone.contains(path)));
    manager
}

/// Managers of something, in their order; whose fields did not change keeps its time.
fn settled(mut managers: Vec<Manager>, before: &[Manager]) -> Vec<Manager> {
    managers.retain(|m| !m.fields.is_empty());
    for manager in &mut managers {
        let same = before
            .iter()
            .find(|m| m.is(&manager.writer, manager.operation));
        if let Some(same) = same.filter(|m| m.fields == manager.fields) {
            manager.time.clone_from(&same.time);
        }
    }
    managers.sort_by(|a, b| {
        let order = |m: &Manager| (m.operation, m.time.clone(), m.writer.name.clone());
        order(a).cmp(&order(b))
    });
    managers
}
