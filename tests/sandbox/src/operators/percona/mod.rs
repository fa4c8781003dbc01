//! The Percona operator for PostgreSQL, version 2.8, as a cluster sees it: `PerconaPGCluster`, the `PostgresCluster` and
//! Pods it makes of one, `PerconaPGRestore`, `PerconaPGBackup`, user Secrets and Services.
//!
//! Written from the operator's own code, so it has its traps: `ready` counts Pods and is true of an empty database; a
//! failed restore is `initializing` for ever; conditions are copied to the `PerconaPGCluster` once and then keep; an
//! invalid data source stalls without a word but an event; and a data source that is given to a living cluster is an
//! order to restore over its data, which really happens ([`Disk::destroyed`](crate::postgres::Disk)).
//!
//! A restore reads `backup.info` in the bucket that the data source names, with the keys of the Secret named
//! there, and what comes back is what that set and its WAL hold ([`Archives`]). The restored cluster archives into its
//! own repository, and a stanza that another database has used is taken over by `stanza-upgrade`, as the operator's
//! script does.
//!
//! Simplified: the Job controller, the scheduler, the kubelet and Patroni are played here too, so there are Pods without
//! StatefulSets, claims or nodes; the primary never changes; a repository is in S3; sets are full, diff or incr in name
//! and each holds all; WAL is archived each tick in which something was committed. What a container logs stands in an
//! annotation of its Pod ([`LOG`]), and not in its termination message: the operator's Pods do not ask for that. Not
//! played: `PerconaPGRestore` in place, `dataSource.volumes`, pause, standby, schedules, retention, finalizers, upgrades.

mod access;
mod backup;
mod cluster;
pub(super) mod definitions;
mod faults;
mod info;
mod instances;
mod job;
pub(super) mod json;
mod pgbackrest;
mod repository;
mod restore;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{Controller, Tick};
use crate::ca::{Ca, Signed};
use crate::postgres::Disks;

pub use definitions::definitions;
pub use faults::{Fault, Faults};
pub use repository::{Archives, Bucket, Keys, Place};

/// The annotation with what a container of a Pod logged.
pub const LOG: &str = "sandbox.rekindle/log";

/// Who manages the fields that it writes.
const MANAGER: &str = "percona-postgresql-operator";

const PERCONA: &str = "pgv2.percona.com/v2";
const CRUNCHY: &str = "postgres-operator.crunchydata.com/v1beta1";

/// Ticks that a thing takes that takes some time.
const STEP: u64 = 2;

/// What the operator finds around it.
#[derive(Debug)]
pub struct Settings {
    /// The disks that databases lie on, `namespace/cluster` each.
    pub disks: Disks,
    /// What repositories hold.
    pub archives: Archives,
    /// The object store.
    pub bucket: Arc<dyn Bucket>,
    /// Who signs the certificates of databases.
    pub ca: Ca,
    /// What all nodes for databases are tainted with: key, value, effect.
    pub taints: Vec<(String, String, String)>,
    /// Addresses of Services, by `namespace/name`; others get one that is free. A database is reached at that of
    /// `<cluster>-ha` and `<cluster>-pgbouncer`.
    pub addresses: BTreeMap<String, String>,
}

/// The operator.
#[derive(Debug)]
pub struct Percona {
    settings: Settings,
    faults: Faults,
    timers: Timers,
    certificates: BTreeMap<String, Signed>,
}

/// When what takes some time is over.
#[derive(Debug, Default)]
struct Timers(BTreeMap<String, u64>);

impl Timers {
    /// Whether so many ticks have gone by since the first time that this was asked; then it begins anew.
    fn over(&mut self, what: String, now: u64, ticks: u64) -> bool {
        let due = *self.0.entry(what.clone()).or_insert(now + ticks);
        let over = now >= due;
        if over {
            self.0.remove(&what);
        }
        over
    }
}

impl Percona {
    /// An operator in these surroundings; the faults can be set at any time.
    pub fn new(settings: Settings, faults: Faults) -> Self {
        let (timers, certificates) = Default::default();
        Self {
            settings,
            faults,
            timers,
            certificates,
        }
    }

    /// Whether what takes some time is over.
    fn over(&mut self, what: String, tick: &Tick) -> bool {
        let slow = self.faults.find(|fault| match fault {
            Fault::SlowTicks(ticks) => Some(*ticks),
            _ => None,
        });
        self.timers
            .over(what, tick.number, STEP + slow.unwrap_or_default())
    }
}

#[async_trait]
impl Controller for Percona {
    fn name(&self) -> &'static str {
        "percona"
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        let clusters = tick.cluster.list(PERCONA, "PerconaPGCluster").await?;
        self.forget_gone(tick, &clusters).await?;
        let mut failed = Ok(());
        for cluster in &clusters {
            // One that cannot go on keeps no other from it.
            failed = failed.and(self.cluster(tick, cluster).await);
        }
        let find = |object: &Value| {
            let name = &object["spec"]["pgCluster"];
            let namespace = &object["metadata"]["namespace"];
            clusters.iter().find(|c| {
                c["metadata"]["name"] == *name && c["metadata"]["namespace"] == *namespace
            })
        };
        for restore in tick.cluster.list(PERCONA, "PerconaPGRestore").await? {
            self.restore(tick, &restore, find(&restore)).await?;
        }
        for backup in tick.cluster.list(PERCONA, "PerconaPGBackup").await? {
            failed = failed.and(self.backup(tick, &backup, find(&backup)).await);
        }
        failed
    }
}
