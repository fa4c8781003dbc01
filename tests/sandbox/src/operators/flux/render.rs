//! The shapes that charts have in common.

use serde_json::{Value, json};

use super::charts::Release;

/// A definition of a kind that lets every field pass. `versions` begins with the one that is stored.
pub(super) fn definition(
    kind: &str,
    plural: &str,
    group: &str,
    versions: &[&str],
    of: Scope,
) -> Value {
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let versions = versions.iter().enumerate().map(|(at, version)| {
        json!({
            "name": version, "served": true, "storage": at == 0,
            "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": open, "status": open },
                "x-kubernetes-preserve-unknown-fields": true,
            } },
        })
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "names": {
                "kind": kind, "listKind": format!("{kind}List"),
                "plural": plural, "singular": kind.to_lowercase(),
            },
            "scope": match of { Scope::Namespaced => "Namespaced", Scope::Cluster => "Cluster" },
            "versions": versions.collect::<Vec<_>>(),
        },
    })
}

/// What objects of a kind belong to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope {
    Namespaced,
    Cluster,
}

/// A Deployment of one container.
pub(super) fn deployment(release: &Release<'_>, name: &str, image: &str, replicas: i64) -> Value {
    workload(release, "Deployment", name, image, replicas)
}

/// A StatefulSet of one container.
pub(super) fn stateful_set(release: &Release<'_>, name: &str, image: &str, replicas: i64) -> Value {
    let mut set = workload(release, "StatefulSet", name, image, replicas);
    set["spec"]["serviceName"] = name.into();
    set
}

fn workload(release: &Release<'_>, kind: &str, name: &str, image: &str, replicas: i64) -> Value {
    let labels =
        json!({ "app.kubernetes.io/instance": release.name, "app.kubernetes.io/name": name });
    let container = name.rsplit('/').next().unwrap_or(name);
    json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": { "name": name, "namespace": release.namespace, "labels": labels },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": container, "image": image }] },
            },
        },
    })
}

/// A Service of one port.
pub(super) fn service(release: &Release<'_>, name: &str, port: i64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": release.namespace },
        "spec": {
            "selector": { "app.kubernetes.io/instance": release.name },
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
        },
    })
}
