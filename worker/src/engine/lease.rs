//! Whose job it is: what we saw of the leases of others, by our own monotonic clock.

use std::time::Duration;

use jobs::keys::Series;
use jobs::store::{StoreError, StoredJob};
use tokio::time::Instant;

use super::service::Engine;

/// When we first saw a record at a version, by our own monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) version: u64,
    pub(super) since: Instant,
    pub(super) looked: Instant,
    /// The last time the sweep posted it.
    pub(super) posted: Option<Instant>,
}

/// What watching over a lease came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// Its owner is gone, or gave no sign of life for a whole lease.
    Dead,
    /// The record changed: by a heartbeat, or because its owner let go.
    Changed,
    /// We shut down before anything showed.
    Unknown,
}

/// With more records than this in memory, those that nobody looked at for [`FORGET`] are forgotten.
const REMEMBER: usize = 4096;
const FORGET: Duration = Duration::from_secs(600);

impl Engine {
    /// How long a record has stood at this version, as far as we have seen.
    pub(super) async fn unchanged_for(&self, series: &Series, version: u64) -> Duration {
        let mut seen = self.seen.lock().await;
        let now = Instant::now();
        if seen.len() >= REMEMBER {
            // What is forgotten too early is only waited for once more.
            seen.retain(|_, seen| now - seen.looked < FORGET);
        }
        let first = Seen {
            version,
            since: now,
            looked: now,
            posted: None,
        };
        let entry = seen.entry(series.clone()).or_insert(first);
        if entry.version != version {
            *entry = first;
        }
        entry.looked = now;
        now - entry.since
    }

    /// Whether somebody holds the lease, as far as we have seen until now.
    pub(super) async fn is_held(&self, series: &Series, stored: &StoredJob) -> bool {
        let Some(owner) = &stored.record.owner else {
            return false;
        };
        let unchanged = self.unchanged_for(series, stored.version).await;
        !self.process.is_gone(owner, &self.me) && unchanged < self.options.lease
    }

    /// Watches a lease until it shows whether its owner lives, a lease at the longest. It is dead when
    /// its owner was a process of this host that is gone, or when its record has not changed for one
    /// lease on our own clock. A live one shows itself by its next heartbeat.
    pub(super) async fn watch_over(
        &self,
        series: &Series,
        stored: &StoredJob,
    ) -> Result<Watched, StoreError> {
        while self.is_held(series, stored).await {
            let left = self.options.lease - self.unchanged_for(series, stored.version).await;
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(Watched::Unknown),
                () = tokio::time::sleep(left.min(self.options.lease / 4)) => {}
            }
            if self.store.last_version(series).await? != Some(stored.version) {
                return Ok(Watched::Changed);
            }
        }
        Ok(Watched::Dead)
    }
}
