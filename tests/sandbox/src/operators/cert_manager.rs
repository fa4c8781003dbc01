//! cert-manager as a cluster sees it: Certificates become Secrets by way of CertificateRequests, Orders and Challenges.
//!
//! Issuers are of ACME with HTTP-01, and the authority that signs is the sandbox's: nobody asks a web server anything, a
//! challenge is passed unless a fault says otherwise. A Secret that is there and good is taken as it is and nothing
//! is ordered; one of another issuer, certificate or name, or without its key, is ordered anew, as one that is due.
//!
//! Simplified: private keys are made with the certificate, so there is no CSR in a request and no temporary Secret; the
//! keys in a Secret are not compared; old requests are not cleaned up.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::percona::definitions::definition;
use super::percona::json::{
    condition, difference, is_true, moment, now, number, owner, remove_condition, set_condition,
    text, texts,
};
use super::{Controller, Tick, Troubles};
use crate::ca::Ca;

const MANAGER: &str = "cert-manager";
const API: &str = "cert-manager.io/v1";
const ACME: &str = "acme.cert-manager.io/v1";

/// Ticks that a thing takes that takes some time.
const STEP: u64 = 2;

/// How long a certificate is good: that of Let's Encrypt.
const LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How long cert-manager waits after the first refusal; it doubles each time.
const BACK_OFF: Duration = Duration::from_secs(3600);
const MOST_BACK_OFF: u32 = 5;

/// What goes wrong with all certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The authority cannot see the challenge's answer; with an empty text the name is not in the DNS.
    OrderStuck(String),
    /// The authority has signed this set of names too often.
    RateLimited,
    /// Certificates are long over when they come, and `Ready` says nothing of it.
    Expired,
    /// No account could be registered with the authority.
    IssuerNotReady,
}

/// The faults of cert-manager.
pub type Faults = Troubles<Fault>;

/// The operator.
#[derive(Debug)]
pub struct CertManager {
    ca: Ca,
    faults: Faults,
    timers: std::collections::BTreeMap<String, u64>,
    orders: u64,
}

/// Why a Secret will not do.
struct Unfit {
    reason: &'static str,
    message: String,
}

/// From when to when what lies in a Secret is good.
struct Good {
    from: Timestamp,
    to: Timestamp,
}

impl CertManager {
    /// A cert-manager whose certificates this authority signs; the faults can be set at any time.
    pub fn new(ca: Ca, faults: Faults) -> Self {
        Self {
            ca,
            faults,
            timers: Default::default(),
            orders: 0,
        }
    }

    /// What its chart would install.
    pub fn definitions() -> Vec<Value> {
        let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let issuer = |kind: &str, scope: &str| {
            let mut issuer = definition("cert-manager.io", "v1", kind, &kind.to_lowercase(), &any);
            issuer["spec"]["scope"] = json!(scope);
            issuer["spec"]["names"]
                .as_object_mut()
                .map(|names| names.remove("shortNames"));
            issuer
        };
        vec![
            definition("cert-manager.io", "v1", "Certificate", "cert", &any),
            definition("cert-manager.io", "v1", "CertificateRequest", "cr", &any),
            issuer("Issuer", "Namespaced"),
            issuer("ClusterIssuer", "Cluster"),
            definition("acme.cert-manager.io", "v1", "Order", "order", &any),
            definition("acme.cert-manager.io", "v1", "Challenge", "challenge", &any),
        ]
    }

    /// Whether what takes some time is over.
    fn over(&mut self, what: String, now: u64, ticks: u64) -> bool {
        let over = now >= *self.timers.entry(what.clone()).or_insert(now + ticks);
        if over {
            self.timers.remove(&what);
        }
        over
    }

    async fn issuer(&self, tick: &Tick, issuer: &Value) -> anyhow::Result<()> {
        let mut status = issuer["status"].clone();
        let generation = number(issuer, "/metadata/generation");
        match self.faults.has(&Fault::IssuerNotReady) {
            true => {
                let server = text(issuer, "/spec/acme/server");
                let words = format!(
                    "Failed to register ACME account: Get \"{server}\": dial tcp: lookup acme-v02.api.letsencrypt.org on 10.96.0.10:53: server misbehaving"
                );
                set_condition(
                    &mut status,
                    generation,
                    "Ready",
                    "False",
                    "ErrRegisterACMEAccount",
                    &words,
                );
            }
            false => {
                let words = "The ACME account was registered with the ACME server";
                set_condition(
                    &mut status,
                    generation,
                    "Ready",
                    "True",
                    "ACMEAccountRegistered",
                    words,
                );
            }
        }
        set_status(tick, issuer, &status).await
    }

