//! Wait-certificates: until each certificate is issued for what it is now, and says why one is not.
//!
//! An order needs DNS and an authority and may take an hour; one that the authority has refused is tried again only
//! an hour later, so that ends the job at once, with the authority's reason (`trouble`). Certificates that came
//! back from a backup count like others. Their end is compared with this worker's clock.

mod trouble;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jobs::message::WaitCertificates;
use jobs::spec::Namespaced;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::switch::patience;
use crate::engine::{Ctx, JobError, Poll, Proof, Proven};
use crate::kube::{KubeError, Look, Object, Objects, wait};

/// The step names.
pub const STEPS: &[&str] = &["there", "ready", "prove"];

/// Flux applies them within minutes once Istio and cert-manager run.
const THERE: Duration = Duration::from_secs(15 * 60);
/// Orders take their time.
const READY: Duration = Duration::from_secs(60 * 60);
/// The kind's version.
const CERT_MANAGER: &str = "cert-manager.io/v1";

/// A certificate that is issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Issued {
    /// For which names.
    names: Vec<String>,
    /// Until when it is good.
    until: Timestamp,
    /// How often it was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
}

/// Waits, and proves that they are there, key and all.
pub async fn run(ctx: &Ctx, job: &WaitCertificates) -> Result<Proven, JobError> {
    let wanted = match job.certificates.as_slice() {
        [] => &ctx.spec().certificates[..],
        some => some,
    };
    if wanted.is_empty() {
        let text = "there are no certificates to wait for: name them in `certificates` of the spec";
        return Err(JobError::fatal(text));
    }
    let objects = ctx.world().kube(ctx).await?;
    ctx.wait("there", patience(ctx, THERE), || there(&objects, wanted))
        .await?;
    let _: BTreeMap<String, Issued> = ctx
        .wait("ready", patience(ctx, READY), || ready(&objects, wanted))
        .await?;
    ctx.prove("certificates", || prove(&objects, wanted)).await
}

fn at(place: &Namespaced) -> Object {
    let (namespace, name) = (place.namespace.as_str(), place.name.as_str());
    Object::at(CERT_MANAGER, "Certificate", Some(namespace), name)
}

