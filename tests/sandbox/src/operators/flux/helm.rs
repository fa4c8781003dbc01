//! helm-controller: releases of charts, installed, upgraded, waited for, and mended as the release says.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::artifacts::Artifacts;
use super::charts::Charts;
use super::health::{Health, health};
use super::release::{Action, Chart, Plan, Record, Strategy, plan, strategy};
use super::schedule::{DEPENDENCY, Schedule};
use super::status::{Conditions, annotation, is_ready, requested, spec_duration, words};
use super::values::{coalesce, compose, digest};
use super::watched::Watched;
use super::{HELM, MANAGER_OF_STATUS, object_ref};
use crate::operators::api::{code, name, namespace};
use crate::operators::time::now;
use crate::operators::{Controller, Fault, Tick};

const MANAGER: &str = "helm-controller";
const SOURCES: [&str; 2] = ["HelmRepository", "GitRepository"];
const MINUTE: Duration = Duration::from_secs(60);

/// The controller of HelmReleases.
#[derive(Debug)]
pub(super) struct Helm {
    charts: Charts,
    artifacts: Artifacts,
    known: Schedule<Option<Running>>,
}

/// An action whose objects are applied and not all healthy yet.
#[derive(Debug, Clone)]
struct Running {
    /// The release as it was when the action began: that is what it is about.
    object: Value,
    action: Action,
    deadline: u64,
    record: Record,
    chart: Chart,
}

/// How a look at a release ended.
enum Outcome {
    /// It is what it should be.
    InSync,
    /// It waits for what it applied.
    Runs(Running),
    /// It could not begin: reason, message, and when it tries again (without a time: ever later).
    Held(&'static str, String, Option<Duration>),
    /// An action failed, and it tries again.
    Retries(Option<Duration>),
    /// It gave up until something changes.
    Stalled(&'static str, String),
}

/// What is written back.
struct Draft {
    conditions: Conditions,
    status: Value,
}

struct Try<'a> {
    object: &'a Value,
    all: &'a [Value],
    tick: &'a Tick,
    watched: &'a Watched,
    charts: &'a Charts,
    artifacts: &'a Artifacts,
}

impl Helm {
    pub(super) fn new(charts: Charts, artifacts: Artifacts) -> Self {
        let known = Schedule::new();
        Self {
            charts,
            artifacts,
            known,
        }
    }

