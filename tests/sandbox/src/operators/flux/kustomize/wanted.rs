//! What a Kustomization applied, as its inventory names it, and what it waits for.

use serde_json::{Value, json};

use super::controller::{Outcome, Waiting, retry};
use crate::operators::api::{name, namespace};
use crate::operators::flux::health::{Health, health, holds};
use crate::operators::{Fault, Tick};

/// An object that has to be healthy.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Looks at what a Kustomization waits for.
pub(super) async fn check(
    object: &Value,
    waiting: Waiting,
    tick: &Tick,
) -> anyhow::Result<Outcome> {
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
    pub(super) fn of(object: &Value) -> Self {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        Self {
            api_version: text("apiVersion"),
            kind: text("kind"),
            namespace: namespace(object).to_owned(),
            name: name(object).to_owned(),
        }
    }

    pub(super) async fn get(&self, tick: &Tick) -> kube::Result<Option<Value>> {
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
    pub(super) fn entry(&self) -> Value {
        let (group, version) = self
            .api_version
            .split_once('/')
            .unwrap_or(("", &self.api_version));
        let (kind, space, own) = (&self.kind, &self.namespace, &self.name);
        // A colon of a name (RBAC has some) stands as two underscores.
        let own = own.replace(':', "__");
        json!({ "id": format!("{space}_{own}_{group}_{kind}"), "v": version })
    }

    pub(super) fn from_entry(entry: &Value) -> Option<Self> {
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
