//! Data: what holds it, where it lies, and the database.

use serde_json::json;

use super::{HARBOR, PG_DB, PMM, VOLUME};
use crate::case::{Case, gone, set, values, without};

pub(super) fn data() -> Vec<Case> {
    const PRUNED: &str = "a line less in Git deletes it";
    let rollback = json!({ "remediation": { "retries": 3 } });
    vec![
        without(VOLUME, "/metadata/annotations", PRUNED),
        without(("Namespace", "slr"), "/metadata/annotations", PRUNED),
        without(PG_DB, "/metadata/annotations", PRUNED),
        without(PMM, "/metadata/annotations", PRUNED),
        without(
            ("HelmRelease", "redis-replication"),
            "/metadata/annotations",
            PRUNED,
        ),
        without(HARBOR, "/metadata/annotations", PRUNED),
        // A new release with a volume is seen by its values.
        set(
            ("HelmRelease", "monitoring"),
            "/spec/values/prometheus/storageClassName",
            json!("pmm-data"),
            PRUNED,
        ),
        set(
            PG_DB,
            "/spec/install",
            rollback.clone(),
            "a failed install takes it away",
        ),
        set(
            PG_DB,
            "/spec/upgrade",
            rollback,
            "a failed upgrade takes it away",
        ),
        set(
            VOLUME,
            "/spec/persistentVolumeReclaimPolicy",
            json!("Delete"),
            "goes with its claim",
        ),
        set(
            ("StorageClass", "pg-data"),
            "/reclaimPolicy",
            json!("Delete"),
            "goes with their claims",
        ),
        values(
            "pg-db-values",
            "postgresVersion: 17",
            "finalizers: [percona.com/delete-pvc]",
            "pg/pg-db",
            "a finalizer that deletes its claims",
        ),
        gone(
            "HelmRelease",
            "harbor",
            "HelmRelease harbor/harbor",
            "it is not in the tree",
        ),
    ]
}

pub(super) fn database() -> Vec<Case> {
    const VALUES: &str = "pg-db-values";
    vec![
        values(
            VALUES,
            "      storageClassName: pg-data",
            "      selector: {}\n      storageClassName: pg-data",
            VALUES,
            "unknown field `selector`",
        ),
        values(
            VALUES,
            "repo1-path: /pgbackrest/no-generation",
            "repo1-path: /pgbackrest/repo1",
            VALUES,
            "without a switch repo1 archives into",
        ),
        values(
            VALUES,
            "repo1-path: /pgbackrest/no-generation",
            "process-max: \"2\"",
            VALUES,
            "without a switch repo1 archives into",
        ),
        values(
            VALUES,
            "postgresVersion: 17",
            "dataSource: { pgbackrest: { stanza: db, configuration: [], repo: { name: repo1, s3: { bucket: b, endpoint: e, region: r } } } }",
            VALUES,
            "only a switch may",
        ),
    ]
}

pub(super) fn disks() -> Vec<Case> {
    const TERM: &str = "/spec/nodeAffinity/required/nodeSelectorTerms/0";
    const VALUES: &str =
        "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values";
    vec![
        set(
            VOLUME,
            "/spec/local/path",
            json!("/mnt/disks/vdb"),
            "mounts nothing at",
        ),
        set(
            VOLUME,
            "/spec/capacity/storage",
            json!("15Gi"),
            "do not fit a disk of 10 GB",
        ),
        set(
            VOLUME,
            "/spec/capacity/storage",
            json!("10G"),
            "do not fit a disk of 10 GB",
        ),
        set(
            VOLUME,
            "/spec/capacity/storage",
            json!("much"),
            "is no size",
        ),
        set(
            VOLUME,
            "/spec/storageClassName",
            json!("local-storage"),
            "nobody makes its class",
        ),
        set(VOLUME, VALUES, json!(["num4"]), "pick 0 nodes"),
        set(VOLUME, VALUES, json!(["num1", "num2"]), "pick 2 nodes"),
        set(VOLUME, TERM, json!({}), "pick 0 nodes"),
        set(VOLUME, VALUES, json!(["num2"]), "is the same disk").at("pg-2"),
        set(
            PMM,
            "/spec/values/nodeSelector",
            json!({ "pmminstance": "num2" }),
            "picks no node of the spec",
        ),
        values(
            "pg-db-values",
            "yesnaff",
            "yes",
            "pg/pg-db",
            "picks no node of the spec",
        ),
    ]
}
