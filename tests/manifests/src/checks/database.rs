//! The database's values. Its chart passes on what it knows and drops the rest without a word, so the types here say
//! what version 2.8.0 of it knows of what we use; and a value in the wrong place costs the data.

#![expect(
    dead_code,
    reason = "most types only say which fields there may be; nobody reads them"
)]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{Finding, Tree};

/// What the operator sets itself; it ignores a restore that says them.
const FORBIDDEN: &[&str] = &[
    "--repo",
    "--stanza",
    "--pg1-path",
    "--target-action",
    "--link-map",
];

/// The values in Git: a known shape, no restore, an archive that is nobody's.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let place = "ConfigMap pg/pg-db-values";
    let map = tree.find("ConfigMap", "pg", "pg-db-values");
    let text = map.map_or("", |map| map.text("/data/values.yaml"));
    let values = match read(text) {
        Ok(values) => values,
        Err(said) => return vec![Finding::new(place, said)],
    };
    let mut findings = Vec::new();
    let mut say = |what: String| findings.push(Finding::new(place, what));
    if values.data_source.is_some() {
        say("it restores; only a switch may".into());
    }
    for repo in &values.backups.pgbackrest.repos {
        match values.backups.pgbackrest.path(&repo.name) {
            "/pgbackrest/no-generation" => {}
            path => say(format!(
                "without a switch {} archives into {path:?}",
                repo.name
            )),
        }
    }
    findings
}

/// One content of the switch: it names a generation, and a restore reads another one than it writes.
pub fn check_switch(text: &str) -> Vec<Finding> {
    let place = "ConfigMap pg/pg-db-values-switch";
    let values = match read(text) {
        Ok(values) => values,
        Err(said) => return vec![Finding::new(place, said)],
    };
    let mut findings = Vec::new();
    let mut say = |what: String| findings.push(Finding::new(place, what));
    let written = values.backups.pgbackrest.path("repo1");
    if written.is_empty() {
        say("it names no generation to archive into".into());
    }
    if let Some(source) = values.data_source.map(|source| source.pgbackrest) {
        let name = &source.repo.name;
        let read = source.global.get(&format!("{name}-path"));
        match read.map(String::as_str) {
            None => say("it does not say which generation it reads".into()),
            Some(read) if read == written => say(format!("it writes what it reads: {read}")),
            Some(_) => {}
        }
        if source.options.is_empty() {
            say("it has no options, and the chart makes null of that".into());
        }
        for option in &source.options {
            let name = option.split(['=', ' ']).next().unwrap_or_default();
            if FORBIDDEN.contains(&name) {
                say(format!("the operator ignores a restore with {name}"));
            }
        }
    }
    findings
}

fn read(text: &str) -> Result<Values, String> {
    let value = crate::tree::parse(text)?;
    serde_path_to_error::deserialize(value).map_err(|e| format!("{}: {}", e.path(), e.inner()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Values {
    #[serde(default)]
    instances: Vec<Instance>,
    #[serde(default)]
    backups: Backups,
    data_source: Option<DataSource>,
    image_pull_policy: Option<String>,
    postgres_version: Option<u32>,
    proxy: Option<Proxy>,
    users: Option<Vec<User>>,
    pmm: Option<Pmm>,
    pause: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Instance {
    name: String,
    replicas: u32,
    data_volume_claim_spec: Claim,
    affinity: Option<Value>,
    tolerations: Option<Value>,
    resources: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Claim {
    storage_class_name: String,
    access_modes: Vec<String>,
    resources: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Proxy {
    pg_bouncer: PgBouncer,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PgBouncer {
    replicas: u32,
    config: Option<Config>,
    affinity: Option<Value>,
    tolerations: Option<Value>,
    resources: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    global: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct User {
    name: String,
    databases: Option<Vec<String>>,
    grant_public_schema_access: Option<bool>,
    options: Option<String>,
    secret_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Backups {
    pgbackrest: PgBackRest,
    track_latest_restorable_time: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PgBackRest {
    #[serde(default)]
    global: BTreeMap<String, String>,
    #[serde(default)]
    repos: Vec<Repo>,
    configuration: Option<Value>,
    manual: Option<Manual>,
    restore: Option<Restore>,
}

impl PgBackRest {
    /// Where a repository is in its bucket; empty when nothing says so.
    fn path(&self, repo: &str) -> &str {
        self.global
            .get(&format!("{repo}-path"))
            .map_or("", String::as_str)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manual {
    repo_name: String,
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Restore {
    repo_name: String,
    tolerations: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repo {
    name: String,
    s3: S3,
    schedules: Option<Schedules>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct S3 {
    bucket: String,
    endpoint: String,
    region: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schedules {
    full: String,
    differential: Option<String>,
    incremental: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pmm {
    enabled: bool,
    secret: Option<String>,
    server_host: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DataSource {
    pgbackrest: Source,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    stanza: String,
    repo: Repo,
    configuration: Value,
    tolerations: Option<Value>,
    #[serde(default)]
    global: BTreeMap<String, String>,
    #[serde(default)]
    options: Vec<String>,
}
