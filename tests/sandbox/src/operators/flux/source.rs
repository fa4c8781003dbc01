//! source-controller: repositories, buckets and chart repositories become artifacts.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::artifacts::{Artifacts, Files, checkout, digest};
use super::schedule::Schedule;
use super::settings::{Login, Settings};
use super::status::{Conditions, requested, spec_duration};
use super::{MANAGER_OF_STATUS, SOURCE, object_ref, runs};
use crate::operators::api::{name, namespace};
use crate::operators::time::now;
use crate::operators::{Controller, Fault, Tick};

const KINDS: [&str; 3] = ["GitRepository", "Bucket", "HelmRepository"];
const MINUTE: Duration = Duration::from_secs(60);

/// The controller of sources.
#[derive(Debug)]
pub(super) struct Source {
    settings: Settings,
    artifacts: Artifacts,
    known: BTreeMap<&'static str, Schedule<()>>,
}

/// Why there is no new artifact: reason and message.
struct Refused(&'static str, String);

struct Fetched {
    revision: String,
    files: Option<Files>,
}

impl Source {
    pub(super) fn new(settings: Settings, artifacts: Artifacts) -> Self {
        let known = KINDS.map(|kind| (kind, Schedule::new())).into();
        Self {
            settings,
            artifacts,
            known,
        }
    }

    async fn one(&self, kind: &str, object: &Value, tick: &Tick) -> anyhow::Result<bool> {
        let fetched = match kind {
            "GitRepository" => self.git(object, tick).await?,
            "Bucket" => self.bucket(object, tick).await?,
            _ => charts(object, tick),
        };
        let worked = fetched.is_ok();
        let status = self.status(kind, object, fetched);
        let cluster = &tick.cluster;
        let written = cluster.set_status(MANAGER_OF_STATUS, object, &status);
        written.await?;
        Ok(worked)
    }

    fn status(&self, kind: &str, object: &Value, fetched: Result<Fetched, Refused>) -> Value {
        let mut conditions = Conditions::of(object);
        let mut status = json!({ "lastHandledReconcileAt": requested(object) });
        match fetched {
            Ok(fetched) => {
                let stored = format!("stored artifact: revision '{}'", fetched.revision);
                let stored = match kind {
                    "GitRepository" => {
                        format!("stored artifact for revision '{}'", fetched.revision)
                    }
                    _ => stored,
                };
                conditions.set("Ready", "True", "Succeeded", &stored);
                conditions.set("ArtifactInStorage", "True", "Succeeded", &stored);
                conditions.remove("FetchFailed");
                conditions.remove("Reconciling");
                status["observedGeneration"] = object["metadata"]["generation"].clone();
                status["artifact"] = self.store(kind, object, fetched);
            }
            Err(Refused(reason, message)) => {
                conditions.set("Ready", "False", reason, &message);
                conditions.set("FetchFailed", "True", reason, &message);
                let progress = "reconciliation in progress";
                conditions.set("Reconciling", "True", "ProgressingWithRetry", progress);
            }
        }
        status["conditions"] = conditions.value();
        status
    }

    /// Keeps files, and gives what the object says of them.
    fn store(&self, kind: &str, object: &Value, fetched: Fetched) -> Value {
        let files = fetched.files.unwrap_or_default();
        let sum = digest(&files);
        let size: usize = files.values().map(Vec::len).sum();
        let key = object_ref(kind, namespace(object), name(object));
        self.artifacts.put(key, fetched.revision.clone(), files);
        let was = &object["status"]["artifact"];
        if was["revision"] == fetched.revision.as_str() {
            return was.clone();
        }
        let (space, own) = (namespace(object), name(object));
        let (kind, short) = (kind.to_lowercase(), &sum[..12]);
        json!({
            "revision": fetched.revision,
            "digest": format!("sha256:{sum}"),
            "url": format!("http://source-controller.flux-system.svc.cluster.local./{kind}/{space}/{own}/{short}.tar.gz"),
            "path": format!("{kind}/{space}/{own}/{short}.tar.gz"),
            "lastUpdateTime": now(),
            "size": size,
        })
    }

    async fn git(&self, object: &Value, tick: &Tick) -> anyhow::Result<Result<Fetched, Refused>> {
        let url = object["spec"]["url"].as_str().unwrap_or_default();
        let login = match login(object, ["username", "password"], tick).await? {
            Ok(login) => login,
            Err(message) => return Ok(Err(Refused("AuthenticationFailed", message))),
        };
        let failed = |why: &str| {
            let doing = "failed to checkout and determine revision: unable to list remote for";
            Err(Refused(
                "GitOperationFailed",
                format!("{doing} '{url}': {why}"),
            ))
        };
        if tick.faults.has(&Fault::GitDown) {
            let host = url.split('/').nth(2).unwrap_or(url);
            return Ok(failed(&format!(
                "Get \"{url}/info/refs?service=git-upload-pack\": dial tcp: lookup {host} on 10.96.0.10:53: no such host"
            )));
        }
        let known = login.as_ref() == Some(&self.settings.git);
        if tick.faults.has(&Fault::GitAuth) || !known {
            return Ok(failed("authentication required: Invalid username or token"));
        }
        let branch = object["spec"]["ref"]["branch"].as_str().unwrap_or("master");
        let ignore = object["spec"]["ignore"].as_str();
        Ok(match checkout(&self.settings.repository, ignore) {
            Ok(files) => Ok(Fetched {
                // No commit is made here: what stands for its name is a digest of all that is in it.
                revision: format!("{branch}@sha1:{}", &digest(&files)[..40]),
                files: Some(files),
            }),
            Err(error) => failed(&error.to_string()),
        })
    }

    async fn bucket(
        &self,
        object: &Value,
        tick: &Tick,
    ) -> anyhow::Result<Result<Fetched, Refused>> {
        let spec = &object["spec"];
        let bucket = spec["bucketName"].as_str().unwrap_or_default();
        let login = match login(object, ["accesskey", "secretkey"], tick).await? {
            Ok(login) => login,
            Err(message) => return Ok(Err(Refused("AuthenticationFailed", message))),
        };
        let failed = |why: String| Ok(Err(Refused("BucketOperationFailed", why)));
        let unsure = format!("failed to confirm existence of '{bucket}' bucket");
        if tick.faults.has(&Fault::BucketDown) {
            let endpoint = spec["endpoint"].as_str().unwrap_or_default();
            return failed(format!(
                "{unsure}: Get \"https://{endpoint}/{bucket}/?location=\": dial tcp: i/o timeout"
            ));
        }
        let known = login.as_ref() == Some(&self.settings.store);
        if tick.faults.has(&Fault::BucketAuth) || !known {
            return failed(format!("{unsure}: Access Denied."));
        }
        let Some(mut files) = (self.settings.contents)(bucket) else {
            return failed(format!("bucket '{bucket}' not found"));
        };
        let prefix = spec["prefix"].as_str().unwrap_or_default();
        files.retain(|key, _| key.starts_with(prefix) && !key.ends_with(".sops.yaml"));
        let revision = format!("sha256:{}", digest(&files));
        let files = Some(files);
        Ok(Ok(Fetched { revision, files }))
    }
}

/// An index is not fetched: charts are made up ([`super::charts`]), so it is there or not.
fn charts(object: &Value, tick: &Tick) -> Result<Fetched, Refused> {
    let url = object["spec"]["url"].as_str().unwrap_or_default();
    if tick.faults.has(&Fault::ChartsDown) {
        let url = url.trim_end_matches('/');
        return Err(Refused(
            "Failed",
            format!(
                "failed to fetch Helm repository index: failed to cache index to temporary file: Get \"{url}/index.yaml\": dial tcp: i/o timeout"
            ),
        ));
    }
    let index = Files::from([("index.yaml".to_owned(), url.as_bytes().to_vec())]);
    let revision = format!("sha256:{}", digest(&index));
    let files = Some(index);
    Ok(Fetched { revision, files })
}

/// What the Secret of `secretRef` says, `None` without one. The inner error is for the object's status.
async fn login(
    object: &Value,
    keys: [&str; 2],
    tick: &Tick,
) -> anyhow::Result<Result<Option<Login>, String>> {
    let Some(secret) = object["spec"]["secretRef"]["name"].as_str() else {
        return Ok(Ok(None));
    };
    let space = namespace(object);
    let Some(found) = tick.cluster.get("v1", "Secret", space, secret).await? else {
        return Ok(Err(format!(
            "failed to get secret '{space}/{secret}': secrets \"{secret}\" not found"
        )));
    };
    let text = |key: &str| {
        let encoded = found["data"][key].as_str()?;
        String::from_utf8(BASE64.decode(encoded).ok()?).ok()
    };
    let [name, secret_key] = keys.map(text);
    Ok(match (name, secret_key) {
        (Some(name), Some(secret)) => Ok(Some(Login { name, secret })),
        _ => Err(format!(
            "invalid '{secret}' secret data: required fields '{}' and '{}'",
            keys[0], keys[1]
        )),
    })
}

#[async_trait]
impl Controller for Source {
    fn name(&self) -> &'static str {
        "source-controller"
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        if !runs("source-controller", tick).await? {
            return Ok(());
        }
        for kind in KINDS {
            let objects = tick.cluster.list(SOURCE, kind).await?;
            for object in &objects {
                if object["spec"]["suspend"] == true {
                    continue;
                }
                let known = self.known.get_mut(kind).expect("all kinds are there");
                if !known.of(object).0.is_due(object, "", tick) {
                    continue;
                }
                let worked = self.one(kind, object, tick).await?;
                let known = self.known.get_mut(kind).expect("all kinds are there");
                let item = &mut known.of(object).0;
                match worked {
                    true => item.again(tick, spec_duration(object, "/interval", MINUTE)),
                    false => item.back_off(tick),
                }
            }
            let known = self.known.get_mut(kind).expect("all kinds are there");
            known.keep(&objects);
        }
        Ok(())
    }
}
