//! How a look at a release ended, and what is written into its status.

use std::time::Duration;

use serde_json::{Value, json};

use super::controller::Running;
use super::release::{Chart, Record, release_name};
use super::values::digest;
use crate::operators::api::namespace;
use crate::operators::flux::status::{Conditions, annotation, requested, words};
use crate::operators::time::now;

/// How a look at a release ended.
pub(super) enum Outcome {
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
pub(super) struct Draft {
    pub(super) conditions: Conditions,
    pub(super) status: Value,
}

impl Draft {
    pub(super) fn conclude(&mut self, object: &Value, outcome: &Outcome) {
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

    /// Puts a release first in the history, or changes it there.
    pub(super) fn push(&mut self, object: &Value, record: &Record, chart: &Chart, status: &str) {
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

    pub(super) fn of_version(&self, version: i64) -> Value {
        let history = self.status["history"].as_array();
        let mut entries = history.into_iter().flatten();
        let found = entries.find(|entry| entry["version"] == version);
        found.cloned().unwrap_or_default()
    }

    pub(super) fn count(&mut self, what: &str) {
        let count = self.status[what].as_i64().unwrap_or(0);
        self.status[what] = (count + 1).into();
    }

    pub(super) fn gave_up(&self) -> String {
        let action = plain(&self.status["lastAttemptedReleaseAction"]);
        let count = &self.status[&format!("{action}Failures")];
        let count = count.as_i64().unwrap_or(0);
        format!("Failed to {action} after {count} attempt(s)")
    }
}

pub(super) fn last_version(status: &Value) -> i64 {
    status["history"][0]["version"].as_i64().unwrap_or(0)
}

pub(super) fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
