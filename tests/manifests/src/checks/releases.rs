//! A release says exactly what it installs, how long it may take, and what follows a failure.

use crate::{Document, Finding, Tree};

/// Pinned versions, time limits, remedies; charts of this repository in the version that they have.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for release in tree.releases() {
        let mut say = |what: String| findings.push(Finding::new(release.id(), what));
        let version = release.text("/spec/chart/spec/version");
        if !is_exact(version) {
            say(format!("its chart's version is not exact: {version:?}"));
        }
        if release.text("/spec/timeout").is_empty() {
            say("it has no timeout".into());
        }
        for action in ["install", "upgrade"] {
            if !has_remedy(release, action) {
                say(format!("a failed {action} has no remedy"));
            }
        }
        for values in release.items("/spec/valuesFrom") {
            let name = values
                .get("name")
                .and_then(|n| n.as_str())
                .unwrap_or_default();
            let map = tree.find("ConfigMap", release.namespace(), name);
            let text = map.map(|map| map.text("/data/values.yaml"));
            if let Some(Err(reason)) = text.map(crate::tree::parse) {
                say(format!("the values in {name} are no YAML: {reason}"));
            }
        }
        if release.text("/spec/chart/spec/sourceRef/kind") == "GitRepository" {
            let path = release
                .text("/spec/chart/spec/chart")
                .trim_start_matches("./");
            match tree.charts.get(path) {
                None => say(format!("there is no chart in {path}")),
                Some(chart) if chart.version == version => {}
                Some(chart) => say(format!(
                    "its chart's version is {}, not {version}",
                    chart.version
                )),
            }
        }
    }
    for repository in tree.of_kind("HelmRepository") {
        if !repository.text("/spec/url").starts_with("https://") {
            findings.push(Finding::new(repository.id(), "it is not read over TLS"));
        }
    }
    findings
}

fn is_exact(version: &str) -> bool {
    let numbers: Vec<_> = version.trim_start_matches('v').split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|n| n.parse::<u32>().is_ok())
}

/// Tried again in place, or taken back a stated number of times.
fn has_remedy(release: &Document, action: &str) -> bool {
    let retries = format!("/spec/{action}/remediation/retries");
    let retries = release.value.pointer(&retries).and_then(|n| n.as_i64());
    retries_in_place(release, action) || retries.is_some_and(|n| n != 0)
}

/// Whether a failure is met by trying again, with nothing uninstalled or rolled back in between.
pub(super) fn retries_in_place(release: &Document, action: &str) -> bool {
    release.text(&format!("/spec/{action}/strategy/name")) == "RetryOnFailure"
}
