//! What lies in a certificate's Secret, and whether it will do.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::Value;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::operators::percona::json::{text, texts};

/// Why a Secret will not do.
pub(super) struct Unfit {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// From when to when what lies in a Secret is good.
pub(super) struct Good {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// Whether a Secret will do for a certificate: the policies in the order of cert-manager.
pub(super) fn look(certificate: &Value, secret: Option<&Value>) -> Result<Good, Unfit> {
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
    let or = |default: &'static str, path: &str| match text(of, path) {
        "" => default.to_owned(),
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
