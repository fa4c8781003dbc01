//! The operator's flags (pause, cancel) of a recovery, as fresh as a heartbeat, shared by all its
//! turns in this process.

use std::sync::Arc;
use std::time::Duration;

use jobs::ids::{ClusterName, RecoveryId};
use jobs::keys;
use jobs::record::{Flags, RecoveryRecord};
use jobs::store::{Store, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Flags older than this are read again.
const FRESH: Duration = Duration::from_secs(2);

/// The flags of one recovery.
#[derive(Debug, Clone)]
pub(crate) struct FlagWatch {
    cluster: ClusterName,
    recovery: RecoveryId,
    last: Arc<Mutex<Last>>,
}

#[derive(Debug)]
struct Last {
    read: Instant,
    flags: Flags,
}

impl FlagWatch {
    /// Begins with what a caller read at `read`.
    pub(crate) fn new(record: &RecoveryRecord, read: Instant) -> Self {
        let last = Last {
            read,
            flags: record.flags.clone(),
        };
        Self {
            cluster: record.cluster.clone(),
            recovery: record.id.clone(),
            last: Arc::new(Mutex::new(last)),
        }
    }

    /// Takes over what a caller read from the store at `read`, unless something newer is known: a
    /// turn that begins after a resume must not stop at the pause of a moment ago.
    pub(crate) async fn learn(&self, flags: &Flags, read: Instant) {
        let mut last = self.last.lock().await;
        if read > last.read {
            *last = Last {
                read,
                flags: flags.clone(),
            };
        }
    }

    /// The flags, at most [`FRESH`] old. While the store cannot be read the last ones hold: the
    /// lease decides whether the turn may go on.
    pub(crate) async fn now(&self, store: &Store) -> Result<Flags, StoreError> {
        let mut last = self.last.lock().await;
        if last.read.elapsed() < FRESH {
            return Ok(last.flags.clone());
        }
        let series = keys::recovery(&self.cluster, &self.recovery);
        match store.read::<RecoveryRecord>(&series).await {
            Ok(Some(stored)) => {
                last.flags = stored.body.flags;
            }
            Ok(None) => {}
            Err(e) if e.is_transient() => {
                tracing::warn!(error = %e, "could not read the recovery's flags")
            }
            Err(e) => return Err(e),
        }
        last.read = Instant::now();
        Ok(last.flags.clone())
    }
}
