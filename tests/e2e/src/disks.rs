//! The data disks as their owner sees them: logs in to the nodes and leaves something to come back
//! to. Only what the cluster's records say is trusted, as the jobs do; nothing of the sandbox is used
//! to look inside.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use jobs::ids::{ClusterName, NodeName};
use jobs::record::{NodeRecord, VolumeRecord};
use jobs::store::Store;
use sandbox::world::Sandbox;
use worker::cluster::Cluster;
use worker::net::Dialer;
use worker::ssh::keys::{load_private_key, parse_public_key};
use worker::ssh::{HostExt, Ssh, SshTarget};

/// Connecting takes no longer on any machine.
const CONNECT: Duration = Duration::from_secs(60);

/// A data disk, as it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDisk {
    /// The cloud's id of its volume.
    pub volume: String,
    /// UUID of the file system that is mounted.
    pub fs_uuid: String,
    /// What the node's canary says; `None` when it has none.
    pub canary: Option<String>,
}

/// Writes a file of its own on every data disk.
pub async fn leave_canaries(sandbox: &Sandbox, cluster: &ClusterName) -> anyhow::Result<()> {
    let store = sandbox.store().await?;
    let way = Way::open(sandbox, &store, cluster).await?;
    for (volume, node) in volumes(&store, cluster).await? {
        let host = way.to(&node).await?;
        let canary = path(&volume);
        host.write_file(&canary, song(&volume).as_bytes(), 0o644)
            .await?;
        host.run_ok(&["sync"]).await?;
    }
    Ok(())
}

/// What a canary sings: every disk another song.
pub fn song(volume: &VolumeRecord) -> String {
    format!("{} was here as {}\n", volume.node, volume.id)
}

/// Looks at every data disk, by node.
pub async fn look(
    sandbox: &Sandbox,
    cluster: &ClusterName,
) -> anyhow::Result<BTreeMap<NodeName, DataDisk>> {
    let store = sandbox.store().await?;
    let way = Way::open(sandbox, &store, cluster).await?;
    let mut seen = BTreeMap::new();
    for (volume, node) in volumes(&store, cluster).await? {
        let host = way.to(&node).await?;
        let mounted = host
            .run_ok(&["findmnt", "--noheadings", "--output", "UUID", &volume.mount])
            .await?
            .text();
        let there = host.run(&["test", "-e", &path(&volume)]).await?;
        ensure!(there.status <= 1, "look for a canary: {there:?}");
        let canary = match there.success() {
            true => Some(host.run_ok(&["cat", &path(&volume)]).await?.text()),
            false => None,
        };
        let disk = DataDisk {
            volume: volume.id.clone(),
            fs_uuid: mounted.trim().to_owned(),
            canary,
        };
        let twice = seen.insert(volume.node.clone(), disk);
        ensure!(twice.is_none(), "{} has two data disks", volume.node);
    }
    Ok(seen)
}

/// The songs that have to be heard, by node.
pub async fn songs(
    sandbox: &Sandbox,
    cluster: &ClusterName,
) -> anyhow::Result<BTreeMap<NodeName, Option<String>>> {
    let volumes = volumes(&sandbox.store().await?, cluster).await?;
    Ok(volumes
        .into_iter()
        .map(|(volume, _)| (volume.node.clone(), Some(song(&volume))))
        .collect())
}

fn path(volume: &VolumeRecord) -> String {
    format!("{}/canary", volume.mount)
}

async fn volumes(
    store: &Store,
    cluster: &ClusterName,
) -> anyhow::Result<Vec<(VolumeRecord, NodeRecord)>> {
    let records = Cluster::new(cluster, store);
    let mut all = Vec::new();
    for volume in records.volumes().await? {
        let node = records.node(&volume.node).await?;
        let node = node.with_context(|| format!("{} has no record", volume.node))?;
        all.push((volume, node));
    }
    Ok(all)
}

/// The way to the nodes: through the bastion behind the load balancer.
struct Way {
    bastion: Ssh,
    sandbox_key: std::path::PathBuf,
}

impl Way {
    async fn open(sandbox: &Sandbox, store: &Store, cluster: &ClusterName) -> anyhow::Result<Self> {
        let records = Cluster::new(cluster, store);
        let balancer = records.load_balancer().await?.context("there is none")?;
        let rule = balancer.rules.iter().find(|rule| rule.to == 22);
        let rule = rule.context("no port leads to an SSH server")?;
        let bastion = records.node(&rule.node).await?.context("no bastion")?;
        let key = sandbox.key_file();
        let entry = target(&bastion, balancer.address.ip.to_string(), rule.port, &key)?;
        let dialer = Dialer::through(&sandbox.network.proxy_url())?;
        Ok(Self {
            bastion: Ssh::connect(&dialer, &entry, CONNECT).await?,
            sandbox_key: key,
        })
    }

    async fn to(&self, node: &NodeRecord) -> anyhow::Result<Ssh> {
        let target = target(node, node.internal.ip.to_string(), 22, &self.sandbox_key)?;
        Ok(Ssh::connect_through(&self.bastion, &target, CONNECT).await?)
    }
}

fn target(
    node: &NodeRecord,
    host: String,
    port: u16,
    key: &std::path::Path,
) -> anyhow::Result<SshTarget> {
    let keys = node.host_keys.iter().map(|line| parse_public_key(line));
    Ok(SshTarget {
        host,
        port,
        user: node.ssh_user.clone(),
        host_keys: keys.collect::<Result<_, _>>()?,
        key: load_private_key(key)?,
    })
}
