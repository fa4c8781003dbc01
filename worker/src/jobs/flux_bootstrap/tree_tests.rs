//! The conditions' texts are those of kustomize-controller 1.7 and helm-controller 1.4.

use serde_json::json;

use super::*;

const REVISION: &str = "main@sha1:0a1b2c";

fn object(kind: &str, at: &str, spec: Value, reason: &str, message: &str) -> Value {
    let (namespace, name) = at.split_once('/').expect("namespace/name");
    let good = matches!(
        reason,
        "ReconciliationSucceeded" | "InstallSucceeded" | "Succeeded"
    );
    let status = match (good, reason) {
        (true, _) => "True",
        (_, "Progressing") => "Unknown",
        _ => "False",
    };
    // What did not go well keeps the generation of its last success in its status, or none.
    json!({"kind": kind, "metadata": {"namespace": namespace, "name": name, "generation": 1}, "spec": spec,
        "status": {"observedGeneration": if good { 1 } else { -1 }, "lastAppliedRevision": REVISION, "conditions": [
            {"type": "Ready", "status": status, "reason": reason, "message": message, "observedGeneration": 1}]}})
}

fn kustomization(name: &str, spec: Value, reason: &str, message: &str) -> Value {
    object(
        "Kustomization",
        &format!("flux-system/{name}"),
        spec,
        reason,
        message,
    )
}

fn after(names: &[&str]) -> Value {
    let names: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    json!({ "dependsOn": names })
}

fn done(name: &str) -> Value {
    kustomization(
        name,
        json!({}),
        "ReconciliationSucceeded",
        "Applied revision",
    )
}

fn not_ready(of: &str) -> String {
    format!("dependency 'flux-system/{of}' is not ready")
}

fn release(at: &str, switch: &str, reason: &str, message: &str) -> Value {
    let values = json!({"valuesFrom": [{"kind": "ConfigMap", "name": "values"},
        {"kind": "ConfigMap", "name": switch, "valuesKey": "values-switch.yaml"}]});
    object("HelmRelease", at, values, reason, message)
}

fn no_switch(at: &str) -> String {
    let name = at.split_once('/').expect("namespace/name").1;
    format!(
        "could not resolve ConfigMap chart values reference '{at}' with key 'values-switch.yaml': configmaps \"{name}\" not found"
    )
}

