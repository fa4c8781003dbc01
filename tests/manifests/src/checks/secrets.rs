//! Secrets come encrypted, from a bucket, a folder for each namespace. One in Git is everybody's.

use serde_json::Value;

use crate::document::keys;
use crate::{BY_SOPS, Document, Finding, Tree};

/// No Secret stands in the tree, no value of a release is one, and each namespace that wants some gets its own.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<_> = tree
        .of_kind("Secret")
        .map(|d| Finding::new(d.id(), "it is a secret in Git"))
        .collect();
    for release in tree.releases() {
        for values in tree.values(release) {
            keys(&values, &mut |key, value| {
                if is_secret(key) && holds_text(value) {
                    let what = format!("its value {key} is a secret in Git");
                    findings.push(Finding::new(release.id(), what));
                }
            });
        }
    }
    findings.extend(from_the_bucket(tree));
    findings
}

fn from_the_bucket(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_sealed = |k: &&Document| k.text("/spec/sourceRef/kind") == "Bucket";
    let sealed: Vec<_> = tree.kustomizations().filter(is_sealed).collect();
    for kustomization in &sealed {
        let mut say = |what: String| findings.push(Finding::new(kustomization.id(), what));
        let namespace = kustomization.text("/spec/targetNamespace");
        let folder = format!("./{}/{namespace}", tree.cluster);
        if kustomization.text("/spec/path") != folder {
            say(format!("the secrets of {namespace} are in {folder}"));
        }
        if kustomization.value.pointer("/spec/decryption").is_none() {
            say("it applies secrets as they are encrypted".into());
        }
    }
    for bucket in tree.of_kind("Bucket") {
        let prefix = format!("{}/", tree.cluster);
        if bucket.text("/spec/prefix") != prefix {
            let what = format!("it reads more than {prefix}");
            findings.push(Finding::new(bucket.id(), what));
        }
    }
    for given in BY_SOPS {
        let mut sealed = sealed.iter();
        if !sealed.any(|k| k.text("/spec/targetNamespace") == given.namespace) {
            let place = format!("Secret {}/{}", given.namespace, given.name);
            findings.push(Finding::new(
                place,
                "nothing decrypts it into its namespace",
            ));
        }
    }
    findings
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let key = key.as_str();
    // Which Secret, or which key of it, is no secret.
    let a_name = key.starts_with("existing") || key.ends_with("name");
    let word = [
        "password",
        "passwd",
        "token",
        "apikey",
        "accesskey",
        "privatekey",
        "htpasswd",
    ];
    !a_name && (key == "secretkey" || key == "xsrfkey" || word.iter().any(|w| key.contains(w)))
}

fn holds_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}
