//! Flux' operators on a real API server, with the real tree.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod builds;
mod failures;
mod releases;
mod world;

use serde_json::json;

use self::world::{World, is_ready, ready};

/// What `flux/README.md` says becomes Ready by itself.
const BY_THEMSELVES: [&str; 18] = [
    "flux-system",
    "infra",
    "secrets-dsf",
    "secrets-harbor",
    "secrets-monitoring",
    "secrets-pg",
    "secrets-pmm",
    "secrets-slr",
    "storage",
    "pg-operator",
    "redis",
    "pmm",
    "istio",
    "gateways",
    "cert-manager",
    "issuers",
    "certificates",
    "monitoring",
];

const LATER: [&str; 4] = ["pg-db", "harbor", "saleor", "storefront"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_the_tree_becomes_ready_as_its_readme_says_and_waits_for_its_switches() {
    let world = World::start().await;
    world.bootstrap().await;
    for name in BY_THEMSELVES {
        let found = world
            .kustomization_is(name, "ReconciliationSucceeded")
            .await;
        assert!(is_ready(&found), "{name}");
    }

    // Nothing of the database without its switch, and nothing of what comes after it.
    let release = world.release_is("pg", "pg-db", "ValuesError").await;
    assert_eq!(
        ready(&release).2,
        "could not resolve ConfigMap chart values reference 'pg/pg-db-values-switch' with key 'values-switch.yaml': configmaps \"pg-db-values-switch\" not found"
    );
    assert_eq!(
        world
            .get("pgv2.percona.com/v2", "PerconaPGCluster", "pg", "pg-db")
            .await,
        None
    );
    for name in ["harbor", "saleor", "storefront"] {
        let found = world.kustomization_is(name, "DependencyNotReady").await;
        assert_eq!(found["status"]["inventory"], json!(null), "{name}");
    }

    // Each switch lets its release go on; the database's Kustomization waits until the database says so.
    let normal =
        json!({"backups": {"pgbackrest": {"global": {"repo1-path": "/pgbackrest/test/2"}}}});
    world.switch("pg", "pg-db-values-switch", &normal).await;
    world.switch("slr", "slr-values-switch", &json!({})).await;
    let frozen = json!({"storefront": {"enabled": false}});
    world.switch("dsf", "dsf-values-switch", &frozen).await;
    let release = world.release_is("pg", "pg-db", "InstallSucceeded").await;
    assert!(is_ready(&release));
    let kind = ["pgv2.percona.com/v2", "PerconaPGCluster", "pg", "pg-db"];
    let database = world.until(kind, |_| true).await;
    let spec = &database["spec"];
    assert_eq!(
        spec["backups"]["pgbackrest"]["global"]["repo1-path"],
        "/pgbackrest/test/2"
    );
    assert_eq!(
        spec["backups"]["pgbackrest"]["repos"][0]["s3"]["bucket"],
        "rekindle-backups"
    );
    world.kustomization_is("pg-db", "HealthCheckFailed").await;
    world.kustomization_is("saleor", "DependencyNotReady").await;

    let ready_now = json!({"state": "ready"});
    world
        .cluster
        .set_status("test", &database, &ready_now)
        .await
        .unwrap();
    for name in LATER {
        let found = world
            .kustomization_is(name, "ReconciliationSucceeded")
            .await;
        assert!(is_ready(&found), "{name}");
    }
    let deployment = ["apps/v1", "Deployment", "slr", "slr-api"];
    let api = world
        .until(deployment, |found| {
            found["status"]["availableReplicas"] == 12
        })
        .await;
    assert_eq!(
        api["spec"]["template"]["spec"]["containers"][0]["image"],
        "ghcr.io/saleor/saleor:3.22.17"
    );
    assert_eq!(world.get("apps/v1", "Deployment", "dsf", "dsf").await, None);
    world.stop().await;
}
