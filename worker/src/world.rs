//! What jobs work on: the cloud, the network to the hosts, and the keys. Made once from the
//! worker's settings; what is not set is an error only in the job that needs it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jobs::ids::ClusterName;
use jobs::record::{LeftBehind, LoadBalancerRecord, NodeRecord};
use jobs::secrets::Identity;
use jobs::spec::Role;
use russh::keys::PrivateKey;
use tokio::sync::Mutex;

use crate::cloud::clo::{Clo, CloError, Settle};
use crate::cloud::yandex::{Yandex, YandexError};
use crate::cluster::Cluster;
use crate::engine::{Again, Ctx, JobError};
use crate::kube::{Kubeconfig, Masters, Objects, access};
use crate::net::Dialer;
use crate::registries::Registries;
use crate::ssh::keys::{KeyError, parse_public_key};
use crate::ssh::{Ssh, SshError, SshTarget};

/// How workers come to the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Through the bastion: by the load balancer's port that leads to its port 22, else by its own
    /// public address.
    #[default]
    Bastion,
    /// Straight to the private addresses, as on the bastion itself.
    Direct,
}

/// Clients, keys, and open connections.
#[derive(Clone, Default)]
pub struct World {
    /// The cloud, when its credentials are set.
    pub clo: Option<Clo>,
    /// The cloud that load comes from, when its credentials are set.
    pub yandex: Option<Yandex>,
    /// The registries that images are mirrored from.
    pub registries: Registries,
    /// How TCP connections are made.
    pub dialer: Dialer,
    /// The key that we log in with, when it is set.
    pub ssh_key: Option<Arc<PrivateKey>>,
    /// Authorities to trust instead of the host's where an application is asked by its URL.
    pub ca_file: Option<PathBuf>,
    /// What secrets are opened with, when it is set.
    pub identity: Option<Arc<Identity>>,
    /// The way to the hosts.
    pub access: Access,
    /// Kubeconfigs that this worker was given: it goes straight to their servers, and asks no master.
    pub kubeconfigs: BTreeMap<ClusterName, Kubeconfig>,
    /// How long a create whose answer was lost is looked for.
    pub settle: Settle,
    /// The longest time between two looks at something that is being built.
    pub poll: Option<Duration>,
    /// The `rekindle-runner` that is put on the bastion; the one beside our own program when absent.
    pub runner: Option<PathBuf>,
    connections: Arc<Mutex<HashMap<String, Ssh>>>,
}

/// How long connecting to a host may take, from the first packet to the login.
const CONNECT: Duration = Duration::from_secs(15);

impl World {
    /// The cloud.
    pub fn clo(&self) -> Result<&Clo, JobError> {
        let missing = "this worker has no cloud credentials: set CLO_AUTH_TOKEN and CLO_OBJECT_ID, then `rekindle retry`";
        self.clo.as_ref().ok_or_else(|| JobError::fatal(missing))
    }

    /// The cloud that load comes from.
    pub fn yandex(&self) -> Result<&Yandex, JobError> {
        let missing = "this worker has no credentials for Yandex Cloud: set YC_FOLDER_ID and YC_SERVICE_ACCOUNT_KEY_FILE, then `rekindle retry`";
        self.yandex.as_ref().ok_or_else(|| JobError::fatal(missing))
    }

    /// The key that we log in with.
    pub fn ssh_key(&self) -> Result<&Arc<PrivateKey>, JobError> {
        let missing = "this worker has no SSH key: set SSH_PRIVATE_KEY or SSH_PRIVATE_KEY_FILE, then `rekindle retry`";
        self.ssh_key
            .as_ref()
            .ok_or_else(|| JobError::fatal(missing))
    }

    /// Where the `rekindle-runner` for the bastion is.
    pub fn runner(&self) -> Result<PathBuf, JobError> {
        if let Some(path) = &self.runner {
            return Ok(path.clone());
        }
        let ours = std::env::current_exe().map_err(JobError::fatal)?;
        Ok(ours.with_file_name("rekindle-runner"))
    }

