//! Objects at the API server: listed, created, changed and deleted, where applying is not what is meant.
//!
//! Whoever changes what others change too says which version they have read: the server refuses when somebody
//! was faster, and [`KubeError::code`] is 409.

use ::kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::apply::{MANAGER, Objects, value};
use super::error::KubeError;
use super::manifest::Object;

/// Objects in one answer of the server.
const PAGE: u32 = 500;

impl Objects {
    /// All objects of a kind, of one namespace or of all, that have the labels of `selector` (`a=b,c=d`; empty
    /// for any). An incomplete list is an error.
    pub async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, KubeError> {
        let api = self.kinds.all(&self.client, api_version, kind, namespace);
        let api = api.await?;
        let place = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
        let mut params = ListParams::default().limit(PAGE);
        if !selector.is_empty() {
            params = params.labels(selector);
        }
        let mut objects = Vec::new();
        loop {
            let page = api.list(&params).await;
            let page = page
                .map_err(|error| KubeError::request(format!("list each {kind}{place}"), error))?;
            for object in page.items {
                let mut object = value(object);
                // The server leaves out what all of them have in common.
                object["apiVersion"] = api_version.into();
                object["kind"] = kind.into();
                objects.push(object);
            }
            match page.metadata.continue_ {
                Some(token) if !token.is_empty() => params.continue_token = Some(token),
                _ => return Ok(objects),
            }
        }
    }

    /// Makes an object that must not be there yet; `None` if it is.
    pub async fn create(&self, object: &Object) -> Result<Option<Value>, KubeError> {
        let failed = |error| KubeError::request(format!("create {object}"), error);
        let api = self.kinds.api(&self.client, object).await?;
        let wanted: Result<DynamicObject, _> = serde_json::from_value(object.body.clone());
        let wanted = wanted.map_err(|error| failed(::kube::Error::SerdeError(error)))?;
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match api.create(&params, &wanted).await {
            Ok(made) => Ok(Some(value(made))),
            Err(::kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Changes parts of an object that is there: maps are merged, `null` takes a field away, everything else
    /// replaces. With a `metadata.resourceVersion` in the patch it is only done to that version of the object.
    pub async fn merge(&self, object: &Object, patch: &Value) -> Result<Value, KubeError> {
        let api = self.kinds.api(&self.client, object).await?;
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let changed = api.patch(&object.name, &params, &Patch::Merge(patch)).await;
        let changed =
            changed.map_err(|error| KubeError::request(format!("change {object}"), error))?;
        Ok(value(changed))
    }

    /// Deletes an object; with `uid` only the one that had it, and not another of its name. That it is not there is
    /// success. Its dependents go after it.
    pub async fn delete(&self, object: &Object, uid: Option<&str>) -> Result<(), KubeError> {
        let api = self.kinds.api(&self.client, object).await?;
        let mut params = DeleteParams::background();
        if let Some(uid) = uid {
            params.preconditions = Some(::kube::api::Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            });
        }
        match api.delete(&object.name, &params).await {
            Ok(_) => Ok(()),
            Err(::kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(KubeError::request(format!("delete {object}"), error)),
        }
    }

    /// Sets annotations of an object that is there, for example what asks Flux to look now.
    pub async fn annotate(
        &self,
        object: &Object,
        annotations: &[(&str, &str)],
    ) -> Result<Value, KubeError> {
        let mut set = json!({});
        for (key, text) in annotations {
            set[*key] = (*text).into();
        }
        let patch = json!({"metadata": {"annotations": set}});
        self.merge(object, &patch).await
    }
}
