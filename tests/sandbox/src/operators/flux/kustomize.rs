//! kustomize-controller: folders of sources, built, decrypted, substituted, applied, waited for, pruned.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::discovery::Scope;
use serde_json::{Map, Value, json};
use worker::kube::{Manifest, Object};
use worker::sops::{self, SopsError};

use super::artifacts::{Artifacts, Files};
use super::build::{BuildError, build, gvk, id, is_sealed};
use super::health::{Health, health, holds};
use super::schedule::{DEPENDENCY, Schedule};
use super::status::{Conditions, annotation, is_ready, requested, spec_duration, words};
use super::substitute::{Variables, is_name, substitute};
use super::watched::Watched;
use super::{KUSTOMIZE, MANAGER_OF_STATUS, object_ref};
use crate::operators::api::{name, namespace};
use crate::operators::{Controller, Fault, Tick};

const MANAGER: &str = "kustomize-controller";
const SOURCES: [&str; 2] = ["GitRepository", "Bucket"];
const MINUTE: Duration = Duration::from_secs(60);

/// The controller of Kustomizations.
#[derive(Debug)]
pub(super) struct Kustomize {
    artifacts: Artifacts,
    known: Schedule<Option<Waiting>>,
}

/// A Kustomization that waits for what it applied.
#[derive(Debug, Clone)]
struct Waiting {
    since: u64,
    deadline: u64,
    revision: String,
    objects: Vec<Wanted>,
}

/// An object that has to be healthy.
#[derive(Debug, Clone)]
struct Wanted {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
}

/// How a try ended.
enum Outcome {
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
struct Try<'a> {
    object: &'a Value,
    all: &'a [Value],
    tick: &'a Tick,
    watched: &'a Watched,
    artifacts: &'a Artifacts,
}

impl Kustomize {
    pub(super) fn new(artifacts: Artifacts) -> Self {
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

fn retry(object: &Value) -> Duration {
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

    /// The objects as they are to be applied.
    async fn build(&self, files: &Files) -> anyhow::Result<Result<Vec<Value>, BuildError>> {
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

/// Looks at what a Kustomization waits for.
async fn check(object: &Value, waiting: Waiting, tick: &Tick) -> anyhow::Result<Outcome> {
    let (mut pending, mut stalled) = (Vec::new(), Vec::new());
    for wanted in &waiting.objects {
        let found = wanted.get(tick).await?;
        let health = wanted.health(object, found.as_ref());
        let (kind, space, own) = (&wanted.kind, &wanted.namespace, &wanted.name);
        let at = match space.is_empty() {
            true => format!("{kind}/{own}"),
            false => format!("{kind}/{space}/{own}"),
        };
        let word = health.word();
        match health {
            Health::Current => {}
            Health::Failed => stalled.push(format!("{at} status: '{word}'")),
            _ => pending.push(format!("{at} status: '{word}'")),
        }
    }
    if tick
        .faults
        .has(&Fault::KustomizationStuck(name(object).to_owned()))
    {
        let (space, own) = (namespace(object), name(object));
        pending.push(format!("Deployment/{space}/{own} status: 'InProgress'"));
    }
    let failed = |why: String| {
        // In real time nothing of this is to the point.
        let ticks = tick.number - waiting.since;
        let message = format!("health check failed after {ticks} ticks: {why}");
        let (reason, after) = ("HealthCheckFailed", retry(object));
        Ok(Outcome::Failed {
            reason,
            message,
            after,
        })
    };
    if !stalled.is_empty() {
        let all = stalled.join(", ");
        return failed(format!("failed early due to stalled resources: [{all}]"));
    }
    if pending.is_empty() {
        let revision = waiting.revision;
        return Ok(Outcome::Applied { revision });
    }
    if tick.number >= waiting.deadline {
        let all = pending.join(", ");
        return failed(format!("timeout waiting for: [{all}]"));
    }
    Ok(Outcome::Waits(waiting))
}

impl Wanted {
    fn of(object: &Value) -> Self {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        Self {
            api_version: text("apiVersion"),
            kind: text("kind"),
            namespace: namespace(object).to_owned(),
            name: name(object).to_owned(),
        }
    }

    async fn get(&self, tick: &Tick) -> kube::Result<Option<Value>> {
        let (api, kind) = (&self.api_version, &self.kind);
        tick.cluster
            .get(api, kind, &self.namespace, &self.name)
            .await
    }

    fn health(&self, kustomization: &Value, found: Option<&Value>) -> Health {
        let expressions = kustomization["spec"]["healthCheckExprs"].as_array();
        let ours = expressions.into_iter().flatten().find(|expressions| {
            expressions["kind"] == self.kind.as_str()
                && expressions["apiVersion"] == self.api_version.as_str()
        });
        let (Some(expressions), Some(object)) = (ours, found) else {
            return health(found);
        };
        let says = |part: &str| {
            let text = expressions[part].as_str();
            text.is_some_and(|text| holds(text, object) == Ok(true))
        };
        match () {
            () if says("inProgress") => Health::InProgress,
            () if says("failed") => Health::Failed,
            () if says("current") => Health::Current,
            () => Health::InProgress,
        }
    }

    /// An entry of an inventory.
    fn entry(&self) -> Value {
        let (group, version) = self
            .api_version
            .split_once('/')
            .unwrap_or(("", &self.api_version));
        let (kind, space, own) = (&self.kind, &self.namespace, &self.name);
        // A colon of a name (RBAC has some) stands as two underscores.
        let own = own.replace(':', "__");
        json!({ "id": format!("{space}_{own}_{group}_{kind}"), "v": version })
    }

    fn from_entry(entry: &Value) -> Option<Self> {
        let parts: Vec<_> = entry["id"].as_str()?.splitn(2, '_').collect();
        let (space, rest) = (*parts.first()?, *parts.get(1)?);
        let mut from_end = rest.rsplitn(3, '_');
        let (kind, group, own) = (from_end.next()?, from_end.next()?, from_end.next()?);
        let version = entry["v"].as_str()?;
        let api_version = match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        Some(Self {
            api_version,
            kind: kind.to_owned(),
            namespace: space.to_owned(),
            name: own.replace("__", ":"),
        })
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

#[async_trait]
impl Controller for Kustomize {
    fn name(&self) -> &'static str {
        MANAGER
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
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