    async fn certificate(&mut self, tick: &Tick, certificate: &Value) -> anyhow::Result<()> {
        let namespace = text(certificate, "/metadata/namespace");
        let key = format!("{namespace}/{}", text(certificate, "/metadata/name"));
        let generation = number(certificate, "/metadata/generation");
        let secret = tick
            .cluster
            .get(
                "v1",
                "Secret",
                namespace,
                text(certificate, "/spec/secretName"),
            )
            .await?;
        let looked = look(certificate, secret.as_ref());
        let mut status = match &certificate["status"] {
            Value::Null => json!({}),
            status => status.clone(),
        };
        let at = Timestamp::now();
        let (ready, wanted) = match looked {
            Err(unfit) => {
                for gone in ["notBefore", "notAfter", "renewalTime"] {
                    status.as_object_mut().map(|status| status.remove(gone));
                }
                (
                    Err((unfit.reason, unfit.message.clone())),
                    Some((unfit.reason, unfit.message)),
                )
            }
            Ok(good) => {
                let third = good.to.duration_since(good.from) / 3;
                let renewal = good.to - third;
                status["notBefore"] = json!(moment(good.from));
                status["notAfter"] = json!(moment(good.to));
                status["renewalTime"] = json!(moment(renewal));
                let blind = self.faults.has(&Fault::Expired);
                let due = (!blind && at >= renewal).then(|| {
                    (
                        "Renewing",
                        format!(
                            "Renewing certificate as renewal was scheduled at {}",
                            moment(renewal)
                        ),
                    )
                });
                match at >= good.to && !blind {
                    true => (
                        Err((
                            "Expired",
                            format!("Certificate expired on {}", moment(good.to)),
                        )),
                        due,
                    ),
                    false => (Ok(()), due),
                }
            }
        };
        match &ready {
            Ok(()) => set_condition(
                &mut status,
                generation,
                "Ready",
                "True",
                "Ready",
                "Certificate is up to date and has not expired",
            ),
            Err((reason, message)) => {
                set_condition(&mut status, generation, "Ready", "False", reason, message)
            }
        }
        if is_true(&status, "Issuing") {
            self.issue(tick, certificate, &mut status).await?;
        } else if let Some((reason, message)) = wanted {
            let failures =
                u32::try_from(number(&status, "/failedIssuanceAttempts")).unwrap_or(u32::MAX);
            let waits = BACK_OFF * 2_u32.pow(failures.saturating_sub(1).min(MOST_BACK_OFF));
            if failures == 0 || self.over(format!("{key} back-off"), tick.number, tick.ticks(waits))
            {
                set_condition(&mut status, generation, "Issuing", "True", reason, &message);
                status["nextPrivateKeySecretName"] = json!(format!(
                    "{}-{:.5}",
                    text(certificate, "/metadata/name"),
                    text(certificate, "/metadata/uid")
                ));
            }
        }
        set_status(tick, certificate, &status).await
    }

    /// Brings the request of a certificate on.
    async fn issue(
        &mut self,
        tick: &Tick,
        certificate: &Value,
        status: &mut Value,
    ) -> anyhow::Result<()> {
        let (namespace, name) = (
            text(certificate, "/metadata/namespace"),
            text(certificate, "/metadata/name"),
        );
        let revision = number(status, "/revision") + 1;
        let request_name = format!("{name}-{revision}");
        let found = tick
            .cluster
            .get(API, "CertificateRequest", namespace, &request_name)
            .await?;
        let request = match found {
            // The next try begins with a request of its own.
            Some(old)
                if condition(&old["status"], "Ready").is_some_and(|c| c["reason"] == "Failed") =>
            {
                for (api, kind) in [(ACME, "Challenge"), (ACME, "Order")] {
                    delete_of(tick, api, kind, &old).await?;
                }
                return Ok(tick.cluster.delete(&old).await?);
            }
            Some(request) => request,
            None => {
                let request = json!({ "apiVersion": API, "kind": "CertificateRequest",
                    "metadata": { "name": request_name, "namespace": namespace, "ownerReferences": owner(certificate),
                        "annotations": { "cert-manager.io/certificate-name": name,
                            "cert-manager.io/certificate-revision": revision.to_string() } },
                    "spec": { "issuerRef": certificate["spec"]["issuerRef"], "request": "" } });
                let request = tick.cluster.apply(MANAGER, &request).await?;
                let mut approved = json!({});
                set_condition(
                    &mut approved,
                    1,
                    "Approved",
                    "True",
                    "cert-manager.io",
                    "Certificate request has been approved by cert-manager.io",
                );
                set_status(tick, &request, &approved).await?;
                return Ok(());
            }
        };
        let mut of_request = request["status"].clone();
        let ended = self
            .order(tick, certificate, &request, &mut of_request)
            .await?;
        if ended == Some(true) {
            self.store(tick, certificate).await?;
            status["revision"] = json!(revision);
            remove_condition(status, "Issuing");
            for gone in [
                "failedIssuanceAttempts",
                "lastFailureTime",
                "nextPrivateKeySecretName",
            ] {
                status.as_object_mut().map(|status| status.remove(gone));
            }
        } else if ended == Some(false) {
            let why = condition(&of_request, "Ready")
                .map(|c| text(c, "/message").to_owned())
                .unwrap_or_default();
            let words = format!(
                "The certificate request has failed to complete and will be retried: {why}"
            );
            status["failedIssuanceAttempts"] = json!(number(status, "/failedIssuanceAttempts") + 1);
            status["lastFailureTime"] = json!(now());
            let generation = number(certificate, "/metadata/generation");
            set_condition(status, generation, "Issuing", "False", "Failed", &words);
        }
        set_status(tick, &request, &of_request).await
    }

