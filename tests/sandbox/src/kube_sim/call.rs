//! One request: what it asks for, of which objects.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::access::User;
use super::refusal::Refusal;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) content_type: String,
    /// The program that asks; names a manager who does not say who it is.
    pub(super) agent: String,
    pub(super) user: User,
    pub(super) body: Bytes,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) plural: String,
    pub(super) name: Option<String>,
    pub(super) sub: Option<String>,
}

impl Call {
    /// A parameter of the query; empty when it is not there.
    pub(super) fn parameter(&self, name: &str) -> &str {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }

    pub(super) fn is_dry(&self) -> bool {
        self.parameter("dryRun") == "All"
    }

    /// Who writes.
    pub(super) fn manager(&self) -> String {
        match self.parameter("fieldManager") {
            // The part before the version, as the real one does it.
            "" => match self.agent.split('/').next().unwrap_or_default() {
                "" => "unknown".to_owned(),
                agent => agent.to_owned(),
            },
            manager => manager.to_owned(),
        }
    }

    /// The body as JSON, which may have been written as YAML.
    pub(super) fn value(&self) -> Result<Value, Refusal> {
        let mut value: Value = match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) if self.content_type.contains("yaml") => {
                let text = String::from_utf8_lossy(&self.body);
                let why = |yaml| format!("error parsing YAML: {yaml}; as JSON: {error}");
                serde_saphyr::from_str(&text).map_err(|yaml| Refusal::bad_request(why(yaml)))?
            }
            Err(error) => {
                return Err(Refusal::bad_request(format!(
                    "the body is no JSON: {error}"
                )));
            }
        };
        // A field that is null is a field that is not there.
        drop_nulls(&mut value);
        Ok(value)
    }

    /// The body as it is: in a patch null means something.
    pub(super) fn patch(&self) -> Result<Value, Refusal> {
        let parsed = serde_json::from_slice(&self.body);
        parsed.map_err(|error| Refusal::bad_request(format!("the body is no JSON: {error}")))
    }

    /// What the words of an authorizer call it.
    pub(super) fn verb(&self, target: &Target) -> &'static str {
        let one = target.name.is_some();
        match self.method {
            Method::GET if one => "get",
            Method::GET if self.is_set("watch") => "watch",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if one => "delete",
            Method::DELETE => "deletecollection",
            _ => "get",
        }
    }
}

pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

impl Target {
    /// Reads the part of a path that comes after the group and the version.
    pub(super) fn read(group: &str, version: &str, rest: &[String]) -> Option<Self> {
        let target = |namespace: Option<&String>, plural: &str, rest: &[String]| {
            let (name, sub) = match rest {
                [] => (None, None),
                [name] => (Some(name.clone()), None),
                [name, sub] => (Some(name.clone()), Some(sub.clone())),
                _ => return None,
            };
            Some(Self {
                group: group.to_owned(),
                version: version.to_owned(),
                namespace: namespace.cloned(),
                plural: plural.to_owned(),
                name,
                sub,
            })
        };
        match rest {
            [first, namespace, plural, rest @ ..]
                if first == "namespaces"
                    && !(group.is_empty() && ["status", "finalize"].contains(&plural.as_str())) =>
            {
                target(Some(namespace), plural, rest)
            }
            [plural, rest @ ..] => target(None, plural, rest),
            [] => None,
        }
    }
}

/// The segments of a path, decoded.
pub(super) fn segments(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(decode).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
