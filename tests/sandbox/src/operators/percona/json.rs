//! Objects as JSON: reading a path, conditions, what changed.

use jiff::Timestamp;
use serde_json::{Value, json};

/// The text at a path; empty when there is none.
pub(crate) fn text<'a>(of: &'a Value, path: &str) -> &'a str {
    of.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a path; zero when there is none.
pub(crate) fn number(of: &Value, path: &str) -> u64 {
    of.pointer(path).and_then(Value::as_u64).unwrap_or_default()
}

/// The texts of a list.
pub(crate) fn texts(of: &Value) -> Vec<String> {
    let texts = of
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Now, as Kubernetes writes moments.
pub(crate) fn now() -> String {
    moment(Timestamp::now())
}

/// A moment as Kubernetes writes them.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A condition of a status.
pub(crate) fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut all = status["conditions"].as_array().into_iter().flatten();
    all.find(|condition| condition["type"] == kind)
}

/// Whether a condition is `True`.
pub(crate) fn is_true(status: &Value, kind: &str) -> bool {
    condition(status, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Sets a condition; the moment is that of its last change.
pub(crate) fn set_condition(
    status: &mut Value,
    generation: u64,
    kind: &str,
    is: &str,
    reason: &str,
    message: &str,
) {
    let changed = match condition(status, kind) {
        Some(old) if old["status"] == is => old["lastTransitionTime"].clone(),
        _ => json!(now()),
    };
    let new = json!({ "type": kind, "status": is, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": changed });
    let mut all = status["conditions"].as_array().cloned().unwrap_or_default();
    match all.iter_mut().find(|condition| condition["type"] == kind) {
        Some(old) => *old = new,
        None => all.push(new),
    }
    status["conditions"] = all.into();
}

/// Takes a condition away.
pub(crate) fn remove_condition(status: &mut Value, kind: &str) {
    if let Some(all) = status["conditions"].as_array_mut() {
        all.retain(|condition| condition["type"] != kind);
    }
}

/// The merge patch that makes one value of the other.
pub(crate) fn difference(old: &Value, new: &Value) -> Value {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return new.clone();
    };
    let gone = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let kept = new.iter().filter_map(|(key, value)| match old.get(key) {
        Some(same) if same == value => None,
        Some(other) => Some((key.clone(), difference(other, value))),
        None => Some((key.clone(), value.clone())),
    });
    Value::Object(gone.chain(kept).collect())
}

/// The reference of what an object owns to it.
pub(crate) fn owner(object: &Value) -> Value {
    json!([{ "apiVersion": object["apiVersion"], "kind": object["kind"], "name": object["metadata"]["name"],
        "uid": object["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true }])
}
