//! The sweep: posts again what should be running and is not.
//!
//! A message can be lost (a wiped broker) or never posted (a crash between a record and its
//! message). The sweep looks at the records alone: a job that is due and whose record has not
//! changed for a while, on our own clock, is woken once more. Too much waking is harmless.

use std::time::Duration;

use jobs::ids::ClusterName;
use jobs::keys;
use jobs::plan::Readiness;
use jobs::queue::QueueError;
use jobs::record::Status;
use jobs::store::{Recovery, StoreError};
use tokio::time::Instant;

use super::service::Engine;
use super::wake::Call;

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl Engine {
    /// Sweeps now and then until the worker shuts down; does not return.
    pub(super) async fn sweep(&self) {
        self.shutdown
            .run_until_cancelled(self.sweep_forever())
            .await;
        std::future::pending().await
    }

    async fn sweep_forever(&self) {
        let Some(every) = self.options.sweep else {
            return std::future::pending().await;
        };
        loop {
            // Jitter, so that workers started together do not sweep together.
            let pause = every.mul_f64(0.5 + 0.5 * self.process.chance());
            tokio::time::sleep(pause).await;
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
            return Ok(());
        }
        let (plan, spec) = self.inputs(&record.inputs).await?;
        let recovery = Recovery { record, plan, spec };
        if recovery.record.flags.cancelled.is_some() {
            return Ok(self.finish_cancelled(&recovery).await?);
        }
        if recovery.record.flags.paused.is_some() {
            return Ok(());
        }
        let settled = self.store.settled(cluster, &id).await?;
        let readiness = recovery.plan.readiness(&settled);
        for job in recovery.plan.jobs() {
            if readiness.get(&job.name) != Some(&Readiness::Ready) {
                continue;
            }
            let series = keys::job(cluster, &id, &job.name);
            let stored = match self.store.read_job(&series).await {
                Ok(stored) => stored,
                Err(e) if e.is_transient() => return Err(e.into()),
                // One damaged record must not keep the other jobs from being swept.
                Err(e) => {
                    tracing::error!(%cluster, recovery = %id, job = %job.name, error = %e, "the sweep passes over a job");
                    continue;
                }
            };
            let version = stored.as_ref().map_or(0, |s| s.version);
            let patience = match stored.as_ref().map(|s| &s.record) {
                // A settled job whose marker is missing is woken too: its turn writes the marker.
                Some(record)
                    if record.status.is_settled() && record.status == Status::Cancelled =>
                {
                    continue;
                }
                Some(record) => every + self.options.lease + Duration::from_millis(record.delay_ms),
                None => every,
            };
            if self.unchanged_for(&series, version).await < patience
                || self.posted_within(&series, patience).await
            {
                continue;
            }
            tracing::info!(%cluster, recovery = %id, job = %job.name, "the sweep posts a job again");
            let turn = Call::swept(stored.as_ref().map_or(0, |s| s.record.turn) + 1);
            self.queue
                .publish(&self.message_for(&recovery, job, &turn), Duration::ZERO)
                .await?;
        }
        Ok(())
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
