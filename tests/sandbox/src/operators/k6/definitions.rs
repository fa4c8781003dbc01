//! What k6-operator's release installs.

use serde_json::{Map, Value, json};

use super::NAMESPACE;
use crate::operators::percona::definitions::definition;

/// The definitions of `TestRun` and `PrivateLoadZone`. The schema of a TestRun names the fields that the operator has;
/// what it takes over from Pods is not looked into.
pub(super) fn definitions() -> Vec<Value> {
    let text = || json!({ "type": "string" });
    let zone = json!({ "type": "object", "required": ["resources", "token"],
        "properties": { "image": text(), "serviceAccountName": text(), "token": text(), "resources": any() } });
    vec![
        definition("k6.io", "v1alpha1", "PrivateLoadZone", "plz", &zone),
        with_status(definition("k6.io", "v1alpha1", "TestRun", "tr", &test_run())),
    ]
}

fn any() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn test_run() -> Value {
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": text(), "x-kubernetes-list-type": "atomic" });
    let list = || json!({ "type": "array", "items": any() });
    json!({ "type": "object", "required": ["parallelism", "script"], "properties": {
        "script": { "type": "object", "properties": {
            "configMap": { "type": "object", "required": ["name"], "properties": { "name": text(), "file": text() } },
            "volumeClaim": { "type": "object", "required": ["name"],
                "properties": { "name": text(), "file": text(), "readOnly": { "type": "boolean" } } },
            "localFile": text(),
        } },
        "parallelism": { "type": "integer", "format": "int32" },
        "separate": { "type": "boolean" },
        "arguments": text(),
        "args": texts(),
        "ports": list(),
        "initializer": pod(),
        "starter": pod(),
        "runner": pod(),
        "quiet": { "type": "string", "default": "true" },
        "paused": { "type": "string", "default": "true" },
        "scuttle": any(),
        "cleanup": { "type": "string", "enum": ["post"] },
        "testRunId": text(),
        "token": text(),
    } })
}

/// The block that describes a Pod.
fn pod() -> Value {
    let mut properties: Map<String, Value> = Map::new();
    let mut put = |names: &[&str], schema: Value| {
        let all = names.iter().map(|name| ((*name).to_owned(), schema.clone()));
        properties.extend(all);
    };
    let text = || json!({ "type": "string" });
    // Really a text: "true" or "false".
    put(&["automountServiceAccountToken"], text());
    put(
        &[
            "image",
            "imagePullPolicy",
            "serviceAccountName",
            "priorityClassName",
            "schedulerName",
        ],
        text(),
    );
    let list = json!({ "type": "array", "items": any() });
    put(
        &[
            "env",
            "envFrom",
            "imagePullSecrets",
            "tolerations",
            "topologySpreadConstraints",
            "initContainers",
            "volumes",
            "volumeMounts",
        ],
        list,
    );
    put(
        &[
            "affinity",
            "resources",
            "securityContext",
            "containerSecurityContext",
            "readinessProbe",
            "livenessProbe",
        ],
        any(),
    );
    let texts = json!({ "type": "object", "additionalProperties": text() });
    put(&["nodeSelector"], texts.clone());
    put(
        &["metadata"],
        json!({ "type": "object", "properties": { "labels": texts, "annotations": texts } }),
    );
    put(
        &["disabled"],
        json!({ "type": "boolean", "default": false }),
    );
    json!({ "type": "object", "properties": properties })
}

fn with_status(mut definition: Value) -> Value {
    let stages = [
        "initialization",
        "initialized",
        "created",
        "started",
        "stopped",
        "finished",
        "error",
    ];
    let conditions = json!({ "type": "array", "items": any(), "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"] });
    let version = &mut definition["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"]["properties"]["status"] = json!({ "type": "object",
        "properties": {
            "stage": { "type": "string", "enum": stages }, "conditions": conditions,
            "testRunId": { "type": "string" }, "aggregationVars": { "type": "string" },
        } });
    definition
}

