//! The switches: ConfigMaps whose values win over all others while a recovery runs.

use serde_json::Value;

use crate::document::field;
use crate::{Finding, Tree};

/// The releases that must not be installed before their switch is there.
const GATED: &[(&str, &str)] = &[("pg", "pg-db"), ("slr", "slr"), ("dsf", "dsf")];

/// The switches are there, win, and are waited for where they must be.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (namespace, name) in GATED {
        let Some(release) = tree.find("HelmRelease", namespace, name) else {
            let place = format!("HelmRelease {namespace}/{name}");
            findings.push(Finding::new(place, "it is not in the tree"));
            continue;
        };
        let mut say = |what: &str| findings.push(Finding::new(release.id(), what));
        let last = release.items("/spec/valuesFrom").last();
        let switch = format!("{name}-values-switch");
        match last.filter(|from| field(from, "name") == switch) {
            None => say("its switch is not the last of its values, so that another one wins"),
            Some(from) => {
                if field(from, "valuesKey") != "values-switch.yaml" {
                    say("its switch is read by another key than the one that is written");
                }
                if from.get("optional") == Some(&Value::Bool(true)) {
                    say("it is installed also without its switch");
                }
            }
        }
        if release.value.pointer("/spec/values").is_some() {
            say("it has values of its own, which win over its switch");
        }
    }
    findings
}
