//! What objects are, what they are called, and whom they name.

use serde_json::json;

use super::{BUCKET, HARBOR, PG_DB, PMM, SAMPLE_LAYER, SLR, VOLUME};
use crate::case::{Case, gone, more, set, values, without};

const ISSUERS: (&str, &str) = ("Kustomization", "issuers");
const PG_DB_LAYER: (&str, &str) = ("Kustomization", "pg-db");

pub(super) fn kinds_and_shapes() -> Vec<Case> {
    vec![
        set(
            BUCKET,
            "/apiVersion",
            json!("source.toolkit.fluxcd.io/v1beta2"),
            "nothing serves source.toolkit.fluxcd.io/v1beta2",
        ),
        set(
            PG_DB,
            "/apiVersion",
            json!("helm.toolkit.fluxcd.io/v2beta2"),
            "nothing serves",
        ),
        set(BUCKET, "/spec/bucket", json!("x"), "unknown field `bucket`"),
        set(
            PG_DB,
            "/spec/install/retries",
            json!(3),
            "unknown field `retries`",
        ),
        set(
            PG_DB_LAYER,
            "/spec/timeout",
            json!("2 minutes"),
            "no duration",
        ),
        set(
            PG_DB_LAYER,
            "/spec/deletionPolicy",
            json!("Keep"),
            "unknown variant `Keep`",
        ),
        without(ISSUERS, "/spec/prune", "missing field `prune`"),
    ]
}

pub(super) fn names() -> Vec<Case> {
    let volume = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "saleor-db-patch", "namespace": "slr" },
    });
    let stray = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "stray", "namespace": "other" },
    });
    vec![
        more(volume, "slr/saleor-db-patch", "it stands twice"),
        more(stray, "other/stray", "nobody makes namespace other"),
        gone(
            "Namespace",
            "pmm",
            "HelmRelease pmm/pmm",
            "nobody makes namespace pmm",
        ),
        set(
            SAMPLE_LAYER,
            "/spec/targetNamespace",
            json!("pgg"),
            "nobody makes namespace pgg",
        ),
        without(PG_DB, "/metadata/namespace", "it says no namespace"),
        set(
            VOLUME,
            "/metadata/namespace",
            json!("pg"),
            "belongs to no namespace",
        ),
    ]
}

pub(super) fn references() -> Vec<Case> {
    vec![
        gone(
            "Bucket",
            "secrets",
            "secrets-pg",
            "nobody makes Bucket flux-system/secrets",
        ),
        gone(
            "GitRepository",
            "flux-system",
            "slr/slr",
            "nobody makes GitRepository",
        ),
        gone(
            "HelmRepository",
            "harbor",
            "harbor/harbor",
            "nobody makes HelmRepository harbor/harbor",
        ),
        gone(
            "ConfigMap",
            "pg-db-values",
            "pg/pg-db",
            "nobody makes ConfigMap pg/pg-db-values",
        ),
        gone(
            "ConfigMap",
            "cluster-settings",
            "flux-system/infra",
            "nobody makes ConfigMap",
        ),
        gone(
            "ClusterIssuer",
            "letsencrypt-production",
            "tls-slr",
            "nobody makes ClusterIssuer",
        ),
        set(
            BUCKET,
            "/spec/secretRef/name",
            json!("s3"),
            "nobody makes Secret flux-system/s3",
        ),
        set(
            SAMPLE_LAYER,
            "/spec/decryption/secretRef/name",
            json!("age"),
            "nobody makes Secret flux-system/age",
        ),
        set(
            PG_DB,
            "/spec/valuesFrom/0/kind",
            json!("Secret"),
            "nobody makes Secret pg/pg-db-values",
        ),
        set(
            PG_DB_LAYER,
            "/spec/healthChecks/0/name",
            json!("pg"),
            "nobody makes HelmRelease pg/pg,",
        ),
        set(
            HARBOR,
            "/spec/values/core/secretName",
            json!("harbor-tls"),
            "nobody makes Secret harbor/harbor-tls",
        ),
        values(
            "pg-db-values",
            "slr-credentials",
            "slr-password",
            "Secret pg/slr-credentials",
            "no release names it",
        ),
        values(
            "slr-values",
            "slr-secrets",
            "saleor-secrets",
            "slr/slr",
            "nobody makes Secret slr/saleor-secrets",
        ),
    ]
}

pub(super) fn order() -> Vec<Case> {
    let operator = json!([{ "name": "pg-db" }]);
    let mutual = json!([{ "name": "pg-db", "namespace": "pg" }]);
    vec![
        gone(
            "Kustomization",
            "storage",
            "pg-db",
            "depends on flux-system/storage, which does not",
        ),
        set(
            PMM,
            "/spec/dependsOn",
            json!([{ "name": "pg" }]),
            "depends on pmm/pg, which does not",
        ),
        set(
            ("Kustomization", "pg-operator"),
            "/spec/dependsOn",
            operator,
            "it waits for itself",
        ),
        // Through both: a release that waits for one that is applied only when its own Kustomization is Ready.
        set(
            ("HelmRelease", "pg-operator"),
            "/spec/dependsOn",
            mutual,
            "it waits for itself",
        ),
        without(
            ISSUERS,
            "/spec/dependsOn",
            "does not wait for cert-manager/cert-manager",
        )
        .at("letsencrypt-staging"),
        without(
            ("Kustomization", "gateways"),
            "/spec/dependsOn",
            "does not wait for istio-system/istio-base",
        )
        .at("Gateway slr/slr"),
        set(
            PG_DB_LAYER,
            "/spec/dependsOn",
            json!([{ "name": "pg-operator" }, { "name": "storage" }]),
            "Kustomization pg-db does not wait for secrets-pg",
        )
        .at("pg/pg-db"),
        set(
            PG_DB_LAYER,
            "/spec/dependsOn",
            json!([{ "name": "pg-operator" }, { "name": "secrets-pg" }]),
            "Kustomization pg-db does not wait for storage",
        )
        .at("pg/pg-db"),
        set(
            ("Kustomization", "istio"),
            "/spec/wait",
            json!(false),
            "its Ready only means applied",
        ),
        without(PG_DB_LAYER, "/spec/timeout", "it has no timeout"),
        without(
            PG_DB_LAYER,
            "/spec/retryInterval",
            "it waits for the whole interval",
        ),
    ]
}

pub(super) fn variables() -> Vec<Case> {
    vec![
        set(
            BUCKET,
            "/spec/region",
            json!("${REGION}"),
            "nobody defines ${REGION}",
        ),
        set(
            BUCKET,
            "/spec/region",
            json!("${S3_REGION:-x}"),
            "something like a variable",
        ),
        set(
            BUCKET,
            "/spec/region",
            json!("${"),
            "something like a variable",
        ),
        set(
            SLR,
            "/spec/releaseName",
            json!("${DOMAIN}"),
            "its Kustomization substitutes none",
        ),
        without(ISSUERS, "/spec/postBuild", "substitutes none").at("letsencrypt-staging"),
        // What may be absent defines nothing.
        set(
            ("Kustomization", "gateways"),
            "/spec/postBuild/substituteFrom/0/optional",
            json!(true),
            "nobody defines ${DOMAIN}",
        )
        .at("Gateway slr/slr"),
        without(
            ("ConfigMap", "cluster-settings"),
            "/data/REGISTRY_BUCKET",
            "nobody defines ${REGISTRY_BUCKET}",
        )
        .at("harbor/harbor"),
    ]
}
