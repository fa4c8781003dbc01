//! What we read of the operator's objects, and of what it makes. Other fields are not looked at, and a field
//! that is not there yet is nothing: the caller has read the object, or it would not be here.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// An object of the Kubernetes API as it was read, or nothing when the API said that there is none.
pub type Seen = Option<Value>;

/// An object that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {reason}")]
pub struct Malformed {
    /// Which.
    pub kind: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// Reads an object's parts.
pub(super) fn read<T: for<'a> Deserialize<'a>>(
    kind: &'static str,
    seen: &Seen,
) -> Result<Option<T>, Malformed> {
    let malformed = |error: serde_json::Error| Malformed {
        kind,
        reason: error.to_string(),
    };
    seen.as_ref()
        .map(T::deserialize)
        .transpose()
        .map_err(malformed)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) creation_timestamp: Option<Timestamp>,
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

/// A PerconaPGCluster.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cluster {
    pub(super) metadata: Meta,
    pub(super) spec: ClusterSpec,
    pub(super) status: ClusterStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClusterSpec {
    pub(super) data_source: Option<Value>,
    pub(super) backups: SpecBackups,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SpecBackups {
    pub(super) pgbackrest: SpecPgBackRest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SpecPgBackRest {
    pub(super) restore: Option<SpecRestore>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SpecRestore {
    pub(super) enabled: Option<bool>,
}

/// The status of a PerconaPGCluster, or of the PostgresCluster inside.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClusterStatus {
    pub(super) state: String,
    pub(super) postgres: Ready,
    pub(super) pgbackrest: Option<PgBackRestStatus>,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ready {
    pub(super) size: u32,
    pub(super) ready: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PgBackRestStatus {
    pub(super) restore: Option<RestoreStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RestoreStatus {
    pub(super) id: String,
    pub(super) finished: bool,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// A PostgresCluster: only its status matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Inner {
    pub(super) status: ClusterStatus,
}

/// A PerconaPGRestore.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Restore {
    pub(super) metadata: Meta,
    pub(super) status: RestoreState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RestoreState {
    pub(super) state: String,
}

/// A Job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Job {
    pub(super) status: JobStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobStatus {
    pub(super) active: u32,
    pub(super) failed: u32,
    pub(super) conditions: Vec<Condition>,
}

/// A Pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    pub(super) status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    pub(super) conditions: Vec<Condition>,
    pub(super) init_container_statuses: Vec<Container>,
    pub(super) container_statuses: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) restart_count: u32,
    pub(super) state: ContainerState,
    pub(super) last_state: ContainerState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) waiting: Option<Waiting>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Terminated {
    pub(super) exit_code: i32,
    pub(super) reason: String,
    pub(super) message: String,
}

/// A condition by its type.
pub(super) fn condition<'a>(of: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    of.iter().find(|condition| condition.kind == kind)
}

impl Condition {
    pub(super) fn is_true(&self) -> bool {
        self.status == "True"
    }

    /// Its reason, with its message if it has one.
    pub(super) fn why(&self) -> String {
        match (self.reason.as_str(), self.message.as_str()) {
            (reason, "") => reason.to_owned(),
            ("", message) => message.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }
}

/// The id that the operator gives the restore of a new cluster.
pub(super) fn bootstrap_id(cluster: &str) -> String {
    format!("~pgo-bootstrap-{cluster}")
}