    async fn one(
        &mut self,
        object: &Value,
        all: &[Value],
        watched: &Watched,
        tick: &Tick,
    ) -> anyhow::Result<()> {
        let (item, running) = self.known.of(object);
        let mut subject = match running {
            Some(going) => going.object.clone(),
            None => object.clone(),
        };
        subject["status"] = object["status"].clone();
        let object = &subject;
        let charts = &self.charts;
        let artifacts = &self.artifacts;
        let run = Try {
            object,
            all,
            tick,
            watched,
            charts,
            artifacts,
        };
        let mut draft = Draft {
            conditions: Conditions::of(object),
            // History and counts are written as they are, changed or not.
            status: object["status"].clone(),
        };
        // An action is not left for another one: what changed meanwhile is seen when it is over.
        let outcome = if let Some(going) = running.clone() {
            run.watch(going, &mut draft).await?
        } else if item.is_due(object, &run.around(), tick) {
            run.begin(&mut draft).await?
        } else {
            return Ok(());
        };
        draft.conclude(object, &outcome);
        let cluster = &tick.cluster;
        let written = cluster.set_status(MANAGER_OF_STATUS, object, &draft.status);
        written.await?;
        *running = None;
        match outcome {
            Outcome::InSync => item.again(tick, spec_duration(object, "/interval", MINUTE)),
            Outcome::Runs(more) => {
                *running = Some(more);
                item.never();
            }
            Outcome::Held(_, _, Some(after)) | Outcome::Retries(Some(after)) => {
                item.again(tick, after);
            }
            Outcome::Held(_, _, None) | Outcome::Retries(None) => item.back_off(tick),
            Outcome::Stalled(..) => item.never(),
        }
        Ok(())
    }
}

impl Draft {
    fn conclude(&mut self, object: &Value, outcome: &Outcome) {
        let generation = object["metadata"]["generation"].clone();
        match outcome {
            Outcome::InSync => {
                self.conditions.remove("Reconciling");
                self.conditions.remove("Stalled");
                self.status["observedGeneration"] = generation;
            }
            Outcome::Runs(running) => {
                let timeout = words(running.action.timeout(object));
                let doing = format!(
                    "Running '{}' action with timeout of {timeout}",
                    running.action.word()
                );
                self.conditions
                    .set("Ready", "Unknown", "Progressing", &doing);
                self.conditions
                    .set("Reconciling", "True", "Progressing", &doing);
                self.conditions.remove("Stalled");
                // Not yet handled.
                return self.write();
            }
            Outcome::Held(reason, message, _) => {
                self.conditions.set("Ready", "False", reason, message);
                let doing = "Fulfilling prerequisites";
                self.conditions
                    .set("Reconciling", "True", "Progressing", doing);
            }
            Outcome::Retries(after) => {
                let failed = "the last action failed";
                self.conditions
                    .set("Reconciling", "True", "ProgressingWithRetry", failed);
                if after.is_some() {
                    self.status["observedGeneration"] = generation;
                }
            }
            Outcome::Stalled(reason, message) => {
                self.conditions.remove("Reconciling");
                self.conditions.set("Stalled", "True", reason, message);
                self.status["observedGeneration"] = generation;
            }
        }
        if let Some(asked) = requested(object) {
            self.status["lastHandledReconcileAt"] = asked.into();
        }
        for (asked, handled) in [
            ("forceAt", "lastHandledForceAt"),
            ("resetAt", "lastHandledResetAt"),
        ] {
            if let Some(value) = annotation(object, &format!("reconcile.fluxcd.io/{asked}")) {
                self.status[handled] = value.into();
            }
        }
        self.write();
    }

    fn write(&mut self) {
        self.status["conditions"] = self.conditions.clone().value();
    }
}

impl Try<'_> {
    fn key(&self) -> String {
        format!("{}/{}", namespace(self.object), name(self.object))
    }

    /// The source of the chart: kind, namespace, name.
    fn source(&self) -> (String, String, String) {
        let reference = &self.object["spec"]["chart"]["spec"]["sourceRef"];
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let space = reference["namespace"].as_str();
        object_ref(
            text("kind"),
            space.unwrap_or(namespace(self.object)),
            text("name"),
        )
    }

    /// What makes the release be looked at once.
    fn around(&self) -> String {
        let (kind, space, own) = self.source();
        let source = self.watched.source(&kind, &space, &own);
        let ready = source.is_some_and(is_ready);
        // Of a chart in Git only a new version counts, as `reconcileStrategy` says; so of sources only that they work.
        let from = self.object["spec"]["valuesFrom"].as_array();
        let watched = self
            .watched
            .versions(namespace(self.object), from.into_iter().flatten());
        format!("{ready}/{watched}")
    }

    /// Everything up to the objects of a new action.
    async fn begin(&self, draft: &mut Draft) -> anyhow::Result<Outcome> {
        if let Some(message) = self.dependencies() {
            return Ok(Outcome::Held(
                "DependencyNotReady",
                message,
                Some(DEPENDENCY),
            ));
        }
        let chart = match self.chart() {
            Ok(chart) => chart,
            Err(message) => {
                return Ok(Outcome::Held("SourceNotReady", message, Some(DEPENDENCY)));
            }
        };
        let values = match compose(self.object, self.tick).await? {
            Ok(values) => values,
            Err(message) => return Ok(Outcome::Held("ValuesError", message, None)),
        };
        self.reset(draft, &chart, &digest(&values));
        self.next(draft, chart, values).await
    }

