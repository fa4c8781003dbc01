//! How things look: proto-JSON, where 64-bit numbers are texts and what is empty is left out.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::refusal::error;
use super::super::world::{Kind, Operation, Status, Thing, Verb};

/// Maps with keys of their own: what is in them stays, empty texts too.
const MAPS: [&str; 3] = ["labels", "nodeLabels", "metadata"];

/// A thing as the API shows it.
pub(in super::super) fn thing(folder: &str, thing: &Thing) -> Value {
    let mut shown = thing.detail.clone();
    if !shown.is_object() {
        shown = json!({});
    }
    shown["id"] = thing.id.clone().into();
    shown["name"] = thing.name.clone().into();
    shown["description"] = thing.description.clone().into();
    shown["createdAt"] = moment(thing.created).into();
    shown["labels"] = json!(thing.labels);
    match &thing.cluster {
        Some(cluster) => shown["clusterId"] = cluster.clone().into(),
        None => shown["folderId"] = folder.into(),
    }
    if let Some(network) = &thing.network {
        shown["networkId"] = network.clone().into();
    }
    if matches!(thing.kind, Kind::Cluster | Kind::NodeGroup) {
        shown["status"] = thing.status.as_str().into();
    }
    if thing.kind == Kind::Cluster && thing.status == Status::Running {
        shown["health"] = "HEALTHY".into();
    }
    bare(&shown)
}

/// An operation as the API shows it.
pub(super) fn operation(account: &str, operation: &Operation) -> Value {
    let (kind, verb) = (operation.kind, operation.verb.word());
    let type_of = |what: String| format!("type.googleapis.com/{}.{what}", kind.package());
    let mut metadata = json!({ "@type": type_of(format!("{verb}{}Metadata", kind.word())) });
    metadata[kind.id_field()] = operation.subject.clone().into();
    let mut shown = json!({
        "id": operation.id,
        "description": format!("{verb} {}", kind.word()),
        "createdAt": moment(operation.created),
        "createdBy": account,
        "modifiedAt": moment(operation.modified),
        "metadata": metadata,
    });
    if operation.done {
        shown["done"] = true.into();
    }
    if let Some((code, message)) = &operation.error {
        shown["error"] = error(*code, message);
    } else if let Some(response) = &operation.response {
        let mut response = response.clone();
        response["@type"] = match operation.verb {
            Verb::Delete => "type.googleapis.com/google.protobuf.Empty".into(),
            Verb::Create | Verb::Update => type_of(kind.word().to_owned()).into(),
        };
        shown["response"] = response;
    }
    shown
}

/// The same without what is empty, false or 0, and with numbers as texts. A message that is there and
/// has nothing in it stays: it says something.
pub(super) fn bare(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter_map(|(key, value)| {
                let is_map = MAPS.contains(&key.as_str());
                let value = if is_map { value.clone() } else { bare(value) };
                let nothing = is_map && value.as_object().is_some_and(Map::is_empty);
                (!nothing && !is_empty(&value)).then(|| (key.clone(), value))
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(bare).collect(),
        Value::Number(number) if number.as_i64() != Some(0) => number.to_string().into(),
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    }
}

/// With seconds, as the cloud writes it.
fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out_and_numbers_are_texts() {
        let value = json!({
            "size": 4_294_967_296_u64, "zero": 0, "no": false, "yes": true, "text": "",
            "list": [], "of": [{"cores": 2, "gpus": 0}], "there": {"no": false},
            "labels": {"role": "", "n": "1"}, "metadata": {},
        });
        let expected = json!({
            "size": "4294967296", "yes": true, "of": [{"cores": "2"}], "there": {},
            "labels": {"role": "", "n": "1"},
        });
        assert_eq!(bare(&value), expected);
    }
}