    /// Logs in to a node of the job's cluster, by way of the bastion unless we are on it.
    pub async fn ssh(&self, ctx: &Ctx, node: &NodeRecord) -> Result<Ssh, JobError> {
        if self.access == Access::Direct {
            return self.ssh_inside(node).await;
        }
        let nodes = ctx.spec().nodes();
        let bastion = nodes.iter().find(|n| n.role == Role::Bastion);
        let bastion = bastion.ok_or_else(no_bastion)?;
        let cluster = Cluster::of(ctx);
        let missing = || JobError::retry("the bastion is not provisioned yet");
        let bastion = cluster.node(&bastion.name).await?.ok_or_else(missing)?;
        self.ssh_to(node, &bastion, cluster.load_balancer().await?.as_ref())
            .await
    }

    /// Logs in to a node by its private address.
    async fn ssh_inside(&self, node: &NodeRecord) -> Result<Ssh, JobError> {
        let target = self.target(node, &node.internal.ip.to_string(), 22)?;
        self.connect(node, &target, None).await
    }

    /// Logs in to a node through a bastion. Connections are kept and shared; one that broke is made
    /// anew.
    pub async fn ssh_to(
        &self,
        node: &NodeRecord,
        bastion: &NodeRecord,
        lb: Option<&LoadBalancerRecord>,
    ) -> Result<Ssh, JobError> {
        let (host, port) = entry(bastion, lb)?;
        let way_in = self.target(bastion, &host, port)?;
        let through = self.connect(bastion, &way_in, None).await?;
        if bastion.node == node.node {
            return Ok(through);
        }
        let target = self.target(node, &node.internal.ip.to_string(), 22)?;
        self.connect(node, &target, Some(&through)).await
    }

    /// The objects of the job's cluster, with the administrator's rights.
    pub async fn kube(&self, ctx: &Ctx) -> Result<Objects, JobError> {
        // Ways to the API are long, and jobs have it open for all of their turn: on the heap, not on their stack.
        Ok(Objects::new(Box::pin(access::client(ctx, self)).await?))
    }

    /// The masters of the job's cluster.
    pub async fn masters_of(&self, ctx: &Ctx) -> Result<Arc<dyn Masters>, JobError> {
        let cluster = Cluster::of(ctx);
        let nodes = ctx.spec().nodes();
        let mut masters = Vec::new();
        for node in nodes.iter().filter(|node| node.role == Role::Master) {
            masters.push(cluster.provisioned(&node.name).await?);
        }
        let entrance = match self.access {
            Access::Direct => Entrance::Direct,
            Access::Bastion => {
                let bastion = nodes.iter().find(|n| n.role == Role::Bastion);
                let bastion = bastion.ok_or_else(no_bastion)?;
                let bastion = cluster.provisioned(&bastion.name).await?;
                let lb = cluster.load_balancer().await?;
                Entrance::Bastion(Box::new(bastion), lb)
            }
        };
        Ok(self.masters(entrance, masters))
    }

    /// The masters of a cluster, as clients of their API ask them.
    pub fn masters(&self, entrance: Entrance, nodes: Vec<NodeRecord>) -> Arc<dyn Masters> {
        Arc::new(MastersOf {
            world: self.clone(),
            entrance,
            nodes,
        })
    }

    fn target(&self, node: &NodeRecord, host: &str, port: u16) -> Result<SshTarget, JobError> {
        let keys = node
            .host_keys
            .iter()
            .map(|line| parse_public_key(line))
            .collect::<Result<_, _>>()?;
        Ok(SshTarget {
            host: host.to_owned(),
            port,
            user: node.ssh_user.clone(),
            host_keys: keys,
            key: Arc::clone(self.ssh_key()?),
        })
    }

    async fn connect(
        &self,
        node: &NodeRecord,
        target: &SshTarget,
        through: Option<&Ssh>,
    ) -> Result<Ssh, JobError> {
        // A server's id is in the name: a new server of the same node is another host.
        let name = format!("{}@{}:{}", node.server, target.host, target.port);
        if let Some(open) = self
            .connections
            .lock()
            .await
            .get(&name)
            .filter(|ssh| !ssh.is_closed())
        {
            return Ok(open.clone());
        }
        let made = match through {
            Some(bastion) => Ssh::connect_through(bastion, target, CONNECT).await,
            None => Ssh::connect(&self.dialer, target, CONNECT).await,
        }?;
        self.connections.lock().await.insert(name, made.clone());
        Ok(made)
    }
}

