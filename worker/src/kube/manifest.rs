//! Manifests: YAML documents as objects, in the order in which they can be applied.

use std::fmt;

use serde_json::{Value, json};

/// No manifest is larger; Flux' own has some half a million bytes.
const LARGEST: usize = 16 << 20;

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not YAML.
    #[error("read the manifest {origin}: {reason}")]
    Unreadable {
        /// Which manifest.
        origin: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A document is no object.
    #[error("read the manifest {origin}: document {number} has no usable `{field}`")]
    NoObject {
        /// Which manifest.
        origin: String,
        /// Which document, from 1.
        number: usize,
        /// The field that each object has, with something that can stand in a path.
        field: &'static str,
    },
}

/// An object of Kubernetes, as somebody wants it.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// For example `apps/v1`.
    pub api_version: String,
    /// For example `Deployment`.
    pub kind: String,
    /// Its namespace, unless it belongs to the cluster.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// All of it.
    pub body: Value,
}

impl Object {
    /// Reads an object; the error is the field that it lacks. Names become parts of a path, so
    /// those that would lead elsewhere are none.
    pub fn new(body: Value) -> Result<Self, &'static str> {
        let text = |at: &str| body.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let name = |at: &str| text(at).filter(|name| is_path_segment(name));
        let namespace = match text("/metadata/namespace") {
            None => None,
            Some(_) => Some(name("/metadata/namespace").ok_or("metadata.namespace")?),
        };
        let version = text("/apiVersion").filter(|version| version.split('/').all(is_path_segment));
        Ok(Self {
            api_version: version.ok_or("apiVersion")?,
            kind: text("/kind")
                .filter(|kind| !kind.is_empty())
                .ok_or("kind")?,
            namespace,
            name: name("/metadata/name").ok_or("metadata.name")?,
            body,
        })
    }

    /// Where an object is: only its kind, namespace and name, to read, change or delete it.
    pub fn at(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Self {
        let mut metadata = json!({ "name": name });
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            body: json!({"apiVersion": api_version, "kind": kind, "metadata": metadata}),
        }
    }

    /// It defines a kind.
    pub fn is_definition(&self) -> bool {
        self.kind == "CustomResourceDefinition"
            && self.api_version.starts_with("apiextensions.k8s.io/")
    }
}

impl fmt::Display for Object {
    /// `Deployment flux-system/source-controller`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be a Secret.
        write!(f, "Object({self})")
    }
}

fn is_path_segment(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_graphic() && !"/%?#\\\"<>^`{|}".contains(c);
    !name.is_empty() && name != "." && name != ".." && name.chars().all(plain)
}

/// Objects in two parts: what others need before they can be made, and the others.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Manifest {
    /// Namespaces and definitions of kinds. The definitions have to be established before the rest.
    pub foundation: Vec<Object>,
    /// Everything else.
    pub rest: Vec<Object>,
}

impl Manifest {
    /// Reads YAML documents; `origin` names them in errors. Empty documents are none, and lists are
    /// their items.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ManifestError> {
        let unreadable = |reason: String| ManifestError::Unreadable {
            origin: origin.to_owned(),
            reason,
        };
        if text.len() > LARGEST {
            return Err(unreadable(format!("it has more than {LARGEST} bytes")));
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
            // The text around the error may be a secret.
            let place = error.location().map_or_else(String::new, |at| {
                format!(" at line {}, column {}", at.line(), at.column())
            });
            unreadable(format!("it is not valid YAML{place}"))
        })?;
        let mut objects = Vec::new();
        for (document, number) in documents.into_iter().zip(1..) {
            let items = match document {
                Value::Null => continue,
                Value::Object(mut list) if list.get("kind") == Some(&Value::from("List")) => {
                    match list.remove("items") {
                        Some(Value::Array(items)) => items,
                        _ => Vec::new(),
                    }
                }
                single => vec![single],
            };
            for item in items {
                let object = Object::new(item).map_err(|field| ManifestError::NoObject {
                    origin: origin.to_owned(),
                    number,
                    field,
                })?;
                objects.push(object);
            }
        }
        Ok(Self::of(objects))
    }

    /// Puts objects in order, as Flux does. Those of one rank stay in the order they came in.
    pub fn of(mut objects: Vec<Object>) -> Self {
        objects.sort_by_key(rank);
        let split = objects.partition_point(|object| rank(object) <= DEFINITIONS);
        let rest = objects.split_off(split);
        Self {
            foundation: objects,
            rest,
        }
    }

    /// The definitions of kinds, to wait for.
    pub fn definitions(&self) -> impl Iterator<Item = &Object> {
        self.foundation
            .iter()
            .filter(|object| object.is_definition())
    }
}

