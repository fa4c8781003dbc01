//! What Helm does: install, upgrade, roll back, uninstall, and how each of them ends.

use serde_json::Value;

use super::controller::{Running, Try};
use super::draft::{Draft, Outcome, last_version, plain};
use super::release::{Action, Chart, Plan, Record, Strategy, plan, release_name, strategy};
use super::values::{coalesce, digest};
use crate::operators::Fault;
use crate::operators::api::{code, name, namespace};
use crate::operators::flux::charts::Release;
use crate::operators::flux::health::{Health, health};
use crate::operators::flux::status::annotation;

const MANAGER: &str = "helm-controller";

impl Try<'_> {
    /// Installs or upgrades.
    pub(super) async fn release(
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
        let release = Release {
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
    pub(super) async fn watch(
        &self,
        running: Running,
        draft: &mut Draft,
    ) -> anyhow::Result<Outcome> {
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
    pub(super) async fn mend(
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
