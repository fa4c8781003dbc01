//! A small world that can be copied: store, cloud, hosts, network and queue, and workers on it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jobs::images::Reference;
use jobs::queue::InProcess;
use jobs::secrets::Identity;
use jobs::spec::{ClusterSpec, Role};
use jobs::store::{Credentials, Secret, Store, StoreConfig};
use sandbox::clo::{CloOptions, CloSim};
use sandbox::hosts::Hosts;
use sandbox::hosts::simulated::{SimulatedHosts, Tap as HostTap};
use sandbox::kube_sim::KubeSim;
use sandbox::net::Network;
use sandbox::registry::{Door, Image, Registry, tar};
use sandbox::s3::{S3Options, S3Server};
use tempfile::NamedTempFile;
use worker::cloud::clo::{Clo, CloConfig, Patience, Token};
use worker::engine::Options as EngineOptions;
use worker::net::Dialer;
use worker::ssh::keys::{generate_host_key, parse_private_key};
use worker::world::World;

use super::kinds::{IMAGE, IMAGES};
use super::queue::{Parked, Tapped};
use super::tap::{KubeEar, Tap};
use super::wire::{Wire, name_of_clo, name_of_s3};
use crate::lab::Worker;

/// The world.
#[derive(Debug)]
pub struct Place {
    /// The store.
    pub s3: S3Server,
    /// The cloud.
    pub clo: Arc<CloSim>,
    /// The hosts.
    pub hosts: SimulatedHosts,
    /// The broker.
    pub queue: InProcess,
    network: Network,
    /// Where images are mirrored from; nothing changes it.
    registry: Registry,
    key: Arc<str>,
    /// What stands for the program of `rekindle-runner`.
    runner: Arc<NamedTempFile>,
    /// What the workers open secrets with.
    pub identity: Arc<Identity>,
}

/// A worker, with the wires that lead it to the world.
#[derive(Debug)]
pub struct Hand {
    worker: Worker,
    _wires: [Wire; 2],
}

impl Hand {
    /// Kills it without a word.
    pub fn kill(self) {
        self.worker.kill();
    }
}

impl Place {
    /// An empty world.
    pub async fn new() -> anyhow::Result<Self> {
        let hosts = SimulatedHosts::new();
        let options = CloOptions {
            boot_time: Duration::from_millis(3),
            settle_time: Duration::from_millis(2),
            ..CloOptions::default()
        };
        let clo = CloSim::start(options, Arc::new(hosts.clone())).await?;
        let key = generate_host_key()?.private.expose().to_owned();
        let mut runner = NamedTempFile::new()?;
        runner.write_all(b"a program")?;
        let registry = Registry::start(Door::Token);
        for name in IMAGES.lines() {
            let image: Reference = name.parse()?;
            // Some layers are in all images, as those of distributions are.
            let of_all = tar("base", b"the same");
            let own = tar("own", image.repository().as_bytes());
            let tag = image.tag().unwrap_or_default();
            Image::of(vec![of_all, own]).push(&registry, image.repository(), tag);
        }
        let place = Self::around(
            clo,
            hosts,
            registry,
            key.into(),
            Arc::new(runner),
            Arc::new(Identity::generate()),
        )
        .await?;
        place.s3.put_object("artifacts/kubespray", IMAGE);
        let list = format!("inputs/{}", jobs::digest(IMAGES.as_bytes()));
        place.s3.put_object(&list, IMAGES);
        Ok(place)
    }

    /// The same world once more. Nothing may be going on in it.
    pub async fn copy(&self) -> anyhow::Result<Self> {
        let hosts = self.hosts.copy();
        let clo = self.clo.copy(Arc::new(hosts.clone())).await?;
        let (key, runner) = (Arc::clone(&self.key), Arc::clone(&self.runner));
        let identity = Arc::clone(&self.identity);
        let registry = self.registry.clone();
        let copy = Self::around(clo, hosts, registry, key, runner, identity).await?;
        for (key, body) in self.s3.objects("") {
            copy.s3.put_object(&key, body);
        }
        Ok(copy)
    }

