//! A recovery as it lies in the bucket: record, plan and spec together, and which jobs are settled.

use std::sync::Arc;

use bytes::Bytes;

use super::{Store, StoreError};
use crate::ids::{ClusterName, JobName, RecoveryId};
use crate::keys;
use crate::plan::{Plan, Settled};
use crate::record::{ActiveRecord, Inputs, RecoveryRecord};
use crate::spec::ClusterSpec;

/// A recovery with its inputs.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// The record's last version.
    pub record: RecoveryRecord,
    /// The plan; never changes.
    pub plan: Arc<Plan>,
    /// The spec; never changes.
    pub spec: Arc<ClusterSpec>,
}

impl Store {
    /// The record of a recovery.
    pub async fn recovery_record(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<Option<RecoveryRecord>, StoreError> {
        Ok(self
            .read::<RecoveryRecord>(&keys::recovery(cluster, id))
            .await?
            .map(|stored| stored.body))
    }

    /// A recovery with its plan and spec.
    pub async fn recovery(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<Option<Recovery>, StoreError> {
        let Some(record) = self.recovery_record(cluster, id).await? else {
            return Ok(None);
        };
        let (plan, spec) = self.recovery_inputs(&record.inputs).await?;
        Ok(Some(Recovery { record, plan, spec }))
    }

    /// The inputs of a recovery. They never change, so callers may keep them.
    pub async fn recovery_inputs(
        &self,
        inputs: &Inputs,
    ) -> Result<(Arc<Plan>, Arc<ClusterSpec>), StoreError> {
        let damaged = |digest: &str, reason: String| StoreError::Damaged {
            key: keys::input(digest),
            reason,
        };
        let plan: Plan = serde_json::from_slice(&self.get_input(&inputs.plan).await?)
            .map_err(|e| damaged(&inputs.plan, e.to_string()))?;
        let yaml = self.get_input(&inputs.spec).await?;
        let yaml = std::str::from_utf8(&yaml).map_err(|e| damaged(&inputs.spec, e.to_string()))?;
        let spec = ClusterSpec::parse(yaml).map_err(|problems| {
            damaged(
                &inputs.spec,
                problems
                    .first()
                    .map_or_else(String::new, ToString::to_string),
            )
        })?;
        Ok((Arc::new(plan), Arc::new(spec)))
    }

    /// Which jobs are settled, by their markers. Costs two listings, however many jobs there are,
    /// and one read for each job that ever failed.
    pub async fn settled(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<Settled, StoreError> {
        let (done, failed) = (keys::done(cluster, id), keys::failed(cluster, id));
        let (done_keys, failed_keys) =
            tokio::try_join!(self.list(&done, None), self.list(&failed, None))?;
        let mut settled = Settled::default();
        settled.done.extend(
            done_keys
                .iter()
                .filter_map(|key| JobName::new(key.strip_prefix(&done)?).ok()),
        );
        for key in failed_keys {
            let Some((job, generation)) = key
                .strip_prefix(&failed)
                .and_then(|rest| rest.rsplit_once('/'))
            else {
                continue;
            };
            let (Ok(job), Ok(generation)) = (JobName::new(job), generation.parse::<u32>()) else {
                continue;
            };
            if settled.done.contains(&job) {
                continue;
            }
            let record = self.read_job(&keys::job(cluster, id, &job)).await?;
            if record.is_some_and(|stored| stored.record.generation == generation) {
                settled.failed.insert(job);
            }
        }
        Ok(settled)
    }

    /// Marks a job as done, for good.
    pub async fn mark_done(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
        job: &JobName,
    ) -> Result<(), StoreError> {
        self.create(&format!("{}{job}", keys::done(cluster, id)), Bytes::new())
            .await
            .map(|_| ())
    }

    /// Marks a job as settled but not done, as long as it is of this generation.
    pub async fn mark_failed(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
        job: &JobName,
        generation: u32,
    ) -> Result<(), StoreError> {
        self.create(
            &format!("{}{job}/{generation}", keys::failed(cluster, id)),
            Bytes::new(),
        )
        .await
        .map(|_| ())
    }

    /// The recovery that holds a cluster, if one does.
    pub async fn active(&self, cluster: &ClusterName) -> Result<Option<RecoveryId>, StoreError> {
        Ok(self
            .read::<ActiveRecord>(&keys::active(cluster))
            .await?
            .and_then(|stored| stored.body.recovery))
    }

    /// Every cluster the bucket knows.
    pub async fn clusters(&self) -> Result<Vec<ClusterName>, StoreError> {
        let names = self.list_folders(keys::clusters()).await?;
        Ok(names
            .into_iter()
            .filter_map(|name| ClusterName::new(name).ok())
            .collect())
    }
}
