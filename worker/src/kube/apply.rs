//! Objects at the API server: looked at, and applied as ours.
//!
//! Server-side apply sets the fields that we name and no others, under our name. A field that
//! somebody else manages is a conflict, and an error, unless the caller says that the object is ours.

use std::fmt;

use ::kube::Client;
use ::kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use ::kube::core::Status;
use serde_json::Value;

use super::error::{FieldConflict, KubeError};
use super::kinds::Kinds;
use super::manifest::Object;

/// Our name as a manager of fields. Never changed: what we manage is found by it.
pub const MANAGER: &str = "rekindle";

/// Whether we may take fields that somebody else manages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// No: it is an error that names them.
    No,
    /// Yes: the object is ours.
    Ours,
}

/// The objects of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    pub(super) client: Client,
    pub(super) kinds: Kinds,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

impl Objects {
    /// The objects that a client comes to.
    pub fn new(client: Client) -> Self {
        let kinds = Kinds::default();
        Self { client, kinds }
    }

    /// The client, for what is not done with whole objects.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// An object as it is; `None` only if the server says that it does not exist. What counts of
    /// `object` is its kind, namespace and name.
    pub async fn get(&self, object: &Object) -> Result<Option<Value>, KubeError> {
        let api = self.kinds.api(&self.client, object).await?;
        let found = api.get_opt(&object.name).await;
        let found = found.map_err(|error| KubeError::request(format!("read {object}"), error))?;
        Ok(found.map(value))
    }

    /// Makes an object what the caller wants it to be, and returns all of it.
    pub async fn apply(&self, object: &Object, force: Force) -> Result<Value, KubeError> {
        self.apply_as(MANAGER, object, force).await
    }

    /// The same under another name, 128 bytes at most. A field that its manager no longer applies goes away, so
    /// what is to stay beside what comes later has a manager of its own.
    pub async fn apply_as(
        &self,
        manager: &str,
        object: &Object,
        force: Force,
    ) -> Result<Value, KubeError> {
        let api = self.kinds.api(&self.client, object).await?;
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            force: force == Force::Ours,
            ..PatchParams::default()
        };
        let patch = Patch::Apply(&object.body);
        let applied = match api.patch(&object.name, &params, &patch).await {
            Ok(applied) => applied,
            Err(error) => match Refusal::of(&error) {
                Refusal::Conflict(conflicts) => {
                    let object = object.to_string();
                    return Err(KubeError::Conflict { object, conflicts });
                }
                // An older server knows less of definitions than their authors. Sent as a whole it
                // keeps what it knows, and a definition is no less strict for what is left out.
                Refusal::UnknownField(message)
                    if object.is_definition() && force == Force::Ours =>
                {
                    tracing::warn!(%object, "the API server drops fields that it does not know: {message}");
                    self.put(object).await?
                }
                Refusal::UnknownField(message) => {
                    let object = object.to_string();
                    return Err(KubeError::UnknownField { object, message });
                }
                Refusal::Other => return Err(KubeError::request(format!("apply {object}"), error)),
            },
        };
        Ok(value(applied))
    }

    /// Applies objects one after another.
    pub async fn apply_all<'a>(
        &self,
        objects: impl IntoIterator<Item = &'a Object>,
        force: Force,
    ) -> Result<(), KubeError> {
        for object in objects {
            self.apply(object, force).await?;
        }
        Ok(())
    }

    /// Creates or replaces an object as a whole, without server-side apply.
    async fn put(&self, object: &Object) -> Result<DynamicObject, KubeError> {
        let failed = |error| KubeError::request(format!("write {object}"), error);
        let api = self.kinds.api(&self.client, object).await?;
        let wanted: Result<DynamicObject, _> = serde_json::from_value(object.body.clone());
        let mut wanted = wanted.map_err(|error| failed(::kube::Error::SerdeError(error)))?;
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let there = api.get_opt(&object.name).await.map_err(failed)?;
        match there {
            None => api.create(&params, &wanted).await.map_err(failed),
            Some(there) => {
                // The server refuses if somebody else was faster.
                wanted.metadata.resource_version = there.metadata.resource_version;
                let name = &object.name;
                api.replace(name, &params, &wanted).await.map_err(failed)
            }
        }
    }
}

pub(super) fn value(object: DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object that came as JSON is JSON again")
}

/// What an API server has against an apply, as far as we do something about it.
#[derive(Debug, PartialEq)]
enum Refusal {
    Conflict(Vec<FieldConflict>),
    UnknownField(String),
    Other,
}

impl Refusal {
    fn of(error: &::kube::Error) -> Self {
        match error {
            ::kube::Error::Api(status) => Self::of_status(status),
            _ => Self::Other,
        }
    }

    fn of_status(status: &Status) -> Self {
        let causes = status.details.as_ref().map_or(&[][..], |d| &d.causes);
        let conflicts: Vec<_> = causes
            .iter()
            .filter(|cause| cause.reason == "FieldManagerConflict")
            .map(|cause| FieldConflict {
                manager: manager(&cause.message),
                field: cause.field.clone(),
            })
            .collect();
        if status.code == 409 && !conflicts.is_empty() {
            return Self::Conflict(conflicts);
        }
        // No reason of its own stands for it; before 1.22 it was even an internal error.
        if status.message.contains("field not declared in schema") {
            return Self::UnknownField(status.message.clone());
        }
        Self::Other
    }
}

/// `conflict with "helm" using apps/v1` → `helm`.
fn manager(message: &str) -> String {
    let quoted = message.split('"').nth(1);
    quoted.unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn check(status: Value, expected: Refusal) {
        let status: Status = serde_json::from_value(status).unwrap();
        assert_eq!(Refusal::of_status(&status), expected);
    }

    #[test]
    fn a_refusal_to_apply_is_told_from_others() {
        check(
            json!({"code": 409, "reason": "Conflict", "message": "Apply failed with 2 conflicts",
            "details": {"causes": [
                {"reason": "FieldManagerConflict", "field": ".spec.replicas",
                 "message": "conflict with \"helm\" using apps/v1"},
                {"reason": "FieldManagerConflict", "field": ".data.a",
                 "message": "conflict with \"kubectl-edit\" with subresource \"scale\" using v1"}
            ]}}),
            Refusal::Conflict(vec![
                FieldConflict {
                    manager: "helm".into(),
                    field: ".spec.replicas".into(),
                },
                FieldConflict {
                    manager: "kubectl-edit".into(),
                    field: ".data.a".into(),
                },
            ]),
        );
        let text = "failed to create typed patch object: .spec.versions[name=\"v1\"].x: field not declared in schema";
        check(
            json!({"code": 500, "message": text}),
            Refusal::UnknownField(text.into()),
        );
        // Somebody else was faster; that is no conflict of managers.
        check(
            json!({"code": 409, "reason": "Conflict", "message": "the object has been modified"}),
            Refusal::Other,
        );
        check(json!({"code": 403, "reason": "Forbidden"}), Refusal::Other);
    }
}
