//! What the fuzz tests share: how many cases, and ways to spoil a good document.
//!
//! `REKINDLE_FUZZ_CASES` runs longer by hand. A case that fails is written down as a plain test.
#![allow(dead_code, reason = "every test file uses a part of it")]

use proptest::prelude::*;
use proptest::test_runner::FailurePersistence;
use serde_json::{Value, json};

/// As many cases as the environment says, else `default`.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let cases = match std::env::var("REKINDLE_FUZZ_CASES") {
        Ok(text) => text.parse().expect("REKINDLE_FUZZ_CASES is a number"),
        Err(_) => default,
    };
    ProptestConfig {
        cases,
        failure_persistence: None::<Box<dyn FailurePersistence>>,
        ..ProptestConfig::default()
    }
}

/// One way to spoil one place of a JSON document.
#[derive(Debug, Clone)]
pub(crate) enum Spoil {
    /// The field or item goes away.
    Drop,
    /// It becomes something else.
    Become(Value),
    /// It stands in an array of its own.
    Wrap,
    /// Its key gets another name.
    Rename,
    /// It becomes a copy of another place of the document.
    CopyOf(usize),
}

/// Values that are at home nowhere.
pub(crate) fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(u64::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(1e308)),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        Just(json!("\0")),
        Just(json!("../../x")),
        Just(json!("\u{202e}\u{fffd}")),
        Just(json!("a".repeat(100_000))),
        ".{0,20}".prop_map(Value::from),
        "[a-z0-9/-]{0,70}".prop_map(Value::from),
    ]
}

/// One to three places (modulo their number) and how each is spoilt.
pub(crate) fn spoils() -> impl Strategy<Value = Vec<(usize, Spoil)>> {
    let spoil = prop_oneof![
        2 => Just(Spoil::Drop),
        4 => strange().prop_map(Spoil::Become),
        1 => Just(Spoil::Wrap),
        1 => Just(Spoil::Rename),
        1 => any::<usize>().prop_map(Spoil::CopyOf),
    ];
    prop::collection::vec((any::<usize>(), spoil), 1..4)
}

/// The document with these places spoilt.
pub(crate) fn spoilt(document: &Value, spoils: &[(usize, Spoil)]) -> Value {
    let mut document = document.clone();
    for (at, spoil) in spoils {
        let places = pointers(&document);
        if places.is_empty() {
            break;
        }
        let place = &places[at % places.len()];
        let other = match spoil {
            Spoil::CopyOf(other) => document.pointer(&places[other % places.len()]).cloned(),
            _ => None,
        };
        let (parent, key) = place.rsplit_once('/').expect("a pointer has a slash");
        let key = key.replace("~1", "/").replace("~0", "~");
        let parent = document.pointer_mut(parent).expect("it is there");
        match (spoil, parent) {
            (Spoil::Drop, Value::Object(map)) => drop(map.remove(&key)),
            (Spoil::Drop, Value::Array(items)) => {
                drop(items.remove(key.parse::<usize>().expect("an index")))
            }
            (Spoil::Rename, Value::Object(map)) => {
                let value = map.remove(&key).expect("it is there");
                map.insert(format!("{key}x"), value);
            }
            (Spoil::Become(value), parent) => put(parent, &key, value.clone()),
            (Spoil::CopyOf(_), parent) => put(parent, &key, other.expect("it is there")),
            (Spoil::Wrap, Value::Object(map)) => {
                let value = map.remove(&key).expect("it is there");
                map.insert(key, json!([value]));
            }
            _ => {}
        }
    }
    document
}

fn put(parent: &mut Value, key: &str, value: Value) {
    match parent {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value,
        _ => {}
    }
}

/// JSON pointers of all places but the top.
fn pointers(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        let below: Vec<(String, &Value)> = match value {
            Value::Object(map) => map
                .iter()
                .map(|(k, v)| (k.replace('~', "~0").replace('/', "~1"), v))
                .collect(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(i, v)| (i.to_string(), v))
                .collect(),
            _ => vec![],
        };
        for (key, value) in below {
            let at = format!("{at}/{key}");
            found.push(at.clone());
            walk(value, &at, found);
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

/// Replaces some bytes by others.
pub(crate) fn damaged(text: String) -> impl Strategy<Value = Vec<u8>> {
    let with = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        "[\\[\\]{}\",:0-9a-z\\\\ ]{0,12}".prop_map(String::into_bytes),
        Just(b"\xff\xfe".to_vec()),
        Just(b"\\u0000".to_vec()),
        Just(b"\\ud800".to_vec()),
        Just(vec![b'['; 5000]),
        Just(b"{\"a\":".repeat(5000)),
    ];
    (0..=text.len(), 0_usize..30, with).prop_map(move |(at, len, with)| {
        let mut bytes = text.clone().into_bytes();
        let end = (at + len).min(bytes.len());
        bytes.splice(at..end, with);
        bytes
    })
}
