//! Does the bucket keep the one promise we need? Asked at every worker's start.
//!
//! Some stores ignore the header, some obey it one by one but not under a race, some not on a
//! versioned bucket. Only a concurrent probe tells, so it races.

use bytes::Bytes;
use futures::future::join_all;
use uuid::Uuid;

use super::{Created, Store, StoreError};

/// Races, and writers in each.
const ROUNDS: usize = 4;
const WRITERS: usize = 12;

impl Store {
    /// Races several writers for the same keys.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] when a race has two winners or none; otherwise what kept us from asking.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let base = format!(".probe/{}/", Uuid::new_v4().simple());
        let verdict = self.probe_below(&base).await;
        for round in 0..=ROUNDS {
            if let Err(e) = self.delete(&format!("{base}{round}")).await {
                tracing::debug!(error = %e, "a probe object stays behind");
            }
        }
        verdict
    }

    async fn probe_below(&self, base: &str) -> Result<(), StoreError> {
        let unsafe_ = |reason: String| Err(StoreError::Unsafe { reason });
        let body =
            |n: usize| Bytes::from(format!("{{\"probe\":\"{}\",\"n\":{n}}}", Uuid::new_v4()));
        let key = format!("{base}{ROUNDS}");
        if self.create(&key, body(0)).await? != Created::New {
            return unsafe_("a fresh key was taken".into());
        }
        if self.create(&key, body(1)).await? == Created::New {
            return unsafe_("it let an object be created twice, one after the other".into());
        }
        for round in 0..ROUNDS {
            let key = format!("{base}{round}");
            let racers = (0..WRITERS).map(|n| self.create(&key, body(n)));
            let mut winners = 0;
            for outcome in join_all(racers).await {
                winners += usize::from(outcome? == Created::New);
            }
            if winners != 1 {
                return unsafe_(format!(
                    "{winners} of {WRITERS} parallel writers created the same object"
                ));
            }
        }
        Ok(())
    }
}
