//! One thing wrong at a time: what each check is for.

use serde_json::json;

use crate::case::{Case, gone, more, set, values, without};

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let groups = [
        kinds_and_shapes(),
        names(),
        references(),
        order(),
        variables(),
        releases(),
        gates(),
        data(),
        database(),
        disks(),
        secrets(),
        web(),
    ];
    groups.into_iter().flatten().collect()
}

const BUCKET: (&str, &str) = ("Bucket", "secrets");
const ISSUERS: (&str, &str) = ("Kustomization", "issuers");
const PG_DB_LAYER: (&str, &str) = ("Kustomization", "pg-db");
const SAMPLE_LAYER: (&str, &str) = ("Kustomization", "secrets-pg");
const PG_DB: (&str, &str) = ("HelmRelease", "pg-db");
const SLR: (&str, &str) = ("HelmRelease", "slr");
const DSF: (&str, &str) = ("HelmRelease", "dsf");
const HARBOR: (&str, &str) = ("HelmRelease", "harbor");
const PMM: (&str, &str) = ("HelmRelease", "pmm");
const VOLUME: (&str, &str) = ("PersistentVolume", "pg-1");

fn kinds_and_shapes() -> Vec<Case> {
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

fn names() -> Vec<Case> {
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

fn references() -> Vec<Case> {
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

fn order() -> Vec<Case> {
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

fn variables() -> Vec<Case> {
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

fn releases() -> Vec<Case> {
    vec![
        set(
            PMM,
            "/spec/chart/spec/version",
            json!("1.4.x"),
            "version is not exact",
        ),
        set(
            PMM,
            "/spec/chart/spec/version",
            json!(">=1.4.9"),
            "version is not exact",
        ),
        without(PMM, "/spec/chart/spec/version", "version is not exact"),
        without(DSF, "/spec/timeout", "it has no timeout"),
        without(DSF, "/spec/upgrade", "a failed upgrade has no remedy"),
        set(
            DSF,
            "/spec/upgrade/remediation/retries",
            json!(0),
            "a failed upgrade has no remedy",
        ),
        without(DSF, "/spec/install", "a failed install has no remedy"),
        set(
            SLR,
            "/spec/chart/spec/version",
            json!("0.1.9"),
            "its chart's version is 0.2.0, not 0.1.9",
        ),
        set(
            SLR,
            "/spec/chart/spec/chart",
            json!("./fluxcd/charts/saleor"),
            "there is no chart in",
        ),
        set(
            ("HelmRepository", "istio"),
            "/spec/url",
            json!("http://charts.example.org"),
            "not read over TLS",
        ),
        values("slr-values", "api:", "api: [", "slr/slr", "are no YAML"),
    ]
}

fn gates() -> Vec<Case> {
    vec![
        set(
            PG_DB,
            "/spec/valuesFrom/1/optional",
            json!(true),
            "installed also without its switch",
        ),
        set(
            SLR,
            "/spec/valuesFrom/1/optional",
            json!(true),
            "installed also without its switch",
        ),
        set(
            DSF,
            "/spec/valuesFrom/1/optional",
            json!(true),
            "installed also without its switch",
        ),
        set(
            PG_DB,
            "/spec/valuesFrom/1/valuesKey",
            json!("values.yaml"),
            "by another key",
        ),
        set(
            PG_DB,
            "/spec/values",
            json!({ "pause": false }),
            "which win over its switch",
        ),
        set(
            PG_DB,
            "/spec/valuesFrom",
            json!([
                { "kind": "ConfigMap", "name": "pg-db-values-switch", "valuesKey": "values-switch.yaml" },
                { "kind": "ConfigMap", "name": "pg-db-values" },
            ]),
            "not the last of its values",
        ),
        gone(
            "HelmRelease",
            "dsf",
            "HelmRelease dsf/dsf",
            "it is not in the tree",
        ),
    ]
}

fn data() -> Vec<Case> {
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

fn database() -> Vec<Case> {
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

fn disks() -> Vec<Case> {
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

fn secrets() -> Vec<Case> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "gp", "namespace": "monitoring" },
        "data": { "admin-password": "YWRtaW4=" },
    });
    vec![
        set(
            SAMPLE_LAYER,
            "/spec/path",
            json!("./test/pmm"),
            "the secrets of pg are in ./test/pg",
        ),
        without(SAMPLE_LAYER, "/spec/decryption", "as they are encrypted"),
        set(
            BUCKET,
            "/spec/prefix",
            json!(""),
            "it reads more than test/",
        ),
        gone(
            "Kustomization",
            "secrets-pg",
            "Secret pg/slr-credentials",
            "nothing decrypts it",
        ),
        more(secret, "monitoring/gp", "it is a secret in Git"),
        set(
            HARBOR,
            "/spec/values/secretKey",
            json!("not-a-secure-key"),
            "secretKey is a secret",
        ),
        set(
            HARBOR,
            "/spec/values/registry/credentials/password",
            json!("harbor_registry_password"),
            "password is a secret in Git",
        ),
        values(
            "pg-db-values",
            "postgresVersion: 17",
            "password: hunter2",
            "pg/pg-db",
            "password is a secret in Git",
        ),
    ]
}

fn web() -> Vec<Case> {
    const GATEWAY: (&str, &str) = ("Gateway", "slr");
    const INGRESS: (&str, &str) = ("HelmRelease", "istio-ingressgateway");
    vec![
        set(
            GATEWAY,
            "/spec/servers/1/tls/credentialName",
            json!("tls-shop"),
            "no Certificate writes tls-shop",
        ),
        set(
            GATEWAY,
            "/spec/servers/1/hosts",
            json!(["shop.${DOMAIN}"]),
            "tls-slr is not for shop.${DOMAIN}",
        ),
        gone(
            "Certificate",
            "tls-slr",
            "Gateway slr/slr",
            "no Certificate writes tls-slr",
        ),
        set(
            ("VirtualService", "slr"),
            "/spec/gateways/0",
            json!("shop"),
            "there is no Gateway slr/shop",
        ),
        set(
            INGRESS,
            "/spec/values/service/ports/1/nodePort",
            json!(30081),
            "nothing listens on 30080",
        ),
        set(
            INGRESS,
            "/spec/values/service/ports/1/port",
            json!(8080),
            "30080 leads to http2, not 80",
        ),
        set(
            INGRESS,
            "/spec/values/nodeSelector",
            json!({ "slrnode": "yesnaff" }),
            "test-web-1 sends 80 there, and no pod of it runs on that node",
        ),
        gone(
            "HelmRelease",
            "istio-ingressgateway",
            "HelmRelease istio-system/istio-ingressgateway",
            "it is not in the tree",
        ),
    ]
}
