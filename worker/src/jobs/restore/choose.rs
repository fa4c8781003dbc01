//! What is restored, and from where: decided from the backups in the bucket alone, before anything is touched.

use std::time::Duration;

use jiff::Timestamp;
use jobs::message::{Restore, Until};
use jobs::record::DatabaseRecord;
use jobs::secrets::Secrets;
use jobs::spec::{Backups, Database, SystemId};
use jobs::store::{Credentials, StoreConfig};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError};
use crate::pgbackrest::{ChooseError, Label, Loss, Repository, RestorePlan, Stanza, Target, Wish};
use crate::sealed;

/// One request to the bucket of the backups may take this long.
const S3_TIMEOUT: Duration = Duration::from_secs(30);

/// What is restored, as it is kept on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chosen {
    /// The repository's path.
    pub(super) from: String,
    pub(super) set: Label,
    pub(super) target: Target,
    pub(super) system_id: SystemId,
    /// Of PostgreSQL.
    pub(super) version: String,
    /// The timeline that the WAL ends on; a restored database is on a later one.
    pub(super) timeline: u32,
    /// The WAL that is replayed, for people.
    pub(super) wal: String,
    /// Bytes to download.
    pub(super) download: u64,
    /// Bytes on disk.
    pub(super) size: u64,
    pub(super) loss: Loss,
    pub(super) notes: Vec<String>,
    /// When it was decided: what the database wrote later it wrote after the restore.
    pub(super) at: Timestamp,
}

impl Chosen {
    fn new(from: &str, plan: &RestorePlan, at: Timestamp) -> Self {
        let wal = &plan.wal;
        let last = wal.last.map_or("what the set holds".to_owned(), |last| {
            format!("{}, archived at {}", last.segment, last.at)
        });
        Self {
            from: from.to_owned(),
            set: plan.chosen.clone(),
            target: plan.target,
            system_id: SystemId(plan.database.system_id),
            version: plan.database.version.clone(),
            timeline: wal.timeline,
            wal: format!("{} to {last} ({} segments)", wal.first, wal.segments),
            download: plan.download,
            size: plan.size,
            loss: plan.loss,
            notes: plan.notes.clone(),
            at,
        }
    }
}

/// What a restore would do now, for `rekindle plan`: the backups are read, nothing is written and no cluster is
/// asked. `record` is what is known of the cluster's database; what is lost is counted from `now` unless the
/// message says when the database was lost.
///
/// # Errors
/// When the backups cannot be read, or nothing among them is what is asked for; with the next thing to do.
pub async fn preview(
    database: &Database,
    record: Option<&DatabaseRecord>,
    job: &Restore,
    keys: Credentials,
    now: Timestamp,
) -> Result<RestorePlan, ChooseError> {
    let from = source(record, database);
    let repository = repository(&database.backups, from, keys).await?;
    let mut plan = plan(&repository, database, job, job.failed_at.unwrap_or(now)).await?;
    plan.notes.extend(forgotten(record, from));
    Ok(plan)
}

/// The job's first step. Refuses what does not exist, is broken, or is of another database.
pub(super) async fn choose(
    ctx: &Ctx,
    database: &Database,
    job: &Restore,
) -> Result<Chosen, JobError> {
    let record = Cluster::of(ctx).database().await?;
    let from = source(record.as_ref(), database);
    let keys = keys(&sealed::secrets(ctx).await?)?;
    let failure = match job.failed_at {
        Some(at) => at,
        None => declared(ctx).await?,
    };
    let repository = repository(&database.backups, from, keys).await;
    let repository = repository.map_err(ChooseError::from)?;
    let mut plan = plan(&repository, database, job, failure).await?;
    plan.notes.extend(forgotten(record.as_ref(), from));
    Ok(Chosen::new(from, &plan, Timestamp::now()))
}

async fn plan(
    repository: &Repository,
    database: &Database,
    job: &Restore,
    failure: Timestamp,
) -> Result<RestorePlan, ChooseError> {
    let wish = wish(database, job);
    let stanza = Stanza::read(repository, wish.system_id).await?;
    let choice = stanza.choose(&wish)?;
    Ok(RestorePlan::new(&stanza, &choice, failure))
}

fn wish(database: &Database, job: &Restore) -> Wish {
    Wish {
        set: job.set.clone(),
        target: match job.until {
            Until::End => Target::End,
            Until::Consistent => Target::Immediate,
            Until::Time(at) => Target::Time(at),
        },
        system_id: database.backups.system_id.map(|id| id.0),
        accept_gap: job.accept_gap,
    }
}

/// The repository that is restored from: the promoted one, else the spec's.
pub(in crate::jobs) fn source<'a>(
    record: Option<&'a DatabaseRecord>,
    database: &'a Database,
) -> &'a str {
    let promoted = record.and_then(|record| record.source.as_deref());
    promoted.unwrap_or(&database.backups.path)
}

