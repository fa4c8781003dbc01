//! Whether the source may be written into the database's switch. On a database that lives the operator takes it
//! for an order to restore over the data.

use jobs::spec::Database;
use serde_json::{Map, Value};

use super::link::{self, PERCONA};
use crate::engine::JobError;
use crate::kube::Objects;
use crate::pgbackrest::Danger;

/// Looks at the database and its switch, just now. `ours` are the values that this recovery writes, once it has
/// come so far.
pub(super) async fn check(
    objects: &Objects,
    database: &Database,
    ours: Option<&Map<String, Value>>,
) -> Result<(), JobError> {
    let cluster = link::database(objects, database).await?;
    let danger = Danger::of(database.cluster.as_str(), &cluster).map_err(JobError::fatal)?;
    let written = match (&danger, ours) {
        (Danger::Creates, _) | (_, None) => false,
        (_, Some(ours)) => link::switch(objects, database).values().await? == *ours,
    };
    allow(&danger, written).map_err(|why| {
        let Database {
            namespace, cluster, ..
        } = database;
        JobError::needs_approval(format!(
            "{PERCONA} {namespace}/{cluster} is there: {why}. Nothing was changed. To restore in its place, save \
             what it holds, delete it and its claims, then `rekindle retry`"
        ))
    })
}

/// Whether it may be written; `written` says that it stands there already, from an earlier turn.
fn allow(danger: &Danger, written: bool) -> Result<(), String> {
    match danger {
        Danger::Creates => Ok(()),
        // The operator has acted on our own words: they are not changed any more.
        Danger::Nothing | Danger::Running { .. } if written => Ok(()),
        Danger::Nothing => Err(
            "it was restored before, and the operator would not restore it again: what is in it now would be taken \
             for what was asked for"
                .into(),
        ),
        Danger::Running { progress } => Err(format!("{progress}; another source would start it again")),
        Danger::Destroys { why } => Err(format!(
            "{why}; the operator would stop it and write the backup over its data"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_or_already_ours_is_restored() {
        let running = Danger::Running {
            progress: "its restore has begun".into(),
        };
        let destroys = Danger::Destroys {
            why: "it was not made from a backup".into(),
        };
        let check = |danger: &Danger, written: bool, allowed: bool| {
            assert_eq!(
                allow(danger, written).is_ok(),
                allowed,
                "{danger:?} {written}"
            );
        };
        check(&Danger::Creates, false, true);
        check(&Danger::Creates, true, true);
        check(&Danger::Nothing, false, false);
        check(&Danger::Nothing, true, true);
        check(&running, false, false);
        check(&running, true, true);
        check(&destroys, false, false);
        check(&destroys, true, false);
    }
}