    async fn around(
        clo: CloSim,
        hosts: SimulatedHosts,
        registry: Registry,
        key: Arc<str>,
        runner: Arc<NamedTempFile>,
        identity: Arc<Identity>,
    ) -> anyhow::Result<Self> {
        let clo = Arc::new(clo);
        let rack: Arc<dyn Hosts> = Arc::new(hosts.clone());
        Ok(Self {
            s3: S3Server::start(S3Options::default()).await?,
            network: Network::start(Arc::clone(&clo), rack).await?,
            clo,
            hosts,
            queue: InProcess::new(),
            registry,
            key,
            runner,
            identity,
        })
    }

    /// Puts Kubernetes on the masters and workers of a spec, as after a run of Kubespray. Their servers
    /// must be there.
    pub fn install_kubernetes(&self, spec: &str) -> anyhow::Result<Arc<KubeSim>> {
        let spec = ClusterSpec::parse(spec).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let nodes = spec.nodes();
        let of = |role: Role| {
            let found = nodes.iter().filter(move |node| node.role == role);
            found.map(|node| node.name.as_str()).collect::<Vec<_>>()
        };
        let version = spec
            .kubernetes
            .as_ref()
            .context("the spec has no Kubernetes")?;
        let version = version.version.to_string();
        self.hosts
            .install_kubernetes(&of(Role::Master), &of(Role::Worker), &version)
    }

    /// The store without a tap.
    pub async fn store(&self) -> anyhow::Result<Store> {
        self.store_at(self.s3.endpoint()).await
    }

    async fn store_at(&self, endpoint: String) -> anyhow::Result<Store> {
        let config = StoreConfig {
            endpoint: Some(endpoint),
            bucket: self.s3.bucket().to_owned(),
            credentials: Credentials::Keys {
                access: self.s3.access_key().to_owned(),
                secret: Secret::new(self.s3.secret_key()),
            },
            region: "us-east-1".into(),
            prefix: String::new(),
            path_style: true,
            timeout: Duration::from_secs(4),
        };
        Ok(Store::connect(&config).await?)
    }

    /// Starts a worker behind a tap.
    pub async fn worker(
        &self,
        tap: &Tap,
        lease: Duration,
        parked: Option<Parked>,
    ) -> anyhow::Result<Hand> {
        let to_s3 = Wire::lay(self.s3.address(), tap.clone(), name_of_s3).await?;
        let to_clo = Wire::lay(self.clo.address(), tap.clone(), name_of_clo).await?;
        let tapped: Arc<dyn HostTap> = Arc::new(tap.clone());
        self.hosts.tap(Some(tapped));
        let tapped: Arc<dyn HostTap> = Arc::new(KubeEar(tap.clone()));
        self.hosts.tap_kubes(Some(tapped));

        let store = self.store_at(to_s3.url()).await?;
        let mut cloud = CloConfig::new(Token::new(self.clo.token()), self.clo.project());
        cloud.url = to_clo.url();
        cloud.patience = Patience {
            timeout: Duration::from_secs(5),
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_millis(20),
            ..Patience::default()
        };
        let mut world = World::default();
        world.clo = Some(Clo::new(cloud)?);
        world.dialer = Dialer::through(&self.network.proxy_url())?;
        world.ssh_key = Some(parse_private_key(&self.key, "the harness")?);
        world.runner = Some(self.runner.path().to_owned());
        world.identity = Some(Arc::clone(&self.identity));
        for host in ["registry.k8s.io", "quay.io"] {
            let url = format!("oci+http://{}", self.registry.address);
            world.registries.mirrors.insert(host.to_owned(), url);
        }
        world.poll = Some(Duration::from_millis(5));
        world.settle.every = Duration::from_millis(5);
        let options = EngineOptions {
            // One turn after the other, so that calls come in the same order in every run.
            concurrency: 1,
            turn: Duration::from_secs(20),
            lease,
            backoff: Duration::from_millis(10),
            backoff_cap: Duration::from_millis(50),
            sweep: None,
            ..EngineOptions::default()
        };
        let queue = Tapped::new(self.queue.clone(), tap.clone(), parked);
        Ok(Hand {
            worker: Worker::start_on(store, Arc::new(queue), world, options)
                .context("start a worker")?,
            _wires: [to_s3, to_clo],
        })
    }
}
