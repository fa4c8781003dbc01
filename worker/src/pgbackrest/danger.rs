//! Whether a source may be written into a cluster's values. On a cluster that does not exist it says what to
//! restore; on a living one the operator takes it for an order to restore in place: it stops the
//! database, deletes its StatefulSets and writes the backup over the data.
//!
//! What the operator compares is the id of the last restore in the cluster's status with the one that a
//! source stands for. The chart does not protect against this, and neither does the operator.

use super::seen::{self, Cluster, Malformed, Seen, condition};

/// The annotation that asks for a restore in place; the operator takes either spelling of it.
const IN_PLACE: [&str; 2] = [
    "pgv2.percona.com/pgbackrest-restore",
    "postgres-operator.crunchydata.com/pgbackrest-restore",
];

/// What writing a source would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Danger {
    /// There is no cluster: it would be made from the source.
    Creates,
    /// The cluster was made from a source and nothing would happen.
    Nothing,
    /// The cluster is being made from a source, or that failed; another source would start it again.
    Running {
        /// How far it is.
        progress: String,
    },
    /// The data of a living cluster would be overwritten.
    Destroys {
        /// How that is known.
        why: String,
    },
}

impl Danger {
    /// Judges a PerconaPGCluster by name, as it was just read.
    ///
    /// # Errors
    /// When the object is not what it should be.
    pub fn of(name: &str, cluster: &Seen) -> Result<Self, Malformed> {
        let Some(cluster) = seen::read::<Cluster>("PerconaPGCluster", cluster)? else {
            return Ok(Self::Creates);
        };
        if cluster.metadata.name != name {
            return Err(Malformed {
                kind: "PerconaPGCluster",
                reason: format!("it is named `{}`, not `{name}`", cluster.metadata.name),
            });
        }
        Ok(judge(&cluster))
    }

    /// Whether a source may be written.
    pub fn allows(&self) -> bool {
        matches!(self, Self::Creates | Self::Nothing)
    }
}

fn judge(cluster: &Cluster) -> Danger {
    let name = &cluster.metadata.name;
    let destroys = |why: String| Danger::Destroys { why };
    let enabled = |restore: &seen::SpecRestore| restore.enabled == Some(true);
    let in_place = cluster.spec.backups.pgbackrest.restore.as_ref();
    if in_place.is_some_and(enabled)
        || IN_PLACE
            .iter()
            .any(|name| cluster.metadata.annotations.contains_key(*name))
    {
        return destroys("a restore in place was asked for, or never cleaned up".into());
    }
    let status = &cluster.status;
    let restore = status.pgbackrest.as_ref().and_then(|p| p.restore.as_ref());
    match restore {
        Some(restore) if restore.id == seen::bootstrap_id(name) => {
            let progress = match (restore.finished, restore.succeeded) {
                (true, 1..) => return Danger::Nothing,
                (true, 0) => "its restore failed",
                (false, _) => "its restore has begun",
            };
            Danger::Running {
                progress: progress.into(),
            }
        }
        Some(restore) if !restore.id.is_empty() => destroys(format!(
            "its last restore is `{}`, not its first one",
            restore.id
        )),
        // Made with a source, and the operator has not come to it.
        _ if is_new(cluster) => Danger::Running {
            progress: "its restore has not begun".into(),
        },
        _ => destroys("it was not made from a backup, so its data exist nowhere else".into()),
    }
}

/// A cluster with a source that has no data yet. The status of 2.8 may keep an old condition, but it
/// never invents one.
fn is_new(cluster: &Cluster) -> bool {
    let initialized = condition(&cluster.status.conditions, "PostgresDataInitialized");
    cluster.spec.data_source.is_some()
        && !initialized.is_some_and(seen::Condition::is_true)
        && cluster.status.postgres.ready == 0
        && cluster.status.state != "ready"
}