    /// Brings the order of a request on; whether it ended well, if it ended.
    async fn order(
        &mut self,
        tick: &Tick,
        certificate: &Value,
        request: &Value,
        status: &mut Value,
    ) -> anyhow::Result<Option<bool>> {
        let of = &certificate["spec"]["issuerRef"];
        let namespace = text(certificate, "/metadata/namespace");
        let (kind, issuer) = match text(of, "/kind") {
            "" => ("Issuer", text(of, "/name")),
            kind => (kind, text(of, "/name")),
        };
        let found = tick.cluster.get(API, kind, namespace, issuer).await?;
        let blocked = match &found {
            None => Some(format!(
                "Referenced \"{kind}\" not found: {}.cert-manager.io \"{issuer}\" not found",
                kind.to_lowercase()
            )),
            Some(issuer) if !is_true(&issuer["status"], "Ready") => {
                Some("Referenced issuer does not have a Ready status condition".to_owned())
            }
            Some(_) => None,
        };
        if let Some(words) = blocked {
            set_condition(status, 1, "Ready", "False", "Pending", &words);
            return Ok(None);
        }
        let name = format!("{}-{}", text(request, "/metadata/name"), number_of(request));
        let Some(order) = tick.cluster.get(ACME, "Order", namespace, &name).await? else {
            let order = json!({ "apiVersion": ACME, "kind": "Order",
                "metadata": { "name": name, "namespace": namespace, "ownerReferences": owner(request) },
                "spec": { "dnsNames": certificate["spec"]["dnsNames"], "issuerRef": of, "request": "" } });
            tick.cluster.apply(MANAGER, &order).await?;
            return Ok(None);
        };
        match text(&order, "/status/state") {
            "" => {
                self.orders += 1;
                let mut of_order = json!({ "state": "pending",
                    "url": format!("https://acme-v02.api.letsencrypt.org/acme/order/1/{}", self.orders) });
                if self.faults.has(&Fault::RateLimited) {
                    let words = "Failed to create Order: 429 urn:ietf:params:acme:error:rateLimited: too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, retry after 2026-11-24 00:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/#new-certificates-per-exact-set-of-identifiers";
                    of_order = json!({ "state": "errored", "reason": words, "failureTime": now() });
                }
                set_status(tick, &order, &of_order).await?;
            }
            "pending" => {
                let words = format!(
                    "Waiting on certificate issuance from order {namespace}/{name}: \"pending\""
                );
                set_condition(status, 1, "Ready", "False", "Pending", &words);
                if self.challenges(tick, &order).await? {
                    set_status(
                        tick,
                        &order,
                        &json!({ "state": "valid", "url": order["status"]["url"] }),
                    )
                    .await?;
                }
            }
            "valid" => {
                delete_of(tick, ACME, "Challenge", &order).await?;
                set_condition(
                    status,
                    1,
                    "Ready",
                    "True",
                    "Issued",
                    "Certificate fetched from issuer successfully",
                );
                return Ok(Some(true));
            }
            state => {
                let why = text(&order, "/status/reason");
                let words = format!(
                    "Failed to wait for order resource \"{name}\" to become ready: order is in \"{state}\" state: {why}"
                );
                set_condition(status, 1, "Ready", "False", "Failed", &words);
                status["failureTime"] = json!(now());
                return Ok(Some(false));
            }
        }
        Ok(None)
    }

