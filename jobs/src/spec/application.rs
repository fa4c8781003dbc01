//! The `applications` of a spec: what is frozen while the database is restored, thawed when its data are proven,
//! and asked by its URL at the end.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::Problem;
use super::{ClusterSpec, check_switch};
use crate::ids::ObjectName;

/// A release whose values a switch overrides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// What it is called here and in commands.
    pub name: ObjectName,
    /// Its namespace.
    pub namespace: ObjectName,
    /// Name of its HelmRelease.
    pub release: ObjectName,
    /// Name of the ConfigMap that overrides the release's values.
    pub switch: ObjectName,
    /// The values that stop it.
    pub frozen: Map<String, Value>,
    /// The values that let it run.
    #[serde(default)]
    pub running: Map<String, Value>,
    /// Where in its values the image tag stands, for `release`: the keys with dots between.
    #[serde(default = "usual_tag")]
    pub tag: String,
    /// Answers with 200 when the application works with its data. `${DOMAIN}` is the secret of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the answer's body must have in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

fn usual_tag() -> String {
    "image.tag".into()
}

impl Application {
    /// The keys that lead to the image tag.
    pub fn tag_path(&self) -> Vec<&str> {
        self.tag.split('.').collect()
    }
}

impl ClusterSpec {
    /// An application by its name.
    pub fn application(&self, name: &str) -> Option<&Application> {
        let mut all = self.applications.iter();
        all.find(|application| application.name.as_str() == name)
    }
}

/// What is wrong with them.
pub(super) fn check(spec: &ClusterSpec, found: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for (i, application) in spec.applications.iter().enumerate() {
        let at = format!("applications[{i}]");
        let mut bad = |field: &str, reason: String| {
            found.push(Problem::new(format!("{at}.{field}"), reason));
        };
        if !names.insert(application.name.as_str()) {
            bad("name", format!("`{}` stands twice", application.name));
        }
        if application.frozen.is_empty() {
            bad(
                "frozen",
                "it has no values: nothing would stop the application".into(),
            );
        }
        if application.frozen == application.running {
            bad("running", "it is the same as `frozen`".into());
        }
        if application.tag_path().iter().any(|key| key.is_empty()) {
            bad(
                "tag",
                format!("`{}` is not keys with dots between", application.tag),
            );
        }
        let http = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        if application.url.as_deref().is_some_and(|url| !http(url)) {
            bad("url", "it does not begin with https:// or http://".into());
        }
        check_switch(&format!("{at}.switch"), &application.switch, found);
    }
    if !spec.applications.is_empty() && spec.flux.is_none() {
        found.push(Problem::new(
            "applications",
            "there is no `flux` section: nothing would install them",
        ));
    }
}
