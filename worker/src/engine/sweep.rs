//! The sweep: posts again what should be running and is not.
//!
//! A message can be lost (a wiped broker) or never posted (a crash between a record and its
//! message). The sweep looks at the records alone: a job that is due and whose record has not
//! changed for a while, on our own clock, is woken once more. Too much waking is harmless.
//!
//! Beside that it tends what no job looks after any more; what that is, the job functions say.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use jobs::ids::ClusterName;
use jobs::keys;
use jobs::plan::{PlannedJob, Readiness};
use jobs::queue::QueueError;
use jobs::record::{Outcome, Status};
use jobs::store::{Recovery, StoreError};
use tokio::time::Instant;

use super::service::Engine;
use super::wake::Call;

/// Looks at most at this many jobs at a time.
pub(super) const PARALLEL: usize = 16;

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// What a look at a job's record showed.
enum Look {
    /// Somebody may hold it.
    Watch,
    /// It stands still, as it may.
    Stands,
    /// It has stood still for so long that the message for this turn must be lost.
    Forgotten(u64),
}

impl Engine {
    /// Sweeps now and then until the worker shuts down; does not return.
    pub(super) async fn sweep(&self) {
        self.shutdown
            .run_until_cancelled(self.sweep_forever())
            .await;
        std::future::pending().await
    }

    /// Tends what is beside all jobs, soon and then rarely, until the worker shuts down; does not return. Beside the
    /// sweep and not in it: it may take long, and jobs that fell through must not wait for it.
    pub(super) async fn tend(&self) {
        self.shutdown.run_until_cancelled(self.tend_forever()).await;
        std::future::pending().await
    }

    async fn tend_forever(&self) {
        let Some(soon) = self.options.sweep else {
            return std::future::pending().await;
        };
        let mut pause = soon;
        loop {
            // Asked first: where there is nothing to tend, no dice are thrown and no time is told.
            let Some(tended) = self.functions.tend(&self.world) else {
                return std::future::pending().await;
            };
            tokio::time::sleep(pause).await;
            tended.await;
            pause = self.options.tend.mul_f64(1.0 + 0.5 * self.process.chance());
        }
    }

    async fn sweep_forever(&self) {
        let Some(every) = self.options.sweep else {
            return std::future::pending().await;
        };
        loop {
            // Jitter, so that workers started together do not sweep together.
            let pause = every.mul_f64(0.5 + 0.5 * self.process.chance());
            self.watch_for(pause).await;
            self.watched.lock().await.clear();
            match self.store.clusters().await {
                Ok(clusters) => {
                    for cluster in clusters {
                        // One cluster's trouble must not keep the others from being swept.
                        if let Err(e) = self.sweep_cluster(&cluster, every).await {
                            tracing::warn!(%cluster, error = %e, "the sweep could not finish");
                        }
                    }
                }
                Err(e) => tracing::warn!(error = %e, "the sweep could not list the clusters"),
            }
        }
    }

    async fn sweep_cluster(
        &self,
        cluster: &ClusterName,
        every: Duration,
    ) -> Result<(), SweepError> {
        let Some(id) = self.store.active(cluster).await? else {
            return Ok(());
        };
        let Some(record) = self.store.recovery_record(cluster, &id).await? else {
            return Ok(());
        };
        if record.finished.is_some() {
            return Ok(self.free_cluster(cluster, &id).await?);
        }
        let (plan, spec) = self.inputs(&record.inputs).await?;
        let recovery = Arc::new(Recovery { record, plan, spec });
        if recovery.record.flags.cancelled.is_some() {
            for job in self.finish_cancelled(&recovery).await? {
                self.look_after(&recovery, job, every).await?;
            }
            return Ok(());
        }
        if recovery.record.flags.paused.is_some() {
            return Ok(());
        }
        let settled = self.store.settled(cluster, &id).await?;
        if settled.done.len() == recovery.plan.jobs().len() {
            // Whoever finished the last job died before it could say so.
            return Ok(self.finish(&recovery, Outcome::Succeeded).await?);
        }
        let readiness = recovery.plan.readiness(&settled);
        let ready = |job: &&PlannedJob| readiness.get(&job.name) == Some(&Readiness::Ready);
        let looks: Vec<_> = recovery
            .plan
            .jobs()
            .iter()
            .filter(ready)
            .map(|job| self.look_after(&recovery, job, every))
            .collect();
        stream::iter(looks)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    /// Posts a job that may run unless somebody is at it. One damaged record must not keep the other
    /// jobs from being swept.
    async fn look_after(
        &self,
        recovery: &Arc<Recovery>,
        job: &PlannedJob,
        every: Duration,
    ) -> Result<(), SweepError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        let series = keys::job(cluster, id, &job.name);
        match self.look(&series, every).await {
            Ok(Look::Watch) => {
                self.watch(series, recovery, job).await;
                Ok(())
            }
            Ok(Look::Stands) => Ok(()),
            Ok(Look::Forgotten(turn)) => {
                tracing::info!(%cluster, recovery = %id, job = %job.name, "the sweep posts a job again");
                let message = self.message_for(recovery, job, &Call::swept(turn));
                Ok(self.queue.publish(&message, Duration::ZERO).await?)
            }
            Err(e) if e.is_transient() => Err(e.into()),
            Err(e) => {
                tracing::error!(%cluster, recovery = %id, job = %job.name, error = %e, "the sweep passes over a job");
                Ok(())
            }
        }
    }

    /// How the record of a job that may run stands.
    async fn look(&self, series: &keys::Series, every: Duration) -> Result<Look, StoreError> {
        // Most records move, or have not stood still for long. Those need not be read.
        let version = self.store.last_version(series).await?;
        if self.unchanged_for(series, version.unwrap_or(0)).await < every {
            return Ok(version.map_or(Look::Stands, |_| Look::Watch));
        }
        let stored = self.store.read_job(series).await?;
        let version = stored.as_ref().map_or(0, |s| s.version);
        let turn = stored.as_ref().map_or(0, |s| s.record.turn) + 1;
        let patience = match stored.map(|s| s.record) {
            // A settled job whose marker is missing is woken too: its turn writes the marker.
            Some(record) if record.status == Status::Cancelled => return Ok(Look::Stands),
            Some(record) if record.status == Status::Running => return Ok(Look::Watch),
            Some(record) => every + self.options.lease + Duration::from_millis(record.delay_ms),
            None => every,
        };
        let forgotten = self.unchanged_for(series, version).await >= patience
            && !self.posted_within(series, patience).await;
        Ok(if forgotten {
            Look::Forgotten(turn)
        } else {
            Look::Stands
        })
    }

    /// Whether we posted this job lately; notes that we do now.
    async fn posted_within(&self, series: &keys::Series, patience: Duration) -> bool {
        let mut seen = self.seen.lock().await;
        let Some(entry) = seen.get_mut(series) else {
            return false;
        };
        let now = Instant::now();
        let lately = entry.posted.is_some_and(|posted| now - posted < patience);
        if !lately {
            entry.posted = Some(now);
        }
        lately
    }
}
