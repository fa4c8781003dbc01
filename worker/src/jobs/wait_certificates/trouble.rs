//! Why a certificate is not there: from the Certificate to its request, to the order, to the challenge that an
//! authority has to see.

use serde_json::Value;

use super::CERT_MANAGER;
use crate::engine::JobError;
use crate::kube::{KubeError, Objects, wait};

/// Orders and challenges.
const ACME: &str = "acme.cert-manager.io/v1";

/// What holds a certificate up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Which object says it, and what.
    pub(super) text: String,
    /// The authority has said no: cert-manager asks it again after an hour at the earliest.
    pub(super) refused: bool,
}

/// Follows a Certificate to what holds it up, if anything says so.
pub(super) async fn find(
    objects: &Objects,
    certificate: &Value,
) -> Result<Option<Trouble>, JobError> {
    let namespace = certificate["metadata"]["namespace"].as_str();
    let list = |version: &'static str, kind: &'static str| async move {
        match objects.list(version, kind, namespace, "").await {
            Ok(all) => Ok(all),
            // A cert-manager without ACME has no orders.
            Err(KubeError::UnknownKind { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    let requests = list(CERT_MANAGER, "CertificateRequest").await?;
    let orders = list(ACME, "Order").await?;
    let challenges = list(ACME, "Challenge").await?;
    Ok(why(certificate, &requests, &orders, &challenges))
}

/// The last link of the chain that says something.
fn why(
    certificate: &Value,
    requests: &[Value],
    orders: &[Value],
    challenges: &[Value],
) -> Option<Trouble> {
    let newest = |of: &Value, all: &[Value]| {
        let mut owned: Vec<Value> = all.iter().filter(|it| is_owned(it, of)).cloned().collect();
        // Times of one format are in order as texts.
        owned.sort_by_key(|it| {
            it["metadata"]["creationTimestamp"]
                .as_str()
                .map(str::to_owned)
        });
        owned.pop()
    };
    let Some(request) = newest(certificate, requests) else {
        let issuing = wait::condition(certificate, "Issuing")?;
        let failed = issuing["status"] == "False" && issuing["reason"] == "Failed";
        return failed.then(|| Trouble {
            text: format!("it failed: {}", wait::said(issuing, "it does not say why")),
            refused: true,
        });
    };
    let Some(order) = newest(&request, orders) else {
        return of_request(&request);
    };
    let challenge = challenges
        .iter()
        .filter(|it| is_owned(it, &order) && it["status"]["state"] != "valid")
        .max_by_key(|it| is_over(it));
    let text = |field: &str| {
        order["status"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (state, reason) = (text("state"), text("reason"));
    let refused = is_over(&order);
    let of_challenge = challenge.map(of_challenge).unwrap_or_default();
    let mut said = format!(
        "{} is {}",
        named(&order),
        if state.is_empty() { "new" } else { &state }
    );
    for more in [reason, of_challenge] {
        if !more.is_empty() {
            said = format!("{said}: {more}");
        }
    }
    match (state.as_str(), refused) {
        // The order is through, and it is the request that is not.
        ("valid", _) => of_request(&request),
        _ => Some(Trouble {
            text: said,
            refused,
        }),
    }
}

fn of_request(request: &Value) -> Option<Trouble> {
    for kind in ["InvalidRequest", "Denied"] {
        if let Some(it) = wait::condition(request, kind)
            && it["status"] == "True"
        {
            let said = wait::said(it, "it does not say why");
            return Some(Trouble {
                text: format!("{}: {said}", named(request)),
                refused: true,
            });
        }
    }
    let ready = wait::condition(request, "Ready")?;
    let said = wait::said(ready, "it does not say why");
    (ready["status"] != "True").then(|| Trouble {
        text: format!("{}: {said}", named(request)),
        refused: ready["reason"] == "Failed" || ready["reason"] == "Denied",
    })
}

fn of_challenge(challenge: &Value) -> String {
    let text = |at: &str| {
        challenge
            .pointer(at)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, state) = (text("/spec/type"), text("/status/state"));
    let (name, reason) = (text("/spec/dnsName"), text("/status/reason"));
    let state = if state.is_empty() { "new" } else { state };
    match reason.is_empty() {
        true => format!("the {kind} challenge of {name} is {state}"),
        false => format!("the {kind} challenge of {name} is {state}: {reason}"),
    }
}

/// The authority will not change its mind about it.
fn is_over(of_acme: &Value) -> bool {
    let state = of_acme["status"]["state"].as_str();
    matches!(state, Some("invalid" | "errored" | "expired"))
}

fn named(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    format!("{kind} {name}")
}

fn is_owned(object: &Value, owner: &Value) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|reference| {
        reference["kind"] == owner["kind"]
            && reference["name"] == owner["metadata"]["name"]
            && (reference["uid"] == owner["metadata"]["uid"] || owner["metadata"]["uid"].is_null())
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, owner: Option<&Value>, rest: Value) -> Value {
        let mut object = json!({"kind": kind, "metadata": {"name": name, "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-11-23T12:00:00Z"}});
        if let Some(owner) = owner {
            object["metadata"]["ownerReferences"] = json!([{"kind": owner["kind"],
                "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}]);
        }
        for (key, value) in rest.as_object().unwrap() {
            object[key] = value.clone();
        }
        object
    }

    fn check(found: Option<Trouble>, text: &str, refused: bool) {
        let text = text.to_owned();
        assert_eq!(found, Some(Trouble { text, refused }));
    }

    #[test]
    fn the_chain_is_followed_to_the_challenge() {
        let certificate = object("Certificate", "slr", None, json!({}));
        let request = object(
            "CertificateRequest",
            "slr-1",
            Some(&certificate),
            json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "reason": "Pending", "message": "Waiting on certificate issuance"}]}}),
        );
        let order = |state: &str, reason: &str| {
            object(
                "Order",
                "slr-1-7",
                Some(&request),
                json!({"status": {"state": state, "reason": reason}}),
            )
        };
        let challenge = |order: &Value, state: &str, reason: &str| {
            let spec = json!({"type": "HTTP-01", "dnsName": "slr.example.org"});
            object(
                "Challenge",
                "slr-1-7-1",
                Some(order),
                json!({"spec": spec, "status": {"state": state, "reason": reason}}),
            )
        };
        let requests = [request.clone()];
        check(
            why(&certificate, &requests, &[], &[]),
            "CertificateRequest slr-1: Pending: Waiting on certificate issuance",
            false,
        );
        let pending = order("pending", "");
        let waits = challenge(
            &pending,
            "pending",
            "Waiting for HTTP-01 challenge propagation: wrong status code '404', expected '200'",
        );
        check(
            why(
                &certificate,
                &requests,
                std::slice::from_ref(&pending),
                &[waits],
            ),
            "Order slr-1-7 is pending: the HTTP-01 challenge of slr.example.org is pending: Waiting for HTTP-01 challenge propagation: wrong status code '404', expected '200'",
            false,
        );
        let invalid = order("invalid", "");
        let refused = challenge(
            &invalid,
            "invalid",
            "Error accepting authorization: acme: authorization error: 400 urn:ietf:params:acme:error:dns: no A record",
        );
        check(
            why(
                &certificate,
                &requests,
                std::slice::from_ref(&invalid),
                &[refused],
            ),
            "Order slr-1-7 is invalid: the HTTP-01 challenge of slr.example.org is invalid: Error accepting authorization: acme: authorization error: 400 urn:ietf:params:acme:error:dns: no A record",
            true,
        );
        let limited = order(
            "errored",
            "429 urn:ietf:params:acme:error:rateLimited: too many certificates",
        );
        check(
            why(&certificate, &requests, &[limited], &[]),
            "Order slr-1-7 is errored: 429 urn:ietf:params:acme:error:rateLimited: too many certificates",
            true,
        );
    }

    #[test]
    fn a_request_that_is_refused_needs_no_order() {
        let certificate = object("Certificate", "slr", None, json!({}));
        let request = |reason: &str, message: &str| {
            let ready =
                json!({"type": "Ready", "status": "False", "reason": reason, "message": message});
            object(
                "CertificateRequest",
                "slr-1",
                Some(&certificate),
                json!({"status": {"conditions": [ready]}}),
            )
        };
        check(
            why(&certificate, &[request("Failed", "no")], &[], &[]),
            "CertificateRequest slr-1: Failed: no",
            true,
        );
        check(
            why(
                &certificate,
                &[request(
                    "Pending",
                    "Referenced \"ClusterIssuer\" not found: clusterissuer.cert-manager.io \"letsencrypt\" not found",
                )],
                &[],
                &[],
            ),
            "CertificateRequest slr-1: Pending: Referenced \"ClusterIssuer\" not found: clusterissuer.cert-manager.io \"letsencrypt\" not found",
            false,
        );
    }

    #[test]
    fn only_the_newest_request_of_this_very_certificate_counts() {
        let certificate = object("Certificate", "slr", None, json!({}));
        let another = object("Certificate", "dsf", None, json!({}));
        let ready = |reason: &str| json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": reason}]}});
        let old = object(
            "CertificateRequest",
            "slr-1",
            Some(&certificate),
            ready("Failed"),
        );
        let mut new = object(
            "CertificateRequest",
            "slr-2",
            Some(&certificate),
            ready("Pending"),
        );
        new["metadata"]["creationTimestamp"] = json!("2026-11-23T13:00:00Z");
        let mut foreign = object(
            "CertificateRequest",
            "dsf-9",
            Some(&another),
            ready("Failed"),
        );
        foreign["metadata"]["creationTimestamp"] = json!("2026-11-23T14:00:00Z");
        check(
            why(&certificate, &[new, foreign.clone(), old], &[], &[]),
            "CertificateRequest slr-2: Pending",
            false,
        );
        assert_eq!(why(&certificate, &[foreign], &[], &[]), None);
    }

    #[test]
    fn a_certificate_that_gave_up_says_so_itself() {
        let status = json!({"status": {"conditions": [{"type": "Issuing", "status": "False", "reason": "Failed",
            "message": "The certificate request has failed to complete and will be retried"}]}});
        let certificate = object("Certificate", "slr", None, status);
        check(
            why(&certificate, &[], &[], &[]),
            "it failed: Failed: The certificate request has failed to complete and will be retried",
            true,
        );
    }
}
