//! The cert-manager of the sandbox on a real API server.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use sandbox::ca::Ca;
use sandbox::kube_api::KubeApi;
use sandbox::operators::cert_manager::{CertManager, Fault, Faults};
use sandbox::operators::{Cluster, Operators, Pace};
use serde_json::{Value, json};
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;
use x509_parser::prelude::{FromDer, X509Certificate};

const DEADLINE: Duration = Duration::from_secs(60);
const API: &str = "cert-manager.io/v1";
const ACME: &str = "acme.cert-manager.io/v1";
const SPACE: &str = "istio-system";

struct Lab {
    api: KubeApi,
    cluster: Cluster,
    faults: Faults,
    operators: Operators,
    ca: String,
}

impl Lab {
    async fn start() -> Self {
        worker::install_crypto();
        let api = KubeApi::start().await.unwrap();
        let config = Kubeconfig::parse(&api.admin_conf().unwrap(), "test").unwrap();
        let client = direct(&config, Dialer::direct()).unwrap();
        let (ca, faults) = (Ca::new("staging").unwrap(), Faults::default());
        let pem = ca.pem();
        let manager = CertManager::new(ca, faults.clone());
        // An hour, the first back-off, is six ticks.
        let pace = Pace {
            every: Duration::from_millis(30),
            stands_for: Duration::from_secs(600),
        };
        let operators = Operators::start(client.clone(), pace, vec![Box::new(manager)]);
        let lab = Self {
            api,
            cluster: Cluster::new(client),
            faults,
            operators,
            ca: pem,
        };
        for definition in CertManager::definitions() {
            lab.apply(&definition).await;
        }
        lab.apply(
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SPACE } }),
        )
        .await;
        lab.apply(&json!({ "apiVersion": API, "kind": "ClusterIssuer", "metadata": { "name": "letsencrypt" },
            "spec": { "acme": { "server": "https://acme-v02.api.letsencrypt.org/directory" } } }))
            .await;
        lab
    }

    async fn apply(&self, object: &Value) {
        let deadline = Instant::now() + DEADLINE;
        // A kind is served some moments after it is defined.
        while let Err(error) = self.cluster.apply("test", object).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn order(&self, name: &str, hosts: &[&str]) {
        self.apply(&json!({ "apiVersion": API, "kind": "Certificate", "metadata": { "name": name, "namespace": SPACE },
            "spec": { "secretName": name, "dnsNames": hosts,
                "issuerRef": { "group": "cert-manager.io", "kind": "ClusterIssuer", "name": "letsencrypt" } } }))
            .await;
    }

    /// Waits until a certificate is as it should be.
    async fn until(&self, name: &str, look: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self
                .cluster
                .get(API, "Certificate", SPACE, name)
                .await
                .unwrap()
                .unwrap_or_default();
            if look(&found) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "{found} {}",
                self.operators.errors()
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn one(&self, api: &str, kind: &str, prefix: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let all = self.cluster.list(api, kind).await.unwrap();
            let found = all.into_iter().find(|object| {
                let named = object["metadata"]["name"]
                    .as_str()
                    .unwrap()
                    .starts_with(prefix);
                named && object["status"].is_object()
            });
            if let Some(found) = found {
                return found;
            }
            assert!(Instant::now() < deadline, "no {kind} {prefix}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn secret(&self, name: &str) -> Value {
        self.cluster
            .get("v1", "Secret", SPACE, name)
            .await
            .unwrap()
            .unwrap()
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let mut all = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    all.find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// What the worker has to wait for.
fn is_ready(object: &Value) -> bool {
    let ready = condition(object, "Ready");
    let after: Option<Timestamp> = object["status"]["notAfter"]
        .as_str()
        .and_then(|at| at.parse().ok());
    ready["status"] == "True"
        && ready["observedGeneration"] == object["metadata"]["generation"]
        && after.is_some_and(|after| after > Timestamp::now())
}

#[tokio::test]
async fn heavy_certificates_are_ordered_once_and_what_stops_them_is_told() {
    let lab = Lab::start().await;
    lab.order(
        "tls-harbor",
        &["harbor.example.org", "registry.example.org"],
    )
    .await;
    let ready = lab.until("tls-harbor", is_ready).await;
    assert_eq!(ready["status"]["revision"], 1);
    assert_eq!(*condition(&ready, "Issuing"), Value::Null);
    let (from, to): (Timestamp, Timestamp) = (
        ready["status"]["notBefore"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
        ready["status"]["notAfter"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
    );
    assert_eq!(to.duration_since(from), SignedDuration::from_hours(90 * 24));
    // A real certificate, of our authority, for these names.
    let secret = lab.secret("tls-harbor").await;
    let chain = BASE64
        .decode(secret["data"]["tls.crt"].as_str().unwrap())
        .unwrap();
    let (_, leaf) = x509_parser::pem::parse_x509_pem(&chain).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf.contents).unwrap();
    let (_, ca) = x509_parser::pem::parse_x509_pem(lab.ca.as_bytes()).unwrap();
    let (_, ca) = X509Certificate::from_der(&ca.contents).unwrap();
    assert_eq!(leaf.issuer(), ca.subject());
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names.len(), 2);
    let order = lab.one(ACME, "Order", "tls-harbor-1-").await;
    assert_eq!(order["status"]["state"], "valid");

    // Brought back from a backup: nothing is ordered.
    let mut kept = json!({ "apiVersion": "v1", "kind": "Secret", "type": secret["type"], "data": secret["data"] });
    kept["metadata"] = json!({ "name": "tls-kept", "namespace": SPACE,
        "annotations": secret["metadata"]["annotations"].clone() });
    kept["metadata"]["annotations"]["cert-manager.io/certificate-name"] = json!("tls-kept");
    lab.apply(&kept).await;
    lab.order("tls-kept", &["harbor.example.org"]).await;
    lab.until("tls-kept", is_ready).await;
    // One of another certificate is not taken for it.
    kept["metadata"]["name"] = json!("tls-taken");
    lab.apply(&kept).await;
    lab.order("tls-taken", &["harbor.example.org"]).await;
    let taken = lab
        .until("tls-taken", |c| condition(c, "Issuing")["status"] == "True")
        .await;
    assert_eq!(
        condition(&taken, "Issuing")["reason"],
        "IncorrectCertificate"
    );
    lab.until("tls-taken", is_ready).await;
    let requests = lab.cluster.list(API, "CertificateRequest").await.unwrap();
    let of = |name: &str| {
        requests
            .iter()
            .filter(|r| r["metadata"]["name"].as_str().unwrap().starts_with(name))
            .count()
    };
    assert_eq!(
        (of("tls-harbor-"), of("tls-kept-"), of("tls-taken-")),
        (1, 0, 1)
    );

    // Another name: another generation, and no longer ready until it is there.
    lab.order("tls-kept", &["harbor.example.org", "more.example.org"])
        .await;
    let changed = lab
        .until("tls-kept", |c| condition(c, "Ready")["status"] == "False")
        .await;
    assert_eq!(condition(&changed, "Ready")["reason"], "SecretMismatch");
    let again = lab.until("tls-kept", is_ready).await;
    assert_eq!(again["metadata"]["generation"], 2);

    // The name is not in the DNS.
    lab.faults.set(Fault::OrderStuck(String::new()));
    lab.order("tls-stuck", &["stuck.example.org"]).await;
    let challenge = lab.one(ACME, "Challenge", "tls-stuck-1-").await;
    let reason = challenge["status"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with(
            "Waiting for HTTP-01 challenge propagation: failed to perform self check GET request"
        ),
        "{reason}"
    );
    assert!(
        reason.ends_with("lookup stuck.example.org on 10.96.0.10:53: no such host"),
        "{reason}"
    );
    let stuck = lab.until("tls-stuck", |c| c["status"].is_object()).await;
    assert_eq!(condition(&stuck, "Issuing")["status"], "True");
    assert_eq!(condition(&stuck, "Ready")["reason"], "DoesNotExist");
    lab.faults.clear();
    lab.until("tls-stuck", is_ready).await;

    // Ordered too often: it is tried again after an hour, with a request of its own.
    lab.faults.set(Fault::RateLimited);
    lab.order("tls-limited", &["limited.example.org"]).await;
    let limited = lab
        .until("tls-limited", |c| {
            c["status"]["failedIssuanceAttempts"].as_u64() >= Some(2)
        })
        .await;
    assert!(limited["status"]["lastFailureTime"].is_string());
    let order = lab.one(ACME, "Order", "tls-limited-1-").await;
    let reason = order["status"]["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        reason.contains("rateLimited") || order["status"]["state"] == "pending",
        "{order}"
    );
    let failed = lab
        .until("tls-limited", |c| {
            condition(c, "Issuing")["status"] == "False"
        })
        .await;
    let issuing = condition(&failed, "Issuing");
    assert_eq!(issuing["reason"], "Failed");
    assert!(
        issuing["message"]
            .as_str()
            .unwrap()
            .contains("too many certificates (5)"),
        "{issuing}"
    );
    lab.faults.clear();
    let ready = lab.until("tls-limited", is_ready).await;
    assert!(ready["status"]["failedIssuanceAttempts"].is_null());

    // No account at the authority.
    lab.faults.set(Fault::IssuerNotReady);
    lab.order("tls-nobody", &["nobody.example.org"]).await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let request = lab.one(API, "CertificateRequest", "tls-nobody-1").await;
        let ready = condition(&request, "Ready");
        if ready["message"] == "Referenced issuer does not have a Ready status condition" {
            break;
        }
        assert!(Instant::now() < deadline, "{request}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    lab.faults.clear();
    lab.until("tls-nobody", is_ready).await;

    // `Ready`, and long over.
    lab.faults.set(Fault::Expired);
    lab.order("tls-expired", &["expired.example.org"]).await;
    let expired = lab
        .until("tls-expired", |c| condition(c, "Ready")["status"] == "True")
        .await;
    assert!(!is_ready(&expired), "{expired}");
    lab.faults.clear();
    lab.until("tls-expired", is_ready).await;
    lab.operators.stop().await;
    lab.api.stop().await.unwrap();
}
