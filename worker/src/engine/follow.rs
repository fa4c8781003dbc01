//! What follows a settled job: the next jobs' messages, and the end of the recovery.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys;
use jobs::message::JobMessage;
use jobs::plan::{PlannedJob, Readiness, Settled};
use jobs::queue::{Delivery, Outgoing};
use jobs::record::{ActiveRecord, Event, Finished, JobRecord, JobVersion, Outcome, RecoveryRecord};
use jobs::store::{Appended, CleanUp, Recovery, StoreError};

use super::service::Engine;
use super::turn::TurnError;
use super::wake::Call;

/// Cancels at most this many jobs at a time.
const PARALLEL: usize = 16;

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
        let jobs = recovery.plan.jobs();
        let glimpse = self.store.glimpse(cluster, id).await?;
        for job in jobs.iter().filter(|j| j.always || j.needs.contains(name)) {
            if self.may_begin(recovery, job, &glimpse).await? {
                let message = self.message_for(recovery, job, &Call::after(name));
                delivery.handle.publish(&message, Duration::ZERO).await?;
            }
        }
        // Only a job that no other one needs can be the last one.
        let is_last = !jobs.iter().any(|job| job.needs.contains(name));
        if is_last && self.all_done(recovery).await? {
            self.finish(recovery, Outcome::Succeeded).await?;
        }
        Ok(())
    }

    /// Whether a job may begin now. This is asked each time that any job ends, so it reads no more
    /// than it has to.
    async fn may_begin(
        &self,
        recovery: &Recovery,
        job: &PlannedJob,
        glimpse: &Settled,
    ) -> Result<bool, StoreError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        if self.store.are_done(cluster, id, &job.needs).await? {
            if !glimpse.failed.contains(&job.name) {
                return Ok(!self.store.are_done(cluster, id, [&job.name]).await?);
            }
            // It failed once; whether that still counts is for a closer look.
        } else if !job.always || glimpse.failed.is_empty() {
            return Ok(false);
        } else if let Some(Readiness::Needs(open)) =
            recovery.plan.readiness(glimpse).remove(&job.name)
            && !self.store.are_done(cluster, id, &open).await?
        {
            // It begins in spite of a failure, once all that can still end has ended.
            return Ok(false);
        }
        let settled = self.store.settled(cluster, id).await?;
        Ok(recovery.plan.is_ready(&job.name, &settled))
    }

    /// Whether every job of a recovery is done.
    pub(super) async fn all_done(&self, recovery: &Recovery) -> Result<bool, StoreError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        let names = recovery.plan.jobs().iter().map(|job| &job.name);
        self.store.are_done(cluster, id, names).await
    }

    /// Ends a cancelled recovery as far as it can be ended now, and posts what has to clean up first.
    pub(super) async fn end_cancelled(
        &self,
        recovery: &Recovery,
        delivery: &Delivery,
    ) -> Result<(), TurnError> {
        for job in self.finish_cancelled(recovery).await? {
            // It is due because all of its needs are settled.
            if let Some(last) = job.needs.last() {
                let message = self.message_for(recovery, job, &Call::after(last));
                delivery.handle.publish(&message, Duration::ZERO).await?;
            }
        }
        Ok(())
    }

    /// Settles what nobody runs as cancelled, and ends the recovery once nothing runs any more. What has to clean
    /// up before that comes back.
    pub(super) async fn finish_cancelled<'a>(
        &self,
        recovery: &'a Recovery,
    ) -> Result<Vec<&'a PlannedJob>, StoreError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        let settled = self.store.settled(cluster, id).await?;
        let (clean_ups, others): (Vec<_>, Vec<_>) = recovery
            .plan
            .jobs()
            .iter()
            .filter(|job| !settled.done.contains(&job.name))
            .partition(|job| job.payload.cleans_up());
        if self.cancel_all(recovery, others).await? > 0 {
            return Ok(vec![]);
        }
        let (mut due, mut needless) = (Vec::new(), Vec::new());
        for job in clean_ups {
            match self.store.clean_up(cluster, id, job).await? {
                CleanUp::Nothing => needless.push(job),
                CleanUp::Due => due.push(job),
                CleanUp::Failed => {
                    tracing::warn!(job = %job.name, "cancelled; it has failed to take away what was made: an operator retries or abandons it");
                    return Ok(vec![]);
                }
                // Somebody was faster, and looks again when that is settled.
                CleanUp::Waits => return Ok(vec![]),
            }
        }
        if !due.is_empty() {
            tracing::info!("cancelled; what was made for a while is taken away first");
            return Ok(due);
        }
        if self.cancel_all(recovery, needless).await? == 0 {
            self.finish(recovery, Outcome::Cancelled).await?;
        }
        Ok(vec![])
    }

    /// Settles jobs as cancelled; says how many of them somebody still runs.
    async fn cancel_all(
        &self,
        recovery: &Recovery,
        jobs: Vec<&PlannedJob>,
    ) -> Result<usize, StoreError> {
        let cancels: Vec<_> = jobs
            .into_iter()
            .map(|job| self.cancel(recovery, job))
            .collect();
        let runs: Vec<bool> = stream::iter(cancels)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let running = runs.into_iter().filter(|runs| *runs).count();
        if running > 0 {
            tracing::info!(
                running,
                "cancelled; waiting for running jobs to reach their next step"
            );
        }
        Ok(running)
    }

    /// Settles a job as cancelled unless it is settled already; says whether somebody still runs it.
    async fn cancel(&self, recovery: &Recovery, job: &PlannedJob) -> Result<bool, StoreError> {
        let series = keys::job(&recovery.record.cluster, &recovery.record.id, &job.name);
        loop {
            let stored = self.store.read_job(&series).await?;
            let version = stored.as_ref().map_or(0, |s| s.version) + 1;
            let mut record = match stored {
                None => JobRecord::new(job.name.clone(), job.payload.clone()),
                Some(s) if s.record.status.is_settled() => return Ok(false),
                Some(s) if self.is_held(&series, &s).await => return Ok(true),
                Some(s) => s.record,
            };
            // Claimed and released in one version: whoever held it before is fenced off.
            let now = self.process.now();
            let settled = record
                .claim(self.me.clone(), now)
                .and_then(|()| record.release(Event::Cancel, now));
            if settled.is_err() {
                return Ok(false);
            }
            let full = JobVersion::Full(Box::new(record));
            if self.store.append(&series, version, &full).await? == Appended::Won {
                return Ok(false);
            }
        }
    }

    /// Writes the recovery's end and frees the cluster. Any number of workers may try at once.
    pub(super) async fn finish(
        &self,
        recovery: &Recovery,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
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
        self.free_cluster(cluster, id).await?;
        if wrote.is_some() {
            tracing::info!(%cluster, recovery = %id, ?outcome, "the recovery has ended");
        }
        Ok(())
    }

    /// Destroys the recovery's secrets and frees the cluster for the next one; also when whoever wrote the end of this one died before.
    pub(super) async fn free_cluster(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<(), StoreError> {
        self.store.destroy_secrets(cluster, id).await?;
        let since = self.process.now();
        self.store
            .update(&keys::active(cluster), |active: Option<ActiveRecord>| {
                let ours = active.filter(|a| a.recovery.as_ref() == Some(id));
                Ok::<_, StoreError>(ours.map(|_| ActiveRecord {
                    recovery: None,
                    since,
                }))
            })
            .await
            .map(|_| ())
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
