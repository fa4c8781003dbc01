//! The temporary cluster at Yandex Cloud that load comes from.
//!
//! Its parts are made one after the other: a network, a subnet in it, a cluster there, and two groups of nodes. The
//! idempotency keys of all calls are on record before the first one, so a call whose answer was lost is sent again
//! and gives the same operation. Every part carries the labels of this recovery and the time after which anybody may
//! delete it; `clean_up` goes by these.

mod clean_up;
mod names;

use jiff::{SignedDuration, Timestamp};
use jobs::record::Temporary;
use jobs::spec::{Channel, NodePool, YandexCluster};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Test;
use crate::cloud::yandex::{
    Kind, New, NewCluster, NewNodeGroup, Owner, Progress, Resource, Status, Yandex,
};
use crate::engine::{Ctx, JobError, Poll};
use crate::jobs::provision::building;
use crate::kube::{self, Kubeconfig, Objects};
use crate::net::Dialer;

pub(in crate::jobs) use clean_up::{clean_up, left};
use names::name;

/// The label of the nodes that runners do not go to.
const SYSTEM: &str = "system";
/// The label of the nodes that runners go to.
const RUNNERS: &str = "load-generator";
/// The value of the taint `dedicated` on these.
const DEDICATED: &str = "k6";

/// So far may our clock and the cloud's be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A cluster that is there, with nodes that are ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::jobs) struct Cluster {
    /// Its id.
    pub(in crate::jobs) id: String,
}

impl Cluster {
    /// Its objects, with the rights of our service account and a token that is fresh. Straight to its public address:
    /// the worker's proxy leads to other hosts.
    pub(in crate::jobs) async fn objects(&self, ctx: &Ctx) -> Result<Objects, JobError> {
        let yandex = ctx.world().yandex()?;
        let Some((server, authority)) = way(yandex, &self.id).await? else {
            let text = format!("the cluster {} has no address yet", self.id);
            return Err(JobError::retry(text));
        };
        let token = yandex.token().await?;
        let config = Kubeconfig::with_token(&server, &authority, &token, "Yandex Cloud")?;
        let client = kube::direct(&config, Dialer::direct())?;
        Ok(Objects::new(client))
    }
}

/// Where the API of a cluster is, and the authority that it is known by; nothing while it has none.
async fn way(yandex: &Yandex, id: &str) -> Result<Option<(String, String)>, JobError> {
    let Some(cluster) = yandex.cluster(id).await? else {
        let text = format!("the cluster {id} is not there any more");
        return Err(JobError::fatal(text));
    };
    let server = cluster.master.endpoints.external_v4_endpoint;
    let authority = cluster.master.master_auth.cluster_ca_certificate;
    let complete = !server.is_empty() && !authority.is_empty();
    Ok(complete.then_some((server, authority)))
}

/// What is decided before anything is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Keys {
    /// Where all of it is made.
    folder: String,
    /// After this time anybody may delete it.
    until: Timestamp,
    network: Uuid,
    subnet: Uuid,
    cluster: Uuid,
    system: Uuid,
    runners: Uuid,
}

/// Something that was begun to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    made: Temporary,
    /// The operation that makes it; none when it was there already.
    operation: Option<String>,
}

