//! What is known about a cluster's machines, beyond one recovery. These records outlive servers:
//! a volume found again after a disaster is recognised by them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{NodeName, ObjectName, RecoveryId};
use crate::spec::Storage;

/// The recovery that holds a cluster: at most one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRecord {
    /// The recovery, or nothing when the cluster is free.
    pub recovery: Option<RecoveryId>,
    /// Since when.
    pub since: Timestamp,
}

/// The spec that was applied last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecRecord {
    /// Digest of the spec under `inputs/`.
    pub digest: String,
    /// The recovery that brought it.
    pub recovery: RecoveryId,
}

/// An address of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The cloud's id of the address.
    pub id: String,
    /// The address.
    pub ip: Ipv4Addr,
}

/// A node and the server behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node.
    pub node: NodeName,
    /// The cloud's id of its server.
    pub server: String,
    /// Its private address. The load balancer's address never stands here.
    pub internal: Address,
    /// Its public address, if it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Address>,
    /// The SSH host keys (OpenSSH lines) that we may have given the server: one, or a few when an
    /// answer of the cloud was lost. Connections with any other key are refused.
    pub host_keys: Vec<String>,
    /// The user to log in as.
    pub ssh_user: String,
    /// Data volumes by disk name of the spec.
    #[serde(default)]
    pub volumes: BTreeMap<String, String>,
    /// The recovery that wrote this.
    pub recovery: RecoveryId,
    /// The job epoch that wrote this, so that a late writer can be recognised.
    pub epoch: u64,
}

/// Where a volume came from. Only what we created blank may ever be formatted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Origin {
    /// We created it, blank.
    CreatedBlank {
        /// The recovery that created it.
        recovery: RecoveryId,
    },
    /// It was there under our name before we had a record of it: never formatted by us.
    Adopted {
        /// The recovery that adopted it.
        recovery: RecoveryId,
    },
}

/// A data volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// The cloud's id.
    pub id: String,
    /// Its name in the cloud, `<node>-<disk>`.
    pub name: String,
    /// The node it belongs to.
    pub node: NodeName,
    /// The disk of the spec it stands for.
    pub disk: String,
    /// Size in GB.
    pub size_gb: u32,
    /// Where it lives.
    pub storage: Storage,
    /// Where it came from.
    pub origin: Origin,
    /// UUID of its file system: chosen before formatting, and its identity ever after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_uuid: Option<String>,
    /// The file system was made and proven. From here on nothing formats it any more.
    #[serde(default)]
    pub formatted: bool,
    /// Where it is mounted.
    pub mount: String,
    /// Never deleted by any path. Once set it stays, whatever a spec says later.
    #[serde(default)]
    pub protected: bool,
}

/// The load balancer of a cluster: its endpoint is kept here and never in a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerRecord {
    /// The cloud's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its public address.
    pub address: Address,
    /// Its rules as read back.
    pub rules: Vec<LbRule>,
    /// The recovery that wrote this.
    pub recovery: RecoveryId,
}

/// One rule of the load balancer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LbRule {
    /// Its port.
    pub port: u16,
    /// The node it leads to.
    pub node: NodeName,
    /// The node's port.
    pub to: u16,
}

/// The cluster's database: which repository it was restored from, and which one it writes. Two databases that
/// write one repository destroy it, so each restored one gets a generation of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// pgBackRest's `repo-path` that recoveries restore from; that of the spec when nothing was promoted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What was restored last, if anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<RestoredDatabase>,
}

/// A database that a recovery restores, or has restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredDatabase {
    /// The recovery.
    pub recovery: RecoveryId,
    /// The `repo-path` it was restored from.
    pub from: String,
    /// The `repo-path` that it writes: chosen before anything is restored.
    pub generation: String,
    /// Its data were proven.
    #[serde(default)]
    pub proven: bool,
}

/// The administrator's kubeconfig of a cluster, which lies sealed among the inputs. It outlives the recovery that kept it:
/// where no master gives its own away, a worker or a person with the identity opens this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeconfigRecord {
    /// The digest of the ciphertext.
    pub input: String,
    /// Who can open it.
    pub recipient: String,
    /// Digests of the certificates of the authority that the API's own is verified with: by them a cluster is told
    /// from another. They are no secret.
    pub authorities: BTreeSet<String>,
    /// When it was fetched from a master.
    pub at: Timestamp,
    /// The recovery that fetched it.
    pub recovery: RecoveryId,
}

/// What a switch held before a recovery changed it, and which image a release brought: what `--rollback` goes
/// back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// The application.
    pub application: ObjectName,
    /// The tag that runs; none was ever proven when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The proven tag before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
    /// The recovery that wrote this.
    pub recovery: RecoveryId,
}
