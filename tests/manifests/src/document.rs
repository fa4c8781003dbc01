//! One object of Kubernetes, as YAML says it.

use std::fmt;

use serde_json::Value;

/// What tells objects of a cluster apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Without the version; empty for the core group.
    pub group: String,
    /// As in `kind`.
    pub kind: String,
    /// Empty for what belongs to no namespace.
    pub namespace: String,
    /// As in `metadata.name`.
    pub name: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// An object, and which Kustomization applies it.
#[derive(Debug, Clone)]
pub struct Document {
    /// The Kustomization's name.
    pub layer: String,
    /// All of it.
    pub value: Value,
}

impl Document {
    /// The text at a JSON pointer; empty when there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The items at a JSON pointer; none when there is no list.
    pub fn items(&self, pointer: &str) -> &[Value] {
        let list = self.value.pointer(pointer).and_then(Value::as_array);
        list.map(Vec::as_slice).unwrap_or_default()
    }

    /// Group and version.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// The group alone.
    pub fn group(&self) -> &str {
        self.api_version()
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    /// The object's kind.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// The object's namespace; empty when it says none.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// What tells it from others.
    pub fn id(&self) -> Id {
        Id {
            group: self.group().to_owned(),
            kind: self.kind().to_owned(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    /// One of its annotations.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.value
            .pointer("/metadata/annotations")?
            .get(name)?
            .as_str()
    }

    /// A Kustomization of Flux; Kustomize's own files are of another group.
    pub fn is_kustomization(&self) -> bool {
        self.kind() == "Kustomization" && self.group() == "kustomize.toolkit.fluxcd.io"
    }

    /// A release of a Helm chart.
    pub fn is_release(&self) -> bool {
        self.kind() == "HelmRelease" && self.group() == "helm.toolkit.fluxcd.io"
    }
}

/// The text of a field of a value that is no object of its own; empty when there is none.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Every text below a value, also keys.
pub(crate) fn texts<'a>(value: &'a Value, each: &mut impl FnMut(&'a str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, each)),
        Value::Object(fields) => {
            for (key, value) in fields {
                each(key);
                texts(value, each);
            }
        }
        _ => {}
    }
}

/// Every key below a value, with what it has.
pub(crate) fn keys<'a>(value: &'a Value, each: &mut impl FnMut(&'a str, &'a Value)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| keys(item, each)),
        Value::Object(fields) => {
            for (key, value) in fields {
                each(key, value);
                keys(value, each);
            }
        }
        _ => {}
    }
}