/// Makes network, subnet, cluster and node groups, and waits until all nodes are ready.
pub(super) async fn build(ctx: &Ctx, test: &Test) -> Result<Cluster, JobError> {
    let yandex = ctx.world().yandex()?;
    let wanted = test.section.yandex.as_ref().ok_or_else(|| {
        JobError::fatal("the spec has no section `load_test.yandex` to make a cluster by")
    })?;
    let round = ctx.generation();
    let keys: Keys = ctx
        .step(("key", round), || async {
            let (_, theirs) = yandex.list(Kind::Network).await?;
            decide(yandex.folder(), wanted, theirs, Timestamp::now())
        })
        .await?;
    if keys.folder != yandex.folder() {
        return Err(clean_up::elsewhere(&keys.folder, yandex));
    }
    let owner = Owner::new(ctx.cluster(), ctx.recovery());
    let labels = owner.labels(keys.until);
    let name = |part: &str| name(ctx.cluster(), ctx.recovery(), round, part);

    let new = New::network(name("network"), &labels);
    let network: Begun = ctx
        .step(("network", round), || {
            begin(yandex, &owner, &new, keys.network)
        })
        .await?;
    ctx.wait(("network-made", round), building(ctx), || {
        made(yandex, &network)
    })
    .await?;

    let network = network.made.id;
    let zone = wanted.zone.as_str();
    let new = New::subnet(name("subnet"), &labels, &network, zone, &wanted.subnet);
    let subnet: Begun = ctx
        .step(("subnet", round), || {
            begin(yandex, &owner, &new, keys.subnet)
        })
        .await?;
    ctx.wait(("subnet-made", round), building(ctx), || {
        made(yandex, &subnet)
    })
    .await?;

    let subnet = subnet.made.id;
    let new = New::cluster(
        name("cluster"),
        &labels,
        &NewCluster {
            network: &network,
            subnet: &subnet,
            zone,
            version: &wanted.version,
            channel: channel(wanted.channel),
            service_account: &wanted.service_account,
            pods: &wanted.pods,
            services: &wanted.services,
        },
    );
    let begun: Begun = ctx
        .step(("cluster", round), || {
            begin(yandex, &owner, &new, keys.cluster)
        })
        .await?;
    ctx.wait(("cluster-made", round), building(ctx), || async {
        match made(yandex, &begun).await? {
            Poll::Ready(()) => {}
            pending => return Ok(pending),
        }
        Ok::<_, JobError>(match way(yandex, &begun.made.id).await? {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending("the cluster has no public address yet".into()),
        })
    })
    .await?;

    let cluster = Cluster { id: begun.made.id };
    let group = |part, pool: &NodePool, role, dedicated| {
        let new = NewNodeGroup {
            cluster: &cluster.id,
            subnet: &subnet,
            zone,
            nodes: pool.nodes.get(),
            cores: pool.cores.get(),
            ram_gb: pool.ram_gb.get(),
            disk_gb: pool.disk_gb.get(),
            role,
            dedicated,
        };
        New::node_group(name(part), &labels, &new)
    };
    // Both are made side by side. A wait and no step: a cluster may take the second one only after the first.
    let new = group("system", &wanted.system, SYSTEM, None);
    let system: Begun = ctx
        .wait(("system", round), building(ctx), || async {
            begin(yandex, &owner, &new, keys.system)
                .await
                .map(Poll::Ready)
        })
        .await?;
    let new = group("runners", &wanted.runners, RUNNERS, Some(DEDICATED));
    let runners: Begun = ctx
        .wait(("runners", round), building(ctx), || async {
            begin(yandex, &owner, &new, keys.runners)
                .await
                .map(Poll::Ready)
        })
        .await?;
    ctx.wait(("system-made", round), building(ctx), || {
        made(yandex, &system)
    })
    .await?;
    ctx.wait(("runners-made", round), building(ctx), || {
        made(yandex, &runners)
    })
    .await?;

    // A group that runs does not say that its nodes are ready.
    ctx.wait(("nodes", round), building(ctx), || async {
        let objects = cluster.objects(ctx).await?;
        match objects.list("v1", "Node", None, "").await {
            Ok(nodes) => Ok(ready(&nodes, wanted)),
            // Rights that were just given take a while to be known there.
            Err(error) if matches!(error.code(), Some(401 | 403)) => {
                Ok(Poll::Pending(JobError::from(error).chain().join(": ")))
            }
            Err(error) => Err(JobError::from(error)),
        }
    })
    .await?;
    Ok(cluster)
}

/// Decides at the time that the cloud says it is, or we do when it does not. Other workers delete what is past its
/// time: with clocks that differ, that would be too soon, or never.
fn decide(
    folder: &str,
    wanted: &YandexCluster,
    theirs: Option<Timestamp>,
    ours: Timestamp,
) -> Result<Keys, JobError> {
    let now = theirs.unwrap_or(ours);
    let apart = now.duration_since(ours).abs();
    if apart > SKEW {
        return Err(JobError::retry(format!(
            "the clock of this worker and that of Yandex Cloud are {} s apart: set the clock",
            apart.as_secs()
        )));
    }
    let until = now.checked_add(wanted.ttl);
    Ok(Keys {
        folder: folder.to_owned(),
        until: until
            .map_err(|error| JobError::fatal(error).while_doing("add `ttl` to the time"))?,
        network: Uuid::new_v4(),
        subnet: Uuid::new_v4(),
        cluster: Uuid::new_v4(),
        system: Uuid::new_v4(),
        runners: Uuid::new_v4(),
    })
}

fn channel(channel: Channel) -> &'static str {
    match channel {
        Channel::Rapid => "RAPID",
        Channel::Regular => "REGULAR",
        Channel::Stable => "STABLE",
    }
}

