//! The API as an operator uses it: objects as JSON, found by kind.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersion};
use kube::discovery::{self, Scope};
use kube::{Api, Client};
use serde_json::{Value, json};

type Key = (String, String);

/// The objects of a cluster. Cheap to clone; clones share what they know of its kinds.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    kinds: Arc<Mutex<HashMap<Key, (ApiResource, Scope)>>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    /// The cluster that a client comes to.
    pub fn new(client: Client) -> Self {
        let kinds = Arc::default();
        Self { client, kinds }
    }

    /// The client, for what is not done with whole objects.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All objects of a kind, in all namespaces; none while the kind is not served.
    pub async fn list(&self, api_version: &str, kind: &str) -> kube::Result<Vec<Value>> {
        self.list_with(api_version, kind, "").await
    }

    /// Those of them that a label selector leaves.
    pub async fn list_with(
        &self,
        api_version: &str,
        kind: &str,
        labels: &str,
    ) -> kube::Result<Vec<Value>> {
        let Some((resource, _)) = self.kind(api_version, kind).await? else {
            return Ok(Vec::new());
        };
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let found = match api.list(&selected(labels)).await {
            Ok(found) => found,
            Err(error) if code(&error) == Some(404) => {
                self.forget(api_version, kind);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let objects = found.items.into_iter().map(|object| {
            let mut object = value(object);
            // Items of a list do not say what they are.
            object["apiVersion"] = api_version.into();
            object["kind"] = kind.into();
            object
        });
        Ok(objects.collect())
    }

    /// One object; `None` when it does not exist, or its kind does not. The namespace of what belongs to none is
    /// ignored.
    pub async fn get(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> kube::Result<Option<Value>> {
        let Some((resource, scope)) = self.kind(api_version, kind).await? else {
            return Ok(None);
        };
        let api = self.api(&resource, &scope, namespace);
        Ok(api.get_opt(name).await?.map(value))
    }

    /// Makes an object what `manager` wants it to be, by server-side apply that takes fields over. The kind has to be
    /// served.
    pub async fn apply(&self, manager: &str, object: &Value) -> kube::Result<Value> {
        let api = self.api_of(object).await?;
        let params = PatchParams::apply(manager).force();
        let applied = api
            .patch(name(object), &params, &Patch::Apply(object))
            .await?;
        Ok(value(applied))
    }

    /// Changes an object by a merge patch.
    pub async fn patch(&self, manager: &str, object: &Value, patch: &Value) -> kube::Result<Value> {
        let api = self.api_of(object).await?;
        let params = manages(manager);
        let patched = api
            .patch(name(object), &params, &Patch::Merge(patch))
            .await?;
        Ok(value(patched))
    }

    /// Changes an object's status by a merge patch of `{"status": …}`. Says nothing when that would change nothing, or
    /// when the object is gone.
    pub async fn set_status(
        &self,
        manager: &str,
        object: &Value,
        status: &Value,
    ) -> kube::Result<()> {
        let mut wanted = object["status"].clone();
        merge(&mut wanted, status);
        // The server shows some fields of lists as null that nobody wrote.
        if without_nulls(&wanted) == without_nulls(&object["status"]) {
            return Ok(());
        }
        let api = self.api_of(object).await?;
        let patch = Patch::Merge(json!({ "status": status }));
        let params = manages(manager);
        match api.patch_status(name(object), &params, &patch).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object in the background; one that is gone is fine.
    pub async fn delete(&self, object: &Value) -> kube::Result<()> {
        let api = match self.api_of(object).await {
            Ok(api) => api,
            // A kind that is not served any more has no objects.
            Err(error) if code(&error) == Some(404) => return Ok(()),
            Err(error) => return Err(error),
        };
        match api.delete(name(object), &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a kind is served, and if so whether its objects belong to namespaces.
    pub async fn scope(&self, api_version: &str, kind: &str) -> kube::Result<Option<Scope>> {
        let kind = self.kind(api_version, kind).await?;
        Ok(kind.map(|(_, scope)| scope))
    }

    /// The API of an object's kind, or the error that client-go gives for a kind that is not served.
    async fn api_of(&self, object: &Value) -> kube::Result<Api<DynamicObject>> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some((resource, scope)) = self.kind(api_version, kind).await? else {
            let message = format!("no matches for kind \"{kind}\" in version \"{api_version}\"");
            let status = kube::core::Status::failure(&message, "NotFound").with_code(404);
            return Err(kube::Error::Api(status.boxed()));
        };
        Ok(self.api(&resource, &scope, namespace(object)))
    }

    fn api(&self, resource: &ApiResource, scope: &Scope, namespace: &str) -> Api<DynamicObject> {
        match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
            Scope::Namespaced if namespace.is_empty() => {
                Api::default_namespaced_with(self.client.clone(), resource)
            }
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, resource),
        }
    }

    async fn kind(
        &self,
        api_version: &str,
        kind: &str,
    ) -> kube::Result<Option<(ApiResource, Scope)>> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let Ok(version) = api_version.parse::<GroupVersion>() else {
            return Ok(None);
        };
        let group = match discovery::pinned_group(&self.client, &version).await {
            Ok(group) => group,
            Err(error) if code(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut known = self.lock();
        for (resource, able) in group.versioned_resources(&version.version) {
            let key = (api_version.to_owned(), resource.kind.clone());
            known.insert(key, (resource, able.scope));
        }
        Ok(known.get(&key).cloned())
    }

    fn forget(&self, api_version: &str, kind: &str) {
        self.lock()
            .remove(&(api_version.to_owned(), kind.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (ApiResource, Scope)>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn manages(manager: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    }
}

fn value(object: DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object that came as JSON is JSON again")
}

/// The HTTP status that the API server refused a request with.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// An object's name; empty when it has none.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// An object's namespace; empty when it belongs to none.
pub(crate) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// A value without its fields that are null.
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(key, value)| (key.clone(), without_nulls(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// A JSON merge patch (RFC 7386).
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let into = into.as_object_mut().expect("it was just made an object");
    for (key, value) in patch {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn selected(labels: &str) -> ListParams {
    match labels {
        "" => ListParams::default(),
        labels => ListParams::default().labels(labels),
    }
}
