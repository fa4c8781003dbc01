//! The cluster spec, `cluster.yaml`: what machines a cluster is made of.
//!
//! Strict on purpose: an unknown key, a RAM size in MB or a role that does not exist is an error
//! that names the path, because in the reference a typo in `role` silently dropped a node.
//! [`ClusterSpec::parse`] gives every problem at once; [`ClusterSpec::nodes`] expands the groups.

mod application;
mod bucket;
mod check;
mod database;
mod flux;
mod kubernetes;
mod load_test;
mod node;
mod targets;
pub mod versions;

pub use application::Application;
pub use bucket::Bucket;
pub use check::Problem;
pub use database::{Backups, DataProof, Database, Query, SystemId};
pub use flux::Flux;
pub use kubernetes::{
    Cidr, Encapsulation, ImageBundle, Kubernetes, Network, NetworkPlugin, ToolImage,
};
pub use load_test::{
    Channel, Driver, K6, LoadTest, NodePool, Share, Thresholds, YandexCluster, check_target,
};
pub use node::Node;
pub use targets::Targets;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterName, ObjectName};

/// A cluster and its machines, as written in `cluster.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Version of this format: 1.
    pub version: u32,
    /// The cluster's name; every server and volume name begins with it.
    pub cluster: ClusterName,
    /// What all servers have in common.
    pub servers: Servers,
    /// The load balancer in front of the cluster, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Kubernetes on the machines; without it they stay bare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    /// Flux on Kubernetes; without it nothing is installed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flux: Option<Flux>,
    /// The database that is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
    /// What waits for the database, and is proven at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<Application>,
    /// The certificates that must be there, `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Namespaced>,
    /// The load that the recovered application must bear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_test: Option<LoadTest>,
    /// What a recovery is measured by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,
    /// The node groups.
    pub groups: Vec<Group>,
}

/// What all servers of the cluster have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    /// The operating system image, found by what it is and not by its id.
    pub image: Image,
    /// Name of the SSH key pair in the cloud project; made from the worker's SSH key when absent.
    pub keypair: String,
    /// The user to log in as.
    #[serde(default = "root")]
    pub ssh_user: String,
}

/// An operating system image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Distribution, for example `ubuntu`; compared without case.
    pub distribution: String,
    /// Version, for example `22.04`.
    pub version: String,
}

/// The load balancer. Its rules come from the groups' `forward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancer {
    /// Name in the cloud; `<cluster>-main-lb` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A static address that the project already holds; a new one is taken when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<Ipv4Addr>,
    /// How connections are spread.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How backends are checked (TCP).
    #[serde(default)]
    pub health: Health,
}

/// How a load balancer spreads connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// One after the other.
    #[default]
    RoundRobin,
    /// To the backend with the fewest connections.
    LeastConnections,
}

/// The load balancer's TCP health check. The provider wants a delay of 80 or more and a timeout of
/// 15 or more (its unit is not documented, probably seconds).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Time between two checks.
    pub delay: u32,
    /// Time until a check counts as failed.
    pub timeout: u32,
    /// Failed checks until a backend is taken out, 1 to 10.
    pub retries: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            delay: 80,
            timeout: 15,
            retries: 5,
        }
    }
}

/// A group of equal nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The middle of the node names: `<cluster>-<prefix>-<n>`.
    pub prefix: String,
    /// What the nodes are in the cluster.
    pub role: Role,
    /// The instances by number. `false` switches a node off without renumbering the others.
    pub instances: BTreeMap<u32, Instance>,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in GB.
    pub ram_gb: u32,
    /// The boot disk.
    pub boot_disk: BootDisk,
    /// Data disks, each mounted by its file system's UUID.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_disks: Vec<DataDisk>,
    /// Kubernetes labels of every node of the group.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes taints, `key=value:Effect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// Ports of the load balancer that lead to these nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forward: Vec<Forward>,
}

/// One instance of a group: `true`, `false`, or what is special about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Instance {
    /// Switched on or off.
    Enabled(bool),
    /// On, with labels and taints of its own.
    With(InstanceExtra),
}

/// What is special about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceExtra {
    /// Whether the node exists.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Labels of this instance, on top of the group's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints of this instance, on top of the group's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
}

/// What a node is in the cluster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Control plane and etcd.
    Master,
    /// Runs pods.
    Worker,
    /// The way in; not part of Kubernetes.
    Bastion,
}

/// Where a disk lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// A network volume: it can be detached and outlives its server.
    #[default]
    Network,
    /// A disk of the host: it dies with its server.
    Local,
}

/// A boot disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BootDisk {
    /// Size in GB.
    pub size_gb: u32,
    /// Where it lives.
    #[serde(default)]
    pub storage: Storage,
}

/// A data disk of each node of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataDisk {
    /// Its name within the node; the volume is called `<node>-<name>`.
    pub name: String,
    /// Size in GB; a network volume has at least 10.
    pub size_gb: u32,
    /// Where it lives.
    #[serde(default)]
    pub storage: Storage,
    /// Where it is mounted, for example `/mnt/disks/data`.
    pub mount: String,
    /// Numeric owner of the mount point; left as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// Numeric group of the mount point; left as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Mode of the mount point, octal digits such as `0750`; left as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Never deleted by any path. Sticky: it is kept in the volume's record.
    #[serde(default)]
    pub protected: bool,
}

/// A port of the load balancer and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// The load balancer's port.
    pub port: u16,
    /// The nodes' port.
    pub to: u16,
}

impl ClusterSpec {
    /// Reads and checks a spec. Gives every problem found, with its path.
    pub fn parse(yaml: &str) -> Result<Self, Vec<Problem>> {
        let spec: Self = crate::yaml::parse(yaml).map_err(|problem| vec![problem])?;
        let problems = check::check(&spec);
        if problems.is_empty() {
            Ok(spec)
        } else {
            Err(problems)
        }
    }

    /// The JSON schema of `cluster.yaml`, for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(ClusterSpec).to_value()
    }

    /// The name of the load balancer in the cloud.
    pub fn load_balancer_name(&self) -> String {
        let name = self.load_balancer.as_ref().and_then(|lb| lb.name.clone());
        name.unwrap_or_else(|| format!("{}-main-lb", self.cluster))
    }
}

/// An object in its namespace, written `namespace/name`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Namespaced {
    /// The namespace.
    pub namespace: ObjectName,
    /// The name.
    pub name: ObjectName,
}

impl std::str::FromStr for Namespaced {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text:.80}` is not `namespace/name`");
        let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
        let part = |part: &str| ObjectName::new(part).map_err(|error| error.to_string());
        Ok(Self {
            namespace: part(namespace)?,
            name: part(name)?,
        })
    }
}

impl TryFrom<String> for Namespaced {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Namespaced> for String {
    fn from(of: Namespaced) -> String {
        of.to_string()
    }
}

impl std::fmt::Display for Namespaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A switch is a ConfigMap that nobody else has a use for: its name says so.
fn check_switch(at: &str, name: &ObjectName, found: &mut Vec<Problem>) {
    if !name.as_str().ends_with("-values-switch") {
        let reason = format!("`{name}` does not end with `-values-switch`");
        found.push(Problem::new(at, reason));
    }
}

fn root() -> String {
    "root".into()
}

fn yes() -> bool {
    true
}
