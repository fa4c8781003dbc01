//! The cluster's own records, as jobs read and write them.
//!
//! What is written here outlives the recovery: server ids, host keys, and above all which volumes
//! are ours. Two rules hold for every write: protection once set stays set, and a writer of an
//! older epoch of the same recovery does not overwrite a newer one's word.

use std::fmt::Debug;

use jobs::ids::{ClusterName, NodeName};
use jobs::keys;
use jobs::record::{DatabaseRecord, LoadBalancerRecord, NodeRecord, VolumeRecord};
use jobs::store::{Created, Store, StoreError};

use crate::engine::{Ctx, JobError};

/// The records of one cluster.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    name: &'a ClusterName,
    store: &'a Store,
}

impl<'a> Cluster<'a> {
    /// The cluster a job works on.
    pub fn of(ctx: &'a Ctx) -> Self {
        Self {
            name: ctx.cluster(),
            store: ctx.store(),
        }
    }

    /// A cluster by name.
    pub fn new(name: &'a ClusterName, store: &'a Store) -> Self {
        Self { name, store }
    }

    /// A node's record.
    pub async fn node(&self, node: &NodeName) -> Result<Option<NodeRecord>, StoreError> {
        Ok(self
            .store
            .read(&keys::node(self.name, node))
            .await?
            .map(|stored| stored.body))
    }

    /// A node's record, which an earlier job must have written.
    pub async fn provisioned(&self, node: &NodeName) -> Result<NodeRecord, JobError> {
        let missing = || {
            JobError::fatal(format!(
                "node `{node}` has no record: provision it first (`rekindle provision --node {node}`)"
            ))
        };
        self.node(node).await?.ok_or_else(missing)
    }

    /// Every node's record.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        Ok(self
            .store
            .read_all(&keys::nodes(self.name))
            .await?
            .into_iter()
            .map(|stored| stored.body)
            .collect())
    }

    /// Every volume's record.
    pub async fn volumes(&self) -> Result<Vec<VolumeRecord>, StoreError> {
        Ok(self
            .store
            .read_all(&keys::volumes(self.name))
            .await?
            .into_iter()
            .map(|stored| stored.body)
            .collect())
    }

    /// One volume's record.
    pub async fn volume(&self, id: &str) -> Result<Option<VolumeRecord>, StoreError> {
        Ok(self
            .store
            .read(&keys::volume(self.name, id))
            .await?
            .map(|stored| stored.body))
    }

    /// The load balancer's record.
    pub async fn load_balancer(&self) -> Result<Option<LoadBalancerRecord>, StoreError> {
        Ok(self
            .store
            .read(&keys::load_balancer(self.name))
            .await?
            .map(|stored| stored.body))
    }

    /// The database's record.
    pub async fn database(&self) -> Result<Option<DatabaseRecord>, StoreError> {
        Ok(self
            .store
            .read(&keys::database(self.name))
            .await?
            .map(|stored| stored.body))
    }

    /// Changes the database's record; nothing is written when nothing changes.
    pub async fn change_database(
        &self,
        change: impl Fn(DatabaseRecord) -> Result<DatabaseRecord, JobError>,
    ) -> Result<(), JobError> {
        let nothing = || DatabaseRecord {
            source: None,
            restored: None,
        };
        self.put(
            &keys::database(self.name),
            |old: Option<&DatabaseRecord>| change(old.cloned().unwrap_or_else(nothing)),
        )
        .await
    }

    /// Takes a name of the cloud project for this cluster, for good. The cloud tells things apart by
    /// their names only, and names of two clusters can meet: node `a-web-1` of cluster `test` is
    /// called like node `web-1` of cluster `test-a`. Whoever comes first keeps the name.
    pub async fn claim(&self, project: &str, name: &str) -> Result<(), JobError> {
        let key = keys::name(project, name);
        let ours = self.name.as_str().as_bytes().to_vec();
        match self.store.create(&key, ours.into()).await? {
            Created::New => Ok(()),
            Created::Exists(other) => Err(JobError::needs_approval(format!(
                "the name `{name}` belongs to cluster `{}` of the same project: give ours another one in the spec (if that cluster is no more, delete `{key}` in the bucket)",
                String::from_utf8_lossy(&other)
            ))),
        }
    }

    /// Writes a node's record unless it says so already.
    pub async fn put_node(&self, record: &NodeRecord) -> Result<(), JobError> {
        self.put(
            &keys::node(self.name, &record.node),
            |old: Option<&NodeRecord>| match old {
                Some(old) if old.recovery == record.recovery && old.epoch > record.epoch => Err(
                    JobError::retry("a newer owner of this job has written the node's record"),
                ),
                _ => Ok(record.clone()),
            },
        )
        .await
    }

    /// Writes a volume's record. What is known of its past is kept: where it came from, its file
    /// system, and its protection, whatever the new record says.
    pub async fn put_volume(&self, record: &VolumeRecord) -> Result<(), JobError> {
        self.put(
            &keys::volume(self.name, &record.id),
            |old: Option<&VolumeRecord>| match old {
                Some(old) if old.node != record.node || old.disk != record.disk => {
                    Err(JobError::fatal(format!(
                        "volume {} belongs to disk `{}` of `{}`, not to `{}` of `{}`",
                        record.id, old.disk, old.node, record.disk, record.node
                    )))
                }
                Some(old) => Ok(VolumeRecord {
                    origin: old.origin.clone(),
                    fs_uuid: old.fs_uuid.clone().or_else(|| record.fs_uuid.clone()),
                    formatted: old.formatted || record.formatted,
                    protected: old.protected || record.protected,
                    ..record.clone()
                }),
                None => Ok(record.clone()),
            },
        )
        .await
    }

    /// Writes the load balancer's record.
    pub async fn put_load_balancer(&self, record: &LoadBalancerRecord) -> Result<(), JobError> {
        self.put(
            &keys::load_balancer(self.name),
            |_: Option<&LoadBalancerRecord>| Ok(record.clone()),
        )
        .await
    }

    async fn put<T>(
        &self,
        series: &keys::Series,
        next: impl Fn(Option<&T>) -> Result<T, JobError>,
    ) -> Result<(), JobError>
    where
        T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
    {
        self.store
            .update(series, |old: Option<T>| {
                let new = next(old.as_ref())?;
                Ok::<_, JobError>((old.as_ref() != Some(&new)).then_some(new))
            })
            .await
            .map(|_| ())
    }
}
