//! helm-controller: releases of charts, installed, upgraded, waited for, and mended as the release says.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::draft::{Draft, Outcome, plain};
use super::release::{Action, Chart, Plan, Record, plan};
use super::values::{compose, digest};
use crate::operators::api::{name, namespace};
use crate::operators::flux::artifacts::Artifacts;
use crate::operators::flux::charts::Charts;
use crate::operators::flux::schedule::{DEPENDENCY, Schedule};
use crate::operators::flux::status::{Conditions, annotation, is_ready, requested, spec_duration};
use crate::operators::flux::watched::Watched;
use crate::operators::flux::{HELM, MANAGER_OF_STATUS, object_ref, runs};
use crate::operators::{Controller, Tick};

const MANAGER: &str = "helm-controller";
const SOURCES: [&str; 2] = ["HelmRepository", "GitRepository"];
const MINUTE: Duration = Duration::from_secs(60);

/// The controller of HelmReleases.
#[derive(Debug)]
pub(in crate::operators::flux) struct Helm {
    charts: Charts,
    artifacts: Artifacts,
    known: Schedule<Option<Running>>,
}

/// An action whose objects are applied and not all healthy yet.
#[derive(Debug, Clone)]
pub(super) struct Running {
    /// The release as it was when the action began: that is what it is about.
    pub(super) object: Value,
    pub(super) action: Action,
    pub(super) deadline: u64,
    pub(super) record: Record,
    pub(super) chart: Chart,
}

/// One look at a release: what it is about.
pub(super) struct Try<'a> {
    pub(super) object: &'a Value,
    all: &'a [Value],
    pub(super) tick: &'a Tick,
    watched: &'a Watched,
    pub(super) charts: &'a Charts,
    artifacts: &'a Artifacts,
}

impl Helm {
    pub(in crate::operators::flux) fn new(charts: Charts, artifacts: Artifacts) -> Self {
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

impl Try<'_> {
    pub(super) fn key(&self) -> String {
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
        // Of a chart in Git only a new version counts, as `reconcileStrategy` says.
        let version = self.chart().ok().map(|chart| chart.version);
        let from = self.object["spec"]["valuesFrom"].as_array();
        let watched = self
            .watched
            .versions(namespace(self.object), from.into_iter().flatten());
        format!("{version:?}/{watched}")
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
}

#[async_trait]
impl Controller for Helm {
    fn name(&self) -> &'static str {
        MANAGER
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        if !runs(MANAGER, tick).await? {
            return Ok(());
        }
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
