//! How the tree of Flux' objects stands: what is ready, what waits for a switch, what is not ready yet, and what is
//! stuck. Pure: objects in, standing out.
//!
//! A release whose switch is missing says `ValuesError`; its Kustomization then says `HealthCheckFailed` every few
//! minutes, and what depends on it `DependencyNotReady`. All of that is waiting, not failure, if the chain begins at a
//! switch of the spec. A Kustomization whose gated release is there but whose database is still being restored waits
//! likewise.

use std::collections::{BTreeMap, BTreeSet};

use jobs::spec::ClusterSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kube::{Look, wait};

/// The kinds that are looked at, each in the version that all supported versions of Flux serve. Charts are left
/// out: what is wrong with one its release says.
pub(super) const KINDS: [(&str, &str); 5] = [
    ("source.toolkit.fluxcd.io/v1", "GitRepository"),
    ("source.toolkit.fluxcd.io/v1", "Bucket"),
    ("source.toolkit.fluxcd.io/v1", "HelmRepository"),
    ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
    ("helm.toolkit.fluxcd.io/v2", "HelmRelease"),
];
/// What servers say to somebody with wrong credentials. A later try brings the same.
const DENIED: [&str; 7] = [
    "authentication required",
    "authentication failed",
    "authorization failed",
    "invalid credentials",
    "Bad credentials",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
];
/// What a Kustomization says while the health of what it applied is not there.
const UNHEALTHY: [&str; 3] = ["HealthCheckFailed", "HealthCheckCanceled", "Progressing"];

/// The switches of the spec: namespace and name of each ConfigMap.
pub(super) type Switches = BTreeSet<(String, String)>;

/// How everything stands, each by `Kind namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Ready at its generation, with its revision.
    pub(super) ready: BTreeMap<String, String>,
    /// Waits for a switch, or for what waits for one.
    pub(super) waiting: BTreeMap<String, String>,
    /// Not ready, and may become it.
    pub(super) not_yet: BTreeMap<String, String>,
    /// Does not become ready by itself.
    pub(super) stuck: BTreeMap<String, String>,
}

impl Standing {
    /// Whether an object is among them.
    pub(super) fn knows(&self, name: &str) -> bool {
        let all = [&self.ready, &self.waiting, &self.not_yet, &self.stuck];
        all.iter().any(|some| some.contains_key(name))
    }
}

/// The switches of a spec.
pub(super) fn switches(spec: &ClusterSpec) -> Switches {
    let database = spec.database.iter().map(|it| (&it.namespace, &it.switch));
    let applications = spec
        .applications
        .iter()
        .map(|it| (&it.namespace, &it.switch));
    database
        .chain(applications)
        .map(|(namespace, name)| (namespace.to_string(), name.to_string()))
        .collect()
}

/// How a source stands. Wrong credentials do not become right by waiting.
pub(super) fn of_source(source: &Value) -> Look {
    // It is only an address, without a status.
    if source["kind"] == "HelmRepository" && source["spec"]["type"] == "oci" {
        return Look::Ready;
    }
    match wait::flux(source, None) {
        Look::NotYet(text) if is_denied(source) => Look::Stuck(text),
        other => other,
    }
}

fn is_denied(source: &Value) -> bool {
    let Some(ready) = wait::condition(source, "Ready") else {
        return false;
    };
    let message = ready["message"].as_str().unwrap_or_default();
    let said = |words: &&str| message.contains(*words);
    ready["status"] == "False" && wait::is_current(source, ready) && DENIED.iter().any(said)
}

/// Judges all of them together.
pub(super) fn judge(objects: &[Value], switches: &Switches) -> Standing {
    let nodes: BTreeMap<String, Node<'_>> = objects
        .iter()
        .map(|object| (name_of(object), Node::new(object)))
        .collect();
    let waiting = waiting(&nodes, switches);
    let mut standing = Standing::default();
    for (name, node) in &nodes {
        let name = name.clone();
        match (&node.look, waiting.get(&name)) {
            (Look::Ready, _) => {
                standing.ready.insert(name, revision(node.object));
            }
            (Look::Stuck(text), _) => {
                standing.stuck.insert(name, text.clone());
            }
            (Look::NotYet(_), Some(what)) => {
                standing.waiting.insert(name, what.clone());
            }
            (Look::NotYet(text), None) => {
                standing.not_yet.insert(name, text.clone());
            }
        }
    }
    standing
}

/// An object and what it says of itself.
struct Node<'a> {
    object: &'a Value,
    look: Look,
    /// The reason of its Ready, if that is about its generation and not true.
    reason: Option<&'a str>,
}