    /// Brings the challenges of an order on; whether all are passed.
    async fn challenges(&mut self, tick: &Tick, order: &Value) -> anyhow::Result<bool> {
        let namespace = text(order, "/metadata/namespace");
        let mut passed = true;
        for (at, host) in texts(&order["spec"]["dnsNames"]).into_iter().enumerate() {
            let name = format!(
                "{}-{}",
                text(order, "/metadata/name"),
                1_000_000_007 * (at + 1)
            );
            let Some(challenge) = tick
                .cluster
                .get(ACME, "Challenge", namespace, &name)
                .await?
            else {
                let challenge = json!({ "apiVersion": ACME, "kind": "Challenge",
                    "metadata": { "name": name, "namespace": namespace, "ownerReferences": owner(order) },
                    "spec": { "dnsName": host, "type": "HTTP-01", "issuerRef": order["spec"]["issuerRef"],
                        "token": format!("token-{at}"), "key": "", "wildcard": false,
                        "solver": { "http01": { "ingress": { "class": "istio" } } },
                        "url": "", "authorizationURL": "" } });
                tick.cluster.apply(MANAGER, &challenge).await?;
                passed = false;
                continue;
            };
            if text(&challenge, "/status/state") == "valid" {
                continue;
            }
            passed = false;
            let stuck = self.faults.find(|fault| match fault {
                Fault::OrderStuck(words) => Some(words.clone()),
                _ => None,
            });
            let over = self.over(format!("{namespace}/{name}"), tick.number, STEP);
            let status = match stuck {
                Some(words) => {
                    let url = format!(
                        "http://{host}/.well-known/acme-challenge/{}",
                        text(&challenge, "/spec/token")
                    );
                    let why = match words.as_str() {
                        "" => format!(
                            "failed to perform self check GET request '{url}': Get \"{url}\": dial tcp: lookup {host} on 10.96.0.10:53: no such host"
                        ),
                        words => words.to_owned(),
                    };
                    json!({ "state": "pending", "presented": true, "processing": true,
                        "reason": format!("Waiting for HTTP-01 challenge propagation: {why}") })
                }
                None if over => json!({ "state": "valid", "presented": false, "processing": false,
                    "reason": "Successfully authorized domain" }),
                None => json!({ "state": "pending", "presented": true, "processing": true }),
            };
            set_status(tick, &challenge, &status).await?;
        }
        Ok(passed)
    }

    /// Signs, and puts it into the Secret.
    async fn store(&self, tick: &Tick, certificate: &Value) -> anyhow::Result<()> {
        let names = texts(&certificate["spec"]["dnsNames"]);
        let mut from = Timestamp::now() - SignedDuration::from_hours(1);
        if self.faults.has(&Fault::Expired) {
            from -= LIFETIME + SignedDuration::from_hours(24);
        }
        let signed = self.ca.sign(&names, from, from + LIFETIME)?;
        let of = &certificate["spec"]["issuerRef"];
        let or = |text: &str, other: &str| {
            if text.is_empty() {
                other.to_owned()
            } else {
                text.to_owned()
            }
        };
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": certificate["spec"]["secretName"], "namespace": certificate["metadata"]["namespace"],
                "labels": { "controller.cert-manager.io/fao": "true" },
                "annotations": {
                    "cert-manager.io/certificate-name": certificate["metadata"]["name"],
                    "cert-manager.io/issuer-name": of["name"],
                    "cert-manager.io/issuer-kind": or(text(of, "/kind"), "Issuer"),
                    "cert-manager.io/issuer-group": or(text(of, "/group"), "cert-manager.io"),
                    "cert-manager.io/alt-names": names.join(","),
                    "cert-manager.io/common-name": "",
                } },
            "data": { "tls.crt": BASE64.encode(signed.certificate + &self.ca.pem()), "tls.key": BASE64.encode(signed.key) },
        });
        tick.cluster.apply(MANAGER, &secret).await?;
        Ok(())
    }
}

#[async_trait]
impl Controller for CertManager {
    fn name(&self) -> &'static str {
        "cert-manager"
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        for kind in ["Issuer", "ClusterIssuer"] {
            for issuer in tick.cluster.list(API, kind).await? {
                self.issuer(tick, &issuer).await?;
            }
        }
        for certificate in tick.cluster.list(API, "Certificate").await? {
            self.certificate(tick, &certificate).await?;
        }
        Ok(())
    }
}

