//! The whole world in one value: S3, cloud, network, hosts, and the keys that fit.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use worker::net::Dialer;
use worker::ssh::keys::{generate_host_key, parse_private_key};
use worker::world::World;

use jobs::ids::{ClusterName, NodeName};
use jobs::store::{Credentials, Secret, Store, StoreConfig};
use worker::cloud::clo::{Clo, CloConfig, Token};
use worker::cluster::Cluster;
use worker::ssh::Ssh;

use crate::clo::{CloOptions, CloSim};
use crate::hosts::Hosts;
use crate::hosts::real::{Options as RealOptions, RealHosts};
use crate::hosts::simulated::SimulatedHosts;
use crate::net::Network;
use crate::s3::{S3Options, S3Server};

/// Which hosts stand behind the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// Linux namespaces where this machine can have them, else in-process ones.
    Best,
    /// Linux namespaces, or an error.
    Namespaces,
    /// In-process.
    InProcess,
}

/// How the world is made.
#[derive(Debug)]
pub struct Options {
    /// The hosts.
    pub hosts: HostKind,
    /// The cloud's behaviour.
    pub clo: CloOptions,
    /// The store's behaviour.
    pub s3: S3Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: HostKind::InProcess,
            clo: CloOptions::default(),
            s3: S3Options::default(),
        }
    }
}

/// A running world. [`Sandbox::stop`] takes it down.
#[derive(Debug)]
pub struct Sandbox {
    /// The store's server.
    pub s3: S3Server,
    /// The cloud.
    pub clo: Arc<CloSim>,
    /// The hosts.
    pub hosts: Arc<dyn Hosts>,
    /// The hosts again, when they are in-process ones, to look into them.
    pub simulated: Option<SimulatedHosts>,
    /// The network.
    pub network: Network,
    /// Why there are no real hosts, when they were wished for.
    pub no_real_hosts: Option<String>,
    key: worker::ssh::HostKey,
    folder: tempfile::TempDir,
}

impl Sandbox {
    /// Starts everything.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let mut no_real_hosts = None;
        let real = match options.hosts {
            HostKind::InProcess => false,
            HostKind::Namespaces => {
                RealHosts::available()
                    .map_err(|reason| anyhow::anyhow!("no real hosts here: {reason}"))?;
                true
            }
            HostKind::Best => match RealHosts::available() {
                Ok(()) => true,
                Err(reason) => {
                    no_real_hosts = Some(reason);
                    false
                }
            },
        };
        let s3 = S3Server::start(options.s3)
            .await
            .context("start the S3 server")?;
        let simulated = (!real).then(SimulatedHosts::new);
        let hosts: Arc<dyn Hosts> = match &simulated {
            Some(simulated) => Arc::new(simulated.clone()),
            None => {
                let hosts = RealHosts::start(RealOptions::from_env()?)
                    .await
                    .context("start real hosts")?;
                // The store is the one thing of the world outside that they reach.
                hosts.lend_port(s3.address().port());
                Arc::new(hosts)
            }
        };
        let clo = Arc::new(
            CloSim::start(options.clo, Arc::clone(&hosts))
                .await
                .context("start the cloud")?,
        );
        let network = Network::start(Arc::clone(&clo), Arc::clone(&hosts))
            .await
            .context("start the network")?;
        let folder = tempfile::Builder::new()
            .prefix("rekindle-sandbox-")
            .tempdir()?;
        let key = generate_host_key()?;
        let sandbox = Self {
            s3,
            clo,
            hosts,
            simulated,
            network,
            no_real_hosts,
            key,
            folder,
        };
        write_private(&sandbox.key_file(), sandbox.key.private.expose())?;
        Ok(sandbox)
    }

    /// The file with the SSH private key that the workers log in with.
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("id_ed25519")
    }

    /// What `rekindle` and `rekindle-worker` need to know of this world. Without the broker.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("S3_ENDPOINT", self.s3.endpoint()),
            ("S3_BUCKET", self.s3.bucket().to_owned()),
            ("S3_ACCESS_KEY", self.s3.access_key().to_owned()),
            ("S3_SECRET_KEY", self.s3.secret_key().to_owned()),
            ("CLO_URL", self.clo.base_url()),
            ("CLO_AUTH_TOKEN", self.clo.token().to_owned()),
            ("CLO_OBJECT_ID", self.clo.project().to_owned()),
            ("REKINDLE_PROXY", self.network.proxy_url()),
            ("REKINDLE_POLL_MS", "500".to_owned()),
            (
                "SSH_PRIVATE_KEY_FILE",
                self.key_file().display().to_string(),
            ),
        ]
    }

    /// The store as a worker sees it.
    pub async fn store(&self) -> anyhow::Result<Store> {
        let config = StoreConfig {
            endpoint: Some(self.s3.endpoint()),
            bucket: self.s3.bucket().to_owned(),
            credentials: Credentials::Keys {
                access: self.s3.access_key().to_owned(),
                secret: Secret::new(self.s3.secret_key()),
            },
            region: "us-east-1".into(),
            prefix: String::new(),
            path_style: true,
            timeout: std::time::Duration::from_secs(4),
        };
        Ok(Store::connect(&config).await?)
    }

    /// The clients of a worker in this process.
    pub fn world(&self) -> anyhow::Result<World> {
        let mut config = CloConfig::new(Token::new(self.clo.token()), self.clo.project());
        config.url = self.clo.base_url();
        let mut world = World::default();
        world.clo = Some(Clo::new(config)?);
        world.dialer = Dialer::through(&self.network.proxy_url())?;
        world.ssh_key = Some(parse_private_key(self.key.private.expose(), "the sandbox")?);
        world.poll = Some(std::time::Duration::from_millis(500));
        world.settle.every = std::time::Duration::from_millis(500);
        Ok(world)
    }

    /// Logs in to a node as a worker does.
    pub async fn login(&self, cluster: &ClusterName, node: &NodeName) -> anyhow::Result<Ssh> {
        let store = self.store().await?;
        let records = Cluster::new(cluster, &store);
        let record = records
            .node(node)
            .await?
            .with_context(|| format!("{node} has no record"))?;
        let bastion = records
            .nodes()
            .await?
            .into_iter()
            .find(|n| n.node.as_str().contains("-bastion-"))
            .context("there is no bastion")?;
        let lb = records.load_balancer().await?;
        self.world()?
            .ssh_to(&record, &bastion, lb.as_ref())
            .await
            .map_err(|e| anyhow::anyhow!("{e}"))
    }

    /// Takes everything down.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.hosts.shutdown().await.context("take the hosts down")?;
        self.s3.stop().await;
        Ok(())
    }
}

fn write_private(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
