//! Patches that are no applies: RFC 7386 and RFC 6902.

use serde_json::{Map, Value};

/// A merge patch (RFC 7386).
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (name, value) in fields {
        match value {
            Value::Null => {
                target.remove(name);
            }
            value => merge(target.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}

/// A JSON patch (RFC 6902).
///
/// # Errors
/// With the operation that cannot be done; then nothing may be kept of it.
pub(super) fn json(target: &mut Value, operations: &Value) -> Result<(), String> {
    let operations = operations.as_array().ok_or("a JSON patch is a list")?;
    for operation in operations {
        let text = |name: &str| operation[name].as_str().map(str::to_owned);
        let path = text("path").ok_or("an operation has no path")?;
        let from = || text("from").ok_or("an operation has no from");
        let value = || {
            operation
                .get("value")
                .cloned()
                .ok_or("an operation has no value")
        };
        let missing = |path: &str| format!("the path does not exist: {path}");
        match text("op").unwrap_or_default().as_str() {
            "test" => {
                if target.pointer(&path) != Some(&value()?) {
                    return Err(format!("testing value {path} failed"));
                }
            }
            "add" => add(target, &path, value()?)?,
            "replace" => *target.pointer_mut(&path).ok_or_else(|| missing(&path))? = value()?,
            "remove" => {
                take(target, &path)?;
            }
            "move" => {
                let value = take(target, &from()?)?;
                add(target, &path, value)?;
            }
            "copy" => {
                let from = from()?;
                let value = target
                    .pointer(&from)
                    .cloned()
                    .ok_or_else(|| missing(&from))?;
                add(target, &path, value)?;
            }
            other => return Err(format!("there is no operation {other:?}")),
        }
    }
    Ok(())
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let (above, last) = path
        .rsplit_once('/')
        .ok_or("the whole object is not patched")?;
    let last = last.replace("~1", "/").replace("~0", "~");
    let found = target.pointer_mut(above);
    Ok((
        found.ok_or_else(|| format!("the path does not exist: {path}"))?,
        last,
    ))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    match parent(target, path)? {
        (Value::Object(fields), name) => {
            fields.insert(name, value);
            Ok(())
        }
        (Value::Array(items), end) if end == "-" => {
            items.push(value);
            Ok(())
        }
        (Value::Array(items), index) => match index.parse::<usize>() {
            Ok(index) if index <= items.len() => {
                items.insert(index, value);
                Ok(())
            }
            _ => Err(format!("there is no such index: {path}")),
        },
        _ => Err(format!("the path does not exist: {path}")),
    }
}

fn take(target: &mut Value, path: &str) -> Result<Value, String> {
    let missing = || format!("the path does not exist: {path}");
    match parent(target, path)? {
        (Value::Object(fields), name) => fields.remove(&name).ok_or_else(missing),
        (Value::Array(items), index) => match index.parse::<usize>() {
            Ok(index) if index < items.len() => Ok(items.remove(index)),
            _ => Err(missing()),
        },
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_sets_and_takes_away() {
        let mut target = json!({"a": 1, "b": {"c": 2, "d": 3}, "l": [1, 2]});
        merge(
            &mut target,
            &json!({"a": null, "b": {"c": 9}, "l": [3], "n": {"x": null, "y": 1}}),
        );
        assert_eq!(
            target,
            json!({"b": {"c": 9, "d": 3}, "l": [3], "n": {"y": 1}})
        );
    }

    #[test]
    fn a_json_patch_does_its_operations_in_a_row() {
        let mut target = json!({"a": {"b/c": 1}, "l": [1, 3]});
        let patch = json!([
            {"op": "test", "path": "/a/b~1c", "value": 1},
            {"op": "add", "path": "/l/1", "value": 2},
            {"op": "add", "path": "/l/-", "value": 4},
            {"op": "move", "from": "/a/b~1c", "path": "/moved"},
            {"op": "copy", "from": "/l", "path": "/a/l"},
            {"op": "replace", "path": "/l", "value": []},
            {"op": "remove", "path": "/a/l/0"},
        ]);
        json(&mut target, &patch).unwrap();
        assert_eq!(target, json!({"a": {"l": [2, 3, 4]}, "l": [], "moved": 1}));
        for wrong in [
            json!([{"op": "remove", "path": "/no"}]),
            json!([{"op": "test", "path": "/moved", "value": 2}]),
            json!([{"op": "replace", "path": "/a/x", "value": 2}]),
            json!([{"op": "add", "path": "/l/7", "value": 2}]),
            json!({"op": "add"}),
        ] {
            assert!(json(&mut target, &wrong).is_err(), "{wrong}");
        }
    }
}