fn with_database() -> Value {
    json!({"healthChecks": [
        {"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "name": "pg-db", "namespace": "pg"},
        {"apiVersion": "pgv2.percona.com/v2", "kind": "PerconaPGCluster", "name": "pg-db", "namespace": "pg"}]})
}

fn of_spec() -> Switches {
    let own = |(namespace, name): (&str, &str)| (namespace.to_owned(), name.to_owned());
    [
        ("pg", "pg-db-values-switch"),
        ("slr", "slr-values-switch"),
        ("dsf", "dsf-values-switch"),
    ]
    .map(own)
    .into()
}

fn names(of: &BTreeMap<String, String>) -> Vec<&str> {
    of.keys().map(String::as_str).collect()
}

/// The tree of `fluxcd/test` on a new cluster.
fn new_cluster(unhealthy: &str) -> Vec<Value> {
    let timeout = "health check failed after 2m0s: timeout waiting for: [HelmRelease/pg/pg-db status: 'InProgress', PerconaPGCluster/pg/pg-db status: 'NotFound']";
    vec![
        object(
            "GitRepository",
            "flux-system/flux-system",
            json!({}),
            "Succeeded",
            "stored artifact",
        ),
        done("infra"),
        done("storage"),
        kustomization("pg-db", with_database(), unhealthy, timeout),
        release(
            "pg/pg-db",
            "pg-db-values-switch",
            "ValuesError",
            &no_switch("pg/pg-db-values-switch"),
        ),
        kustomization(
            "harbor",
            after(&["pg-db", "storage"]),
            "DependencyNotReady",
            &not_ready("pg-db"),
        ),
        kustomization(
            "saleor",
            after(&["pg-db"]),
            "DependencyNotReady",
            &not_ready("pg-db"),
        ),
        kustomization(
            "storefront",
            after(&["harbor", "saleor"]),
            "DependencyNotReady",
            &not_ready("harbor"),
        ),
    ]
}

#[test]
fn what_waits_for_a_switch_waits_with_all_that_waits_for_it() {
    for unhealthy in ["HealthCheckFailed", "Progressing", "HealthCheckCanceled"] {
        let standing = judge(&new_cluster(unhealthy), &of_spec());
        assert_eq!(
            names(&standing.waiting),
            [
                "HelmRelease pg/pg-db",
                "Kustomization flux-system/harbor",
                "Kustomization flux-system/pg-db",
                "Kustomization flux-system/saleor",
                "Kustomization flux-system/storefront",
            ]
        );
        assert_eq!(
            standing.waiting["HelmRelease pg/pg-db"],
            "waits for ConfigMap pg/pg-db-values-switch"
        );
        assert_eq!(
            standing.waiting["Kustomization flux-system/storefront"],
            "waits for Kustomization flux-system/harbor"
        );
        assert_eq!(standing.ready["Kustomization flux-system/infra"], REVISION);
        assert!(
            standing.not_yet.is_empty() && standing.stuck.is_empty(),
            "{standing:?}"
        );
    }
}

#[test]
fn without_the_switch_in_the_spec_nothing_of_it_waits() {
    let standing = judge(&new_cluster("HealthCheckFailed"), &Switches::new());
    assert!(standing.waiting.is_empty(), "{standing:?}");
    assert_eq!(standing.not_yet.len(), 5, "{standing:?}");
    let text = &standing.not_yet["HelmRelease pg/pg-db"];
    assert!(
        text.contains("ValuesError: could not resolve ConfigMap"),
        "{text}"
    );
}

#[test]
fn another_error_of_a_gated_release_is_no_waiting() {
    for (reason, message) in [
        ("ValuesError", no_switch("pg/values")),
        ("InstallFailed", "Helm install failed: no".to_owned()),
        ("ArtifactFailed", "chart pull error".to_owned()),
    ] {
        let mut tree = new_cluster("HealthCheckFailed");
        tree[4] = release("pg/pg-db", "pg-db-values-switch", reason, &message);
        let standing = judge(&tree, &of_spec());
        assert!(standing.waiting.is_empty(), "{standing:?}");
    }
    // And an error of the Kustomization itself is none either.
    for reason in [
        "BuildFailed",
        "ReconciliationFailed",
        "ArtifactFailed",
        "PruneFailed",
    ] {
        let mut tree = new_cluster("HealthCheckFailed");
        tree[3] = kustomization("pg-db", with_database(), reason, "no");
        let standing = judge(&tree, &of_spec());
        assert_eq!(
            names(&standing.waiting),
            ["HelmRelease pg/pg-db"],
            "{reason}"
        );
    }
}

#[test]
fn a_database_that_is_being_restored_is_waited_for_by_somebody_else() {
    let mut tree = new_cluster("HealthCheckFailed");
    tree[4] = release(
        "pg/pg-db",
        "pg-db-values-switch",
        "InstallSucceeded",
        "installed",
    );
    let standing = judge(&tree, &of_spec());
    assert_eq!(standing.waiting.len(), 4, "{standing:?}");
    assert!(standing.ready.contains_key("HelmRelease pg/pg-db"));
}

#[test]
fn a_release_that_was_applied_with_wait_is_known_by_the_inventory() {
    let mut saleor = kustomization(
        "saleor",
        json!({"wait": true}),
        "HealthCheckFailed",
        "timeout",
    );
    saleor["status"]["inventory"] = json!({"entries": [
        {"id": "slr_slr-values_HelmRelease_ConfigMap", "v": "v1"},
        {"id": "slr_slr_helm.toolkit.fluxcd.io_HelmRelease", "v": "v2"}]});
    let slr = release(
        "slr/slr",
        "slr-values-switch",
        "ValuesError",
        &no_switch("slr/slr-values-switch"),
    );
    let standing = judge(&[saleor.clone(), slr.clone()], &of_spec());
    assert_eq!(standing.waiting.len(), 2, "{standing:?}");
    // Without `wait` it is no reason to be unhealthy.
    saleor["spec"]["wait"] = json!(false);
    let standing = judge(&[saleor, slr], &of_spec());
    assert_eq!(
        names(&standing.not_yet),
        ["Kustomization flux-system/saleor"]
    );
}

#[test]
fn releases_wait_for_releases() {
    let mut dsf = release(
        "dsf/dsf",
        "none",
        "DependencyNotReady",
        "dependency 'pg/pg-db' is not ready",
    );
    dsf["spec"]["dependsOn"] = json!([{"name": "pg-db", "namespace": "pg"}]);
    let mut tree = new_cluster("HealthCheckFailed");
    tree.push(dsf.clone());
    let standing = judge(&tree, &of_spec());
    assert_eq!(
        standing.waiting["HelmRelease dsf/dsf"],
        "waits for HelmRelease pg/pg-db"
    );
    // One that does not exist is not waiting.
    let standing = judge(&[dsf], &of_spec());
    assert_eq!(names(&standing.not_yet), ["HelmRelease dsf/dsf"]);
}

#[test]
fn what_is_about_an_older_generation_says_nothing() {
    let mut tree = new_cluster("HealthCheckFailed");
    tree[4]["metadata"]["generation"] = json!(2);
    let standing = judge(&tree, &of_spec());
    assert!(standing.waiting.is_empty(), "{standing:?}");
    assert!(standing.not_yet.contains_key("HelmRelease pg/pg-db"));
}

#[test]
fn what_is_stalled_or_suspended_is_stuck_whatever_it_waits_for() {
    let mut tree = new_cluster("HealthCheckFailed");
    tree[4]["spec"]["suspend"] = json!(true);
    let standing = judge(&tree, &of_spec());
    assert_eq!(standing.stuck["HelmRelease pg/pg-db"], "it is suspended");
    assert!(
        standing
            .not_yet
            .contains_key("Kustomization flux-system/pg-db"),
        "{standing:?}"
    );

    let mut redis = release("ot/redis", "none", "InstallFailed", "no");
    redis["status"]["observedGeneration"] = json!(1);
    redis["status"]["conditions"].as_array_mut().expect("a list").push(json!(
        {"type": "Stalled", "status": "True", "reason": "RetriesExhausted", "message": "Failed to install after 3 attempt(s)"}));
    let standing = judge(&[redis], &of_spec());
    assert_eq!(
        standing.stuck["HelmRelease ot/redis"],
        "it is stalled: RetriesExhausted: Failed to install after 3 attempt(s); Ready is False: InstallFailed: no"
    );
}

#[test]
fn a_source_with_wrong_credentials_is_stuck_and_one_that_is_away_is_not() {
    let git = |message: &str| {
        object(
            "GitRepository",
            "flux-system/flux-system",
            json!({}),
            "GitOperationFailed",
            message,
        )
    };
    let denied = "failed to checkout and determine revision: unable to clone 'https://git.example.org/a': authentication required: Unauthorized";
    let Look::Stuck(text) = of_source(&git(denied)) else {
        panic!("not stuck");
    };
    assert!(
        text.contains("GitOperationFailed: failed to checkout"),
        "{text}"
    );
    let away = git("failed to checkout and determine revision: dial tcp: i/o timeout");
    assert!(matches!(of_source(&away), Look::NotYet(_)));
    // What it said before it was given another Secret.
    let mut old = git(denied);
    old["metadata"]["generation"] = json!(2);
    assert!(matches!(of_source(&old), Look::NotYet(_)));
    let oci =
        json!({"kind": "HelmRepository", "metadata": {"generation": 1}, "spec": {"type": "oci"}});
    assert_eq!(of_source(&oci), Look::Ready);
    let plain = json!({"kind": "HelmRepository", "metadata": {"generation": 1}, "spec": {}});
    assert!(matches!(of_source(&plain), Look::NotYet(_)));
}

#[test]
fn the_switches_are_those_of_the_database_and_of_the_applications() {
    let text = include_str!("../../../../deploy/examples/cluster.yaml");
    let mut spec = ClusterSpec::parse(text).expect("valid");
    assert!(switches(&spec).is_empty());
    let application = json!({"name": "slr", "namespace": "slr", "release": "slr", "switch": "slr-values-switch",
        "frozen": {"a": 1}});
    spec.applications = vec![serde_json::from_value(application).expect("valid")];
    assert_eq!(
        switches(&spec),
        Switches::from([("slr".to_owned(), "slr-values-switch".to_owned())])
    );
}
