//! Which kinds the API server serves, and under which path.
//!
//! What was found is kept; what was not found is asked again each time, as a definition may have
//! been applied meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::kube::core::{ApiResource, DynamicObject, GroupVersion};
use ::kube::discovery::{self, Scope};
use ::kube::{Api, Client};

use super::error::KubeError;
use super::manifest::Object;

type Key = (String, String);

/// The kinds of one API server. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    known: Arc<Mutex<HashMap<Key, (ApiResource, Scope)>>>,
}

impl Kinds {
    /// Where an object is, or would be.
    pub async fn api(
        &self,
        client: &Client,
        object: &Object,
    ) -> Result<Api<DynamicObject>, KubeError> {
        let (resource, scope) = self
            .resource(client, &object.api_version, &object.kind)
            .await?;
        let misplaced = |reason| KubeError::Namespace {
            object: object.to_string(),
            reason,
        };
        match (scope, &object.namespace) {
            (Scope::Cluster, None) => Ok(Api::all_with(client.clone(), &resource)),
            (Scope::Namespaced, Some(namespace)) => {
                Ok(Api::namespaced_with(client.clone(), namespace, &resource))
            }
            (Scope::Cluster, Some(_)) => Err(misplaced("this kind belongs to no namespace")),
            (Scope::Namespaced, None) => Err(misplaced("it has no namespace")),
        }
    }

    /// Where the objects of a kind are: in one namespace, or all of them.
    pub async fn all(
        &self,
        client: &Client,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Api<DynamicObject>, KubeError> {
        let (resource, scope) = self.resource(client, api_version, kind).await?;
        match (scope, namespace) {
            (_, None) => Ok(Api::all_with(client.clone(), &resource)),
            (Scope::Namespaced, Some(namespace)) => {
                Ok(Api::namespaced_with(client.clone(), namespace, &resource))
            }
            (Scope::Cluster, Some(_)) => Err(KubeError::Namespace {
                object: format!("each {kind}"),
                reason: "this kind belongs to no namespace",
            }),
        }
    }

    async fn resource(
        &self,
        client: &Client,
        api_version: &str,
        kind: &str,
    ) -> Result<(ApiResource, Scope), KubeError> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(found) = self.lock().get(&key) {
            return Ok(found.clone());
        }
        let unknown = || KubeError::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        };
        let version: GroupVersion = api_version.parse().map_err(|_| unknown())?;
        let group = match discovery::pinned_group(client, &version).await {
            Ok(group) => group,
            Err(::kube::Error::Api(status)) if status.code == 404 => return Err(unknown()),
            Err(error) => {
                let doing = format!("ask for the kinds of {api_version}");
                return Err(KubeError::request(doing, error));
            }
        };
        let mut known = self.lock();
        for (resource, able) in group.versioned_resources(&version.version) {
            let key = (api_version.to_owned(), resource.kind.clone());
            known.insert(key, (resource, able.scope));
        }
        known.get(&key).cloned().ok_or_else(unknown)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (ApiResource, Scope)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
