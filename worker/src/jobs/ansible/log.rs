//! The run's log, carried into the bucket while it grows.
//!
//! Chunks end where the offset is a multiple of their size, whoever carries them and however often,
//! and are created, never overwritten: no byte is lost or doubled when a worker dies or two carry at
//! once. What is left is carried when the run has ended.

use std::ops::Range;

use jobs::store::Store;

use super::runner::{LogRange, Runner};
use crate::engine::JobError;
use crate::ssh::Host;

/// Bytes in a chunk.
const CHUNK: u64 = 64 * 1024;
/// Chunks carried in one look, so that a look stays short.
const AT_ONCE: usize = 32;

/// The next chunk: what follows `carried`, if it is whole or the last one.
fn next(carried: u64, there: LogRange, ended: bool) -> Option<Range<u64>> {
    // What the runner has thrown away is gone; the keys show the gap.
    let from = carried.max(there.begin);
    let to = (from / CHUNK + 1) * CHUNK;
    match (to <= there.end, ended && from < there.end) {
        (true, _) => Some(from..to),
        (false, true) => Some(from..there.end),
        (false, false) => None,
    }
}

/// Where one run's log goes: `logs/<job>/<run>/`.
#[derive(Debug)]
pub(super) struct Log<'a> {
    pub(super) store: &'a Store,
    pub(super) prefix: String,
}

impl Log<'_> {
    /// How many bytes are in the bucket while the run goes on: whole chunks only.
    pub(super) async fn carried(&self) -> Result<u64, JobError> {
        let keys = self.store.list(&self.prefix, None).await?;
        let last = keys.last().and_then(|key| key.strip_prefix(&self.prefix));
        let offset: Option<u64> = last.and_then(|name| name.parse().ok());
        Ok(offset.map_or(0, |offset| (offset / CHUNK + 1) * CHUNK))
    }

    /// Carries what is there; gives how far it came.
    pub(super) async fn carry<H: Host>(
        &self,
        runner: &Runner<'_, H>,
        id: &str,
        mut carried: u64,
        there: LogRange,
        ended: bool,
    ) -> Result<u64, JobError> {
        for _ in 0..AT_ONCE {
            let Some(range) = next(carried, there, ended) else {
                break;
            };
            let length = range.end - range.start;
            let bytes = runner.logs(id, range.start, length).await?;
            if bytes.len() as u64 != length {
                let text = format!("{} of {length} bytes from {}", bytes.len(), range.start);
                return Err(JobError::retry(format!("the log of run {id} gave {text}")));
            }
            let key = format!("{}{:020}", self.prefix, range.start);
            // Somebody else may have carried it: the bytes are the same.
            self.store.create(&key, bytes.into()).await?;
            carried = range.end;
        }
        Ok(carried)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunks_end_at_multiples_and_the_last_one_where_the_log_ends() {
        let log = |begin, end| LogRange { begin, end };
        assert_eq!(next(0, log(0, CHUNK - 1), false), None);
        assert_eq!(next(0, log(0, CHUNK), false), Some(0..CHUNK));
        assert_eq!(next(0, log(0, 10), true), Some(0..10));
        assert_eq!(next(10, log(0, 10), true), None);
        assert_eq!(next(CHUNK, log(0, CHUNK + 5), true), Some(CHUNK..CHUNK + 5));
        assert_eq!(next(CHUNK, log(0, CHUNK + 5), false), None);
        // The beginning was thrown away.
        assert_eq!(next(0, log(100, 3 * CHUNK), false), Some(100..CHUNK));
    }

    proptest! {
        /// However the log grows and however often a carrier forgets how far it was, the chunks are the
        /// same, and together they are the log.
        #[test]
        fn every_byte_is_carried_once(
            ends in prop::collection::vec(0..5 * CHUNK, 1..6),
            forgets in prop::collection::vec(any::<bool>(), 6),
        ) {
            let mut ends = ends;
            ends.sort_unstable();
            let last = ends[ends.len() - 1];
            let mut chunks: Vec<Range<u64>> = Vec::new();
            let mut carried = 0;
            for (n, end) in ends.iter().enumerate() {
                if forgets[n] {
                    carried = chunks.last().map_or(0, |c| (c.start / CHUNK + 1) * CHUNK);
                }
                let ended = n + 1 == ends.len();
                while let Some(range) = next(carried, LogRange { begin: 0, end: *end }, ended) {
                    carried = range.end;
                    chunks.push(range);
                }
            }
            let mut at = 0;
            for chunk in &chunks {
                prop_assert_eq!(chunk.start, at);
                prop_assert!(chunk.end % CHUNK == 0 || chunk.end == last);
                at = chunk.end;
            }
            prop_assert_eq!(at, last);
        }
    }
}
