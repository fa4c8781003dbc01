//! A release's values: those that it refers to in their order, then its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::operators::api::{name, namespace};
use crate::operators::{Fault, Tick};

/// The values of a HelmRelease. The inner error is for its status.
pub(super) async fn compose(release: &Value, tick: &Tick) -> kube::Result<Result<Value, String>> {
    let mut values = json!({});
    let space = namespace(release);
    let stuck = Fault::ValuesStuck(format!("{space}/{}", name(release)));
    for from in release["spec"]["valuesFrom"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let text = |field: &str| from[field].as_str().unwrap_or_default();
        let (kind, own) = (text("kind"), text("name"));
        let key = from["valuesKey"].as_str().unwrap_or("values.yaml");
        let optional = from["optional"] == true;
        let refused = |why: &str| {
            let optional = if optional { "optional " } else { "" };
            format!(
                "could not resolve {optional}{kind} chart values reference '{space}/{own}' with key '{key}': {why}"
            )
        };
        let mut found = tick.cluster.get("v1", kind, space, own).await?;
        if tick.faults.has(&stuck) {
            found = None;
        }
        let Some(found) = found else {
            if optional {
                continue;
            }
            let plural = format!("{}s", kind.to_lowercase());
            return Ok(Err(refused(&format!("{plural} \"{own}\" not found"))));
        };
        let text = found["data"][key].as_str().map(str::to_owned);
        let text = match kind {
            "Secret" => text
                .and_then(|text| BASE64.decode(text).ok())
                .and_then(|bytes| String::from_utf8(bytes).ok()),
            _ => text,
        };
        let Some(text) = text else {
            return Ok(Err(refused(&format!("missing key: {key}"))));
        };
        if let Some(path) = from["targetPath"].as_str() {
            if let Err(why) = set(&mut values, path, &text) {
                return Ok(Err(refused(&why)));
            }
            continue;
        }
        match serde_saphyr::from_str::<Value>(&text) {
            Ok(Value::Null) => {}
            Ok(more @ Value::Object(_)) => overlay(&mut values, &more),
            Ok(_) => return Ok(Err(refused("unable to read values: it is no map"))),
            Err(_) => {
                return Ok(Err(refused(
                    "unable to read values: error converting YAML to JSON",
                )));
            }
        }
    }
    if let own @ Value::Object(_) = &release["spec"]["values"] {
        overlay(&mut values, own);
    }
    Ok(Ok(values))
}

/// Lays one map over another one, map by map. A null stays, as it takes a chart's default away.
fn overlay(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                overlay(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above.clone(),
    }
}

/// A chart's defaults with a release's values over them.
pub(super) fn coalesce(defaults: &Value, values: &Value) -> Value {
    let mut all = defaults.clone();
    overlay(&mut all, values);
    without_nulls(&all)
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(key, value)| (key.clone(), without_nulls(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// Sets one value by a path with dots, as `--set` does.
fn set(values: &mut Value, path: &str, text: &str) -> Result<(), String> {
    if path.contains(['[', '\\', ',', '{']) {
        return Err(format!("the target path `{path}` is not simulated"));
    }
    let mut at = values;
    for part in path.split('.') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = match text {
        "true" => true.into(),
        "false" => false.into(),
        "null" => Value::Null,
        text => text
            .parse::<i64>()
            .map_or_else(|_| text.into(), Value::from),
    };
    Ok(())
}

/// The digest of values, as a release notes it.
pub(super) fn digest(values: &Value) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(values.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_values_win_map_by_map() {
        let mut values = json!({"a": {"b": 1, "c": [1]}, "d": 1});
        overlay(&mut values, &json!({"a": {"c": [2], "e": {}}, "d": null}));
        assert_eq!(values, json!({"a": {"b": 1, "c": [2], "e": {}}, "d": null}));
        let all = coalesce(&json!({"d": 5, "x": 1}), &values);
        assert_eq!(all, json!({"a": {"b": 1, "c": [2], "e": {}}, "x": 1}));
    }

    #[test]
    fn a_target_path_sets_one_value() {
        let mut values = json!({"a": 1});
        assert_eq!(set(&mut values, "b.c", "12"), Ok(()));
        assert_eq!(set(&mut values, "b.d", "true"), Ok(()));
        assert_eq!(values, json!({"a": 1, "b": {"c": 12, "d": true}}));
        assert!(set(&mut values, "b[0]", "x").is_err());
    }
}
