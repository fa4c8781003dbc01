//! What is done next with a release, as a pure function of what it wants and what its status says; and the record of
//! each of its versions.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::operators::Tick;
use crate::operators::api::{name, namespace};
use crate::operators::flux::status::spec_duration;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// A chart as a release found it.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) app_version: String,
    pub(super) defaults: Value,
}

/// Something that Helm does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Install,
    Upgrade,
    /// Back to the release of this version.
    Rollback(i64),
    Uninstall,
}

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Upgrade => "upgrade",
            Self::Rollback(_) => "rollback",
            Self::Uninstall => "uninstall",
        }
    }

    pub(super) fn succeeded(self) -> &'static str {
        match self {
            Self::Install => "InstallSucceeded",
            Self::Upgrade => "UpgradeSucceeded",
            Self::Rollback(_) => "RollbackSucceeded",
            Self::Uninstall => "UninstallSucceeded",
        }
    }

    pub(super) fn failed(self) -> &'static str {
        match self {
            Self::Install => "InstallFailed",
            Self::Upgrade => "UpgradeFailed",
            Self::Rollback(_) => "RollbackFailed",
            Self::Uninstall => "UninstallFailed",
        }
    }

    /// It mends what another action did.
    pub(super) fn mends(self) -> bool {
        matches!(self, Self::Rollback(_) | Self::Uninstall)
    }

    /// The field that counts its failures.
    pub(super) fn count(self) -> &'static str {
        match self {
            Self::Install => "installFailures",
            _ => "upgradeFailures",
        }
    }

    /// Whether it waits for its objects.
    pub(super) fn waits(self, release: &Value) -> bool {
        release["spec"][self.word()]["disableWait"] != true
    }

    pub(super) fn timeout(self, release: &Value) -> Duration {
        let all = spec_duration(release, "/timeout", DEFAULT_TIMEOUT);
        spec_duration(release, &format!("/{}/timeout", self.word()), all)
    }
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

/// What a release does after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// The same again, after a time, for ever (`RetryOnFailure`).
    Retry(Duration),
    /// Goes back, then tries again a few times. A negative number is for ever.
    Mend {
        retries: i64,
        last_too: bool,
        uninstall: bool,
    },
}

/// The strategy of an install or an upgrade.
pub(super) fn strategy(spec: &Value, action: Action) -> Strategy {
    let how = &spec[action.word()];
    if how["strategy"]["name"] == "RetryOnFailure" {
        let five = Duration::from_secs(300);
        let object = json!({ "spec": how });
        return Strategy::Retry(spec_duration(&object, "/strategy/retryInterval", five));
    }
    let remediation = &how["remediation"];
    let retries = remediation["retries"].as_i64().unwrap_or(0);
    let last = remediation["remediateLastFailure"].as_bool();
    Strategy::Mend {
        retries,
        last_too: last.unwrap_or(retries > 0),
        uninstall: action == Action::Install || remediation["strategy"] == "uninstall",
    }
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Nothing,
    Act(Action),
    GiveUp,
}

/// Decides what is next. `config` is the digest of the values that are wanted now.
pub(super) fn plan(spec: &Value, status: &Value, chart: &Chart, config: &str, force: bool) -> Plan {
    let latest = &status["history"][0];
    let failures = |action: Action| status[action.count()].as_i64().unwrap_or(0);
    let used_up = |action| match strategy(spec, action) {
        Strategy::Retry(_) => false,
        Strategy::Mend { retries, .. } => retries >= 0 && failures(action) > retries,
    };
    let unless_used_up = |action| match used_up(action) && !force {
        true => Plan::GiveUp,
        false => Plan::Act(action),
    };
    match latest["status"].as_str() {
        None | Some("uninstalled") => unless_used_up(Action::Install),
        // The controller died while it worked.
        Some(pending) if pending.starts_with("pending") => Plan::Act(Action::Upgrade),
        Some("failed") => {
            let last = match status["lastAttemptedReleaseAction"].as_str() {
                Some("install") => Action::Install,
                _ => Action::Upgrade,
            };
            match strategy(spec, last) {
                Strategy::Retry(_) => Plan::Act(Action::Upgrade),
                _ if failures(last) <= 0 || force => Plan::Act(Action::Upgrade),
                Strategy::Mend { last_too, .. } if used_up(last) && !last_too => Plan::GiveUp,
                Strategy::Mend {
                    uninstall: true, ..
                } => Plan::Act(Action::Uninstall),
                Strategy::Mend { .. } => Plan::Act(match good(status) {
                    Some(version) => Action::Rollback(version),
                    None => Action::Uninstall,
                }),
            }
        }
        Some(_) => {
            let version = latest["chartVersion"] == chart.version.as_str();
            let same = version && latest["configDigest"] == config;
            match same && !force {
                true => Plan::Nothing,
                false => unless_used_up(Action::Upgrade),
            }
        }
    }
}

/// The last version that worked.
fn good(status: &Value) -> Option<i64> {
    let mut history = status["history"].as_array()?.iter();
    let worked = |entry: &&Value| entry["status"] == "deployed" || entry["status"] == "superseded";
    history.find(worked)?["version"].as_i64()
}

/// One version of a release: what Helm keeps in a Secret.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) version: i64,
    /// The digest of its values.
    pub(super) config: String,
    /// All its objects, hooks too.
    pub(super) objects: Vec<Value>,
}

impl Record {
    /// The objects that stay. Hooks do not run here.
    pub(super) fn applied(&self) -> impl Iterator<Item = &Value> {
        let hook = |object: &&Value| object["metadata"]["annotations"]["helm.sh/hook"].is_null();
        self.objects.iter().filter(hook)
    }

