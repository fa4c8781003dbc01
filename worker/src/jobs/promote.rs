//! Promote: the restored database becomes the one that later recoveries restore from.
//!
//! Until then they restore from where this one came from, which is right for a drill and wrong for a recovery that
//! people work with. Only what can be restored itself is promoted: proven data, with a backup of their own.

use jobs::record::{DatabaseRecord, RestoredDatabase};
use jobs::spec::Database;
use serde::{Deserialize, Serialize};

use super::restore;
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Proof, Proven};
use crate::pgbackrest::{ChooseError, Kind, Label, Repository, Stanza, Wish};
use crate::sealed;

/// The step names.
pub const STEPS: &[&str] = &["look", "promote", "prove"];

/// What is promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    generation: String,
    /// What a restore from it would take.
    set: Label,
}

/// Promotes, and proves that the next recovery restores from it.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let database = restore::of_spec(ctx)?;
    let found: Found = ctx.step("look", || look(ctx, database)).await?;
    ctx.step("promote", || promote(ctx, &found.generation))
        .await?;
    ctx.prove("promoted", || async {
        let record = Cluster::of(ctx).database().await?;
        let source = restore::source(record.as_ref(), database).to_owned();
        Ok::<_, JobError>(Proof::equal(&found.generation, &source))
    })
    .await
}

/// Finds out whether what was restored can be restored again, from its own repository.
async fn look(ctx: &Ctx, database: &Database) -> Result<Found, JobError> {
    let record = Cluster::of(ctx).database().await?;
    let restored = proven(record.as_ref()).map_err(JobError::fatal)?;
    let system_id = system_id(ctx, database, restored).await?;
    let refused = |why: String| {
        JobError::fatal(format!(
            "{} cannot be restored from yet: {why}; make a full backup first: `rekindle backup`",
            restored.generation
        ))
    };
    let repository = repository(ctx, database, &restored.generation).await?;
    let stanza = match Stanza::read(&repository, Some(system_id)).await {
        Ok(stanza) => stanza,
        Err(ChooseError::Repository(error)) if error.is_transient() => {
            return Err(ChooseError::from(error).into());
        }
        Err(error) => return Err(refused(error.to_string())),
    };
    let wish = Wish {
        system_id: Some(system_id),
        ..Wish::default()
    };
    let choice = stanza.choose(&wish);
    let choice = choice.map_err(|error| refused(error.to_string()))?;
    let full = |set: &crate::pgbackrest::Set| set.kind == Kind::Full && set.is_usable();
    if !stanza.sets.iter().any(full) {
        return Err(refused("it has no full backup".into()));
    }
    Ok(Found {
        generation: restored.generation.clone(),
        set: choice.set.label,
    })
}

/// What was restored and proven.
fn proven(record: Option<&DatabaseRecord>) -> Result<&RestoredDatabase, String> {
    let restored = record.and_then(|record| record.restored.as_ref());
    match restored {
        None => Err("no database was restored: restore one first, `rekindle restore`".into()),
        Some(restored) if !restored.proven => Err(format!(
            "the data that recovery {} restores are not proven: bring it to its end first, `rekindle status`",
            restored.recovery
        )),
        Some(restored) => Ok(restored),
    }
}

/// The system identifier that the database must have: the spec's, else that of where it came from.
async fn system_id(
    ctx: &Ctx,
    database: &Database,
    restored: &RestoredDatabase,
) -> Result<u64, JobError> {
    if let Some(id) = database.backups.system_id {
        return Ok(id.0);
    }
    let repository = repository(ctx, database, &restored.from).await?;
    let backups = repository.backups().await.map_err(|error| {
        JobError::from(ChooseError::from(error)).while_doing(
            "learn the database's identity from its source (or give database.backups.system_id)",
        )
    })?;
    Ok(backups.info.current.system_id)
}

async fn repository(ctx: &Ctx, database: &Database, path: &str) -> Result<Repository, JobError> {
    let keys = restore::keys(&sealed::secrets(ctx).await?)?;
    let repository = restore::repository(&database.backups, path, keys).await;
    Ok(repository.map_err(ChooseError::from)?)
}

/// Writes it down, if nobody has restored another one meanwhile.
async fn promote(ctx: &Ctx, generation: &str) -> Result<(), JobError> {
    let change = |old: DatabaseRecord| promoted(old, generation).map_err(JobError::fatal);
    Cluster::of(ctx).change_database(change).await
}

fn promoted(old: DatabaseRecord, generation: &str) -> Result<DatabaseRecord, String> {
    let restored = proven(Some(&old))?;
    if restored.generation != generation {
        return Err(format!(
            "{} was restored meanwhile, not {generation}",
            restored.generation
        ));
    }
    Ok(DatabaseRecord {
        source: Some(generation.to_owned()),
        ..old
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn record(generation: &str, proven: bool) -> DatabaseRecord {
        DatabaseRecord {
            source: None,
            restored: Some(RestoredDatabase {
                recovery: "r-1".parse().unwrap(),
                from: "/pgbackrest/repo1".into(),
                generation: generation.into(),
                proven,
            }),
        }
    }

    #[test]
    fn only_proven_data_are_promoted() {
        assert!(proven(None).unwrap_err().contains("rekindle restore"));
        let unproven = record("/a/b", false);
        assert!(proven(Some(&unproven)).unwrap_err().contains("r-1"));
        promoted(unproven, "/a/b").unwrap_err();
        assert_eq!(
            promoted(record("/a/b", true), "/a/b")
                .unwrap()
                .source
                .as_deref(),
            Some("/a/b")
        );
    }

    #[test]
    fn promoting_twice_changes_nothing_and_what_came_since_is_not_promoted() {
        let once = promoted(record("/a/b", true), "/a/b").unwrap();
        assert_eq!(promoted(once.clone(), "/a/b").unwrap(), once);
        promoted(record("/a/c", true), "/a/b").unwrap_err();
    }
}
