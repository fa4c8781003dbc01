//! The `database` section of a spec: the PostgreSQL cluster that is restored, and how its data are proven.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::check::Problem;
use super::{ClusterSpec, check_switch};
use crate::ids::ObjectName;

/// A database of the Percona operator, its backups, and the proofs that its data are back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Its namespace.
    pub namespace: ObjectName,
    /// Name of the PerconaPGCluster.
    pub cluster: ObjectName,
    /// Name of the HelmRelease that makes it.
    pub release: ObjectName,
    /// Name of the ConfigMap that overrides the release's values.
    pub switch: ObjectName,
    /// Where its backups are.
    pub backups: Backups,
    /// What the database's nodes are tainted with, `key=value:Effect`: the restore's Job tolerates it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// The user that the proofs ask as: one of the operator's, whose Secret is `<cluster>-pguser-<user>`.
    #[serde(default = "usual_user")]
    pub user: String,
    /// The proofs that the data are there. Without one only the database's own word is taken for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<DataProof>,
    /// A query that gives the time of the newest change as one `timestamptz`, for the recovery point that was
    /// reached; PostgreSQL is asked for its last commit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Query>,
}

/// Where backups are, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backups {
    /// The bucket.
    pub store: Bucket,
    /// pgBackRest's `repo-path` of the repository that is restored from until a recovered database is promoted.
    pub path: String,
    /// pgBackRest's stanza.
    #[serde(default = "usual_stanza")]
    pub stanza: String,
    /// The operator's name of the repository, `repo1` to `repo4`.
    #[serde(default = "usual_repo")]
    pub repo: String,
    /// The Secret with the bucket's keys, in the database's namespace.
    pub secret: ObjectName,
    /// The database's system identifier; a backup of another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_id: Option<SystemId>,
}

/// PostgreSQL's identifier of a database cluster: 64 bits, written as digits in quotes, since YAML's numbers lose
/// some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct SystemId(pub u64);

impl FromStr for SystemId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text:.40}` is not a system identifier such as \"7412345678901234567\"");
        text.parse().map(Self).map_err(|_| wrong())
    }
}

impl TryFrom<String> for SystemId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SystemId> for String {
    fn from(id: SystemId) -> String {
        id.to_string()
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A query in one of the databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The database.
    pub database: String,
    /// SQL that gives one row with one column.
    pub sql: String,
}

/// A query and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataProof {
    /// What it proves, in a word: it is its name in the report.
    pub name: ObjectName,
    /// The database.
    pub database: String,
    /// SQL that gives one row with one column.
    pub sql: String,
    /// The answer is a number of at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<i64>,
    /// The answer, as text, is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
}

fn usual_user() -> String {
    "postgres".into()
}

fn usual_stanza() -> String {
    "db".into()
}

fn usual_repo() -> String {
    "repo1".into()
}

/// What is wrong with the section.
pub(super) fn check(spec: &ClusterSpec, found: &mut Vec<Problem>) {
    let Some(database) = &spec.database else {
        return;
    };
    let backups = &database.backups;
    backups.store.check("database.backups.store", found);
    let mut bad = |field: String, reason: String| {
        found.push(Problem::new(format!("database.{field}"), reason));
    };
    if !is_repo_path(&backups.path) {
        let reason = format!("`{}` is not a path such as /pgbackrest/repo1", backups.path);
        bad("backups.path".into(), reason);
    }
    if !matches!(backups.repo.as_str(), "repo1" | "repo2" | "repo3" | "repo4") {
        bad(
            "backups.repo".into(),
            format!("`{}` is not one of repo1 to repo4", backups.repo),
        );
    }
    let stanza = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if backups.stanza.is_empty() || !backups.stanza.bytes().all(stanza) {
        bad(
            "backups.stanza".into(),
            "it has letters, digits, `-` and `_` only".into(),
        );
    }
    for (i, taint) in database.taints.iter().enumerate() {
        let known = spec.nodes().iter().any(|node| node.taints.contains(taint));
        if !known {
            let reason = format!("no switched-on node has the taint `{taint}`");
            bad(format!("taints[{i}]"), reason);
        }
    }
    let mut names = BTreeSet::new();
    for (i, proof) in database.proofs.iter().enumerate() {
        let at = format!("proofs[{i}]");
        if !names.insert(proof.name.as_str()) {
            bad(
                format!("{at}.name"),
                format!("`{}` stands twice", proof.name),
            );
        }
        if proof.at_least.is_some() == proof.equals.is_some() {
            bad(at.clone(), "say either `at_least` or `equals`".into());
        }
        if proof.sql.trim().is_empty() {
            bad(format!("{at}.sql"), "it is empty".into());
        }
    }
    if spec.flux.is_none() {
        found.push(Problem::new(
            "database",
            "there is no `flux` section: nothing would make the database",
        ));
    }
    check_switch("database.switch", &database.switch, found);
}

/// As pgBackRest and we compare paths: absolute, no empty part, no dots.
fn is_repo_path(path: &str) -> bool {
    let part = |part: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits)
    };
    path.strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(part))
}
