//! What of an object is ours, as the API server itself keeps book of it (`metadata.managedFields`).

use anyhow::{Context, ensure};
use serde_json::{Map, Value};

/// What one manager of ours has in one object.
#[derive(Debug)]
pub(crate) struct Ours {
    /// Kind, namespace and name, as `worker::kube::Object` shows them.
    pub(crate) name: String,
    pub(crate) manager: String,
    /// By server-side apply, and not by a change of what was there.
    pub(crate) applied: bool,
    /// The fields, in the API server's notation (`f:` a field, `k:` an element by its key, `v:` one by its value).
    pub(crate) fields: Value,
    pub(crate) object: Value,
}

/// All that is ours among these objects.
pub(crate) fn ours(objects: &[Value]) -> Vec<Ours> {
    let mut found = Vec::new();
    for object in objects {
        let metadata = &object["metadata"];
        let entries = metadata["managedFields"].as_array().into_iter().flatten();
        for entry in entries {
            let manager = entry["manager"].as_str().unwrap_or_default();
            if !manager.starts_with("rekindle") {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let place = match metadata["namespace"].as_str() {
                Some(namespace) => format!("{namespace}/{}", text(&metadata["name"])),
                None => text(&metadata["name"]),
            };
            found.push(Ours {
                name: format!("{} {place}", text(&object["kind"])),
                manager: manager.to_owned(),
                applied: entry["operation"] == "Apply",
                fields: entry["fieldsV1"].clone(),
                object: object.clone(),
            });
        }
    }
    found
}

/// Every field that is ours was described, and everything that was described is there as it was.
pub(crate) fn names_and_holds(it: &Ours, described: &Value) -> anyhow::Result<()> {
    let about = || format!("{} of {}", it.manager, it.name);
    within(&it.fields, described, "").with_context(about)?;
    holds(&it.object, described, "").with_context(about)
}

/// Each field stands in the description.
fn within(fields: &Value, described: &Value, at: &str) -> anyhow::Result<()> {
    let none = Map::new();
    for (key, below) in fields.as_object().unwrap_or(&none) {
        if key == "." {
            continue;
        }
        let here = format!("{at}/{key}");
        let (kind, name) = key.split_once(':').with_context(|| here.clone())?;
        let wanted = match kind {
            "f" => described.get(name),
            "k" => {
                let by: Map<String, Value> = serde_json::from_str(name)?;
                let elements = described.as_array().into_iter().flatten();
                // What a description leaves out of a key the server adds (a port's protocol).
                let mut elements = elements.filter(|element| {
                    by.iter()
                        .all(|(key, value)| element.get(key).is_none_or(|own| own == value))
                });
                elements.next()
            }
            "v" => {
                let value: Value = serde_json::from_str(name)?;
                described
                    .as_array()
                    .and_then(|all| all.iter().find(|own| **own == value))
            }
            _ => None,
        };
        let wanted = wanted.with_context(|| format!("{here} is ours and was not described"))?;
        within(below, wanted, &here)?;
    }
    Ok(())
}

/// The object has what the description says, and its lists have no more elements.
fn holds(object: &Value, described: &Value, at: &str) -> anyhow::Result<()> {
    match (object, described) {
        (Value::Object(there), Value::Object(wanted)) => {
            for (key, value) in wanted {
                let here = format!("{at}/{key}");
                // The server keeps no empty fields.
                let empty = value.is_null()
                    || value.as_object().is_some_and(Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty);
                match there.get(key) {
                    Some(own) => holds(own, value, &here)?,
                    None => ensure!(empty, "{here} is not there"),
                }
            }
        }
        (Value::Array(there), Value::Array(wanted)) => {
            ensure!(
                there.len() == wanted.len(),
                "{at}: {there:?} instead of {wanted:?}"
            );
            for (number, (own, value)) in there.iter().zip(wanted).enumerate() {
                holds(own, value, &format!("{at}/{number}"))?;
            }
        }
        _ => ensure!(
            object == described || is_the_same_amount(object, described),
            "{at}: {object} instead of {described}"
        ),
    }
    Ok(())
}

/// Amounts are written by the server in its own way: a thousand as `1k`.
fn is_the_same_amount(one: &Value, other: &Value) -> bool {
    let amount = |value: &Value| {
        let text = value.as_str()?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let scale = match &text[digits.len()..] {
            "m" => 1,
            "" => 1000,
            "k" => 1_000_000,
            "M" => 1_000_000_000,
            "G" => 1_000_000_000_000,
            "Ki" => 1000 << 10,
            "Mi" => 1000 << 20,
            "Gi" => 1000 << 30,
            _ => return None,
        };
        digits.parse::<u128>().ok()?.checked_mul(scale)
    };
    amount(one).is_some() && amount(one) == amount(other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(fields: Value) -> Ours {
        Ours {
            name: "ConfigMap a/b".into(),
            manager: "rekindle".into(),
            applied: true,
            fields,
            object: json!({"data": {"a": "1", "b": "2"}, "list": [{"name": "x", "c": 1, "d": 2}]}),
        }
    }

    #[test]
    fn an_amount_may_be_written_in_two_ways() {
        let same = |one: &str, other: &str| is_the_same_amount(&one.into(), &other.into());
        assert!(same("1000", "1k") && same("1Gi", "1024Mi") && same("0", "0"));
        assert!(!same("1000", "1Ki") && !same("a", "a") && !same("1000m", "10"));
    }

    #[test]
    fn a_field_too_many_another_value_and_one_that_lacks_are_seen() {
        let described = json!({"data": {"a": "1"}, "list": [{"name": "x", "c": 1}]});
        let list = json!({"k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:c": {}}});
        let good = json!({"f:data": {"f:a": {}}, "f:list": list});
        names_and_holds(&of(good.clone()), &described).unwrap();
        let mut more = good.clone();
        more["f:data"]["f:b"] = json!({});
        let error = format!("{:#}", names_and_holds(&of(more), &described).unwrap_err());
        assert!(
            error.contains("/f:data/f:b is ours and was not described"),
            "{error}"
        );
        for (other, words) in [
            (json!({"data": {"a": "9"}}), "/data/a"),
            (
                json!({"data": {"a": "1", "z": "1"}}),
                "/data/z is not there",
            ),
            (json!({"list": []}), "/list"),
            (json!({"data": {"a": "1k"}}), "\"1\" instead of \"1k\""),
        ] {
            let it = of(json!({}));
            let error = format!("{:#}", names_and_holds(&it, &other).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}