/// A database that was restored earlier and never promoted: what it wrote since is not in the source.
fn forgotten(record: Option<&DatabaseRecord>, from: &str) -> Option<String> {
    let restored = record?.restored.as_ref()?;
    (restored.proven && restored.generation != from).then(|| {
        format!(
            "recovery {} has restored the database, which writes its backups to {} since and was never promoted: \
             what it wrote is not in {from}",
            restored.recovery, restored.generation
        )
    })
}

/// The repository at a path of the backups' bucket.
pub(in crate::jobs) async fn repository(
    backups: &Backups,
    path: &str,
    keys: Credentials,
) -> Result<Repository, crate::pgbackrest::RepositoryError> {
    let store = &backups.store;
    let place = StoreConfig {
        endpoint: Some(store.url()),
        bucket: store.bucket.clone(),
        credentials: keys,
        region: store.region.clone(),
        prefix: path.to_owned(),
        path_style: store.path_style,
        timeout: S3_TIMEOUT,
    };
    Repository::connect(&place, &backups.stanza).await
}

/// The keys of the cluster's buckets.
pub(in crate::jobs) fn keys(secrets: &Secrets) -> Result<Credentials, JobError> {
    let access = sealed::need(secrets, "CLUSTER_S3_ACCESS_KEY")?;
    let secret = sealed::need(secrets, "CLUSTER_S3_SECRET_KEY")?;
    Ok(Credentials::Keys {
        access: access.reveal().to_owned(),
        secret: secret.clone(),
    })
}

/// The keys as texts that must not be shown.
pub(super) fn texts(keys: &Credentials) -> Vec<&str> {
    match keys {
        Credentials::Keys { access, secret } => vec![access, secret.reveal()],
        Credentials::Aws => vec![],
    }
}

/// When the recovery was declared.
async fn declared(ctx: &Ctx) -> Result<Timestamp, JobError> {
    let record = ctx.store().recovery_record(ctx.cluster(), ctx.recovery());
    let missing = || JobError::fatal("the recovery has no record");
    Ok(record.await?.ok_or_else(missing)?.created)
}

impl From<ChooseError> for JobError {
    fn from(error: ChooseError) -> Self {
        match &error {
            ChooseError::Repository(repository) if repository.is_transient() => Self::retry(error),
            _ => Self::fatal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use jobs::record::RestoredDatabase;

    use super::*;
    use crate::jobs::restore::tests::database;

    fn record(source: Option<&str>, generation: &str, proven: bool) -> DatabaseRecord {
        DatabaseRecord {
            source: source.map(str::to_owned),
            restored: Some(RestoredDatabase {
                recovery: "r-1".parse().unwrap(),
                from: "/pgbackrest/repo1".into(),
                generation: generation.into(),
                proven,
            }),
        }
    }

    #[test]
    fn a_promoted_repository_is_the_source_and_a_restored_one_alone_is_not() {
        let database = database();
        let restored = record(None, "/pgbackrest/test/r-1", true);
        assert_eq!(source(None, &database), "/pgbackrest/repo1");
        assert_eq!(source(Some(&restored), &database), "/pgbackrest/repo1");
        let promoted = record(Some("/pgbackrest/test/r-1"), "/pgbackrest/test/r-1", true);
        assert_eq!(source(Some(&promoted), &database), "/pgbackrest/test/r-1");
    }

    #[test]
    fn a_restored_database_that_was_never_promoted_is_told_of() {
        let from = "/pgbackrest/repo1";
        let told = forgotten(Some(&record(None, "/pgbackrest/test/r-1", true)), from).unwrap();
        assert!(
            told.contains("r-1") && told.contains("never promoted"),
            "{told}"
        );
        for (record, from) in [
            (None, from),
            (Some(record(None, "/pgbackrest/test/r-1", false)), from),
            (Some(record(Some("/a/b"), "/a/b", true)), "/a/b"),
        ] {
            assert_eq!(forgotten(record.as_ref(), from), None, "{record:?}");
        }
    }

    #[test]
    fn the_message_becomes_the_wish() {
        let at: Timestamp = "2026-11-23T01:36:00Z".parse().unwrap();
        let mut database = database();
        database.backups.system_id = Some(SystemId(7));
        let of = |until| {
            let job = Restore {
                set: Some("x".into()),
                until,
                accept_gap: true,
                ..Restore::default()
            };
            wish(&database, &job)
        };
        let wish = of(Until::Time(at));
        assert_eq!(wish.target, Target::Time(at));
        assert_eq!(wish.system_id, Some(7));
        assert_eq!(wish.set.as_deref(), Some("x"));
        assert!(wish.accept_gap);
        assert_eq!(of(Until::End).target, Target::End);
        assert_eq!(of(Until::Consistent).target, Target::Immediate);
    }
}
