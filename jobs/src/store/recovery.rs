//! A recovery as it lies in the bucket: record, plan and spec together.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::{Store, StoreError};
use crate::ids::{ClusterName, RecoveryId};
use crate::keys;
use crate::plan::{Plan, PlannedJob};
use crate::record::{ActiveRecord, Inputs, RecoveryRecord, Status};
use crate::spec::ClusterSpec;

/// Reads at most this many records at a time.
const PARALLEL: usize = 16;

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

/// What a job that cleans up still has to do in a recovery that was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanUp {
    /// What it cleans up after never began, or it has cleaned up.
    Nothing,
    /// It has failed: only an operator can say what is to become of what is left.
    Failed,
    /// What it cleans up after is not settled yet.
    Waits,
    /// It has to run.
    Due,
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

    /// Destroys the sealed secrets of a recovery that has ended; of one that goes on, nothing. Before
    /// the cluster is let go, so that whoever repairs a half-done end comes by here too.
    pub async fn destroy_secrets(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<(), StoreError> {
        let record = self.recovery_record(cluster, id).await?;
        match record.filter(|record| record.finished.is_some()) {
            Some(record) => self.delete_sealed(&record.inputs).await,
            None => Ok(()),
        }
    }

    /// Deletes sealed secrets: of a recovery that has ended, or that never began.
    pub async fn delete_sealed(&self, inputs: &Inputs) -> Result<(), StoreError> {
        match &inputs.secrets {
            Some(sealed) => self.delete(&keys::input(&sealed.input)).await,
            None => Ok(()),
        }
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

    /// What a job that cleans up still has to do in a recovery that was cancelled.
    pub async fn clean_up(
        &self,
        cluster: &ClusterName,
        id: &RecoveryId,
        job: &PlannedJob,
    ) -> Result<CleanUp, StoreError> {
        let own = self.read_job(&keys::job(cluster, id, &job.name)).await?;
        match own.map(|own| own.record.status) {
            Some(Status::Succeeded | Status::Cancelled) => return Ok(CleanUp::Nothing),
            Some(status) if status.is_settled() => return Ok(CleanUp::Failed),
            _ => {}
        }
        let mut begun = false;
        for need in &job.needs {
            let there = self.read_job(&keys::job(cluster, id, need)).await?;
            match there.map(|stored| stored.record) {
                Some(record) if record.status.is_settled() => begun |= record.has_begun(),
                // Somebody may be about to begin it.
                _ => return Ok(CleanUp::Waits),
            }
        }
        Ok(if begun {
            CleanUp::Due
        } else {
            CleanUp::Nothing
        })
    }

    /// The records of all recoveries of a cluster, the newest first.
    pub async fn recoveries(
        &self,
        cluster: &ClusterName,
    ) -> Result<Vec<RecoveryRecord>, StoreError> {
        let names = self.list_folders(&keys::recoveries(cluster)).await?;
        let ids = names
            .into_iter()
            .filter_map(|name| RecoveryId::new(name).ok());
        let reads = ids.map(|id| async move { self.recovery_record(cluster, &id).await });
        let read: Vec<Option<RecoveryRecord>> = stream::iter(reads)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let mut records: Vec<RecoveryRecord> = read.into_iter().flatten().collect();
        records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(records)
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
