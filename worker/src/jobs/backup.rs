//! Backup: a backup of the database now, and the proof that a restore could use it.
//!
//! The operator makes it from an object whose name is on record before it is created, so that it is made once. Its
//! word is not taken for it: the set has to stand in `backup.info` of the repository that the database writes.

use std::time::Duration;

use jobs::message::{Backup as Message, BackupKind};
use jobs::record::DatabaseRecord;
use jobs::spec::Database;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::restore::{self, Kube, PERCONA, PGV2, patience};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Poll, Proof, Proven};
use crate::kube::Object;
use crate::pgbackrest::{BackingUp, Backup, ChooseError, Kind, Set, Stanza, size};
use crate::sealed;

/// The step names.
pub const STEPS: &[&str] = &["ready", "name", "create", "made", "prove"];

/// How long the database may take to be ready for a backup.
const READY: Duration = Duration::from_secs(30 * 60);
/// How long a backup may take.
const MADE: Duration = Duration::from_secs(12 * 60 * 60);

/// A set, as the proof has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    label: String,
    kind: String,
    /// Bytes in the repository.
    size: u64,
    /// Where in the WAL it begins and ends.
    lsn: Option<(String, String)>,
}

/// Makes a backup, and proves that it is there and of use.
pub async fn run(ctx: &Ctx, job: &Message) -> Result<Proven, JobError> {
    let database = restore::of_spec(ctx)?;
    let kube = Kube::new(ctx);
    let path: String = ctx
        .wait("ready", patience(ctx, READY), || async {
            let record = Cluster::of(ctx).database().await?;
            let cluster = restore::cluster(kube.get().await?, database).await?;
            ready(database, record.as_ref(), cluster.as_ref())
        })
        .await?;

    // A job that an operator puts back makes another one: the first has failed and stays.
    let key = ("name", ctx.generation());
    let name: String = ctx
        .step(key, || async { Ok::<_, JobError>(name(ctx)) })
        .await?;
    let backup = Backup {
        name,
        namespace: database.namespace.to_string(),
        cluster: database.cluster.to_string(),
        repo: database.backups.repo.clone(),
        kind: kind(job.kind),
    };
    let object = Object::new(backup.object()).map_err(|field| {
        JobError::fatal(format!("the object of the backup has no usable `{field}`"))
    })?;
    ctx.step(("create", ctx.generation()), || async {
        // That it is there already is our own doing: the name is ours.
        kube.get().await?.create(&object).await?;
        Ok::<_, JobError>(())
    })
    .await?;

    let key = ("made", ctx.generation());
    let label: String = ctx
        .wait(key, patience(ctx, MADE), || async {
            let kind = (PGV2, "PerconaPGBackup");
            let objects = kube.get().await?;
            let seen = restore::get(objects, kind, &database.namespace, &backup.name).await?;
            match backup.judge(&seen).map_err(JobError::fatal)? {
                BackingUp::Running { state } => {
                    Ok(Poll::Pending(format!("{}: {state}", backup.name)))
                }
                BackingUp::Succeeded { label } => confirmed(ctx, database, &path, &backup, &label)
                    .await
                    .map(|made| made.map_poll(label)),
                BackingUp::Failed { reason } => Err(JobError::fatal(format!(
                    "PerconaPGBackup {}/{} failed: {reason}; when its cause is gone, `rekindle retry` makes another one",
                    backup.namespace, backup.name
                ))),
                BackingUp::Absent => Err(JobError::fatal(format!(
                    "PerconaPGBackup {}/{} was deleted while it was made; `rekindle retry` makes another one",
                    backup.namespace, backup.name
                ))),
            }
        })
        .await?;
    ctx.prove("backup", || async {
        let stanza = stanza(ctx, database, &path).await?;
        let set = backup.confirm(&label, &stanza.sets);
        let made = set.as_ref().ok().map(|set| made(set));
        Ok::<_, JobError>(Proof {
            expected: json!({"set": label, "in": path, "usable": true}),
            holds: set.is_ok(),
            observed: match set {
                Ok(_) => json!({"set": made, "in": path, "usable": true}),
                Err(why) => json!({"in": path, "usable": false, "why": why.to_string()}),
            },
        })
    })
    .await
}

/// Whether the set is in the repository. A bucket may show it later than the operator.
async fn confirmed(
    ctx: &Ctx,
    database: &Database,
    path: &str,
    backup: &Backup,
    label: &str,
) -> Result<Confirmed, JobError> {
    let stanza = stanza(ctx, database, path).await?;
    Ok(match backup.confirm(label, &stanza.sets) {
        Ok(set) => {
            tracing::info!(set = %set.label, size = %size(set.repo_size), "the backup is there");
            Confirmed::There
        }
        Err(why) => Confirmed::NotYet(why.to_string()),
    })
}

enum Confirmed {
    There,
    NotYet(String),
}

impl Confirmed {
    fn map_poll(self, label: String) -> Poll<String> {
        match self {
            Self::There => Poll::Ready(label),
            Self::NotYet(why) => Poll::Pending(why),
        }
    }
}

/// The stanza that the database writes.
async fn stanza(ctx: &Ctx, database: &Database, path: &str) -> Result<Stanza, JobError> {
    let keys = restore::keys(&sealed::secrets(ctx).await?)?;
    let repository = restore::repository(&database.backups, path, keys).await;
    let repository = repository.map_err(ChooseError::from)?;
    let system_id = database.backups.system_id.map(|id| id.0);
    Ok(Stanza::read(&repository, system_id).await?)
}

