//! The place for the restored database's own backups: a new one each time, on record before anything is restored.

use jobs::record::{DatabaseRecord, RestoredDatabase};
use jobs::spec::Database;

use super::choose::{self, Chosen};
use super::values;
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError};
use crate::pgbackrest::{ChooseError, generation_path};
use crate::sealed;

/// Takes a generation for this recovery, or the one that it has taken before.
pub(super) async fn take(
    ctx: &Ctx,
    database: &Database,
    chosen: &Chosen,
) -> Result<String, JobError> {
    let cluster = Cluster::of(ctx);
    let record = cluster.database().await?;
    let ours = |restored: &RestoredDatabase| restored.recovery == *ctx.recovery();
    if let Some(taken) = record.and_then(|record| record.restored).filter(ours) {
        return Ok(taken.generation);
    }
    let path = generation_path(ctx.cluster(), ctx.recovery());
    // That it keeps clear of the source is found out before it is on record.
    values::running(database, chosen, &path)?;
    let keys = choose::keys(&sealed::secrets(ctx).await?)?;
    let repository = choose::repository(&database.backups, &path, keys).await;
    let repository = repository.map_err(ChooseError::from)?;
    if repository.is_used().await.map_err(ChooseError::from)? {
        return Err(JobError::needs_approval(format!(
            "there are backups below {path} of bucket {} already, and two databases that write one repository \
             destroy it: move them away, then `rekindle retry`",
            database.backups.store.bucket
        )));
    }
    let restored = RestoredDatabase {
        recovery: ctx.recovery().clone(),
        from: chosen.from.clone(),
        generation: path.clone(),
        proven: false,
    };
    cluster
        .change_database(|old| Ok(taken(old, &restored)))
        .await?;
    Ok(path)
}

/// The record with what this recovery restores; once proven stays proven.
fn taken(old: DatabaseRecord, restored: &RestoredDatabase) -> DatabaseRecord {
    match old.restored {
        Some(ref there) if there.recovery == restored.recovery => old,
        _ => DatabaseRecord {
            restored: Some(restored.clone()),
            ..old
        },
    }
}

/// Records that the data are proven.
pub(super) async fn proven(ctx: &Ctx) -> Result<(), JobError> {
    let change = |old: DatabaseRecord| match old.restored {
        Some(restored) if restored.recovery == *ctx.recovery() => Ok(DatabaseRecord {
            restored: Some(RestoredDatabase {
                proven: true,
                ..restored
            }),
            ..old
        }),
        other => Err(JobError::fatal(format!(
            "the database's record is of another recovery: {}",
            other.map_or("none".to_owned(), |other| other.recovery.to_string())
        ))),
    };
    Cluster::of(ctx).change_database(change).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_generation_is_taken_once_and_the_source_stays() {
        let of = |recovery: &str, proven| RestoredDatabase {
            recovery: recovery.parse().unwrap(),
            from: "/pgbackrest/repo1".into(),
            generation: format!("/pgbackrest/test/{recovery}"),
            proven,
        };
        let record = |restored| DatabaseRecord {
            source: Some("/pgbackrest/repo1".into()),
            restored,
        };
        let ours = of("r-2", false);
        assert_eq!(taken(record(None), &ours), record(Some(ours.clone())));
        assert_eq!(
            taken(record(Some(of("r-1", true))), &ours),
            record(Some(ours.clone()))
        );
        // A late writer does not take the proof away.
        let proven = record(Some(of("r-2", true)));
        assert_eq!(taken(proven.clone(), &ours), proven);
    }
}
