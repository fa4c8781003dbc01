//! Two objects of one name overwrite each other for ever; one in a namespace that nobody makes is never made.

use std::collections::BTreeSet;

use crate::{Finding, Tree};

/// Kinds that belong to no namespace.
const GLOBAL: &[&str] = &[
    "Namespace",
    "PersistentVolume",
    "StorageClass",
    "ClusterIssuer",
];
/// Made by Flux' installation.
const FLUX: &str = "flux-system";

/// Names are unique, namespaces exist.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    let namespaces: BTreeSet<_> = tree.of_kind("Namespace").map(|d| d.name()).collect();
    let exists = |namespace: &str| namespace == FLUX || namespaces.contains(namespace);
    for document in &tree.documents {
        let id = document.id();
        if !seen.insert(id.clone()) {
            findings.push(Finding::new(&id, "it stands twice"));
        }
        match (GLOBAL.contains(&document.kind()), document.namespace()) {
            (true, "") => {}
            (true, _) => findings.push(Finding::new(&id, "its kind belongs to no namespace")),
            (false, "") => findings.push(Finding::new(&id, "it says no namespace")),
            (false, namespace) if exists(namespace) => {}
            (false, namespace) => {
                findings.push(Finding::new(
                    &id,
                    format!("nobody makes namespace {namespace}"),
                ));
            }
        }
        let target = document.text("/spec/targetNamespace");
        if !target.is_empty() && !exists(target) {
            findings.push(Finding::new(
                &id,
                format!("nobody makes namespace {target}"),
            ));
        }
    }
    findings
}