    /// Whether it has an object of the same kind, namespace and name.
    pub(super) fn holds(&self, object: &Value) -> bool {
        self.applied().any(|own| {
            own["kind"] == object["kind"]
                && name(own) == name(object)
                && namespace(own) == namespace(object)
        })
    }

    /// The version of a release, if the cluster holds it.
    pub(super) async fn read(
        tick: &Tick,
        release: &Value,
        version: i64,
    ) -> kube::Result<Option<Self>> {
        let space = namespace(release);
        let secret = secret_name(release, version);
        let Some(found) = tick.cluster.get("v1", "Secret", space, &secret).await? else {
            return Ok(None);
        };
        let text = found["data"]["release"].as_str().unwrap_or_default();
        let kept = BASE64.decode(text).ok();
        let kept = kept.and_then(|kept| serde_json::from_slice::<Value>(&kept).ok());
        Ok(kept.map(|kept| Self {
            version,
            config: kept["config"].as_str().unwrap_or_default().to_owned(),
            objects: kept["manifest"].as_array().cloned().unwrap_or_default(),
        }))
    }

    /// Keeps it in the cluster, in a Secret of Helm's name and type; what is in it is plain JSON here.
    pub(super) async fn write(&self, tick: &Tick, release: &Value) -> kube::Result<()> {
        let kept = json!({ "config": self.config, "manifest": self.objects }).to_string();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
            "metadata": {
                "name": secret_name(release, self.version),
                "namespace": namespace(release),
                "labels": {
                    "owner": "helm", "name": release_name(release), "version": self.version.to_string(),
                },
            },
            "data": { "release": BASE64.encode(kept) },
        });
        tick.cluster.apply("helm-controller", &secret).await?;
        Ok(())
    }
}

fn secret_name(release: &Value, version: i64) -> String {
    format!("sh.helm.release.v1.{}.v{version}", release_name(release))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            name: "dsf".into(),
            version: "0.2.0".into(),
            app_version: String::new(),
            defaults: json!({}),
        }
    }

    fn check(spec: &Value, status: Value, force: bool, expected: Plan) {
        let found = plan(spec, &status, &chart(), "sha256:new", force);
        assert_eq!(found, expected, "{status}");
    }

    fn entry(version: i64, status: &str, config: &str) -> Value {
        json!({"version": version, "status": status, "chartVersion": "0.2.0", "configDigest": config})
    }

    #[test]
    fn a_release_that_is_retried_never_gives_up_and_is_never_uninstalled() {
        let retry = json!({ "name": "RetryOnFailure", "retryInterval": "1m" });
        let spec = json!({"install": {"strategy": retry}, "upgrade": {"strategy": retry}});
        check(&spec, json!({}), false, Plan::Act(Action::Install));
        let failed = json!({"history": [entry(1, "failed", "sha256:new")],
            "installFailures": 9, "lastAttemptedReleaseAction": "install"});
        check(&spec, failed, false, Plan::Act(Action::Upgrade));
        let deployed =
            |config| json!({"history": [entry(2, "deployed", config)], "upgradeFailures": 9});
        check(&spec, deployed("sha256:new"), false, Plan::Nothing);
        check(
            &spec,
            deployed("sha256:new"),
            true,
            Plan::Act(Action::Upgrade),
        );
        check(
            &spec,
            deployed("sha256:old"),
            false,
            Plan::Act(Action::Upgrade),
        );
    }

    #[test]
    fn a_failed_upgrade_goes_back_until_its_retries_are_used_up() {
        let spec = json!({"upgrade": {"remediation":
            {"retries": 1, "remediateLastFailure": true, "strategy": "rollback"}}});
        let failed = |failures: i64| {
            json!({
            "history": [entry(2, "failed", "sha256:new"), entry(1, "deployed", "sha256:old")],
            "upgradeFailures": failures, "lastAttemptedReleaseAction": "upgrade"})
        };
        check(&spec, failed(1), false, Plan::Act(Action::Rollback(1)));
        check(&spec, failed(2), false, Plan::Act(Action::Rollback(1)));
        // New values, so that failures were forgotten.
        check(&spec, failed(0), false, Plan::Act(Action::Upgrade));
        let back = |failures: i64| {
            json!({
            "history": [entry(3, "deployed", "sha256:old"), entry(2, "failed", "sha256:new")],
            "upgradeFailures": failures, "lastAttemptedReleaseAction": "upgrade"})
        };
        check(&spec, back(1), false, Plan::Act(Action::Upgrade));
        check(&spec, back(2), false, Plan::GiveUp);
        check(&spec, back(2), true, Plan::Act(Action::Upgrade));
    }

    #[test]
    fn a_failed_install_without_retries_stays_as_it_is() {
        let failed = json!({"history": [entry(1, "failed", "sha256:new")],
            "installFailures": 1, "lastAttemptedReleaseAction": "install"});
        check(&json!({}), failed, false, Plan::GiveUp);
        let spec = json!({"install": {"remediation": {"retries": 3}}});
        let failed = json!({"history": [entry(1, "failed", "sha256:new")],
            "installFailures": 4, "lastAttemptedReleaseAction": "install"});
        check(&spec, failed, false, Plan::Act(Action::Uninstall));
        let gone =
            json!({"history": [entry(1, "uninstalled", "sha256:new")], "installFailures": 4});
        check(&spec, gone, false, Plan::GiveUp);
    }
}
