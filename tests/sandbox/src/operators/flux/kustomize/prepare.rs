//! What a Kustomization's folder becomes before it is applied: built, decrypted, its variables replaced.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use worker::sops::{self, SopsError};

use super::build::{BuildError, build, gvk, id};
use super::controller::Try;
use super::substitute::{Variables, is_name, substitute};
use crate::operators::api::{name, namespace};
use crate::operators::flux::artifacts::Files;
use crate::operators::flux::status::annotation;

impl Try<'_> {
    /// The objects as they are to be applied.
    pub(super) async fn build(
        &self,
        files: &Files,
    ) -> anyhow::Result<Result<Vec<Value>, BuildError>> {
        let spec = &self.object["spec"];
        let path = spec["path"].as_str().unwrap_or_default();
        let target = spec["targetNamespace"].as_str();
        let keys = match self.keys().await? {
            Ok(keys) => keys,
            Err(message) => return Ok(Err(BuildError::Plain(message))),
        };
        let built = match keys {
            None => build(files, path, target, None),
            Some(keys) => build(files, path, target, Some(&|text: &str| open(text, &keys))),
        };
        let mut objects = match built {
            Ok(objects) => objects,
            Err(error) => return Ok(Err(error)),
        };
        if spec["postBuild"].is_object() {
            let variables = match self.variables().await? {
                Ok(variables) => variables,
                Err(message) => {
                    let first = objects.first().map(id).unwrap_or_default();
                    let message = format!("post build failed for '{first}': {message}");
                    return Ok(Err(BuildError::Plain(message)));
                }
            };
            for object in &mut objects {
                let off = annotation(object, "kustomize.toolkit.fluxcd.io/substitute");
                if variables.is_empty() || off == Some("disabled") {
                    continue;
                }
                match substitute(object, &variables) {
                    Ok(done) => *object = done,
                    Err(message) => {
                        let at = format!("{}/{}", gvk(object), name(object));
                        let message = format!(
                            "post build failed for '{at}': envsubst error: variable substitution failed: {message}"
                        );
                        return Ok(Err(BuildError::Plain(message)));
                    }
                }
            }
        }
        Ok(Ok(objects))
    }

    /// The age keys, if the Kustomization decrypts.
    async fn keys(&self) -> anyhow::Result<Result<Option<String>, String>> {
        let Some(secret) = self.object["spec"]["decryption"]["secretRef"]["name"].as_str() else {
            return Ok(Ok(None));
        };
        let space = namespace(self.object);
        let found = self.tick.cluster.get("v1", "Secret", space, secret).await?;
        let Some(found) = found else {
            return Ok(Err(format!("secrets \"{secret}\" not found")));
        };
        let data = found["data"].as_object();
        let files = data.into_iter().flatten();
        let files = files.filter(|(key, _)| key.ends_with(".agekey"));
        let files = files.filter_map(|(_, value)| decoded(value));
        Ok(Ok(Some(files.collect::<Vec<_>>().join("\n"))))
    }

    /// The variables of `postBuild`, the later and the inline ones winning.
    async fn variables(&self) -> anyhow::Result<Result<Variables, String>> {
        let post_build = &self.object["spec"]["postBuild"];
        let mut variables = Variables::new();
        for from in post_build["substituteFrom"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let kind = from["kind"].as_str().unwrap_or_default();
            let own = from["name"].as_str().unwrap_or_default();
            let space = namespace(self.object);
            let found = self.tick.cluster.get("v1", kind, space, own).await?;
            let Some(found) = found else {
                if from["optional"] == true {
                    continue;
                }
                let plural = format!("{}s", kind.to_lowercase());
                return Ok(Err(format!(
                    "substitute from '{kind}/{own}' error: {plural} \"{own}\" not found"
                )));
            };
            for (key, value) in found["data"].as_object().into_iter().flatten() {
                if !is_name(key) {
                    return Ok(Err(format!(
                        "'{key}' var name is invalid, must match '^[_[:alpha:]][_[:alpha:][:digit:]]*$'"
                    )));
                }
                let text = match kind {
                    "Secret" => decoded(value),
                    _ => value.as_str().map(str::to_owned),
                };
                // Lines end where a value ends.
                let text = text.unwrap_or_default().replace('\n', "");
                variables.insert(key.clone(), text);
            }
        }
        for (key, value) in post_build["substitute"].as_object().into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            variables.insert(key.clone(), text.replace('\n', ""));
        }
        Ok(Ok(variables))
    }
}

fn decoded(value: &Value) -> Option<String> {
    String::from_utf8(BASE64.decode(value.as_str()?).ok()?).ok()
}

fn open(text: &str, keys: &str) -> Result<Value, String> {
    sops::open(text, keys).map_err(|error| match error {
        SopsError::OtherKey(_) | SopsError::NoIdentity => {
            "cannot get sops data key: Error getting data key: 0 successful groups required, got 0"
                .to_owned()
        }
        other => format!("error decrypting sops tree: {other}"),
    })
}
