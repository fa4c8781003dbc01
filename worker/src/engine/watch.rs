//! The watch: between two sweeps, a few looks per lease at the jobs that others hold.
//!
//! The message of a frozen worker's job stays with the frozen worker until the broker gives up its
//! connection, so nobody else is called. The watch calls somebody as soon as a record has stood
//! still for a lease. The call may reach the frozen worker itself; so it is repeated at every look
//! until the record moves. Calls too many are surplus, and surplus dies.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jobs::keys::Series;
use jobs::plan::PlannedJob;
use jobs::record::Status;
use jobs::store::Recovery;
use tokio::time::Instant;

use super::service::Engine;
use super::sweep::{PARALLEL, SweepError};
use super::wake::Call;

/// Looks at a held job in the time of one lease.
const LOOKS: u32 = 6;

/// A job that somebody may hold, as of the last sweep.
#[derive(Debug, Clone)]
pub(super) struct Charge {
    pub(super) recovery: Arc<Recovery>,
    pub(super) job: PlannedJob,
}

impl Engine {
    /// Remembers to look at a job that somebody may hold.
    pub(super) async fn watch(&self, series: Series, recovery: &Arc<Recovery>, job: &PlannedJob) {
        let (recovery, job) = (Arc::clone(recovery), job.clone());
        let mut watched = self.watched.lock().await;
        watched.insert(series, Charge { recovery, job });
    }

    /// Passes the time until the next sweep with looks at what that sweep saw moving or held.
    pub(super) async fn watch_for(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let next = Instant::now() + self.options.lease / LOOKS;
            tokio::time::sleep_until(next.min(until)).await;
            let watched = self.watched.lock().await.clone();
            stream::iter(watched)
                .map(|(series, watched)| self.look_at(series, watched))
                .buffer_unordered(PARALLEL)
                .collect::<()>()
                .await;
        }
    }

    async fn look_at(&self, series: Series, watched: Charge) {
        match self.call_if_silent(&series, &watched).await {
            Ok(true) => {}
            Ok(false) => {
                self.watched.lock().await.remove(&series);
            }
            // The next look is not far away.
            Err(error) => {
                tracing::debug!(job = %watched.job.name, %error, "could not look at a job")
            }
        }
    }

    /// Calls for a job whose owner was silent for a lease. Says whether the job is still held.
    async fn call_if_silent(&self, series: &Series, watched: &Charge) -> Result<bool, SweepError> {
        let version = self.store.last_version(series).await?.unwrap_or(0);
        if self.unchanged_for(series, version).await < self.options.lease {
            return Ok(true);
        }
        let Some(stored) = self.store.read_job(series).await? else {
            return Ok(false);
        };
        // Also a job of our own is called for: a claim whose answer was lost is in force, and no turn
        // of ours knows of it.
        if stored.record.status != Status::Running {
            return Ok(false);
        }
        if stored.version == version {
            tracing::info!(job = %watched.job.name, "a job's owner is silent; somebody else is called");
            let call = Call::swept(stored.record.turn + 1);
            let message = self.message_for(&watched.recovery, &watched.job, &call);
            self.queue.publish(&message, Duration::ZERO).await?;
        }
        Ok(true)
    }
}
