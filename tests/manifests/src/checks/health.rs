//! Who depends on a Kustomization wants what is in it to be well, not only applied.

use std::collections::BTreeSet;

use super::order::waits;
use crate::document::field;
use crate::{Finding, Tree};

/// Every Kustomization that another one depends on waits for health, and none waits without an end.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wanted: BTreeSet<_> = tree
        .kustomizations()
        .flat_map(|k| k.items("/spec/dependsOn"))
        .map(|dependency| field(dependency, "name"))
        .collect();
    for kustomization in tree.kustomizations() {
        let mut say = |what: &str| findings.push(Finding::new(kustomization.id(), what));
        if wanted.contains(kustomization.name()) && !waits(kustomization) {
            say("others depend on it, and its Ready only means applied");
        }
        for (pointer, what) in [
            ("/spec/timeout", "it has no timeout"),
            (
                "/spec/retryInterval",
                "after a failure it waits for the whole interval",
            ),
        ] {
            if kustomization.text(pointer).is_empty() {
                say(what);
            }
        }
    }
    findings
}
