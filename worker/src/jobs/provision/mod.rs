//! Provision: one node's server, volumes and addresses, adopted where they are ours, created where
//! they are not there.
//!
//! The data volumes come first and on their own: they outlive every server. The server is made
//! with a host key of ours, so that SSH can be verified from the first connection on. Names and
//! keys are recorded before the call that uses them (`server`, `volumes`).

mod server;
mod volumes;

use std::collections::BTreeMap;
use std::time::Duration;

use jobs::message::OnNode;
use jobs::record::{Address, NodeRecord};
use jobs::spec::{Node, Storage};
use serde_json::json;

use crate::cloud::clo::{Clo, ServerStatus};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Patience, Poll, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &[
    "image",
    "keypair",
    "names",
    "volume-intent",
    "volume",
    "volume-ready",
    "volume-record",
    "server-intent",
    "server",
    "active",
    "discard",
    "discarded",
    "attach",
    "local-disks",
    "addresses",
    "record",
    "prove",
];

/// Looks at something that is being built: often at first, then every 15 s; half an hour at most.
pub(super) fn building(ctx: &Ctx) -> Patience {
    Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(15)),
        deadline: Duration::from_secs(30 * 60),
    }
}

/// Makes the node exist.
pub async fn run(ctx: &Ctx, job: &OnNode) -> Result<Proven, JobError> {
    let clo = ctx.world().clo()?;
    let node = ctx
        .spec()
        .node(&job.node)
        .ok_or_else(|| JobError::fatal(format!("the spec has no node `{}`", job.node)))?;

    let image: String = ctx.step("image", || server::find_image(ctx, clo)).await?;
    let keypair = server::keypair(ctx, clo).await?;
    ctx.step("names", || claim_names(ctx, clo, &node)).await?;

    let mut attached = BTreeMap::new();
    for disk in node
        .data_disks
        .iter()
        .filter(|disk| disk.storage == Storage::Network)
    {
        attached.insert(
            disk.name.clone(),
            volumes::ensure(ctx, clo, &node, disk).await?,
        );
    }
    let server = server::ensure(ctx, clo, &node, &image, &keypair).await?;
    for (disk, volume) in &attached {
        volumes::attach(ctx, clo, disk, volume, &server.id).await?;
    }
    let mut all = attached.clone();
    all.extend(volumes::local_disks(ctx, clo, &node, &server).await?);

    let (internal, external) = ctx
        .wait("addresses", building(ctx), || addresses(clo, &server.id))
        .await?;
    let record = NodeRecord {
        node: node.name.clone(),
        server: server.id.clone(),
        internal,
        external,
        host_keys: server.host_keys.clone(),
        ssh_user: ctx.spec().servers.ssh_user.clone(),
        volumes: all,
        recovery: ctx.recovery().clone(),
        epoch: ctx.epoch(),
    };
    ctx.step("record", || async {
        Cluster::of(ctx).put_node(&record).await
    })
    .await?;
    ctx.prove("server", || prove(clo, &record, attached.values()))
        .await
}

/// Before a server or volume is looked up by its name, the name must be ours.
async fn claim_names(ctx: &Ctx, clo: &Clo, node: &Node) -> Result<(), JobError> {
    let cluster = Cluster::of(ctx);
    let volumes = node.data_disks.iter().map(|disk| node.volume_name(disk));
    for name in std::iter::once(node.name.to_string()).chain(volumes) {
        cluster.claim(clo.project(), &name).await?;
    }
    Ok(())
}

/// The server's private address, and its public one if it has one.
async fn addresses(clo: &Clo, server: &str) -> Result<Poll<(Address, Option<Address>)>, JobError> {
    let of_server: Vec<_> = clo
        .list_addresses()
        .await?
        .into_iter()
        .filter(|a| a.is_of_server(server))
        .collect();
    let found = |external: bool| {
        let mut of_kind = of_server
            .iter()
            .filter(|a| a.external == external && a.version != Some(6));
        of_kind.find_map(|a| {
            Some(Address {
                id: a.id.clone(),
                ip: a.address.as_ref()?.parse().ok()?,
            })
        })
    };
    Ok(match found(false) {
        Some(internal) => Poll::Ready((internal, found(true))),
        None => Poll::Pending("the server has no private address yet".into()),
    })
}

/// Reads everything again: the server is up, alone under its name, and its volumes are plugged in.
async fn prove(
    clo: &Clo,
    record: &NodeRecord,
    volumes: impl Iterator<Item = &String>,
) -> Result<Proof, JobError> {
    let mut in_use = true;
    let mut seen = Vec::new();
    for id in volumes {
        let volume = clo.volume(id).await?;
        let server = volume.and_then(|v| v.attached_to_server).map(|at| at.id);
        in_use &= server.as_deref() == Some(&record.server);
        seen.push(json!({"volume": id, "server": server}));
    }
    let named = clo.servers_named(record.node.as_str()).await?;
    if named.len() > 1 {
        let ids = named
            .iter()
            .map(|s| s.id.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let text = format!(
            "the cloud has {} servers called `{}` ({ids}); ours is {}: delete the others",
            named.len(),
            record.node,
            record.server
        );
        return Err(JobError::needs_approval(text));
    }
    let server = clo.server(&record.server).await?;
    let status = server.as_ref().map(|s| s.status.to_string());
    let active =
        server.is_some_and(|s| s.status == ServerStatus::Active && s.name == record.node.as_str());
    Ok(Proof {
        expected: json!({"server": record.server, "status": "ACTIVE", "volumes": "attached to it"}),
        observed: json!({"servers": named.iter().map(|s| &s.id).collect::<Vec<_>>(), "status": status, "volumes": seen}),
        holds: active && in_use && named.len() == 1,
    })
}
