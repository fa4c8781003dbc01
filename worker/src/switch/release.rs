//! A HelmRelease that is asked to look at its values now, and what it makes of them.

use std::fmt;

use jobs::ids::ObjectName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::JobError;
use crate::kube::{Look, Object, Objects, wait};

/// The kind's version.
pub const HELM: &str = "helm.toolkit.fluxcd.io/v2";
/// Asks an object of Flux to reconcile now.
const REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";
/// Asks a release to forget its failures, with the same text: one that has used up its tries would not try.
const RESET: &str = "reconcile.fluxcd.io/resetAt";
/// Reasons of a release that tried, and has come to an end for now.
const FAILED: [&str; 9] = [
    "InstallFailed",
    "UpgradeFailed",
    "RollbackSucceeded",
    "RollbackFailed",
    "UninstallSucceeded",
    "UninstallFailed",
    "TestFailed",
    "RetriesExhausted",
    "ValuesError",
];

/// A release of the cluster.
#[derive(Debug, Clone)]
pub struct HelmRelease {
    objects: Objects,
    namespace: ObjectName,
    name: ObjectName,
}

/// What a release makes of our request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// There is no such release yet: it reads its switch when it is made.
    Absent,
    /// Not yet, and what there is instead.
    NotYet(String),
    /// It runs with the values of now.
    Ready(Revision),
    /// It tried and failed; reason and message.
    Failed(String),
}

/// What a release runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Revision {
    /// Number of Helm's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Version of the chart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart: Option<String>,
    /// Digest of the values, as helm-controller computes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

impl HelmRelease {
    /// The release `name` in `namespace`.
    pub fn new(objects: &Objects, namespace: &ObjectName, name: &ObjectName) -> Self {
        Self {
            objects: objects.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
        }
    }

    fn object(&self) -> Object {
        let (namespace, name) = (self.namespace.as_str(), self.name.as_str());
        Object::at(HELM, "HelmRelease", Some(namespace), name)
    }

    /// It as it is; `None` if there is none.
    pub async fn read(&self) -> Result<Option<Value>, JobError> {
        Ok(self.objects.get(&self.object()).await?)
    }

    /// Asks it to reconcile now, and to forget how often it failed. Says whether it is there. `asked` is recorded
    /// before, so that the same request is not a second one.
    pub async fn request(&self, asked: &str) -> Result<bool, JobError> {
        let annotations = [(REQUESTED, asked), (RESET, asked)];
        match self.objects.annotate(&self.object(), &annotations).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(404) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What it has made of our request, or, without one, how it is.
    pub async fn look(&self, asked: Option<&str>) -> Result<Handled, JobError> {
        let found = self.read().await?;
        Ok(found.map_or(Handled::Absent, |found| judge(&found, asked)))
    }
}

impl fmt::Display for HelmRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HelmRelease {}/{}", self.namespace, self.name)
    }
}

/// Judges a release. A failure counts only once it is about our request, and not while it tries again.
pub fn judge(release: &Value, asked: Option<&str>) -> Handled {
    let text = match wait::flux(release, asked) {
        Look::Ready => return Handled::Ready(revision(release)),
        Look::Stuck(text) => return Handled::Failed(text),
        Look::NotYet(text) => text,
    };
    let handled = release["status"]["lastHandledReconcileAt"].as_str();
    let current = |condition: &Value| {
        wait::is_current(release, condition) && (asked.is_none() || handled == asked)
    };
    // A rollback that runs is not the end of it. Other progress is what stood there before the failure.
    let at_it = wait::condition(release, "Reconciling").is_some_and(|it| {
        let doing = it["message"].as_str().unwrap_or_default();
        it["status"] == "True" && doing.starts_with("Running '")
    });
    match wait::condition(release, "Ready") {
        Some(ready) if current(ready) && !at_it && ready["status"] == "False" => {
            let reason = ready["reason"].as_str().unwrap_or_default();
            match FAILED.contains(&reason) {
                true => Handled::Failed(wait::said(ready, "it does not say why")),
                false => Handled::NotYet(text),
            }
        }
        _ => Handled::NotYet(text),
    }
}

