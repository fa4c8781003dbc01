//! A backup on demand: the object that we create, and what came of it.
//!
//! The type stands in the options. The object has no field for it, and one that is written anyway is dropped
//! without a word: the backup would be incremental.

use serde::Deserialize;
use serde_json::{Value, json};

use super::info::Kind;
use super::seen::{self, Malformed, Seen};
use super::sets::Set;

/// A backup to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The object's name: chosen and recorded before it is created, so that it is made once.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The PerconaPGCluster.
    pub cluster: String,
    /// The operator's name of the repository.
    pub repo: String,
    /// What it is to hold.
    pub kind: Kind,
}

/// How a backup stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackingUp {
    /// The object is not there: it was never created, or it was deleted with its set.
    Absent,
    /// Not finished.
    Running {
        /// The operator's word for it.
        state: String,
    },
    /// It will not come.
    Failed {
        /// Why.
        reason: String,
    },
    /// The operator says that it is there. What it is worth, [`Backup::confirm`] finds out.
    Succeeded {
        /// The set's label.
        label: String,
    },
}

/// Why a backup that the operator calls a success is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotThere {
    /// `backup.info` does not know it.
    #[error("the operator reports the set {label:.80}, and backup.info does not have it")]
    NotListed {
        /// The label.
        label: String,
    },
    /// It is of another type than was asked for.
    #[error("the set {label:.80} is {found}, and {wanted} was asked for")]
    OtherKind {
        /// The label.
        label: String,
        /// What it is.
        found: Kind,
        /// What was asked for.
        wanted: Kind,
    },
    /// A restore could not use it.
    #[error("the set {label:.80} cannot be restored: {why}")]
    Unusable {
        /// The label.
        label: String,
        /// Why not.
        why: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    pg_cluster: String,
    repo_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    state: String,
    error: String,
    backup_name: String,
}

impl Backup {
    /// The object to create.
    pub fn object(&self) -> Value {
        json!({
            "apiVersion": "pgv2.percona.com/v2",
            "kind": "PerconaPGBackup",
            "metadata": { "name": self.name, "namespace": self.namespace },
            "spec": {
                "pgCluster": self.cluster,
                "repoName": self.repo,
                "options": [format!("--type={}", self.kind)],
            },
        })
    }

    /// Judges the object as it was just read.
    ///
    /// # Errors
    /// When it is not ours, or not what it should be.
    pub fn judge(&self, object: &Seen) -> Result<BackingUp, Malformed> {
        let Some(object) = seen::read::<Object>("PerconaPGBackup", object)? else {
            return Ok(BackingUp::Absent);
        };
        let malformed = |reason: String| Malformed {
            kind: "PerconaPGBackup",
            reason,
        };
        if object.spec.pg_cluster != self.cluster || object.spec.repo_name != self.repo {
            let Spec {
                pg_cluster,
                repo_name,
            } = object.spec;
            return Err(malformed(format!(
                "`{}` is of cluster `{pg_cluster}` and `{repo_name}`, not ours",
                self.name
            )));
        }
        let Status {
            state,
            error,
            backup_name,
        } = object.status;
        Ok(match state.as_str() {
            "" => BackingUp::Running {
                state: "accepted".into(),
            },
            "Starting" | "Running" => BackingUp::Running { state },
            "Failed" if error.is_empty() => BackingUp::Failed {
                reason: "the operator gives no reason; see the Job's log".into(),
            },
            "Failed" => BackingUp::Failed { reason: error },
            // The label comes with the next look of the operator.
            "Succeeded" if backup_name.is_empty() => BackingUp::Running {
                state: "finished, its label is not known yet".into(),
            },
            "Succeeded" => BackingUp::Succeeded { label: backup_name },
            other => return Err(malformed(format!("its state is `{other:.40}`"))),
        })
    }

    /// Finds what was made among the sets that `backup.info` has now: its size and place in the WAL.
    ///
    /// # Errors
    /// When it is not there, not what was asked for, or of no use.
    pub fn confirm<'a>(&self, label: &str, sets: &'a [Set]) -> Result<&'a Set, NotThere> {
        let label = label.to_owned();
        let Some(set) = sets.iter().find(|set| set.label.as_str() == label) else {
            return Err(NotThere::NotListed { label });
        };
        // Without a full set pgBackRest makes one, whatever it was asked for.
        if set.kind != self.kind && set.kind != Kind::Full {
            let (found, wanted) = (set.kind, self.kind);
            return Err(NotThere::OtherKind {
                label,
                found,
                wanted,
            });
        }
        match set.is_usable() {
            true => Ok(set),
            false => Err(NotThere::Unusable {
                label,
                why: set.why_not(),
            }),
        }
    }
}
