//! kustomize-controller: folders of sources, built, decrypted, substituted, applied, waited for, pruned.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::discovery::Scope;
use serde_json::{Map, Value, json};
use worker::kube::{Manifest, Object};

use super::build::{BuildError, is_sealed};
use super::wanted::{Wanted, check};
use crate::operators::api::{name, namespace};
use crate::operators::flux::artifacts::Artifacts;
use crate::operators::flux::health::holds;
use crate::operators::flux::schedule::{DEPENDENCY, Schedule};
use crate::operators::flux::status::{
    Conditions, annotation, is_ready, requested, spec_duration, words,
};
use crate::operators::flux::watched::Watched;
use crate::operators::flux::{KUSTOMIZE, MANAGER_OF_STATUS, object_ref, runs};
use crate::operators::{Controller, Fault, Tick};

const MANAGER: &str = "kustomize-controller";
const SOURCES: [&str; 2] = ["GitRepository", "Bucket"];
const MINUTE: Duration = Duration::from_secs(60);

/// The controller of Kustomizations.
#[derive(Debug)]
pub(in crate::operators::flux) struct Kustomize {
    artifacts: Artifacts,
    known: Schedule<Option<Waiting>>,
}

/// A Kustomization that waits for what it applied.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) since: u64,
    pub(super) deadline: u64,
    pub(super) revision: String,
    pub(super) objects: Vec<Wanted>,
}

/// How a try ended.
pub(super) enum Outcome {
    Applied {
        revision: String,
    },
    Waits(Waiting),
    Failed {
        reason: &'static str,
        message: String,
        after: Duration,
    },
    Stalled {
        reason: &'static str,
        message: String,
    },
}

/// What a try writes into the status, beside its conditions.
type Notes = Map<String, Value>;

/// One try: what it is about.
pub(super) struct Try<'a> {
    pub(super) object: &'a Value,
    all: &'a [Value],
    pub(super) tick: &'a Tick,
    watched: &'a Watched,
    artifacts: &'a Artifacts,
}

impl Kustomize {
    pub(in crate::operators::flux) fn new(artifacts: Artifacts) -> Self {
        let known = Schedule::new();
        Self { artifacts, known }
    }

    async fn one(
        &mut self,
        object: &Value,
        all: &[Value],
        watched: &Watched,
        tick: &Tick,
    ) -> anyhow::Result<()> {
        let (item, waiting) = self.known.of(object);
        let spec = &object["spec"];
        let source = source_of(object, watched);
        let revision = source.map(|source| &source["status"]["artifact"]["revision"]);
        let from = spec["postBuild"]["substituteFrom"].as_array();
        let key = &spec["decryption"]["secretRef"];
        let references = from.into_iter().flatten().chain([key]);
        let around = watched.versions(namespace(object), references);
        let mut notes = Notes::new();
        let outcome = if item.is_due(object, &format!("{revision:?}/{around}"), tick) {
            let artifacts = &self.artifacts;
            let run = Try {
                object,
                all,
                tick,
                watched,
                artifacts,
            };
            run.run(&mut notes).await?
        } else if let Some(waiting) = waiting.clone() {
            check(object, waiting, tick).await?
        } else {
            return Ok(());
        };
        let status = status(object, &outcome, notes, tick);
        let cluster = &tick.cluster;
        let written = cluster.set_status(MANAGER_OF_STATUS, object, &status);
        written.await?;
        let interval = spec_duration(object, "/interval", MINUTE);
        *waiting = None;
        match outcome {
            Outcome::Applied { .. } => item.again(tick, interval),
            Outcome::Failed { after, .. } => item.again(tick, after),
            Outcome::Stalled { .. } => item.never(),
            Outcome::Waits(more) => {
                *waiting = Some(more);
                item.never();
            }
        }
        Ok(())
    }
}