/// What a release runs, by the newest entry of its history.
pub fn revision(release: &Value) -> Revision {
    let newest = &release["status"]["history"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Revision {
        version: newest["version"].as_i64(),
        chart: text(&newest["chartVersion"]),
        config: text(&newest["configDigest"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: Value, expected: Handled) {
        let object = json!({"metadata": {"generation": 2}, "spec": {}, "status": status});
        assert_eq!(judge(&object, Some("t2")), expected, "{object}");
    }

    fn ready(status: &str, reason: &str) -> Value {
        json!({"type": "Ready", "status": status, "reason": reason, "message": "why"})
    }

    fn status(handled: &str, conditions: Value) -> Value {
        json!({"observedGeneration": 2, "lastHandledReconcileAt": handled, "conditions": conditions})
    }

    #[test]
    fn a_release_has_handled_our_request_or_failed_in_it() {
        let mut good = status("t2", json!([ready("True", "UpgradeSucceeded")]));
        good["history"] =
            json!([{"version": 4, "chartVersion": "0.2.0", "configDigest": "sha256:a"}]);
        check(
            good,
            Handled::Ready(Revision {
                version: Some(4),
                chart: Some("0.2.0".into()),
                config: Some("sha256:a".into()),
            }),
        );
        for reason in FAILED {
            let failed = status("t2", json!([ready("False", reason)]));
            check(failed, Handled::Failed(format!("{reason}: why")));
        }
    }

    #[test]
    fn what_it_says_of_another_request_or_while_it_tries_is_no_answer() {
        let old = status("t1", json!([ready("False", "UpgradeFailed")]));
        check(
            old,
            Handled::NotYet(
                "it has not yet handled our request; Ready is False: UpgradeFailed: why".into(),
            ),
        );
        let mut behind = status("t2", json!([ready("False", "UpgradeFailed")]));
        behind["observedGeneration"] = json!(1);
        check(
            behind,
            Handled::NotYet(
                "its controller has seen generation 1 of 2; Ready is False: UpgradeFailed: why"
                    .into(),
            ),
        );
        // One that never went well says so for the generation that failed.
        let mut never = status("t2", json!([ready("False", "ValuesError")]));
        never["observedGeneration"] = json!(-1);
        never["conditions"][0]["observedGeneration"] = json!(2);
        check(never.clone(), Handled::Failed("ValuesError: why".into()));
        never["conditions"][0]["observedGeneration"] = json!(1);
        check(
            never,
            Handled::NotYet(
                "its controller has not seen it yet; Ready is False: ValuesError: why".into(),
            ),
        );
        let trying = json!({"type": "Reconciling", "status": "True", "reason": "Progressing",
            "message": "Running 'rollback' action with timeout of 5m0s"});
        let held = json!({"type": "Reconciling", "status": "True", "reason": "Progressing",
            "message": "Fulfilling prerequisites"});
        check(
            status("t2", json!([held, ready("False", "ValuesError")])),
            Handled::Failed("ValuesError: why".into()),
        );
        check(
            status("t2", json!([trying, ready("False", "UpgradeFailed")])),
            Handled::NotYet("Ready is False: UpgradeFailed: why".into()),
        );
        // It says that it tries again later: until then it has failed.
        let later =
            json!({"type": "Reconciling", "status": "True", "reason": "ProgressingWithRetry"});
        check(
            status("t2", json!([later, ready("False", "UpgradeFailed")])),
            Handled::Failed("UpgradeFailed: why".into()),
        );
        for reason in ["DependencyNotReady", "SourceNotReady", "ArtifactFailed"] {
            let waiting = status("t2", json!([ready("False", reason)]));
            check(
                waiting,
                Handled::NotYet(format!("Ready is False: {reason}: why")),
            );
        }
    }

    #[test]
    fn one_that_will_not_try_any_more_has_failed() {
        let stalled = json!({"type": "Stalled", "status": "True", "reason": "RetriesExhausted", "message": "no more"});
        check(
            status("t2", json!([stalled, ready("False", "RollbackSucceeded")])),
            Handled::Failed(
                "it is stalled: RetriesExhausted: no more; Ready is False: RollbackSucceeded: why"
                    .into(),
            ),
        );
        let suspended = json!({"metadata": {"generation": 1}, "spec": {"suspend": true}});
        assert_eq!(
            judge(&suspended, None),
            Handled::Failed("it is suspended".into())
        );
    }
}
