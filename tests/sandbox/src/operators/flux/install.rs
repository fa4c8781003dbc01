//! A small stand-in for Flux' own `install.yaml`: the same names, labels, order of documents and shape, with
//! definitions that let every field pass and controllers that are played by [`super::controllers`].

use serde_json::{Value, json};

use super::render::{Scope, definition};

const NAMESPACE: &str = "flux-system";

/// What a release of Flux (`2.9.4`) publishes as `install.yaml`.
pub fn install_yaml(version: &str) -> String {
    let mut all = vec![namespace()];
    all.extend(definitions());
    all.push(network_policy());
    all.push(quota());
    for name in NAMES {
        all.push(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": name, "namespace": NAMESPACE },
        }));
    }
    all.push(binding());
    for (name, target) in [
        ("source-controller", "source-controller"),
        ("notification-controller", "notification-controller"),
        ("webhook-receiver", "notification-controller"),
    ] {
        all.push(service(name, target));
    }
    all.extend(NAMES.iter().map(|name| controller(name, version)));
    for object in &mut all {
        let labels = &mut object["metadata"]["labels"];
        labels["app.kubernetes.io/instance"] = NAMESPACE.into();
        labels["app.kubernetes.io/part-of"] = "flux".into();
        labels["app.kubernetes.io/version"] = format!("v{version}").into();
    }
    // JSON is YAML.
    let text = |object: &Value| format!("---\n{object:#}\n");
    all.iter().map(text).collect()
}

const NAMES: [&str; 4] = [
    "source-controller",
    "kustomize-controller",
    "helm-controller",
    "notification-controller",
];

fn namespace() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": NAMESPACE, "labels": { "pod-security.kubernetes.io/warn": "restricted" } },
    })
}

fn definitions() -> Vec<Value> {
    let of = |group: &str, kind: &str, plural: &str, version: &str| {
        let group = format!("{group}.toolkit.fluxcd.io");
        let mut found = definition(kind, plural, &group, &[version], Scope::Namespaced);
        // What no controller has seen says so.
        let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status";
        if let Some(status) = found.pointer_mut(status) {
            status["default"] = json!({ "observedGeneration": -1 });
        }
        found
    };
    vec![
        of("source", "Bucket", "buckets", "v1"),
        of("source", "ExternalArtifact", "externalartifacts", "v1"),
        of("source", "GitRepository", "gitrepositories", "v1"),
        of("source", "HelmChart", "helmcharts", "v1"),
        of("source", "HelmRepository", "helmrepositories", "v1"),
        of("source", "OCIRepository", "ocirepositories", "v1"),
        of("kustomize", "Kustomization", "kustomizations", "v1"),
        of("helm", "HelmRelease", "helmreleases", "v2"),
        of("notification", "Alert", "alerts", "v1beta3"),
        of("notification", "Provider", "providers", "v1beta3"),
        of("notification", "Receiver", "receivers", "v1"),
    ]
}

fn network_policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "allow-egress", "namespace": NAMESPACE },
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "egress": [{}], "ingress": [{ "from": [{ "podSelector": {} }] }],
        },
    })
}

fn quota() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": { "name": "critical-pods-flux-system", "namespace": NAMESPACE },
        "spec": {
            "hard": { "pods": "1000" },
            "scopeSelector": { "matchExpressions": [{
                "operator": "In", "scopeName": "PriorityClass",
                "values": ["system-node-critical", "system-cluster-critical"],
            }] },
        },
    })
}

fn binding() -> Value {
    let subject =
        |name: &str| json!({ "kind": "ServiceAccount", "name": name, "namespace": NAMESPACE });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": "cluster-reconciler-flux-system" },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin",
        },
        "subjects": [subject("kustomize-controller"), subject("helm-controller")],
    })
}

fn service(name: &str, target: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "type": "ClusterIP", "selector": { "app": target },
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": "http" }],
        },
    })
}

fn controller(name: &str, version: &str) -> Value {
    let mut args = vec![
        "--watch-all-namespaces=true",
        "--log-level=info",
        "--log-encoding=json",
        "--enable-leader-election",
    ];
    if name != "notification-controller" {
        args.insert(
            0,
            "--events-addr=http://notification-controller.flux-system.svc.cluster.local./",
        );
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "labels": { "app.kubernetes.io/component": name, "control-plane": "controller" },
        },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name, "app.kubernetes.io/component": name } },
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": name,
                    "terminationGracePeriodSeconds": 10,
                    "containers": [{
                        "name": "manager",
                        // A release numbers each controller by itself; nothing here reads that.
                        "image": format!("ghcr.io/fluxcd/{name}:v{version}"),
                        "imagePullPolicy": "IfNotPresent",
                        "args": args,
                        "ports": [{ "containerPort": 8080, "name": "http-prom", "protocol": "TCP" }],
                    }],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use worker::kube::Manifest;

    use super::*;

    #[test]
    fn the_stand_in_reads_as_the_real_one_does() {
        let manifest = Manifest::parse(&install_yaml("2.9.4"), "install.yaml").unwrap();
        assert_eq!(manifest.definitions().count(), 11);
        assert_eq!(manifest.foundation[0].to_string(), "Namespace flux-system");
        let all = manifest.foundation.iter().chain(&manifest.rest);
        for object in all {
            let labels = &object.body["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/version"], "v2.9.4", "{object}");
        }
        let deployments = manifest.rest.iter().filter(|o| o.kind == "Deployment");
        assert_eq!(deployments.count(), 4);
    }
}
