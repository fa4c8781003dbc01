//! Posting: messages that wake workers up for the jobs that are due. Harmless at any time: a
//! message for a job that needs none is acknowledged and forgotten.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use jobs::message::JobMessage;
use jobs::plan::{PlannedJob, Readiness};
use jobs::queue::{Outgoing, Queue};
use jobs::record::{RecoveryRecord, Status};
use jobs::store::Store;

use crate::error::CliError;
use crate::view::Snapshot;

/// Publishes at most this many messages at a time.
const PARALLEL: usize = 16;

/// Posts every job that may run and is not settled; gives how many.
///
/// What is settled is taken from the markers here, as workers do: a job that is done but has lost
/// its marker to a crash is posted too, and its turn writes the marker.
pub(crate) async fn post_due(
    store: &Store,
    queue: &dyn Queue,
    snapshot: &Snapshot,
) -> Result<usize, CliError> {
    let record = &snapshot.record;
    let settled = store.settled(&record.cluster, &record.id).await?;
    let readiness = snapshot.plan.readiness(&settled);
    let due = |job: &&PlannedJob| {
        let stored = snapshot.jobs.get(&job.name);
        readiness.get(&job.name) == Some(&Readiness::Ready)
            && stored.is_none_or(|stored| stored.record.status != Status::Cancelled)
    };
    // Not the turn of a worker: ids of messages tell who posted them.
    let turn = format!("post-{}", &uuid::Uuid::new_v4().simple().to_string()[..6]);
    let publish = snapshot.plan.jobs().iter().filter(due).map(|job| {
        let message = message(record, job, &turn);
        async move { queue.publish(&message, Duration::ZERO).await }
    });
    let posted: Result<Vec<()>, _> = stream::iter(publish)
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await;
    posted.map(|posted| posted.len()).map_err(|error| {
        let (cluster, id) = (&record.cluster, &record.id);
        CliError::failed(format!(
            "recovery {id} is stored, but not every job could be posted: failed to {error}"
        ))
        .hint(format!(
            "once the broker answers: `rekindle retry --cluster {cluster} --reason broker`; \
             running workers find the jobs by themselves too"
        ))
    })
}

fn message(record: &RecoveryRecord, job: &PlannedJob, turn: &str) -> Outgoing {
    let (name, payload) = (job.name.clone(), job.payload.clone());
    let mut message = JobMessage::new(&record.cluster, &record.id, name, payload, turn);
    message.traceparent = Some(record.traceparent());
    Outgoing {
        id: message.id.chars().take(128).collect(),
        body: message.encode().into(),
    }
}