/// Begins to make something, unless it is there: how long the cloud remembers a key is not known, and networks may
/// have the same name twice.
async fn begin(yandex: &Yandex, owner: &Owner, new: &New, key: Uuid) -> Result<Begun, JobError> {
    if let Some(there) = ours(yandex, owner, new).await? {
        return adopted(there);
    }
    let begun = match yandex.create(new, key).await {
        Ok((operation, id)) => Begun {
            made: Temporary {
                kind: new.kind.name().to_owned(),
                name: new.name.clone(),
                id,
            },
            operation: Some(operation.id),
        },
        // The name is taken: by ourselves, if lists lag behind and the key is forgotten.
        Err(error) if error.status() == Some(409) => match ours(yandex, owner, new).await? {
            Some(there) => return adopted(there),
            None => return Err(error.into()),
        },
        Err(error) => return Err(error.into()),
    };
    tracing::info!(
        kind = begun.made.kind,
        name = begun.made.name,
        id = begun.made.id,
        "begun to make"
    );
    Ok(begun)
}

/// What has the name and carries the labels of our recovery.
async fn ours(yandex: &Yandex, owner: &Owner, new: &New) -> Result<Option<Resource>, JobError> {
    let (all, _) = yandex.list(new.kind).await?;
    let mut found = all
        .into_iter()
        .filter(|resource| resource.name == new.name && owner.owns(&resource.labels));
    let first = found.next();
    match found.next() {
        None => Ok(first),
        // Which of them the next part is to lie in is anybody's guess. The clean-up deletes both.
        Some(second) => Err(JobError::fatal(format!(
            "there are two of the name {}, the other one is {}; let load-test-clean-up delete them, then `rekindle retry`",
            new.name,
            second.what()
        ))),
    }
}

fn adopted(there: Resource) -> Result<Begun, JobError> {
    if there.status == Status::Deleting {
        let text = format!("{} is being deleted", there.what());
        return Err(JobError::fatal(text));
    }
    Ok(Begun {
        made: temporary(&there),
        operation: None,
    })
}

pub(in crate::jobs) fn temporary(resource: &Resource) -> Temporary {
    Temporary {
        kind: resource.kind.name().to_owned(),
        name: resource.name.clone(),
        id: resource.id.clone(),
    }
}

/// Looks whether something is made.
async fn made(yandex: &Yandex, begun: &Begun) -> Result<Poll<()>, JobError> {
    let Temporary { kind, name, id } = &begun.made;
    let mut done = false;
    if let Some(operation) = &begun.operation {
        // A cloud forgets its operations one day; what was made is there then, or it is not.
        match yandex.operation(operation).await?.map(|it| it.progress()) {
            Some(Progress::Going(how)) => {
                return Ok(Poll::Pending(format!("{kind} {name}: {how}")));
            }
            Some(Progress::Failed(why)) => {
                let text = format!("Yandex Cloud did not make the {kind} {name}: {why}");
                return Err(JobError::fatal(text));
            }
            Some(Progress::Done) => done = true,
            None => {}
        }
    }
    let of_kind =
        Kind::named(kind).ok_or_else(|| JobError::fatal(format!("no kind is called `{kind}`")))?;
    let there = yandex.get(of_kind, id).await?;
    match there.map(|there| there.status) {
        None if done => Ok(Poll::Pending(format!("{kind} {name} does not show yet"))),
        None => Err(JobError::fatal(format!(
            "{kind} {name} is not there any more"
        ))),
        Some(Status::Deleting) => Err(JobError::fatal(format!("{kind} {name} is being deleted"))),
        Some(Status::Running) => Ok(Poll::Ready(())),
        Some(_) if matches!(of_kind, Kind::Network | Kind::Subnet) => Ok(Poll::Ready(())),
        Some(status) => Ok(Poll::Pending(format!("{kind} {name}: {status:?}"))),
    }
}

/// Whether the Kubernetes API shows all nodes, and all of them ready.
fn ready(nodes: &[Value], wanted: &YandexCluster) -> Poll<()> {
    let is_ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let of_role = |role: &str| {
        let of_role = nodes.iter();
        let of_role = of_role.filter(|node| node["metadata"]["labels"]["role"] == role);
        of_role.filter(|node| is_ready(node)).count()
    };
    let pools = [(SYSTEM, &wanted.system), (RUNNERS, &wanted.runners)];
    let enough = pools
        .iter()
        .all(|(role, pool)| of_role(role) >= pool.nodes.get() as usize);
    if enough && nodes.iter().all(is_ready) {
        return Poll::Ready(());
    }
    let seen = pools.map(|(role, pool)| format!("{} of {} {role}", of_role(role), pool.nodes));
    Poll::Pending(format!("nodes that are ready: {}", seen.join(", ")))
}

#[cfg(test)]
mod tests;
