//! Reading YAML so that every error names its place: line and column while it is not YAML, the
//! path of the field once it is.
//!
//! A document is small, so what it may cost is small too: aliases that multiply and brackets without
//! an end are errors. A key that stands twice is one, also when it is written `1` here and `"1"`
//! there.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Options, alias_limits, budget, options};

use crate::spec::Problem;

/// In bytes; the specs of the largest clusters have some hundred thousand.
const LARGEST: usize = 4 << 20;

/// Reads a document into `T`.
pub(crate) fn parse<T: DeserializeOwned>(yaml: &str) -> Result<T, Problem> {
    if yaml.len() > LARGEST {
        let reason = format!("it has {} bytes; at most {LARGEST} are read", yaml.len());
        return Err(Problem::new("(document)", reason));
    }
    let Document(value) = serde_saphyr::from_str_with_options(yaml, limits()).map_err(|e| {
        Problem::new(
            "(document)",
            format!("not valid YAML: {}", first_line(&e.to_string())),
        )
    })?;
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = match e.path().to_string() {
            path if path == "." => "(top level)".to_owned(),
            path => path,
        };
        Problem::new(path, e.into_inner().to_string())
    })
}

fn limits() -> Options {
    options! {
        budget: budget! { max_events: 400_000, max_nodes: 200_000 },
        alias_limits: alias_limits! { max_total_replayed_events: 100_000 },
    }
}

fn first_line(text: &str) -> &str {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("unreadable")
}

/// Any document, with keys that are unique as texts: `serde_json` would keep the last one.
struct Document(Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number without an end"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Document(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Document(value))) = fields.next_entry::<String, Document>()? {
            if all.contains_key(&key) {
                let text = format!("key `{key}` stands twice");
                return Err(serde::de::Error::custom(text));
            }
            all.insert(key, value);
        }
        Ok(all.into())
    }
}