const DEFINITIONS: usize = 1;

/// What comes first is needed by what comes later: namespaces by all, accounts and settings by what
/// runs. Webhooks come last, as they stand in the way of everything else until they run.
fn rank(object: &Object) -> usize {
    match object.kind.as_str() {
        "Namespace" => 0,
        _ if object.is_definition() => DEFINITIONS,
        "PriorityClass" | "StorageClass" | "IngressClass" | "RuntimeClass" => 2,
        "ResourceQuota" | "LimitRange" | "NetworkPolicy" | "PodDisruptionBudget" => 3,
        "ServiceAccount" | "Role" | "ClusterRole" => 4,
        "RoleBinding" | "ClusterRoleBinding" => 5,
        "ConfigMap" | "Secret" => 6,
        "PersistentVolume" | "PersistentVolumeClaim" => 7,
        "Service" => 8,
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Pod" | "Job" | "CronJob" => 9,
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" | "APIService" => 11,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn names(objects: &[Object]) -> Vec<String> {
        objects.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_manifest_is_ordered_so_that_it_can_be_applied() {
        let text = "---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hook}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: one, namespace: flux-system}
---
# nothing but a comment
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: Bucket
metadata: {name: b, namespace: flux-system}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: s, namespace: flux-system}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: flux-system}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: buckets.source.toolkit.fluxcd.io}
---
apiVersion: v1
kind: Namespace
metadata: {name: flux-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: another, namespace: flux-system}
";
        let manifest = Manifest::parse(text, "test").unwrap();
        assert_eq!(
            names(&manifest.foundation),
            [
                "Namespace flux-system",
                "CustomResourceDefinition buckets.source.toolkit.fluxcd.io"
            ]
        );
        assert_eq!(manifest.definitions().count(), 1);
        assert_eq!(
            names(&manifest.rest),
            [
                "ServiceAccount flux-system/a",
                "Secret flux-system/s",
                "Deployment flux-system/one",
                "Deployment flux-system/another",
                "Bucket flux-system/b",
                "ValidatingWebhookConfiguration hook"
            ]
        );
    }

    #[test]
    fn a_bad_document_is_named_without_showing_it() {
        let check = |text: &str, expected: &str| {
            let error = Manifest::parse(text, "sync.yaml").unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("sync.yaml"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        };
        check("a: 'hunter2", "not valid YAML at line");
        check("a: [hunter2", "not valid YAML at line");
        check(
            "kind: Secret\ndata: hunter2",
            "document 1 has no usable `apiVersion`",
        );
        check(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nmetadata: {name: hunter2}",
            "document 2 has no usable `kind`",
        );
        check(
            "apiVersion: v1\nkind: Secret\nmetadata: {}",
            "`metadata.name`",
        );
        check("just hunter2", "no usable `apiVersion`");
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let object = |name: &str, namespace: &str| {
            Object::new(serde_json::json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace}}))
        };
        for good in ["a", "a-b.c", "system:node", "kubeadm:get-nodes"] {
            assert!(object(good, "b").is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../secrets/a",
            "a/b",
            "a?x",
            "a#x",
            "a%2fb",
            "a b",
            "ä",
        ] {
            assert_eq!(object(bad, "b"), Err("metadata.name"), "{bad}");
            assert_eq!(object("a", bad), Err("metadata.namespace"), "{bad}");
        }
    }

    #[test]
    fn no_objects_are_an_empty_manifest() {
        for text in ["", "---\n", "# only a comment\n", "--- \n---\n"] {
            assert_eq!(Manifest::parse(text, "test").unwrap(), Manifest::default());
        }
    }
}
