//! Who may see what: secrets, names on the web.

use serde_json::json;

use super::{BUCKET, HARBOR, SAMPLE_LAYER};
use crate::case::{Case, gone, more, set, values, without};

pub(super) fn secrets() -> Vec<Case> {
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

pub(super) fn web() -> Vec<Case> {
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