/// Whether a Secret will do for a certificate: the policies in the order of cert-manager.
fn look(certificate: &Value, secret: Option<&Value>) -> Result<Good, Unfit> {
    let unfit = |reason, message: &str| {
        Err(Unfit {
            reason,
            message: format!("Issuing certificate as {message}"),
        })
    };
    let Some(secret) = secret else {
        return unfit("DoesNotExist", "Secret does not exist");
    };
    let data = |key: &str| {
        BASE64
            .decode(secret["data"][key].as_str().unwrap_or_default())
            .unwrap_or_default()
    };
    let (key, chain) = (data("tls.key"), data("tls.crt"));
    match (key.is_empty(), chain.is_empty()) {
        (true, true) => return unfit("MissingData", "Secret does not contain any data"),
        (true, false) => return unfit("MissingData", "Secret does not contain a private key"),
        (false, true) => return unfit("MissingData", "Secret does not contain a certificate"),
        (false, false) => {}
    }
    let invalid = |why: &dyn std::fmt::Display| {
        unfit(
            "InvalidCertificate",
            &format!("Secret contains an invalid certificate: {why}"),
        )
    };
    let pem = match x509_parser::pem::parse_x509_pem(&chain) {
        Ok((_, pem)) => pem,
        Err(error) => return invalid(&error),
    };
    let parsed = match X509Certificate::from_der(&pem.contents) {
        Ok((_, parsed)) => parsed,
        Err(error) => return invalid(&error),
    };
    let annotations = &secret["metadata"]["annotations"];
    let of = &certificate["spec"]["issuerRef"];
    // Those that are not there were never known, and are taken for good.
    let differs = |key: &str, wanted: &str| {
        annotations[key]
            .as_str()
            .is_some_and(|there| there != wanted)
    };
    let or = |text: &'static str, path: &str| match super::percona::json::text(of, path) {
        "" => text.to_owned(),
        other => other.to_owned(),
    };
    if differs("cert-manager.io/issuer-name", text(of, "/name"))
        || differs("cert-manager.io/issuer-kind", &or("Issuer", "/kind"))
    {
        let (kind, name) = (
            text(annotations, "/cert-manager.io~1issuer-kind"),
            text(annotations, "/cert-manager.io~1issuer-name"),
        );
        return unfit(
            "IncorrectIssuer",
            &format!("Secret was previously issued by \"{kind}.cert-manager.io/{name}\""),
        );
    }
    let name = text(certificate, "/metadata/name");
    if differs("cert-manager.io/certificate-name", name) {
        let other = text(annotations, "/cert-manager.io~1certificate-name");
        let message = format!(
            "Secret was issued for \"{other}\". If this message is not transient, you might have two conflicting Certificates pointing to the same secret."
        );
        return Err(Unfit {
            reason: "IncorrectCertificate",
            message,
        });
    }
    let names = parsed.subject_alternative_name().ok().flatten();
    let names: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect();
    if texts(&certificate["spec"]["dnsNames"])
        .iter()
        .any(|wanted| !names.contains(&wanted.as_str()))
    {
        return unfit(
            "SecretMismatch",
            "Existing issued Secret is not up to date for spec: [spec.dnsNames]",
        );
    }
    let at = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default();
    let validity = parsed.validity();
    Ok(Good {
        from: at(validity.not_before.timestamp()),
        to: at(validity.not_after.timestamp()),
    })
}

async fn set_status(tick: &Tick, of: &Value, status: &Value) -> anyhow::Result<()> {
    let patch = difference(&of["status"], status);
    tick.cluster.set_status(MANAGER, of, &patch).await?;
    Ok(())
}

/// Deletes what belongs to an object.
async fn delete_of(tick: &Tick, api: &str, kind: &str, of: &Value) -> anyhow::Result<()> {
    for object in tick.cluster.list(api, kind).await? {
        let prefix = format!("{}-", text(of, "/metadata/name"));
        let same = object["metadata"]["namespace"] == of["metadata"]["namespace"];
        if same && text(&object, "/metadata/name").starts_with(&prefix) {
            tick.cluster.delete(&object).await?;
        }
    }
    Ok(())
}

/// A number that an object keeps, as cert-manager makes names of.
fn number_of(object: &Value) -> u32 {
    let uid = text(object, "/metadata/uid");
    u32::from_str_radix(uid.get(..8).unwrap_or_default(), 16).unwrap_or_default()
}
