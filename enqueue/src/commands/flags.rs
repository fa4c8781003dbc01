//! Setting an operator's flag in a recovery's record.

use jobs::keys;
use jobs::record::{Flags, RecoveryRecord};
use jobs::store::Store;

use crate::error::CliError;
use crate::view::{self, Snapshot};

/// Changes the flags of a recovery that goes on; gives whether anything changed.
pub(crate) async fn change(
    store: &Store,
    snapshot: &mut Snapshot,
    change: impl Fn(&mut Flags),
) -> Result<bool, CliError> {
    let (cluster, id) = (snapshot.record.cluster.clone(), snapshot.record.id.clone());
    let wrote = store
        .update(
            &keys::recovery(&cluster, &id),
            |there: Option<RecoveryRecord>| {
                let mut record = there.ok_or_else(|| {
                    CliError::failed(format!("recovery {id} vanished from the bucket"))
                })?;
                if let Some(end) = &record.finished {
                    return Err(has_ended(&record, view::outcome(end.outcome).words()));
                }
                let before = record.flags.clone();
                change(&mut record.flags);
                snapshot.record = record.clone();
                Ok((record.flags != before).then_some(record))
            },
        )
        .await?;
    Ok(wrote.is_some())
}

/// A recovery that has ended cannot be changed.
pub(crate) fn has_ended(record: &RecoveryRecord, how: &str) -> CliError {
    CliError::failed(format!(
        "recovery {} of cluster `{}` has ended: {how}",
        record.id, record.cluster
    ))
    .hint("`rekindle recover` starts another one")
}