fn status(object: &Value, outcome: &Outcome, notes: Notes, tick: &Tick) -> Value {
    let mut conditions = Conditions::of(object);
    let mut status = Value::Object(notes);
    let timeout = words(timeout(object));
    match outcome {
        Outcome::Applied { revision } => {
            let applied = format!("Applied revision: {revision}");
            conditions.set("Ready", "True", "ReconciliationSucceeded", &applied);
            conditions.remove("Reconciling");
            conditions.remove("Stalled");
            match has_checks(object) {
                true => {
                    let passed = "Health check passed";
                    conditions.set("Healthy", "True", "Succeeded", passed);
                }
                false => conditions.remove("Healthy"),
            }
            status["lastAppliedRevision"] = revision.as_str().into();
            status["observedGeneration"] = object["metadata"]["generation"].clone();
        }
        Outcome::Waits(waiting) => {
            let revision = &waiting.revision;
            let doing = format!(
                "Running health checks for revision {revision} with a timeout of {timeout}"
            );
            let progress = "Reconciliation in progress";
            conditions.set("Ready", "Unknown", "Progressing", progress);
            conditions.set("Reconciling", "True", "Progressing", &doing);
            conditions.set("Healthy", "Unknown", "Progressing", &doing);
            // Not yet handled.
            return with(status, conditions);
        }
        Outcome::Failed {
            reason, message, ..
        } => {
            conditions.set("Ready", "False", reason, message);
            if *reason == "HealthCheckFailed" {
                conditions.set("Healthy", "False", reason, message);
            }
            if *reason != "DependencyNotReady" && *reason != "ArtifactFailed" {
                let doing = format!("Detecting drift with a timeout of {timeout}");
                conditions.set("Reconciling", "True", "ProgressingWithRetry", &doing);
            }
        }
        Outcome::Stalled { reason, message } => {
            conditions.set("Ready", "False", reason, message);
            conditions.set("Stalled", "True", reason, message);
            status["observedGeneration"] = object["metadata"]["generation"].clone();
        }
    }
    tracing::trace!(tick = tick.number, object = name(object), "reconciled");
    if let Some(asked) = requested(object) {
        status["lastHandledReconcileAt"] = asked.into();
    }
    with(status, conditions)
}

fn with(mut status: Value, conditions: Conditions) -> Value {
    status["conditions"] = conditions.value();
    status
}

fn has_checks(object: &Value) -> bool {
    let spec = &object["spec"];
    spec["wait"] == true
        || spec["healthChecks"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
}

fn timeout(object: &Value) -> Duration {
    let interval = spec_duration(object, "/interval", MINUTE);
    let default = interval.saturating_sub(Duration::from_secs(30));
    spec_duration(object, "/timeout", default)
}

pub(super) fn retry(object: &Value) -> Duration {
    let interval = spec_duration(object, "/interval", MINUTE);
    spec_duration(object, "/retryInterval", interval)
}

fn source_of<'a>(object: &Value, watched: &'a Watched) -> Option<&'a Value> {
    let (kind, space, name) = source_name(object);
    watched.source(&kind, &space, &name)
}