    /// Why a dependency is not ready, if so.
    fn dependencies(&self) -> Option<String> {
        let own = namespace(self.object);
        for dependency in self.object["spec"]["dependsOn"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let space = dependency["namespace"].as_str().unwrap_or(own);
            let name_of = dependency["name"].as_str().unwrap_or_default();
            let mut all = self.all.iter();
            match all.find(|r| name(r) == name_of && namespace(r) == space) {
                None => {
                    return Some(format!(
                        "unable to get '{space}/{name_of}' dependency: helmreleases.helm.toolkit.fluxcd.io \"{name_of}\" not found"
                    ));
                }
                Some(found) if !is_ready(found) => {
                    return Some(format!("dependency '{space}/{name_of}' is not ready"));
                }
                Some(_) => {}
            }
        }
        None
    }

    /// The chart, or why it is not there.
    fn chart(&self) -> Result<Chart, String> {
        let spec = &self.object["spec"]["chart"]["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default();
        let (kind, space, own) = self.source();
        let helm_chart = format!("{space}/{}-{}", namespace(self.object), name(self.object));
        let not_ready = |why: String| Err(format!("HelmChart '{helm_chart}' is not ready: {why}"));
        let Some(source) = self.watched.source(&kind, &space, &own) else {
            return not_ready(format!("failed to get source: {kind} \"{own}\" not found"));
        };
        let Some(revision) = source["status"]["artifact"]["revision"].as_str() else {
            return not_ready(format!("no artifact available for {kind} source '{own}'"));
        };
        let path = text("chart").trim_start_matches("./").trim_end_matches('/');
        if kind == "GitRepository" {
            let key = object_ref(&kind, &space, &own);
            let files = self.artifacts.get(&key, revision);
            let files = files
                .ok_or_else(|| format!("HelmChart '{helm_chart}' is not ready: no artifact"))?;
            let read = |file: &str| {
                let bytes = files.get(&format!("{path}/{file}"))?;
                serde_saphyr::from_str::<Value>(&String::from_utf8_lossy(bytes)).ok()
            };
            let Some(chart) = read("Chart.yaml") else {
                return not_ready(format!("chart metadata is missing: {path}/Chart.yaml"));
            };
            let field = |name: &str| chart[name].as_str().unwrap_or_default().to_owned();
            return Ok(Chart {
                name: field("name"),
                version: field("version"),
                app_version: field("appVersion"),
                defaults: read("values.yaml").unwrap_or_else(|| json!({})),
            });
        }
        if self.charts.get(path).is_none() {
            let version = text("version");
            return not_ready(format!(
                "invalid chart reference: failed to get chart version for remote reference: no '{path}' chart with version matching '{version}' found"
            ));
        }
        Ok(Chart {
            name: path.to_owned(),
            version: text("version").to_owned(),
            app_version: String::new(),
            defaults: json!({}),
        })
    }

    /// Forgets failures when what is wanted is something else now, or somebody says so.
    fn reset(&self, draft: &mut Draft, chart: &Chart, config: &str) {
        let status = &self.object["status"];
        let asked = annotation(self.object, "reconcile.fluxcd.io/resetAt");
        let reset = asked.is_some()
            && asked == requested(self.object)
            && status["lastHandledResetAt"].as_str() != asked;
        let same = status["lastAttemptedGeneration"] == self.object["metadata"]["generation"]
            && status["lastAttemptedRevision"] == chart.version.as_str()
            && status["lastAttemptedConfigDigest"] == config;
        if reset || !same {
            for count in ["failures", "installFailures", "upgradeFailures"] {
                draft.status[count] = Value::Null;
            }
        }
        draft.status["lastAttemptedGeneration"] = self.object["metadata"]["generation"].clone();
        draft.status["lastAttemptedRevision"] = chart.version.as_str().into();
        draft.status["lastAttemptedConfigDigest"] = config.into();
        draft.status["storageNamespace"] = namespace(self.object).into();
        let (_, space, _) = self.source();
        let chart = format!("{space}/{}-{}", namespace(self.object), name(self.object));
        draft.status["helmChart"] = chart.into();
    }

    /// The next action, if one is due.
    async fn next(
        &self,
        draft: &mut Draft,
        chart: Chart,
        values: Value,
    ) -> anyhow::Result<Outcome> {
        let asked = annotation(self.object, "reconcile.fluxcd.io/forceAt");
        let force = asked.is_some()
            && asked == requested(self.object)
            && self.object["status"]["lastHandledForceAt"].as_str() != asked;
        match plan(
            &self.object["spec"],
            &draft.status,
            &chart,
            &digest(&values),
            force,
        ) {
            Plan::Nothing => {
                self.settle(draft);
                Ok(Outcome::InSync)
            }
            Plan::GiveUp => {
                let message = draft.gave_up();
                Ok(Outcome::Stalled("RetriesExceeded", message))
            }
            Plan::Act(action @ (Action::Install | Action::Upgrade)) => {
                self.release(draft, action, chart, values).await
            }
            Plan::Act(action) => self.mend(draft, action, chart).await,
        }
    }

    /// It is as it should be: Ready says what `Released` says.
    fn settle(&self, draft: &mut Draft) {
        let (reason, message) = {
            let latest = &draft.status["history"][0];
            let (own, space) = (&latest["name"], &latest["namespace"]);
            let chart = format!(
                "{}@{}",
                plain(&latest["chartName"]),
                plain(&latest["chartVersion"])
            );
            let at = format!("{}/{}.v{}", plain(space), plain(own), latest["version"]);
            let first = latest["version"] == 1;
            let (reason, word) = match first {
                true => ("InstallSucceeded", "install"),
                false => ("UpgradeSucceeded", "upgrade"),
            };
            (
                reason,
                format!("Helm {word} succeeded for release {at} with chart {chart}"),
            )
        };
        draft.conditions.remove("Remediated");
        draft.conditions.set("Released", "True", reason, &message);
        draft.conditions.set("Ready", "True", reason, &message);
        for count in ["failures", "installFailures", "upgradeFailures"] {
            draft.status[count] = Value::Null;
        }
    }

    /// Installs or upgrades.
    async fn release(
        &self,
        draft: &mut Draft,
        action: Action,
        chart: Chart,
        values: Value,
    ) -> anyhow::Result<Outcome> {
        draft.status["lastAttemptedReleaseAction"] = action.word().into();
        let spec = &self.object["spec"];
        let release_name = release_name(self.object);
        let space = spec["targetNamespace"]
            .as_str()
            .unwrap_or(namespace(self.object));
        let all = coalesce(&chart.defaults, &values);
        let release = super::charts::Release {
            name: &release_name,
            namespace: space,
            chart: &chart.name,
            version: &chart.version,
            app_version: &chart.app_version,
            values: &all,
        };
        let render = self.charts.get(&chart.name);
        let rendered = match render {
            Some(render) => render(&release),
            None => Err(format!("the chart {} is not simulated", chart.name)),
        };
        let objects = match rendered {
            Ok(objects) => objects,
            // Nothing of it is a release yet.
            Err(why) => return self.failed(draft, action, None, &chart, &why).await,
        };
        let record = Record {
            version: last_version(&draft.status) + 1,
            config: digest(&values),
            objects: objects
                .into_iter()
                .map(|object| self.owned(object))
                .collect(),
        };
        self.act(draft, action, record, chart).await
    }

    /// An object with what marks it as one of this release.
    fn owned(&self, mut object: Value) -> Value {
        let labels = &mut object["metadata"]["labels"];
        labels["app.kubernetes.io/managed-by"] = "Helm".into();
        labels["helm.toolkit.fluxcd.io/name"] = name(self.object).into();
        labels["helm.toolkit.fluxcd.io/namespace"] = namespace(self.object).into();
        object
    }

    /// Applies a record's objects, takes away what it leaves out, and begins to wait.
    async fn act(
        &self,
        draft: &mut Draft,
        action: Action,
        record: Record,
        chart: Chart,
    ) -> anyhow::Result<Outcome> {
        let before = match last_version(&draft.status) {
            0 => None,
            version => Record::read(self.tick, self.object, version).await?,
        };
        record.write(self.tick, self.object).await?;
        draft.push(self.object, &record, &chart, "pending");
        let mut refused = None;
        for object in record.applied() {
            if let Err(why) = self.apply(object).await? {
                refused = Some(format!("failed to create resource: {why}"));
                break;
            }
        }
        if let Some(why) = refused {
            return self.failed(draft, action, Some(record), &chart, &why).await;
        }
        for old in before.iter().flat_map(Record::applied) {
            let keep = annotation(old, "helm.sh/resource-policy") == Some("keep");
            let definition = old["kind"] == "CustomResourceDefinition";
            if !keep && !definition && !record.holds(old) {
                self.tick.cluster.delete(old).await?;
            }
        }
        let deadline = self.tick.after(action.timeout(self.object));
        let object = self.object.clone();
        let running = Running {
            object,
            action,
            deadline,
            record,
            chart,
        };
        self.watch(running, draft).await
    }

    /// The inner error is what the API server says.
    async fn apply(&self, object: &Value) -> anyhow::Result<Result<(), String>> {
        let kind = object["kind"].as_str().unwrap_or_default();
        if let Some(refusal) = self.tick.faults.webhook(kind) {
            return Ok(Err(refusal));
        }
        match self.tick.cluster.apply(MANAGER, object).await {
            Ok(_) => Ok(Ok(())),
            Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at what an action waits for.
    async fn watch(&self, running: Running, draft: &mut Draft) -> anyhow::Result<Outcome> {
        let action = running.action;
        if self.tick.faults.has(&Fault::ReleaseFails(self.key())) && !action.mends() {
            let why = "failed to create resource: the server was unable to return a response in the time allotted";
            let (record, chart) = (running.record, running.chart);
            return self.failed(draft, action, Some(record), &chart, why).await;
        }
        if !action.waits(self.object) {
            return self.succeeded(draft, running).await;
        }
        let mut waits = None;
        for object in running.record.applied() {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            let (api, kind) = (text("apiVersion"), text("kind"));
            let found = self
                .tick
                .cluster
                .get(api, kind, namespace(object), name(object));
            let found = match found.await {
                Ok(found) => found,
                Err(error) if code(&error) == Some(404) => None,
                Err(error) => return Err(error.into()),
            };
            if health(found.as_ref()) != Health::Current {
                waits = Some(format!("{kind}/{}/{}", namespace(object), name(object)));
                break;
            }
        }
        let Some(waits) = waits else {
            return self.succeeded(draft, running).await;
        };
        if self.tick.number < running.deadline {
            return Ok(Outcome::Runs(running));
        }
        let why =
            format!("resource {waits} not ready. status: InProgress: context deadline exceeded");
        let (record, chart) = (running.record, running.chart);
        self.failed(draft, action, Some(record), &chart, &why).await
    }

    async fn succeeded(&self, draft: &mut Draft, running: Running) -> anyhow::Result<Outcome> {
        let Running {
            action,
            record,
            chart,
            ..
        } = running;
        draft.push(self.object, &record, &chart, "deployed");
        let at = self.full_name(record.version);
        let with = format!("{}@{}", chart.name, chart.version);
        let reason = action.succeeded();
        if action.mends() {
            // The history says which chart it went back to.
            let to = draft.status["history"][0]["chartVersion"].clone();
            let with = format!("{}@{}", chart.name, plain(&to));
            let message = match action {
                Action::Rollback(to) => {
                    let to = self.full_name(to);
                    format!("Helm rollback to previous release {to} with chart {with} succeeded")
                }
                _ => format!("Helm uninstall succeeded for release {at} with chart {with}"),
            };
            draft.conditions.set("Remediated", "True", reason, &message);
            draft.conditions.set("Ready", "False", reason, &message);
            return Ok(self.after_failure(draft));
        }
        let message = format!(
            "Helm {} succeeded for release {at} with chart {with}",
            action.word()
        );
        draft.conditions.set("Released", "True", reason, &message);
        draft.conditions.set("Ready", "True", reason, &message);
        draft.conditions.remove("Remediated");
        for count in ["failures", "installFailures", "upgradeFailures"] {
            draft.status[count] = Value::Null;
        }
        // What changed meanwhile is another action: the next look sees it.
        Ok(Outcome::InSync)
    }

    /// An action failed: counted, said, and mended in the same turn where the release wants it mended.
    async fn failed(
        &self,
        draft: &mut Draft,
        action: Action,
        record: Option<Record>,
        chart: &Chart,
        why: &str,
    ) -> anyhow::Result<Outcome> {
        if let Some(record) = &record {
            draft.push(self.object, record, chart, "failed");
        }
        let own = release_name(self.object);
        let at = format!("{}/{own}", namespace(self.object));
        let with = format!("{}@{}", chart.name, chart.version);
        let message = format!(
            "Helm {} failed for release {at} with chart {with}: {why}",
            action.word()
        );
        let condition = if action.mends() {
            "Remediated"
        } else {
            "Released"
        };
        draft
            .conditions
            .set(condition, "False", action.failed(), &message);
        draft
            .conditions
            .set("Ready", "False", action.failed(), &message);
        if action.mends() {
            return Ok(Outcome::Retries(None));
        }
        draft.count("failures");
        draft.count(action.count());
        match strategy(&self.object["spec"], action) {
            Strategy::Retry(after) => Ok(Outcome::Retries(Some(after))),
            Strategy::Mend { .. } if record.is_none() => Ok(self.after_failure(draft)),
            Strategy::Mend { .. } => {
                let status = &draft.status;
                let config = status["lastAttemptedConfigDigest"]
                    .as_str()
                    .unwrap_or_default();
                match plan(&self.object["spec"], status, chart, config, false) {
                    Plan::Act(next) if next.mends() => self.mend(draft, next, chart.clone()).await,
                    _ => Ok(self.after_failure(draft)),
                }
            }
        }
    }

    /// Whether it tries again after a failure that is mended, or gives up.
    fn after_failure(&self, draft: &mut Draft) -> Outcome {
        let last = draft.status["lastAttemptedReleaseAction"].as_str();
        let action = match last {
            Some("upgrade") => Action::Upgrade,
            _ => Action::Install,
        };
        let failures = draft.status[action.count()].as_i64().unwrap_or(0);
        match strategy(&self.object["spec"], action) {
            Strategy::Mend { retries, .. } if retries >= 0 && failures > retries => {
                Outcome::Stalled("RetriesExceeded", draft.gave_up())
            }
            _ => Outcome::Retries(None),
        }
    }

    /// Rolls back or uninstalls.
    async fn mend(
        &self,
        draft: &mut Draft,
        action: Action,
        chart: Chart,
    ) -> anyhow::Result<Outcome> {
        match action {
            Action::Rollback(to) => {
                let Some(old) = Record::read(self.tick, self.object, to).await? else {
                    let why = "Failed to perform remediation: missing target release for rollback"
                        .to_owned();
                    return Ok(Outcome::Stalled("MissingRollbackTarget", why));
                };
                let version = last_version(&draft.status) + 1;
                let record = Record { version, ..old };
                let old = draft.of_version(to);
                let chart = Chart {
                    version: plain(&old["chartVersion"]).to_owned(),
                    ..chart
                };
                Box::pin(self.act(draft, action, record, chart)).await
            }
            _ => {
                let version = last_version(&draft.status);
                let record = Record::read(self.tick, self.object, version).await?;
                for object in record.iter().flat_map(Record::applied) {
                    if object["kind"] != "CustomResourceDefinition" {
                        self.tick.cluster.delete(object).await?;
                    }
                }
                draft.status["history"][0]["status"] = "uninstalled".into();
                let at = self.full_name(version);
                let with = format!("{}@{}", chart.name, chart.version);
                let message =
                    format!("Helm uninstall succeeded for release {at} with chart {with}");
                let reason = action.succeeded();
                draft.conditions.set("Remediated", "True", reason, &message);
                draft.conditions.set("Ready", "False", reason, &message);
                Ok(self.after_failure(draft))
            }
        }
    }

    fn full_name(&self, version: i64) -> String {
        let own = release_name(self.object);
        format!("{}/{own}.v{version}", namespace(self.object))
    }
}

impl Draft {
    /// Puts a release first in the history, or changes it there.
    fn push(&mut self, object: &Value, record: &Record, chart: &Chart, status: &str) {
        let mut history = self.status["history"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        history.retain(|entry| entry["version"] != record.version);
        if status == "deployed" {
            for entry in &mut history {
                if entry["status"] == "deployed" {
                    entry["status"] = "superseded".into();
                }
            }
        }
        let first = history.last().map(|entry| entry["firstDeployed"].clone());
        let entry = json!({
            "apiVersion": "v2",
            "digest": digest(&json!(record.objects)),
            "name": release_name(object),
            "namespace": namespace(object),
            "version": record.version,
            "status": if status == "pending" { "pending-upgrade" } else { status },
            "chartName": chart.name,
            "chartVersion": chart.version,
            "appVersion": chart.app_version,
            "configDigest": record.config,
            "firstDeployed": first.unwrap_or_else(|| now().into()),
            "lastDeployed": now(),
        });
        history.insert(0, entry);
        history.truncate(5);
        self.status["history"] = history.into();
        self.status["lastReleaseRevision"] = record.version.into();
    }

    fn of_version(&self, version: i64) -> Value {
        let history = self.status["history"].as_array();
        let mut entries = history.into_iter().flatten();
        let found = entries.find(|entry| entry["version"] == version);
        found.cloned().unwrap_or_default()
    }

    fn count(&mut self, what: &str) {
        let count = self.status[what].as_i64().unwrap_or(0);
        self.status[what] = (count + 1).into();
    }

    fn gave_up(&self) -> String {
        let action = plain(&self.status["lastAttemptedReleaseAction"]);
        let count = &self.status[&format!("{action}Failures")];
        let count = count.as_i64().unwrap_or(0);
        format!("Failed to {action} after {count} attempt(s)")
    }
}

fn last_version(status: &Value) -> i64 {
    status["history"][0]["version"].as_i64().unwrap_or(0)
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The name that Helm knows a release by.
pub(super) fn release_name(object: &Value) -> String {
    let spec = &object["spec"];
    match (
        spec["releaseName"].as_str(),
        spec["targetNamespace"].as_str(),
    ) {
        (Some(name), _) => name.to_owned(),
        (None, Some(target)) => format!("{target}-{}", name(object)),
        (None, None) => name(object).to_owned(),
    }
}

#[async_trait]
impl Controller for Helm {
    fn name(&self) -> &'static str {
        MANAGER
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        let watched = Watched::look(tick, &SOURCES).await?;
        let all = tick.cluster.list(HELM, "HelmRelease").await?;
        self.known.keep(&all);
        let mut failed = None;
        for object in &all {
            if object["spec"]["suspend"] == true {
                continue;
            }
            // One that cannot be reconciled holds no other one up.
            if let Err(error) = self.one(object, &all, &watched, tick).await {
                failed = Some(error.context(format!(
                    "HelmRelease {}/{}",
                    namespace(object),
                    name(object)
                )));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
