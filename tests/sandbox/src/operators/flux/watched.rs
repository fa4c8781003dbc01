//! What makes other objects be looked at again: revisions of sources, and ConfigMaps and Secrets with the watch label.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::Value;

use super::{SOURCE, object_ref};
use crate::operators::Tick;
use crate::operators::api::{name, namespace};

const LABEL: &str = "reconcile.fluxcd.io/watch";

/// What is there in one tick.
#[derive(Debug, Default)]
pub(super) struct Watched {
    versions: HashMap<(String, String, String), String>,
    sources: HashMap<(String, String, String), Value>,
}

impl Watched {
    /// Looks, at sources of these kinds.
    pub(super) async fn look(tick: &Tick, kinds: &[&str]) -> kube::Result<Self> {
        let mut found = Self::default();
        for kind in ["ConfigMap", "Secret"] {
            let selector = format!("{LABEL}=Enabled");
            for object in tick.cluster.list_with("v1", kind, &selector).await? {
                if object["metadata"]["labels"][LABEL] == "Enabled" {
                    let version = object["metadata"]["resourceVersion"].as_str();
                    let key = object_ref(kind, namespace(&object), name(&object));
                    let version = version.unwrap_or_default().to_owned();
                    found.versions.insert(key, version);
                }
            }
        }
        for kind in kinds {
            for object in tick.cluster.list(SOURCE, kind).await? {
                let key = object_ref(kind, namespace(&object), name(&object));
                found.sources.insert(key, object);
            }
        }
        Ok(found)
    }

    /// A source.
    pub(super) fn source(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.sources.get(&object_ref(kind, namespace, name))
    }

    /// The versions of those of these references (`{kind, name}`) that are watched, as one text.
    pub(super) fn versions<'a>(
        &self,
        namespace: &str,
        references: impl IntoIterator<Item = &'a Value>,
    ) -> String {
        let mut text = String::new();
        for reference in references {
            let kind = reference["kind"].as_str().unwrap_or("Secret");
            let name = reference["name"].as_str().unwrap_or_default();
            let version = self.versions.get(&object_ref(kind, namespace, name));
            let _ = write!(text, "{kind}/{name}={version:?};");
        }
        text
    }
}
