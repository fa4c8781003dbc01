//! Ending a cancelled recovery without a worker, and letting a cluster go.

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys;
use jobs::plan::PlannedJob;
use jobs::record::{
    ActiveRecord, Event, Finished, JobRecord, JobVersion, Outcome, Owner, RecoveryRecord,
};
use jobs::store::{Appended, CleanUp, Store, StoreError};

use crate::error::CliError;
use crate::view::Snapshot;

const PARALLEL: usize = 16;

/// How a cancelled recovery went on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// Nothing ran: it has ended and the cluster is free.
    Ended,
    /// Workers hold these jobs; they stop at their next step, and the last one ends the recovery.
    Running(Vec<JobName>),
    /// Nothing runs, and these jobs still have to take away what was made: a worker does that.
    CleaningUp(Vec<JobName>),
    /// Nothing runs, and these jobs have failed to take away what was made.
    CouldNotCleanUp(Vec<JobName>),
}

/// Settles every job that nobody works on, and ends the recovery when that is all of them. With `abandon` also when
/// something that cleans up has failed.
///
/// Safe against workers: a job is settled by creating the next version of its record. A worker
/// that is faster wins that version; then the job counts as running and the rest is the worker's.
pub(crate) async fn cancelled(
    store: &Store,
    snapshot: &Snapshot,
    abandon: bool,
) -> Result<Cancelled, CliError> {
    let (cluster, id) = (&snapshot.record.cluster, &snapshot.record.id);
    let me = &worker::engine::here(store.writer());
    let (clean_ups, others): (Vec<&PlannedJob>, Vec<_>) = snapshot
        .plan
        .jobs()
        .iter()
        .partition(|job| job.payload.cleans_up());
    let running = settle_all(store, me, snapshot, others).await?;
    if !running.is_empty() {
        return Ok(Cancelled::Running(running));
    }
    let (mut due, mut failed, mut needless) = (Vec::new(), Vec::new(), Vec::new());
    for job in clean_ups {
        match store.clean_up(cluster, id, job).await? {
            CleanUp::Nothing => needless.push(job),
            CleanUp::Failed if abandon => needless.push(job),
            CleanUp::Failed => failed.push(job.name.clone()),
            CleanUp::Due | CleanUp::Waits => due.push(job.name.clone()),
        }
    }
    if !due.is_empty() {
        return Ok(Cancelled::CleaningUp(due));
    }
    if !failed.is_empty() {
        return Ok(Cancelled::CouldNotCleanUp(failed));
    }
    let running = settle_all(store, me, snapshot, needless).await?;
    if !running.is_empty() {
        return Ok(Cancelled::Running(running));
    }
    store
        .update(
            &keys::recovery(cluster, id),
            |there: Option<RecoveryRecord>| {
                let open = there.filter(|record| record.finished.is_none());
                Ok::<_, StoreError>(open.map(|record| RecoveryRecord {
                    finished: Some(Finished {
                        outcome: Outcome::Cancelled,
                        at: Timestamp::now(),
                    }),
                    ..record
                }))
            },
        )
        .await?;
    free(store, cluster, id).await?;
    Ok(Cancelled::Ended)
}

/// Settles jobs as cancelled; those that a worker has come back.
async fn settle_all(
    store: &Store,
    me: &Owner,
    snapshot: &Snapshot,
    jobs: Vec<&PlannedJob>,
) -> Result<Vec<JobName>, CliError> {
    let (cluster, id) = (&snapshot.record.cluster, &snapshot.record.id);
    let settle = jobs.into_iter().map(|job| async move {
        let settled = settle(store, me, cluster, id, job).await?;
        Ok::<_, CliError>((!settled).then(|| job.name.clone()))
    });
    let running: Vec<Option<JobName>> = stream::iter(settle)
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    Ok(running.into_iter().flatten().collect())
}

/// Settles one job as cancelled; `false` when a worker has it.
async fn settle(
    store: &Store,
    me: &Owner,
    cluster: &ClusterName,
    id: &RecoveryId,
    job: &PlannedJob,
) -> Result<bool, CliError> {
    let series = keys::job(cluster, id, &job.name);
    let (version, mut record) = match store.read_job(&series).await? {
        Some(stored) => (stored.version, stored.record),
        None => (0, JobRecord::new(job.name.clone(), job.payload.clone())),
    };
    if record.status.is_settled() {
        return Ok(true);
    }
    // A process of this host that is gone runs nothing, whatever it left in the record.
    let alive = |owner: &Owner| !worker::engine::is_gone(owner, me);
    if record.owner.as_ref().is_some_and(alive) {
        return Ok(false);
    }
    record.release(Event::Cancel, Timestamp::now())?;
    let full = JobVersion::Full(Box::new(record));
    match store.append(&series, version + 1, &full).await? {
        Appended::Won => Ok(true),
        Appended::Lost => {
            let there = store.read_job(&series).await?;
            Ok(there.is_some_and(|stored| stored.record.status.is_settled()))
        }
    }
}

/// Lets the cluster go, if this recovery, which has ended, holds it; and destroys its secrets.
pub(crate) async fn free(
    store: &Store,
    cluster: &ClusterName,
    id: &RecoveryId,
) -> Result<(), CliError> {
    store.destroy_secrets(cluster, id).await?;
    store
        .update(&keys::active(cluster), |there: Option<ActiveRecord>| {
            let ours = there.is_some_and(|record| record.recovery.as_ref() == Some(id));
            Ok::<_, StoreError>(ours.then(|| ActiveRecord {
                recovery: None,
                since: Timestamp::now(),
            }))
        })
        .await?;
    Ok(())
}
