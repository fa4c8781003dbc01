//! What follows a settled job: the next jobs' messages, and the end of the recovery.

use std::time::Duration;

use jobs::ids::JobName;
use jobs::keys;
use jobs::message::JobMessage;
use jobs::plan::{PlannedJob, Readiness};
use jobs::queue::{Delivery, Outgoing};
use jobs::record::{ActiveRecord, Event, Finished, JobRecord, JobVersion, Outcome, RecoveryRecord};
use jobs::store::{Appended, Recovery, StoreError};

use super::service::Engine;
use super::turn::TurnError;
use super::wake::Call;

impl Engine {
    /// Posts every job that `name` was the last need of, and ends the recovery when nothing is left.
    /// Two jobs that finish at once may both post the same successor; that is harmless.
    pub(super) async fn post_followers(
        &self,
        recovery: &Recovery,
        name: &JobName,
        delivery: &Delivery,
    ) -> Result<(), TurnError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        let settled = self.store.settled(cluster, id).await?;
        if settled.done.len() == recovery.plan.jobs().len() {
            self.finish(recovery, Outcome::Succeeded).await?;
            return Ok(());
        }
        let readiness = recovery.plan.readiness(&settled);
        let ready = |job: &&PlannedJob| readiness.get(&job.name) == Some(&Readiness::Ready);
        let follows = |job: &&PlannedJob| job.always || job.needs.contains(name);
        for job in recovery.plan.jobs().iter().filter(ready).filter(follows) {
            delivery
                .handle
                .publish(
                    &self.message_for(recovery, job, &Call::after(name)),
                    Duration::ZERO,
                )
                .await?;
        }
        Ok(())
    }

    /// Settles what nobody runs as cancelled, and ends the recovery once nothing runs any more.
    pub(super) async fn finish_cancelled(&self, recovery: &Recovery) -> Result<(), StoreError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        let mut running = 0_usize;
        for job in recovery.plan.jobs() {
            let series = keys::job(cluster, id, &job.name);
            loop {
                let stored = self.store.read_job(&series).await?;
                let version = stored.as_ref().map_or(0, |s| s.version) + 1;
                let mut record = match stored {
                    None => JobRecord::new(job.name.clone(), job.payload.clone()),
                    Some(s) if s.record.status.is_settled() => break,
                    Some(s) if self.is_held(&series, &s).await => {
                        running += 1;
                        break;
                    }
                    Some(s) => s.record,
                };
                if record.release(Event::Cancel, self.process.now()).is_err() {
                    break;
                }
                if self
                    .store
                    .append(&series, version, &JobVersion::Full(Box::new(record)))
                    .await?
                    == Appended::Won
                {
                    break;
                }
            }
        }
        if running > 0 {
            tracing::info!(
                running,
                "cancelled; waiting for running jobs to reach their next step"
            );
            return Ok(());
        }
        self.finish(recovery, Outcome::Cancelled).await
    }

    /// Writes the recovery's end and frees the cluster. Any number of workers may try at once.
    async fn finish(&self, recovery: &Recovery, outcome: Outcome) -> Result<(), StoreError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        let now = self.process.now();
        let wrote = self
            .store
            .update(
                &keys::recovery(cluster, id),
                |record: Option<RecoveryRecord>| {
                    Ok::<_, StoreError>(record.filter(|r| r.finished.is_none()).map(|r| {
                        RecoveryRecord {
                            finished: Some(Finished { outcome, at: now }),
                            ..r
                        }
                    }))
                },
            )
            .await?;
        self.store
            .update(&keys::active(cluster), |active: Option<ActiveRecord>| {
                let ours = active.filter(|a| a.recovery.as_ref() == Some(id));
                Ok::<_, StoreError>(ours.map(|_| ActiveRecord {
                    recovery: None,
                    since: now,
                }))
            })
            .await?;
        if wrote.is_some() {
            tracing::info!(%cluster, recovery = %id, ?outcome, "the recovery has ended");
        }
        Ok(())
    }

    /// A message that wakes a worker for a job.
    pub(super) fn message_for(
        &self,
        recovery: &Recovery,
        job: &PlannedJob,
        turn: &str,
    ) -> Outgoing {
        let mut message = JobMessage::new(
            &recovery.record.cluster,
            &recovery.record.id,
            job.name.clone(),
            job.payload.clone(),
            turn,
        );
        message.traceparent = Some(recovery.record.traceparent());
        let id = message.id.chars().take(128).collect();
        Outgoing {
            id,
            body: message.encode().into(),
        }
    }
}