/// How the masters are come to, with what it takes.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// By their private addresses.
    Direct,
    /// Through the bastion, which may stand behind the load balancer.
    Bastion(Box<NodeRecord>, Option<LoadBalancerRecord>),
}

#[derive(Debug)]
struct MastersOf {
    world: World,
    entrance: Entrance,
    nodes: Vec<NodeRecord>,
}

#[async_trait]
impl Masters for MastersOf {
    fn names(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.node.to_string())
            .collect()
    }

    async fn ssh(&self, place: usize) -> Result<Ssh, JobError> {
        let node = self.nodes.get(place);
        let node = node.ok_or_else(|| JobError::fatal(format!("there is no master {place}")))?;
        match &self.entrance {
            Entrance::Direct => self.world.ssh_inside(node).await,
            Entrance::Bastion(bastion, lb) => self.world.ssh_to(node, bastion, lb.as_ref()).await,
        }
    }
}

fn no_bastion() -> JobError {
    let text = "the spec has no bastion to come in through; run the worker inside, with --ssh-access direct";
    JobError::fatal(text)
}

/// Where the bastion is reached from outside.
fn entry(bastion: &NodeRecord, lb: Option<&LoadBalancerRecord>) -> Result<(String, u16), JobError> {
    let rule = lb.and_then(|lb| {
        lb.rules
            .iter()
            .find(|r| r.node == bastion.node && r.to == 22)
            .map(|rule| (lb, rule))
    });
    match (rule, &bastion.external) {
        (Some((lb, rule)), _) => Ok((lb.address.ip.to_string(), rule.port)),
        (None, Some(address)) => Ok((address.ip.to_string(), 22)),
        (None, None) => Err(JobError::fatal(
            "there is no way in: the bastion has no public address and no load balancer port leads to its port 22",
        )),
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("clo", &self.clo)
            .field("yandex", &self.yandex)
            .field("dialer", &self.dialer)
            .field("ssh_key", &self.ssh_key.is_some())
            .field("identity", &self.identity)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl From<CloError> for JobError {
    fn from(error: CloError) -> Self {
        let after = error.retry_after();
        // The API says "not now" by 4xx codes too (a volume that is not yet available), so only
        // what is certainly wrong with us ends the job at once.
        let hopeless =
            matches!(error.status(), Some(401..=403)) || matches!(error, CloError::Invalid { .. });
        let ambiguous = error.is_ambiguous();
        // Which of several is ours only a person can say.
        let several = matches!(error, CloError::Several { .. });
        let mut job = if several {
            Self::needs_approval(error)
        } else if hopeless {
            Self::fatal(error)
        } else {
            Self::retry(error)
        };
        if let (Again::Retry { .. }, Some(_)) = (&job.again, after) {
            job.again = Again::Retry { after };
        }
        job.leaves(if ambiguous {
            LeftBehind::Unknown
        } else {
            LeftBehind::Resources
        })
    }
}

impl From<YandexError> for JobError {
    fn from(error: YandexError) -> Self {
        let after = error.retry_after();
        let ambiguous = error.is_ambiguous();
        let mut job = match error.is_hopeless() {
            true => Self::fatal(error),
            false => Self::retry(error),
        };
        if let (Again::Retry { .. }, Some(_)) = (&job.again, after) {
            job.again = Again::Retry { after };
        }
        job.leaves(match ambiguous {
            true => LeftBehind::Unknown,
            false => LeftBehind::Resources,
        })
    }
}

impl From<SshError> for JobError {
    fn from(error: SshError) -> Self {
        // A host that shows another key may be somebody else: never go on by itself.
        if error.is_host_key_mismatch() {
            Self::needs_approval(error)
        } else {
            Self::retry(error)
        }
    }
}

impl From<KeyError> for JobError {
    fn from(error: KeyError) -> Self {
        Self::fatal(error)
    }
}