fn made(set: &Set) -> Made {
    Made {
        label: set.label.to_string(),
        kind: set.kind.to_string(),
        size: set.repo_size,
        lsn: set
            .wal
            .map(|wal| (wal.start.to_string(), wal.stop.to_string())),
    }
}

/// Whether the operator can make a backup, and the repository's path that it goes to. What the database itself says
/// must be what is on record.
fn ready(
    database: &Database,
    record: Option<&DatabaseRecord>,
    cluster: Option<&Value>,
) -> Result<Poll<String>, JobError> {
    let Database {
        namespace,
        cluster: name,
        ..
    } = database;
    let Some(cluster) = cluster else {
        return Ok(Poll::Pending(format!(
            "there is no {PERCONA} {namespace}/{name}"
        )));
    };
    let path = writes(database, record);
    let key = format!("{}-path", database.backups.repo);
    let there = cluster["spec"]["backups"]["pgbackrest"]["global"][&key].as_str();
    if let Some(there) = there.filter(|there| *there != path) {
        return Err(JobError::fatal(format!(
            "{PERCONA} {namespace}/{name} writes its backups to {there}, and {path} is on record: one of them is \
             wrong, and a backup in the wrong place is none"
        )));
    }
    let state = cluster["status"]["state"].as_str().unwrap_or("new");
    let conditions = cluster["status"]["conditions"].as_array();
    let not_ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "ReadyForBackup" && condition["status"] != "True");
    Ok(match (state, not_ready) {
        ("ready", None) => Poll::Ready(path.to_owned()),
        ("ready", Some(_)) => Poll::Pending("it is not ready for a backup".into()),
        (state, _) => Poll::Pending(format!("the database is {state}")),
    })
}

/// The repository that the database writes: its own generation once it was restored.
fn writes<'a>(database: &'a Database, record: Option<&'a DatabaseRecord>) -> &'a str {
    let restored = record.and_then(|record| record.restored.as_ref());
    restored.map_or_else(
        || restore::source(record, database),
        |restored| &restored.generation,
    )
}

/// The object's name: the same in each turn, and another one each time that an operator puts the job back.
fn name(ctx: &Ctx) -> String {
    let recovery = ctx.recovery().as_str();
    let short: String = recovery.chars().take(40).collect();
    match ctx.generation() {
        0 => format!("rekindle-{short}"),
        n => format!("rekindle-{short}-{n}"),
    }
}

fn kind(kind: BackupKind) -> Kind {
    match kind {
        BackupKind::Full => Kind::Full,
        BackupKind::Differential => Kind::Diff,
        BackupKind::Incremental => Kind::Incr,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use jobs::record::RestoredDatabase;

    use super::*;
    use crate::jobs::restore::tests::database;

    fn record(source: Option<&str>, generation: Option<&str>) -> DatabaseRecord {
        DatabaseRecord {
            source: source.map(str::to_owned),
            restored: generation.map(|generation| RestoredDatabase {
                recovery: "r-1".parse().unwrap(),
                from: "/pgbackrest/repo1".into(),
                generation: generation.into(),
                proven: true,
            }),
        }
    }

    #[test]
    fn a_database_writes_its_generation_once_it_was_restored() {
        let database = database();
        assert_eq!(writes(&database, None), "/pgbackrest/repo1");
        let promoted = record(Some("/a/b"), None);
        assert_eq!(writes(&database, Some(&promoted)), "/a/b");
        let restored = record(Some("/a/b"), Some("/a/c"));
        assert_eq!(writes(&database, Some(&restored)), "/a/c");
    }

    #[test]
    fn a_backup_begins_when_the_database_is_ready_and_writes_where_we_think() {
        let database = database();
        let cluster = |path: Option<&str>, state: &str, condition: Option<&str>| {
            let conditions: Vec<Value> = condition
                .map(|status| json!({"type": "ReadyForBackup", "status": status}))
                .into_iter()
                .collect();
            json!({
                "spec": {"backups": {"pgbackrest": {"global": {"repo1-path": path}}}},
                "status": {"state": state, "conditions": conditions},
            })
        };
        let look = |cluster: &Value| ready(&database, None, Some(cluster));
        let is = |poll: Poll<String>, expected: &str| match poll {
            Poll::Ready(path) => assert_eq!(path, expected),
            Poll::Pending(why) => assert_eq!(why, expected),
        };
        let here = Some("/pgbackrest/repo1");
        is(
            look(&cluster(here, "ready", Some("True"))).unwrap(),
            "/pgbackrest/repo1",
        );
        is(
            look(&cluster(None, "ready", None)).unwrap(),
            "/pgbackrest/repo1",
        );
        is(
            look(&cluster(here, "ready", Some("False"))).unwrap(),
            "it is not ready for a backup",
        );
        is(
            look(&cluster(here, "initializing", None)).unwrap(),
            "the database is initializing",
        );
        is(
            ready(&database, None, None).unwrap(),
            "there is no PerconaPGCluster pg/pg-db",
        );
        let error = look(&cluster(Some("/pgbackrest/other"), "ready", None)).unwrap_err();
        assert!(error.to_string().contains("/pgbackrest/other"), "{error}");
    }
}
