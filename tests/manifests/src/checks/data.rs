//! Nothing that holds data goes because a line in Git went, or because a release failed.

use crate::document::keys;
use crate::{Document, Finding, Tree};

use super::releases::retries_in_place;

/// Releases whose uninstallation loses data, also where no volume in their values says so.
const HOLDS_DATA: &[(&str, &str)] = &[
    ("pg", "pg-db"),
    ("ot-operators", "redis-replication"),
    ("pmm", "pmm"),
    ("harbor", "harbor"),
];

const PRUNE: &str = "kustomize.toolkit.fluxcd.io/prune";

/// Data is not pruned, not uninstalled, and not deleted with what claimed it.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (namespace, name) in HOLDS_DATA {
        if tree.find("HelmRelease", namespace, name).is_none() {
            let place = format!("HelmRelease {namespace}/{name}");
            findings.push(Finding::new(place, "it is not in the tree"));
        }
    }
    for document in &tree.documents {
        let mut say = |what: &str| findings.push(Finding::new(document.id(), what));
        let held = match document.kind() {
            "Namespace" | "PersistentVolumeClaim" => true,
            "PersistentVolume" => {
                if document.text("/spec/persistentVolumeReclaimPolicy") != "Retain" {
                    say("its data goes with its claim");
                }
                true
            }
            "StorageClass" => {
                if document.text("/reclaimPolicy") != "Retain" {
                    say("its volumes' data goes with their claims");
                }
                false
            }
            _ => document.is_release() && holds_data(tree, document),
        };
        if held && document.annotation(PRUNE) != Some("disabled") {
            say("it holds data, and a line less in Git deletes it");
        }
        if held && document.is_release() {
            for action in ["install", "upgrade"] {
                if !retries_in_place(document, action) {
                    say(&format!(
                        "it holds data, and a failed {action} takes it away"
                    ));
                }
            }
            if deletes_claims(tree, document) {
                say("it has a finalizer that deletes its claims");
            }
        }
    }
    findings
}

fn holds_data(tree: &Tree, release: &Document) -> bool {
    let mut found = HOLDS_DATA.contains(&(release.namespace(), release.name()));
    for values in tree.values(release) {
        keys(&values, &mut |key, _| found |= key == "storageClassName");
    }
    found
}

fn deletes_claims(tree: &Tree, release: &Document) -> bool {
    let mut found = false;
    for values in tree.values(release) {
        crate::document::texts(&values, &mut |text| found |= text.ends_with("/delete-pvc"));
    }
    found
}
