//! Secrets come encrypted, from a bucket. One in Git is everybody's.

use serde_json::Value;

use crate::document::keys;
use crate::{Finding, Tree};

/// No Secret stands in the tree, and no value of a release is one.
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
