//! What a body gives: read strictly, with the checks that all kinds share.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::super::refusal::{Code, Refusal};
use super::super::world::{Kind, World};

/// Maps with keys of their own.
const MAPS: [&str; 3] = ["labels", "nodeLabels", "metadata"];
const MOST_LABELS: usize = 64;
const LONGEST_LABEL: usize = 63;
const LONGEST_DESCRIPTION: usize = 256;

/// Reads a body. Fields may be written in camel case or in snake case; what is no field of the API is
/// refused, so that a client's slip of the pen is seen. (The real service seems to ignore it.)
pub(super) fn read<T: DeserializeOwned>(body: &Value) -> Result<T, Refusal> {
    let read = serde_json::from_value(camel(body));
    read.map_err(|error| Refusal::invalid(error.to_string()))
}

/// The same with all fields in camel case.
pub(super) fn camel(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| {
                let key = camel_case(key);
                let value = match MAPS.contains(&key.as_str()) {
                    true => value.clone(),
                    false => camel(value),
                };
                (key, value)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(camel).collect(),
        other => other.clone(),
    }
}

fn camel_case(key: &str) -> String {
    let mut words = key.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.extend(letters);
        name
    })
}

/// A 64-bit number, as a number or as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Int64(pub(super) i64);

impl<'de> Deserialize<'de> for Int64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let number = match &value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| D::Error::custom("expected a 64-bit number"))?;
        Ok(Self(number))
    }
}

/// A field that must be there, and not be empty.
pub(super) fn required<'a>(field: &str, value: &'a str) -> Result<&'a str, Refusal> {
    match value {
        "" => Err(Refusal::invalid(format!("{field}: it is required"))),
        value => Ok(value),
    }
}

/// Name, description and labels.
pub(super) fn check_common(
    kind: Kind,
    name: &str,
    description: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    if !name.is_empty() && !is_name(kind, name) {
        return Err(Refusal::invalid("name: it does not match the pattern"));
    }
    if description.chars().count() > LONGEST_DESCRIPTION {
        return Err(Refusal::invalid("description: it is too long"));
    }
    if labels.len() > MOST_LABELS {
        return Err(Refusal::invalid("labels: there are too many"));
    }
    let of_label =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ['-', '_'].contains(&c);
    for (key, value) in labels {
        let begins = key.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || key.len() > LONGEST_LABEL || !key.chars().all(of_label) {
            let why = format!("labels: the key {key:?} does not match the pattern");
            return Err(Refusal::invalid(why));
        }
        if value.len() > LONGEST_LABEL || !value.chars().all(of_label) {
            let why = format!("labels.{key}: its value does not match the pattern");
            return Err(Refusal::invalid(why));
        }
    }
    Ok(())
}

/// `[a-z]([-a-z0-9]{0,61}[a-z0-9])?`, where all but clusters have three characters at least.
fn is_name(kind: Kind, name: &str) -> bool {
    let shortest = if kind == Kind::Cluster { 1 } else { 3 };
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (shortest..=63).contains(&name.len())
        && name.chars().all(inside)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
}

/// No other thing of the kind may have the name.
pub(super) fn unique(world: &World, kind: Kind, name: &str) -> Result<(), Refusal> {
    let taken = !name.is_empty() && world.of(kind).any(|thing| thing.name == name);
    match taken {
        false => Ok(()),
        true => {
            let why = format!("{} with name {name} already exists", kind.word());
            Err(Refusal::new(Code::AlreadyExists, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_in_either_case_and_maps_are_left_alone() {
        let snake =
            json!({"folder_id": "f", "labels": {"a_b": "c"}, "master_spec": {"zone_id": "z"}});
        let expected =
            json!({"folderId": "f", "labels": {"a_b": "c"}, "masterSpec": {"zoneId": "z"}});
        assert_eq!(camel(&snake), expected);
        assert_eq!(camel(&expected), expected);
    }

    #[test]
    fn names_and_labels_follow_the_patterns() {
        let (of_63, of_64) = ("a".repeat(63), "a".repeat(64));
        for (kind, name, good) in [
            (Kind::Cluster, "", true),
            (Kind::Cluster, "a", true),
            (Kind::Network, "ab", false),
            (Kind::Network, "a-b", true),
            (Kind::Subnet, "a_b", false),
            (Kind::NodeGroup, "Abc", false),
            (Kind::NodeGroup, "1bc", false),
            (Kind::NodeGroup, "abc-", false),
            (Kind::Cluster, &of_63, true),
            (Kind::Cluster, &of_64, false),
        ] {
            let checked = check_common(kind, name, "", &BTreeMap::new());
            assert_eq!(checked.is_ok(), good, "{name}");
        }
        for (key, value, good) in [
            ("rekindle-until", "1790000000", true),
            ("rekindle", "", true),
            ("Rekindle", "x", false),
            ("-a", "x", false),
            ("", "x", false),
            ("a", "Test", false),
            ("a", "2026-11-23T09:00:00Z", false),
            ("a", &of_63, true),
            ("a", &of_64, false),
            (&of_64, "x", false),
        ] {
            let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            let checked = check_common(Kind::Network, "abc", "", &labels);
            assert_eq!(checked.is_ok(), good, "{key}={value}");
        }
    }
}
