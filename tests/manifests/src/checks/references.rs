//! What an object names must be there: in the tree, made by Rekindle, or decrypted from the bucket.

use serde_json::Value;

use crate::document::{field, keys};
use crate::{BY_REKINDLE, BY_SOPS, Document, Finding, Tree};

/// Every reference leads somewhere.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in &tree.documents {
        let mut missing = |kind: &str, namespace: &str, name: &str| {
            if !is_there(tree, kind, namespace, name) {
                let what = format!("nobody makes {kind} {namespace}/{name}, which it names");
                findings.push(Finding::new(document.id(), what));
            }
        };
        let own = document.namespace();
        for pointer in [
            "/spec/secretRef",
            "/spec/decryption/secretRef",
            "/spec/certSecretRef",
        ] {
            if let Some(reference) = document.value.pointer(pointer) {
                missing("Secret", own, field(reference, "name"));
            }
        }
        for pointer in ["/spec/sourceRef", "/spec/chart/spec/sourceRef"] {
            if let Some(reference) = document.value.pointer(pointer) {
                let namespace = match field(reference, "namespace") {
                    "" => own,
                    other => other,
                };
                missing(
                    field(reference, "kind"),
                    namespace,
                    field(reference, "name"),
                );
            }
        }
        for pointer in ["/spec/valuesFrom", "/spec/postBuild/substituteFrom"] {
            for reference in document.items(pointer) {
                if reference.get("optional") != Some(&Value::Bool(true)) {
                    missing(field(reference, "kind"), own, field(reference, "name"));
                }
            }
        }
        for reference in document.items("/spec/healthChecks") {
            // Other kinds are made by operators.
            if field(reference, "kind") == "HelmRelease" {
                let (namespace, name) = (field(reference, "namespace"), field(reference, "name"));
                missing("HelmRelease", namespace, name);
            }
        }
        if document.is_release() {
            for name in named_secrets(tree, document) {
                missing("Secret", own, &name);
            }
        }
        if document.kind() == "Certificate" {
            missing_issuer(tree, document, &mut findings);
        }
    }
    findings.extend(not_asked_for(tree));
    findings
}

fn is_there(tree: &Tree, kind: &str, namespace: &str, name: &str) -> bool {
    let mut given = BY_REKINDLE.iter().chain(BY_SOPS);
    given.any(|g| (g.kind, g.namespace, g.name) == (kind, namespace, name))
        || tree.find(kind, namespace, name).is_some()
}

/// The Secrets that a chart is told of, as the charts of this tree call such a value.
pub(super) fn named_secrets(tree: &Tree, release: &Document) -> Vec<String> {
    let mut names = Vec::new();
    for values in tree.values(release) {
        keys(&values, &mut |key, value| {
            let names_one = key == "secret"
                || key == "secretName"
                || key.starts_with("existing") && !key.ends_with("Key")
                || key == "existingSecretSecretKey";
            if names_one {
                let name = value.as_str().unwrap_or_else(|| field(value, "name"));
                names.push(name.to_owned());
            }
        });
    }
    names.retain(|name| !name.is_empty());
    names
}

fn missing_issuer(tree: &Tree, certificate: &Document, findings: &mut Vec<Finding>) {
    let issuer = certificate.text("/spec/issuerRef/name");
    // A setting says which one; then each of its values must be an issuer.
    let wanted: Vec<_> = match issuer.strip_prefix("${").and_then(|v| v.strip_suffix('}')) {
        None => vec![issuer],
        Some(variable) => {
            let maps = tree.of_kind("ConfigMap");
            maps.filter_map(|d| d.value.pointer(&format!("/data/{variable}"))?.as_str())
                .collect()
        }
    };
    for name in wanted {
        if tree.find("ClusterIssuer", "", name).is_none() {
            let what = format!("nobody makes ClusterIssuer {name}, which it names");
            findings.push(Finding::new(certificate.id(), what));
        }
    }
}

/// A secret that nobody reads any more is one to keep for nothing.
fn not_asked_for(tree: &Tree) -> Vec<Finding> {
    let unused = |given: &&crate::Given| {
        !tree.releases().any(|release| {
            release.namespace() == given.namespace
                && named_secrets(tree, release).iter().any(|n| n == given.name)
        })
    };
    let given = BY_SOPS.iter().filter(unused);
    given
        .map(|g| {
            let place = format!("Secret {}/{}", g.namespace, g.name);
            Finding::new(place, "it is listed and no release names it")
        })
        .collect()
}