async fn there(objects: &Objects, wanted: &[Namespaced]) -> Result<Poll<()>, JobError> {
    let mut missing = Vec::new();
    for place in wanted {
        match objects.get(&at(place)).await {
            Ok(Some(_)) => {}
            Ok(None) => missing.push(place.to_string()),
            Err(KubeError::UnknownKind { .. }) => {
                return Ok(Poll::Pending(
                    "cert-manager's kinds are not there yet".into(),
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(match missing.is_empty() {
        true => Poll::Ready(()),
        false => Poll::Pending(format!(
            "there is no Certificate {}: is its name right, and has Flux applied it (Kustomization `certificates`)?",
            missing.join(", ")
        )),
    })
}

/// Looks at all of them. Those that are not ready say why.
async fn ready(
    objects: &Objects,
    wanted: &[Namespaced],
) -> Result<Poll<BTreeMap<String, Issued>>, JobError> {
    let (mut issued, mut waiting) = (BTreeMap::new(), Vec::new());
    for place in wanted {
        let Some(found) = objects.get(&at(place)).await? else {
            waiting.push(format!("{place} is gone"));
            continue;
        };
        match judge(&found, Timestamp::now()) {
            Ok(good) => {
                issued.insert(place.to_string(), good);
            }
            Err(text) => {
                let why = trouble::find(objects, &found).await?;
                let text = match &why {
                    Some(why) => format!("{place}: {text}; {}", why.text),
                    None => format!("{place}: {text}"),
                };
                if why.is_some_and(|why| why.refused) {
                    return Err(JobError::fatal(format!(
                        "Certificate {text}; cert-manager asks again in an hour: mend the cause, have it renewed (`cmctl renew`), then `rekindle retry`"
                    )));
                }
                waiting.push(text);
            }
        }
    }
    Ok(match waiting.is_empty() {
        true => Poll::Ready(issued),
        false => Poll::Pending(waiting.join("; ")),
    })
}

/// Whether a Certificate is issued for what its spec says now and still good; if not, what it says.
fn judge(certificate: &Value, now: Timestamp) -> Result<Issued, String> {
    // The condition says for itself which generation it is about; there is no other field for it.
    let mut seen = certificate.clone();
    let generation =
        wait::condition(certificate, "Ready").and_then(|it| it.get("observedGeneration"));
    if let Some(generation) = generation {
        seen["status"]["observedGeneration"] = generation.clone();
    }
    match wait::flux(&seen, None) {
        Look::Ready => {}
        Look::NotYet(text) | Look::Stuck(text) => return Err(text),
    }
    let status = &certificate["status"];
    let until: Timestamp = status["notAfter"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or("it does not say until when it is good")?;
    if until <= now {
        return Err(format!("it ended at {until}"));
    }
    let names = certificate["spec"]["dnsNames"]
        .as_array()
        .into_iter()
        .flatten();
    Ok(Issued {
        names: names.filter_map(Value::as_str).map(str::to_owned).collect(),
        until,
        revision: status["revision"].as_i64(),
    })
}

/// Whether a Secret has a certificate and its key.
fn has_both(secret: Option<&Value>) -> bool {
    let has = |key: &str| {
        let text = secret.and_then(|secret| secret["data"][key].as_str());
        text.is_some_and(|text| !text.is_empty())
    };
    has("tls.crt") && has("tls.key")
}

async fn prove(objects: &Objects, wanted: &[Namespaced]) -> Result<Proof, JobError> {
    let (mut observed, mut holds) = (BTreeMap::new(), true);
    for place in wanted {
        let found = objects.get(&at(place)).await?.unwrap_or(Value::Null);
        let good = judge(&found, Timestamp::now());
        let secret = found["spec"]["secretName"].as_str().unwrap_or_default();
        let kept = match secret.is_empty() {
            true => false,
            false => {
                let namespace = Some(place.namespace.as_str());
                let secret = Object::at("v1", "Secret", namespace, secret);
                has_both(objects.get(&secret).await?.as_ref())
            }
        };
        holds &= good.is_ok() && kept;
        let good = good.map_or_else(Value::from, |good| json!(good));
        observed.insert(
            place.to_string(),
            json!({"certificate": good, "secret": kept}),
        );
    }
    let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    Ok(Proof {
        expected: json!({"issued": names}),
        observed: json!(observed),
        holds,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn check(status: Value, expected: Result<(), &str>) {
        let certificate = json!({"metadata": {"generation": 2},
            "spec": {"dnsNames": ["a.example.org"], "secretName": "tls-a"}, "status": status});
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let found = judge(&certificate, now).map(|_| ());
        match expected {
            Ok(()) => assert_eq!(found, Ok(()), "{certificate}"),
            Err(text) => {
                let found = found.unwrap_err();
                assert!(found.contains(text), "{found} instead of {text}");
            }
        }
    }

    #[test]
    fn a_certificate_is_there_when_it_is_issued_for_its_own_generation_and_has_not_ended() {
        let ready = |status: &str, generation: i64| {
            json!({"type": "Ready", "status": status, "reason": "DoesNotExist",
                "message": "Issuing certificate as Secret does not exist", "observedGeneration": generation})
        };
        let status =
            |condition: Value, until: &str| json!({"conditions": [condition], "notAfter": until});
        check(status(ready("True", 2), "2027-01-01T00:00:00Z"), Ok(()));
        check(
            status(ready("True", 2), "2026-11-23T12:00:00Z"),
            Err("it ended at"),
        );
        check(
            status(ready("True", 1), "2027-01-01T00:00:00Z"),
            Err("generation 1 of 2"),
        );
        check(
            status(ready("False", 2), "2027-01-01T00:00:00Z"),
            Err("DoesNotExist: Issuing certificate"),
        );
        check(json!({"conditions": [ready("True", 2)]}), Err("until when"));
        check(json!({}), Err("has not seen it yet"));
    }

    #[test]
    fn a_secret_without_its_key_is_no_certificate() {
        let both = json!({"data": {"tls.crt": "YQ==", "tls.key": "YQ=="}});
        assert!(has_both(Some(&both)));
        assert!(!has_both(Some(
            &json!({"data": {"tls.crt": "YQ==", "tls.key": ""}})
        )));
        assert!(!has_both(Some(&json!({"data": {"tls.crt": "YQ=="}}))));
        assert!(!has_both(None));
    }
}
