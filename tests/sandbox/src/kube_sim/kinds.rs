//! Which kinds there are: the built-in ones, those that definitions bring, and how clients discover
//! them.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::definitions;
use super::store::State;

/// One kind in one version of its group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) kind: String,
    pub(super) short: Vec<String>,
    pub(super) namespaced: bool,
    /// It has the subresource `status`.
    pub(super) status: bool,
    /// It counts the changes of its spec.
    pub(super) generation: bool,
    /// Of a definition: what its author says of its fields.
    pub(super) schema: Option<Arc<Value>>,
}

impl Kind {
    /// `deployments.apps`, or `pods`.
    pub(super) fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `apps/v1`, or `v1`.
    pub(super) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub(super) fn custom(&self) -> bool {
        self.schema.is_some()
    }

    /// How a `Status` names an object of it.
    pub(super) fn details(&self, name: &str) -> Value {
        let mut details = json!({"kind": self.plural});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !self.group.is_empty() {
            details["group"] = self.group.clone().into();
        }
        details
    }

    fn resources(&self) -> Vec<Value> {
        let mut verbs = vec![
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
        ];
        verbs.sort_unstable();
        let mut whole = json!({
            "name": self.plural, "singularName": if self.custom() { self.singular.as_str() } else { "" },
            "namespaced": self.namespaced, "kind": self.kind, "verbs": verbs,
        });
        if !self.short.is_empty() {
            whole["shortNames"] = json!(self.short);
        }
        let mut all = vec![whole];
        if self.status {
            all.push(json!({
                "name": format!("{}/status", self.plural), "singularName": "",
                "namespaced": self.namespaced, "kind": self.kind, "verbs": ["get", "patch", "update"],
            }));
        }
        if self.group.is_empty() && self.plural == "pods" {
            all.push(json!({
                "name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod",
                "verbs": ["get"],
            }));
        }
        all
    }
}

pub(super) fn api_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

const NAMESPACED: u8 = 1;
const STATUS: u8 = 2;
const GENERATION: u8 = 4;
const ALL: u8 = NAMESPACED | STATUS | GENERATION;

/// Group, plural, kind, what it has, short name. All are served as v1.
const BUILT_IN: &[(&str, &str, &str, u8, &str)] = &[
    ("", "namespaces", "Namespace", STATUS, "ns"),
    ("", "configmaps", "ConfigMap", NAMESPACED, "cm"),
    ("", "secrets", "Secret", NAMESPACED, ""),
    ("", "services", "Service", NAMESPACED | STATUS, "svc"),
    ("", "serviceaccounts", "ServiceAccount", NAMESPACED, "sa"),
    ("", "pods", "Pod", NAMESPACED | STATUS, "po"),
    ("", "nodes", "Node", STATUS, "no"),
    ("", "events", "Event", NAMESPACED, "ev"),
    ("", "persistentvolumes", "PersistentVolume", STATUS, "pv"),
    (
        "",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        NAMESPACED | STATUS,
        "pvc",
    ),
    (
        "",
        "resourcequotas",
        "ResourceQuota",
        NAMESPACED | STATUS,
        "quota",
    ),
    ("", "limitranges", "LimitRange", NAMESPACED, "limits"),
    ("", "endpoints", "Endpoints", NAMESPACED, "ep"),
    ("apps", "deployments", "Deployment", ALL, "deploy"),
    ("apps", "statefulsets", "StatefulSet", ALL, "sts"),
    ("apps", "daemonsets", "DaemonSet", ALL, "ds"),
    ("apps", "replicasets", "ReplicaSet", ALL, "rs"),
    ("batch", "jobs", "Job", ALL, ""),
    ("batch", "cronjobs", "CronJob", ALL, "cj"),
    ("rbac.authorization.k8s.io", "roles", "Role", NAMESPACED, ""),
    (
        "rbac.authorization.k8s.io",
        "rolebindings",
        "RoleBinding",
        NAMESPACED,
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "clusterroles",
        "ClusterRole",
        0,
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        "ClusterRoleBinding",
        0,
        "",
    ),
    (
        "networking.k8s.io",
        "networkpolicies",
        "NetworkPolicy",
        NAMESPACED | GENERATION,
        "netpol",
    ),
    ("networking.k8s.io", "ingresses", "Ingress", ALL, "ing"),
    (
        "networking.k8s.io",
        "ingressclasses",
        "IngressClass",
        GENERATION,
        "",
    ),
    ("storage.k8s.io", "storageclasses", "StorageClass", 0, "sc"),
    (
        "policy",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        ALL,
        "pdb",
    ),
    ("coordination.k8s.io", "leases", "Lease", NAMESPACED, ""),
    (
        "scheduling.k8s.io",
        "priorityclasses",
        "PriorityClass",
        GENERATION,
        "pc",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        GENERATION,
        "",
    ),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        GENERATION,
        "",
    ),
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        STATUS | GENERATION,
        "crd",
    ),
];

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| BUILT_IN.iter().map(built_in).collect());

