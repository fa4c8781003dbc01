//! Which jobs of a recovery are settled: empty markers beside the records.
//!
//! A listing of them costs more the more jobs there are, and every job that ends has to ask. So
//! what one job wants to know is asked marker by marker, and what was seen done once is remembered,
//! for that marker stands for good: a recovery of 1,000 nodes costs as much a node as one of 10.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Store, StoreError};
use crate::ids::{ClusterName, JobName, RecoveryId};
use crate::keys;
use crate::plan::Settled;

/// Reads at most this many records at a time.
const PARALLEL: usize = 16;

/// After so many markers in a row that were there, one listing tells the rest.
const ASKED_SINGLY: usize = 16;

/// Recoveries whose markers are kept in memory.
const REMEMBER: usize = 64;

/// Done markers that this process has seen, by their common prefix.
#[derive(Default)]
pub(super) struct SeenDone(Mutex<HashMap<String, HashSet<JobName>>>);

impl Store {
    /// Which jobs are settled, by their markers. Costs two listings, and reads of the record of each
    /// job that ever failed and is not done yet.
    pub async fn settled(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<Settled, StoreError> {
        let (done, marked) =
            tokio::try_join!(self.list_done(cluster, id), self.list_failed(cluster, id))?;
        let open = marked.into_iter().filter(|(job, _)| !done.contains(job));
        let reads = open.map(|(job, generation)| async move {
            let record = self.read_job(&keys::job(cluster, id, &job)).await?;
            let counts = record.is_some_and(|stored| stored.record.generation == generation);
            Ok::<_, StoreError>(counts.then_some(job))
        });
        let failed: Vec<Option<JobName>> =
            stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        Ok(Settled {
            done,
            failed: failed.into_iter().flatten().collect(),
        })
    }

    /// Whether all of these jobs are done. Asks for one marker after the other, ends with the first
    /// that is missing, and never asks twice for one that was there: a caller that asks after every
    /// job of a recovery pays for two markers each time, or a little more where others work too.
    pub async fn are_done<'a>(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
        jobs: impl IntoIterator<Item = &'a JobName>,
    ) -> Result<bool, StoreError> {
        let prefix = keys::done(cluster, id);
        let unknown = self.seen_done.unknown(&prefix, jobs);
        for (asked, job) in unknown.iter().enumerate() {
            if asked == ASKED_SINGLY {
                let done = self.list_done(cluster, id).await?;
                return Ok(unknown[asked..].iter().all(|job| done.contains(*job)));
            }
            if self.get(&format!("{prefix}{job}")).await?.is_none() {
                return Ok(false);
            }
            self.seen_done.learn(&prefix, [(*job).clone()]);
        }
        Ok(true)
    }

    /// A first impression for one short listing: the jobs that we have seen done, and every job that
    /// ever failed. More may be done by now, and some failures may not count any more.
    pub async fn glimpse(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<Settled, StoreError> {
        let marked = self.list_failed(cluster, id).await?;
        Ok(Settled {
            done: self.seen_done.known(&keys::done(cluster, id)),
            failed: marked.into_iter().map(|(job, _)| job).collect(),
        })
    }

    /// Marks a job as done, for good.
    pub async fn mark_done(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
        job: &JobName,
    ) -> Result<(), StoreError> {
        let prefix = keys::done(cluster, id);
        self.create(&format!("{prefix}{job}"), Bytes::new()).await?;
        self.seen_done.learn(&prefix, [job.clone()]);
        Ok(())
    }

    /// Marks a job as settled but not done, as long as it is of this generation.
    pub async fn mark_failed(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
        job: &JobName,
        generation: u32,
    ) -> Result<(), StoreError> {
        let key = format!("{}{job}/{generation}", keys::failed(cluster, id));
        self.create(&key, Bytes::new()).await.map(|_| ())
    }

    async fn list_done(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<BTreeSet<JobName>, StoreError> {
        let prefix = keys::done(cluster, id);
        let keys = self.list(&prefix, None).await?;
        let names = keys.iter().filter_map(|key| key.strip_prefix(&prefix));
        let done: BTreeSet<JobName> = names.filter_map(|name| JobName::new(name).ok()).collect();
        self.seen_done.learn(&prefix, done.iter().cloned());
        Ok(done)
    }

    /// Markers of failures, with the generation that each one counts for.
    async fn list_failed(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<Vec<(JobName, u32)>, StoreError> {
        let prefix = keys::failed(cluster, id);
        let keys = self.list(&prefix, None).await?;
        let parse = |key: &String| {
            let (job, generation) = key.strip_prefix(&prefix)?.rsplit_once('/')?;
            Some((JobName::new(job).ok()?, generation.parse().ok()?))
        };
        Ok(keys.iter().filter_map(parse).collect())
    }
}

impl SeenDone {
    fn learn(&self, prefix: &str, jobs: impl IntoIterator<Item = JobName>) {
        let mut all = self.lock();
        if all.len() >= REMEMBER && !all.contains_key(prefix) {
            all.clear();
        }
        all.entry(prefix.to_owned()).or_default().extend(jobs);
    }

    fn known(&self, prefix: &str) -> BTreeSet<JobName> {
        let all = self.lock();
        all.get(prefix).into_iter().flatten().cloned().collect()
    }

    /// Those that were not seen yet, in the order given.
    fn unknown<'a>(
        &self,
        prefix: &str,
        jobs: impl IntoIterator<Item = &'a JobName>,
    ) -> Vec<&'a JobName> {
        let all = self.lock();
        let known = all.get(prefix);
        let unknown = |job: &&JobName| !known.is_some_and(|known| known.contains(*job));
        jobs.into_iter().filter(unknown).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<JobName>>> {
        // Facts are only ever added, so what a panic left behind is still true.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SeenDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SeenDone").field(&self.lock().len()).finish()
    }
}
