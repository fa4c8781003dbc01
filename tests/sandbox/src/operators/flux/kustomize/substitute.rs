//! `postBuild`: variables in built objects, as `envsubst` of Flux replaces them, strictly.
//!
//! Flux replaces them in the text of an object's YAML and reads that again. So a value that was only a variable becomes
//! what its text is in YAML: `123` a number, `true` a truth. That is kept here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Values by name.
pub(super) type Variables = BTreeMap<String, String>;

/// Replaces the variables in all texts and keys of an object.
pub(super) fn substitute(object: &Value, variables: &Variables) -> Result<Value, String> {
    Ok(match object {
        Value::String(text) => typed(text, expand(text, variables)?),
        Value::Array(items) => {
            let items = items.iter().map(|item| substitute(item, variables));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| {
                Ok::<_, String>((expand(key, variables)?, substitute(value, variables)?))
            });
            Value::Object(fields.collect::<Result<Map<_, _>, _>>()?)
        }
        other => other.clone(),
    })
}

/// What YAML makes of a text that was changed.
fn typed(before: &str, after: String) -> Value {
    if before == after || before.contains('\n') {
        return after.into();
    }
    match serde_saphyr::from_str::<Value>(&after) {
        Ok(scalar @ (Value::Number(_) | Value::Bool(_) | Value::Null)) => scalar,
        _ => after.into(),
    }
}

/// One text with its variables replaced.
fn expand(text: &str, variables: &Variables) -> Result<String, String> {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            // `$${x}` is the text `${x}`.
            done.push_str(&rest[..at - 1]);
            done.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        done.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or("missing closing brace")?;
        done.push_str(&value(&inside[..end], variables)?);
        rest = &inside[end + 1..];
    }
    done.push_str(rest);
    Ok(done)
}

fn value(expression: &str, variables: &Variables) -> Result<String, String> {
    let end = expression.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
    let (name, operator) = expression.split_at(end.unwrap_or(expression.len()));
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("unable to parse variable name".to_owned());
    }
    let known = variables.get(name);
    let default = match operator {
        "" => None,
        _ => {
            let with = [":-", ":=", "-", "="].iter();
            let default = with.filter_map(|sign| operator.strip_prefix(sign)).next();
            Some(default.ok_or_else(|| format!("`{expression}` is not simulated"))?)
        }
    };
    match (known, default) {
        (Some(text), Some(default)) if text.is_empty() => Ok(default.to_owned()),
        (Some(text), _) => Ok(text.clone()),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("variable not set (strict mode): \"{name}\"")),
    }
}

/// Whether a key of a ConfigMap or Secret can be a variable.
pub(super) fn is_name(key: &str) -> bool {
    let plain = |c: char| c == '_' || c.is_ascii_alphanumeric();
    !key.is_empty() && key.chars().all(plain) && !key.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(text: &str, expected: Result<Value, &str>) {
        let variables = [("A", "a"), ("N", "12"), ("EMPTY", "")];
        let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let found = substitute(&text.into(), &variables.into());
        assert_eq!(found, expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn variables_are_replaced_as_flux_does() {
        check("x.${A}.y", Ok(json!("x.a.y")));
        check("${NO:-d}", Ok(json!("d")));
        check("${EMPTY:-d}", Ok(json!("d")));
        check("${NO:=}", Ok(json!(null)));
        check("$${A} $A", Ok(json!("${A} $A")));
        check("${NO}", Err("variable not set (strict mode): \"NO\""));
        check("${A^^}", Err("`A^^` is not simulated"));
        check("${A", Err("missing closing brace"));
        // YAML reads the text again.
        check("${N}", Ok(json!(12)));
        check("${N}m", Ok(json!("12m")));
        check("12", Ok(json!("12")));
        check("line ${N}\n", Ok(json!("line 12\n")));
    }
}