fn built_in((group, plural, kind, has, short): &(&str, &str, &str, u8, &str)) -> Kind {
    Kind {
        group: (*group).to_owned(),
        version: "v1".to_owned(),
        plural: (*plural).to_owned(),
        singular: kind.to_lowercase(),
        kind: (*kind).to_owned(),
        short: short
            .split(' ')
            .filter(|s| !s.is_empty())
            .map(str::to_owned)
            .collect(),
        namespaced: has & NAMESPACED != 0,
        status: has & STATUS != 0,
        generation: has & GENERATION != 0,
        schema: None,
    }
}

/// All kinds that are served now.
pub(super) fn served(state: &State) -> impl Iterator<Item = &Kind> {
    KINDS.iter().chain(&state.defined)
}

/// The kind of these objects, as a path names it.
pub(super) fn by_plural(state: &State, group: &str, version: &str, plural: &str) -> Option<Kind> {
    let same = |k: &&Kind| k.group == group && k.version == version && k.plural == plural;
    served(state).find(same).cloned()
}

/// The kind of an object that says what it is.
pub(super) fn by_name(state: &State, api_version: &str, kind: &str) -> Option<Kind> {
    let same = |k: &&Kind| k.kind == kind && k.api_version() == api_version;
    served(state).find(same).cloned()
}

/// The groups, each with its versions; the first one is preferred.
fn groups(state: &State) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for kind in served(state).filter(|k| !k.group.is_empty()) {
        match groups.iter_mut().find(|(group, _)| *group == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version.clone()),
            None => groups.push((kind.group.clone(), vec![kind.version.clone()])),
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| definitions::rank(version));
    }
    groups
}

fn group((name, versions): (String, Vec<String>)) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{name}/{v}"), "version": v});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

/// `/apis`.
pub(super) fn group_list(state: &State) -> Value {
    let all: Vec<Value> = groups(state).into_iter().map(group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all})
}

/// `/apis/<group>`.
pub(super) fn one_group(state: &State, name: &str) -> Option<Value> {
    let found = groups(state).into_iter().find(|(group, _)| group == name)?;
    let mut found = group(found);
    found["kind"] = "APIGroup".into();
    found["apiVersion"] = "v1".into();
    Some(found)
}

/// `/apis/<group>/<version>` and `/api/v1`.
pub(super) fn resource_list(state: &State, group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<_> = served(state)
        .filter(|k| k.group == group && k.version == version)
        .collect();
    if kinds.is_empty() {
        return None;
    }
    let resources: Vec<Value> = kinds.iter().flat_map(|kind| kind.resources()).collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": api_version(group, version), "resources": resources,
    }))
}

/// Whether anything of this group and version is served.
pub(super) fn is_served(state: &State, group: &str, version: &str) -> bool {
    served(state).any(|k| k.group == group && k.version == version)
}