fn source_name(object: &Value) -> (String, String, String) {
    let reference = &object["spec"]["sourceRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let space = reference["namespace"].as_str();
    object_ref(
        text("kind"),
        space.unwrap_or(namespace(object)),
        text("name"),
    )
}

impl Try<'_> {
    async fn run(&self, notes: &mut Notes) -> anyhow::Result<Outcome> {
        let object = self.object;
        let failed = |reason, message, after| {
            Ok(Outcome::Failed {
                reason,
                message,
                after,
            })
        };
        let (kind, space, source) = source_name(object);
        let Some(found) = self.watched.source(&kind, &space, &source) else {
            let plural = format!(
                "{}s.source.toolkit.fluxcd.io",
                kind.to_lowercase().replace("repository", "repositorie")
            );
            let message = format!("{plural} \"{source}\" not found");
            return failed("ArtifactFailed", message, retry(object));
        };
        let artifact = &found["status"]["artifact"];
        let Some(revision) = artifact["revision"].as_str() else {
            let message = "Source artifact not found, retrying in 30s".to_owned();
            return failed("ArtifactFailed", message, DEPENDENCY);
        };
        if let Some(message) = self.dependencies(revision) {
            return failed("DependencyNotReady", message, DEPENDENCY);
        }
        let key = object_ref(&kind, &space, &source);
        let Some(files) = self.artifacts.get(&key, revision) else {
            let message = "Source is not ready, artifact not found, retrying in 30s".to_owned();
            return failed("ArtifactFailed", message, DEPENDENCY);
        };
        for expressions in self.expressions() {
            for part in ["current", "failed", "inProgress"] {
                if let Some(text) = expressions[part].as_str()
                    && let Err(message) = holds(text, &json!({}))
                {
                    let reason = "InvalidCELExpression";
                    let message = format!(
                        "Reconciliation failed terminally due to configuration error: {message}"
                    );
                    return Ok(Outcome::Stalled { reason, message });
                }
            }
        }
        notes.insert("lastAttemptedRevision".to_owned(), revision.into());
        let objects = match self.build(&files).await? {
            Ok(objects) => objects,
            Err(error @ BuildError::NoPath(_)) => {
                notes.remove("lastAttemptedRevision");
                return failed("ArtifactFailed", error.to_string(), retry(object));
            }
            Err(error) => return failed("BuildFailed", error.to_string(), retry(object)),
        };
        let applied = match self.apply(objects).await? {
            Ok(applied) => applied,
            Err(message) => return failed("ReconciliationFailed", message, retry(object)),
        };
        let entries: Vec<_> = applied.iter().map(Wanted::entry).collect();
        self.prune(&entries).await?;
        notes.insert("inventory".to_owned(), json!({ "entries": entries }));
        let revision = revision.to_owned();
        let stuck = Fault::KustomizationStuck(name(object).to_owned());
        if !has_checks(object) && !self.tick.faults.has(&stuck) {
            return Ok(Outcome::Applied { revision });
        }
        let objects = match object["spec"]["wait"] == true {
            true => applied,
            false => self.asked(),
        };
        let since = self.tick.number;
        let deadline = self.tick.after(timeout(object));
        let waiting = Waiting {
            since,
            deadline,
            revision,
            objects,
        };
        check(object, waiting, self.tick).await
    }

    /// Why a dependency is not ready, if so.
    fn dependencies(&self, revision: &str) -> Option<String> {
        for dependency in self.object["spec"]["dependsOn"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let space = dependency["namespace"]
                .as_str()
                .unwrap_or(namespace(self.object));
            let own = dependency["name"].as_str().unwrap_or_default();
            let at = format!("{space}/{own}");
            let mut all = self.all.iter();
            let Some(found) = all.find(|k| name(k) == own && namespace(k) == space) else {
                return Some(format!(
                    "dependency '{at}' not found: kustomizations.kustomize.toolkit.fluxcd.io \"{own}\" not found"
                ));
            };
            if !is_ready(found) {
                return Some(format!("dependency '{at}' is not ready"));
            }
            let same = source_name(found) == source_name(self.object);
            if same && found["status"]["lastAppliedRevision"] != revision {
                return Some(format!("dependency '{at}' revision is not up to date"));
            }
        }
        None
    }

    /// Applies everything. The inner error is why not.
    async fn apply(&self, objects: Vec<Value>) -> anyhow::Result<Result<Vec<Wanted>, String>> {
        let mut ready = Vec::new();
        for mut object in objects {
            normalize(&mut object);
            let labels = &mut object["metadata"]["labels"];
            labels["kustomize.toolkit.fluxcd.io/name"] = name(self.object).into();
            labels["kustomize.toolkit.fluxcd.io/namespace"] = namespace(self.object).into();
            if is_sealed(&object) {
                let at = shown(&object);
                return Ok(Err(format!(
                    "{at} is SOPS encrypted, configuring decryption is required for this secret to be reconciled"
                )));
            }
            let object = Object::new(object);
            ready.push(object.map_err(|field| anyhow::anyhow!("an object has no usable {field}"))?);
        }
        let Manifest { foundation, rest } = Manifest::of(ready);
        let all: Vec<_> = foundation.into_iter().chain(rest).collect();
        let defined: BTreeSet<_> = all
            .iter()
            .filter(|object| object.is_definition())
            .filter_map(|object| object.body["spec"]["names"]["kind"].as_str())
            .collect();
        for object in &all {
            let (api, kind) = (&object.api_version[..], &object.kind[..]);
            let at = shown(&object.body);
            match self.tick.cluster.scope(api, kind).await? {
                None if defined.contains(kind) => {}
                None => {
                    return Ok(Err(format!(
                        "{at} dry-run failed: no matches for kind \"{kind}\" in version \"{api}\""
                    )));
                }
                Some(Scope::Namespaced) if object.namespace.is_none() => {
                    return Ok(Err(format!("{at} namespace not specified")));
                }
                Some(_) => {}
            }
            if let Some(refusal) = self.tick.faults.webhook(kind) {
                return Ok(Err(format!(
                    "{at} dry-run failed (InternalError): {refusal}"
                )));
            }
        }
        let mut applied = Vec::new();
        for object in all {
            match self.tick.cluster.apply(MANAGER, &object.body).await {
                Ok(_) => applied.push(Wanted::of(&object.body)),
                Err(kube::Error::Api(status)) => {
                    let at = shown(&object.body);
                    let (reason, message) = (&status.reason, &status.message);
                    return Ok(Err(format!("{at} dry-run failed ({reason}): {message}")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Ok(applied))
    }

    /// Deletes what was applied before and is not any more.
    async fn prune(&self, entries: &[Value]) -> anyhow::Result<()> {
        let before = self.object["status"]["inventory"]["entries"].as_array();
        if self.object["spec"]["prune"] != true {
            return Ok(());
        }
        let stale = before.into_iter().flatten();
        for entry in stale.filter(|entry| !entries.iter().any(|new| new["id"] == entry["id"])) {
            let Some(gone) = Wanted::from_entry(entry) else {
                continue;
            };
            let Some(found) = gone.get(self.tick).await? else {
                continue;
            };
            let off = annotation(&found, "kustomize.toolkit.fluxcd.io/prune");
            let labels = &found["metadata"]["labels"];
            let ours = labels["kustomize.toolkit.fluxcd.io/name"] == name(self.object);
            if off != Some("disabled") && ours {
                self.tick.cluster.delete(&found).await?;
            }
        }
        Ok(())
    }

    /// The objects of `healthChecks`.
    fn asked(&self) -> Vec<Wanted> {
        let checks = self.object["spec"]["healthChecks"].as_array();
        let text =
            |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
        let wanted = checks.into_iter().flatten().map(|check| Wanted {
            api_version: text(check, "apiVersion"),
            kind: text(check, "kind"),
            namespace: text(check, "namespace"),
            name: text(check, "name"),
        });
        wanted.collect()
    }

    fn expressions(&self) -> impl Iterator<Item = &Value> {
        let all = self.object["spec"]["healthCheckExprs"].as_array();
        all.into_iter().flatten()
    }
}

/// An object as Flux shows it: `HelmRelease/pg/pg-db`.
fn shown(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    match namespace(object) {
        "" => format!("{kind}/{}", name(object)),
        space => format!("{kind}/{space}/{}", name(object)),
    }
}

/// A Secret's plain texts as the API server would keep them.
fn normalize(object: &mut Value) {
    if object["kind"] != "Secret" || object["apiVersion"] != "v1" {
        return;
    }
    let plain = object
        .as_object_mut()
        .and_then(|object| object.remove("stringData"));
    for (key, value) in plain
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        object["data"][key] = BASE64.encode(text).into();
    }
}

#[async_trait]
impl Controller for Kustomize {
    fn name(&self) -> &'static str {
        MANAGER
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        if !runs(MANAGER, tick).await? {
            return Ok(());
        }
        let watched = Watched::look(tick, &SOURCES).await?;
        let all = tick.cluster.list(KUSTOMIZE, "Kustomization").await?;
        self.known.keep(&all);
        let mut failed = None;
        for object in &all {
            if object["spec"]["suspend"] == true {
                continue;
            }
            // One that cannot be reconciled holds no other one up.
            if let Err(error) = self.one(object, &all, &watched, tick).await {
                failed = Some(error.context(shown(object)));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
