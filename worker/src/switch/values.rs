//! The values in a switch, as data: merged, frozen, thawed, and an image's tag in them.

use jobs::spec::Application;
use serde_json::{Map, Value};

/// Values of a release.
pub type Values = Map<String, Value>;

/// Reads the YAML (or JSON) of a switch; nothing is no values. The error reads after "it".
pub fn parse(text: &str) -> Result<Values, String> {
    if text.trim().is_empty() {
        return Ok(Values::new());
    }
    match serde_saphyr::from_str(text) {
        Ok(Value::Object(values)) => Ok(values),
        Ok(Value::Null) => Ok(Values::new()),
        Ok(_) => Err("is not a map of values".to_owned()),
        Err(error) => {
            let place = error.location().map_or_else(String::new, |at| {
                format!(" at line {}, column {}", at.line(), at.column())
            });
            Err(format!("is not valid YAML{place}"))
        }
    }
}

/// What is written into a switch: JSON, which is YAML too and in which a tag such as `123.10` stays a text.
pub fn text(values: &Values) -> String {
    let text = serde_json::to_string_pretty(values);
    text.expect("values are plain data with text keys") + "\n"
}

/// Puts values over others: maps are merged key by key, `null` takes a key away, everything else replaces.
pub fn merge(into: &mut Values, change: &Values) {
    for (key, value) in change {
        match (into.get_mut(key), value) {
            (_, Value::Null) => {
                into.remove(key);
            }
            (Some(Value::Object(there)), Value::Object(change)) => merge(there, change),
            (_, Value::Object(change)) => {
                let mut made = Values::new();
                merge(&mut made, change);
                into.insert(key.clone(), Value::Object(made));
            }
            (_, value) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The values that stop an application. What else its switch holds stays.
pub fn frozen(application: &Application, before: &Values) -> Values {
    turned(before, &application.running, &application.frozen)
}

/// The values that let an application run. What else its switch holds stays.
pub fn running(application: &Application, before: &Values) -> Values {
    turned(before, &application.frozen, &application.running)
}

/// Takes one mode's values out and puts the other's in.
fn turned(before: &Values, from: &Values, to: &Values) -> Values {
    let mut after = without(before, from);
    merge(&mut after, to);
    after
}

/// Values without what stands in others, whatever it is there; maps that get empty by that go too.
fn without(values: &Values, others: &Values) -> Values {
    let mut left = Values::new();
    for (key, value) in values {
        match (value, others.get(key)) {
            (value, None) => {
                left.insert(key.clone(), value.clone());
            }
            (Value::Object(inner), Some(Value::Object(others))) => {
                let rest = without(inner, others);
                if !rest.is_empty() {
                    left.insert(key.clone(), Value::Object(rest));
                }
            }
            (_, Some(_)) => {}
        }
    }
    left
}

/// The image tag in an application's values.
pub fn tag(application: &Application, values: &Values) -> Option<String> {
    let mut path = application.tag_path().into_iter();
    let mut at = values.get(path.next()?)?;
    for key in path {
        at = at.get(key)?;
    }
    match at {
        Value::String(tag) => Some(tag.clone()),
        // Somebody forgot the quotes.
        Value::Number(tag) => Some(tag.to_string()),
        _ => None,
    }
}

/// Puts an image tag into an application's values, as a text.
pub fn set_tag(application: &Application, values: &mut Values, tag: &str) {
    let mut value = Value::from(tag);
    for key in application.tag_path().into_iter().rev() {
        value = Value::Object(Values::from_iter([(key.to_owned(), value)]));
    }
    if let Value::Object(change) = value {
        merge(values, &change);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Values {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no map"),
        }
    }

    fn application(frozen: Value, running: Value, tag: &str) -> Application {
        let all = json!({"name": "dsf", "namespace": "dsf", "release": "dsf", "switch": "dsf-values-switch",
            "frozen": frozen, "running": running, "tag": tag});
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn the_text_of_a_switch_is_a_map_of_values_or_nothing() {
        for nothing in ["", " \n", "{}", "---\n", "# later"] {
            assert_eq!(parse(nothing), Ok(Values::new()), "{nothing:?}");
        }
        let both = map(json!({"image": {"tag": "123.10"}}));
        assert_eq!(parse("image: { tag: \"123.10\" }"), Ok(both.clone()));
        assert_eq!(parse(&text(&both)), Ok(both));
        assert_eq!(parse("- a"), Err("is not a map of values".into()));
        assert_eq!(parse("hunter2"), Err("is not a map of values".into()));
        let error = parse("a: 'hunter2").unwrap_err();
        assert!(error.starts_with("is not valid YAML at line"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn values_are_merged_key_by_key_and_null_takes_away() {
        let check = |before: Value, change: Value, after: Value| {
            let mut values = map(before);
            merge(&mut values, &map(change));
            assert_eq!(Value::Object(values), after);
        };
        check(
            json!({"a": {"b": 1, "c": 2}, "l": [1, 2]}),
            json!({"a": {"c": 3}, "l": [3]}),
            json!({"a": {"b": 1, "c": 3}, "l": [3]}),
        );
        check(
            json!({"a": {"b": 1, "c": 2}, "d": 1}),
            json!({"a": {"c": null}, "d": null, "never": null}),
            json!({"a": {"b": 1}}),
        );
        check(
            json!({"a": 1}),
            json!({"a": {"b": {"c": null, "d": 1}}}),
            json!({"a": {"b": {"d": 1}}}),
        );
        check(json!({"a": {"b": 1}}), json!({"a": 1}), json!({"a": 1}));
    }

    #[test]
    fn freezing_and_thawing_keep_what_is_neither() {
        let slr = application(
            json!({"api": {"enabled": false}, "beat": {"enabled": false}}),
            json!({}),
            "image.tag",
        );
        let stopped = frozen(&slr, &Values::new());
        assert_eq!(stopped, slr.frozen);
        assert_eq!(frozen(&slr, &stopped), stopped);
        assert_eq!(running(&slr, &stopped), Values::new());

        let dsf = application(
            json!({"storefront": {"enabled": false}}),
            json!({"storefront": {"enabled": true}}),
            "image.tag",
        );
        let before =
            map(json!({"storefront": {"enabled": true, "replicas": 3}, "image": {"tag": "7"}}));
        let stopped = frozen(&dsf, &before);
        assert_eq!(
            Value::Object(stopped.clone()),
            json!({"storefront": {"enabled": false, "replicas": 3}, "image": {"tag": "7"}})
        );
        assert_eq!(running(&dsf, &stopped), before);
    }

    #[test]
    fn a_tag_stands_in_its_place_and_is_a_text() {
        let deep = application(json!({"a": 1}), json!({}), "web.image.tag");
        let mut values = map(json!({"web": {"image": {"repository": "r"}, "n": 1}}));
        assert_eq!(tag(&deep, &values), None);
        set_tag(&deep, &mut values, "123.10");
        assert_eq!(
            Value::Object(values.clone()),
            json!({"web": {"image": {"repository": "r", "tag": "123.10"}, "n": 1}})
        );
        assert_eq!(tag(&deep, &values).as_deref(), Some("123.10"));
        assert!(text(&values).contains("\"123.10\""));
        values["web"]["image"]["tag"] = json!(7);
        assert_eq!(tag(&deep, &values).as_deref(), Some("7"));
        let shallow = application(json!({"a": 1}), json!({}), "tag");
        let mut values = map(json!({"tag": {"old": true}}));
        assert_eq!(tag(&shallow, &values), None);
        set_tag(&shallow, &mut values, "1");
        assert_eq!(tag(&shallow, &values).as_deref(), Some("1"));
    }
}