impl<'a> Node<'a> {
    fn new(object: &'a Value) -> Self {
        let ready = wait::condition(object, "Ready");
        let current = ready.filter(|it| it["status"] != "True" && wait::is_current(object, it));
        Self {
            object,
            look: of_source(object),
            reason: current.and_then(|it| it["reason"].as_str()),
        }
    }

    fn kind(&self) -> &'a str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    fn namespace(&self) -> &'a str {
        let namespace = self.object["metadata"]["namespace"].as_str();
        namespace.unwrap_or_default()
    }

    /// What it depends on: objects of its own kind.
    fn dependencies(&self) -> impl Iterator<Item = String> {
        let all = self.object["spec"]["dependsOn"].as_array();
        all.into_iter().flatten().map(|it| {
            let namespace = it["namespace"].as_str().unwrap_or(self.namespace());
            let name = it["name"].as_str().unwrap_or_default();
            format!("{} {namespace}/{name}", self.kind())
        })
    }

    /// The releases whose health a Kustomization waits for: those it checks, and with `wait` all it has applied.
    fn releases(&self) -> BTreeSet<String> {
        let checks = self.object["spec"]["healthChecks"].as_array();
        let checks = checks.into_iter().flatten();
        let checked = checks.filter(|it| it["kind"] == "HelmRelease").map(|it| {
            let namespace = it["namespace"].as_str().unwrap_or(self.namespace());
            let name = it["name"].as_str().unwrap_or_default();
            format!("HelmRelease {namespace}/{name}")
        });
        let entries = self.object["status"]["inventory"]["entries"].as_array();
        let entries = entries.into_iter().flatten();
        let applied = entries
            .filter(|_| self.object["spec"]["wait"] == true)
            .filter_map(|it| {
                it["id"]
                    .as_str()?
                    .strip_suffix("_helm.toolkit.fluxcd.io_HelmRelease")
            })
            .filter_map(|id| id.split_once('_'))
            .map(|(namespace, name)| format!("HelmRelease {namespace}/{name}"));
        checked.chain(applied).collect()
    }

    /// The switch that a release reads, if it reads one.
    fn gate(&self, switches: &Switches) -> Option<String> {
        if self.kind() != "HelmRelease" {
            return None;
        }
        let namespace = self.namespace();
        let values = self.object["spec"]["valuesFrom"].as_array();
        let values = values.into_iter().flatten();
        values
            .filter(|it| it["kind"] == "ConfigMap")
            .filter_map(|it| it["name"].as_str())
            .find(|name| switches.contains(&(namespace.to_owned(), (*name).to_owned())))
            .map(|name| format!("ConfigMap {namespace}/{name}"))
    }
}

/// What waits for a switch, and by what. Each round finds what waits for something found before.
fn waiting(nodes: &BTreeMap<String, Node<'_>>, switches: &Switches) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let more: Vec<(String, String)> = nodes
            .iter()
            .filter(|(name, node)| {
                matches!(node.look, Look::NotYet(_)) && !found.contains_key(*name)
            })
            .filter_map(|(name, node)| {
                let what = waits_for(node, nodes, &found, switches)?;
                Some((name.clone(), format!("waits for {what}")))
            })
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn waits_for(
    node: &Node<'_>,
    nodes: &BTreeMap<String, Node<'_>>,
    found: &BTreeMap<String, String>,
    switches: &Switches,
) -> Option<String> {
    let reason = node.reason?;
    if reason == "DependencyNotReady" {
        return node.dependencies().find(|it| found.contains_key(it));
    }
    if reason == "ValuesError" {
        let message = wait::condition(node.object, "Ready")?["message"].as_str()?;
        let gate = node.gate(switches)?;
        let (_, switch) = gate.rsplit_once('/')?;
        return message.contains(switch).then_some(gate);
    }
    if node.kind() == "Kustomization" && UNHEALTHY.contains(&reason) {
        let gated = |name: &String| {
            let release = nodes.get(name);
            let gated = release
                .is_some_and(|it| it.gate(switches).is_some() && matches!(it.look, Look::Ready));
            gated || found.contains_key(name)
        };
        return node.releases().into_iter().find(gated);
    }
    None
}

fn name_of(object: &Value) -> String {
    let text = |at: &str| {
        object
            .pointer(at)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, namespace) = (text("/kind"), text("/metadata/namespace"));
    format!("{kind} {namespace}/{}", text("/metadata/name"))
}

/// Which revision an object has: of its artifact, of what it applied, or of its chart.
fn revision(object: &Value) -> String {
    let at = [
        "/status/artifact/revision",
        "/status/lastAppliedRevision",
        "/status/history/0/chartVersion",
        "/status/lastAttemptedRevision",
    ];
    let found = at.iter().find_map(|at| object.pointer(at)?.as_str());
    found.unwrap_or_default().to_owned()
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