/// The objects of `bundle.yaml` in their order.
pub(super) fn objects(version: &str) -> Vec<Value> {
    let labels = json!({ "app.kubernetes.io/managed-by": "kustomize", "app.kubernetes.io/name": "k6-operator" });
    let meta = |name: &str| json!({ "name": name, "namespace": NAMESPACE, "labels": labels });
    let cluster_wide = |name: &str| json!({ "name": name });
    let account = "k6-operator-controller";
    let subjects =
        json!([{ "kind": "ServiceAccount", "name": account, "namespace": NAMESPACE }]);
    let rbac = "rbac.authorization.k8s.io";
    let binding = |kind: &str, metadata: Value, role: &str, name: &str| {
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": kind, "metadata": metadata, "subjects": subjects,
            "roleRef": { "apiGroup": rbac, "kind": role, "name": name } })
    };
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| {
        json!({ "apiGroups": groups, "resources": resources, "verbs": verbs })
    };
    let reads = ["get", "list", "watch"];
    let writes = [
        "create", "delete", "get", "list", "patch", "update", "watch",
    ];
    let (leader, manager) = ("k6-operator-leader-election-role", "k6-operator-manager-role");
    let mut own = labels.clone();
    own["control-plane"] = "controller-manager".into();
    let pods = json!({ "control-plane": "controller-manager" });
    let image = format!("ghcr.io/grafana/k6-operator:controller-v{}", previous(version));

    let mut all = vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE, "labels": own } }),
    ];
    all.extend(definitions());
    all.extend([
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(account) }),
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": meta(leader), "rules": [
            rule(&[""], &["configmaps"], &writes), rule(&["coordination.k8s.io"], &["leases"], &writes),
            rule(&[""], &["events"], &["create", "patch"]),
        ] }),
        json!({ "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": cluster_wide(manager), "rules": [
            rule(&[""], &["pods", "pods/log", "secrets"], &reads), rule(&[""], &["services"], &writes),
            rule(&["apps"], &["deployments"], &writes), rule(&["batch"], &["jobs"], &writes),
            rule(&["k6.io"], &["privateloadzones", "testruns"], &writes),
            rule(&["k6.io"], &["testruns/finalizers", "testruns/status"], &["get", "patch", "update"]),
        ] }),
        binding("RoleBinding", meta("k6-operator-leader-election-rolebinding"), "Role", leader),
        binding("ClusterRoleBinding", cluster_wide("k6-operator-manager-rolebinding"), "ClusterRole", manager),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta("k6-operator-controller-manager-metrics-service"),
            "spec": { "selector": pods, "ports": [{ "name": "https", "port": 8443, "protocol": "TCP", "targetPort": 8443 }] } }),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(super::DEPLOYMENT), "spec": {
            "replicas": 1, "selector": { "matchLabels": pods },
            "template": { "metadata": { "labels": pods }, "spec": {
                "serviceAccountName": account, "terminationGracePeriodSeconds": 10,
                "securityContext": { "runAsNonRoot": true },
                "containers": [{ "name": "manager", "image": image, "command": ["/manager"],
                    "args": ["--metrics-bind-address=:8080", "--leader-elect", "--health-probe-bind-address=:8081"],
                    "resources": { "limits": { "cpu": "100m", "memory": "100Mi" },
                        "requests": { "cpu": "100m", "memory": "50Mi" } },
                    "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
            } } } }),
    ]);
    all
}

/// The version before: releases were tagged before their images were built.
fn previous(version: &str) -> String {
    let parts: Vec<u64> = version
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect();
    match parts.as_slice() {
        [major, minor, patch] if *patch > 0 => format!("{major}.{minor}.{}", patch - 1),
        [major, minor, _] if *minor > 0 => format!("{major}.{}.0", minor - 1),
        _ => "0.0.23".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_names_the_image_of_the_version_before() {
        for (version, expected) in [
            ("1.6.0", "1.5.0"),
            ("1.2.3", "1.2.2"),
            ("1.0.0", "0.0.23"),
            ("latest", "0.0.23"),
        ] {
            assert_eq!(previous(version), expected);
        }
    }
}
