//! What runs on a cluster of the sandbox, and what is left of it when the cluster is gone.
//!
//! [`Estate`] is what lies in the bucket: the recovery begins with nothing else. [`Payload`] brings a new cluster to
//! life as soon as Kubernetes stands on it: the operators that play Flux, Helm, the kubelet, Percona's operator and
//! cert-manager, the database they restore, and the shop behind the load balancer. None of them knows Rekindle:
//! they see objects in the Kubernetes API and in the bucket.

mod bucket;
mod estate;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use tokio::task::JoinHandle;
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;

use self::estate::DISK;
use crate::ca::Ca;
use crate::hosts::simulated::{Service, SimulatedHosts};
use crate::kube_sim::KubeSim;
use crate::operators::app::{App, AppFaults, AppSettings};
use crate::operators::cert_manager::CertManager;
use crate::operators::kubelet::Kubelet;
use crate::operators::percona::{Archives, Faults, Percona, Settings};
use crate::operators::{Controller, Operators, Pace, flux};
use crate::postgres::{Data, Disks, Server, Tls};
use crate::world::Sandbox;

pub use bucket::OverHttp;
pub use estate::{Estate, ROWS};

/// The address of the database inside the cluster.
const PRIMARY: &str = "10.43.0.50";
/// The nodes that the load balancer's ports for visitors lead to, and their port.
const WEB: [&str; 2] = ["test-web-1", "test-web-2"];
const HTTP: u16 = 30080;
/// How often one looks whether Kubernetes stands.
const LOOK: Duration = Duration::from_millis(200);

/// What runs on the cluster that stands now. It ends when this is dropped.
#[derive(Debug)]
pub struct Payload {
    running: Arc<Mutex<Option<Running>>>,
    shop: AppFaults,
    task: JoinHandle<()>,
}

/// What runs on one cluster.
#[derive(Debug)]
struct Running {
    sim: Arc<KubeSim>,
    disks: Disks,
    operators: Operators,
    _server: Server,
    _shop: App,
}

/// What a payload needs of its world, to be started whenever a cluster stands.
#[derive(Debug, Clone)]
struct Surroundings {
    hosts: SimulatedHosts,
    bucket: OverHttp,
    archives: Archives,
    flux: flux::Settings,
    shop: AppFaults,
}

impl Payload {
    /// Waits for clusters on the world's simulated hosts, and brings each to life.
    ///
    /// # Errors
    /// When the world has real hosts: nothing of this runs on them.
    pub fn follow(sandbox: &Sandbox, estate: &Estate) -> anyhow::Result<Self> {
        let hosts = sandbox.simulated.clone();
        let hosts = hosts.context("the payload runs on in-process hosts only")?;
        let sealed = estate.sealed.clone();
        let (access, secret) = (sandbox.s3.access_key(), sandbox.s3.secret_key());
        let shop = AppFaults::default();
        let around = Surroundings {
            hosts,
            bucket: OverHttp::by_any_name(sandbox),
            archives: estate.archives.clone(),
            flux: flux::Settings::new(
                flux::Login::new("git", &estate.token),
                flux::Login::new(access, secret),
                Arc::new(move |_| Some(sealed.clone())),
            ),
            shop: shop.clone(),
        };
        let running = Arc::default();
        let task = tokio::spawn(follow(around, Arc::clone(&running)));
        Ok(Self {
            running,
            shop,
            task,
        })
    }

    /// What is wrong with the shop, on whatever cluster it runs.
    pub fn shop(&self) -> &AppFaults {
        &self.shop
    }

    /// The rows of the database that runs now, if one does.
    pub fn rows(&self) -> Option<usize> {
        self.look(|running| running.disks.get(DISK).data().map(Data::rows))?
    }

    /// How often a living database was written over.
    pub fn destroyed(&self) -> u32 {
        let destroyed = self.look(|running| running.disks.get(DISK).destroyed);
        destroyed.unwrap_or_default()
    }

    /// What operators could not do in their last tick, a line each.
    pub fn errors(&self) -> String {
        self.look(|running| running.operators.errors())
            .unwrap_or_default()
    }

    /// The Kubernetes API of the cluster that stands now.
    pub fn kube(&self) -> Option<Arc<KubeSim>> {
        self.look(|running| Arc::clone(&running.sim))
    }

    fn look<T>(&self, at: impl FnOnce(&Running) -> T) -> Option<T> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(at)
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(around: Surroundings, running: Arc<Mutex<Option<Running>>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let newest = around.hosts.kubes().pop();
        let known = {
            let running = running.lock().unwrap_or_else(PoisonError::into_inner);
            running.as_ref().map(|running| Arc::clone(&running.sim))
        };
        let same = match (&newest, &known) {
            (Some(newest), Some(known)) => Arc::ptr_eq(newest, known),
            (None, None) => true,
            _ => false,
        };
        if same {
            continue;
        }
        let next = match newest {
            None => None,
            Some(sim) => match around.start(sim).await {
                Ok(next) => Some(next),
                Err(error) => {
                    tracing::warn!("the payload does not start: {error:#}");
                    continue;
                }
            },
        };
        *running.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl Surroundings {
    async fn start(&self, sim: Arc<KubeSim>) -> anyhow::Result<Running> {
        let disks = Disks::default();
        let mut percona = Percona::new(
            Settings {
                disks: disks.clone(),
                archives: self.archives.clone(),
                bucket: Arc::new(self.bucket.clone()),
                ca: Ca::new("postgres-operator-ca")?,
                taints: vec![(
                    "postgresqltaint".into(),
                    "yestaint".into(),
                    "NoSchedule".into(),
                )],
                addresses: [("pg/pg-db-ha".to_owned(), PRIMARY.to_owned())].into(),
            },
            Faults::default(),
        );
        let tls = Tls::new(&percona.certificate_of("pg", "pg-db")?)?;
        let server = Server::start(&disks, DISK, tls).await?;
        let postgres = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
        self.hosts
            .route(format!("{PRIMARY}:5432").parse()?, postgres);

        let client = client(&sim)?;
        let database = {
            let disks = disks.clone();
            Arc::new(move || {
                let rows = disks.get(DISK).data().map(Data::rows);
                rows.map(|rows| format!("{rows} rows"))
            })
        };
        let storefront = AppSettings::storefront(database);
        let shop = App::with_faults(client.clone(), storefront, self.shop.clone()).await?;
        for web in WEB {
            self.hosts.listen(web, HTTP, Service::At(shop.address()));
        }
        let mut controllers: Vec<Box<dyn Controller>> = flux::controllers(&self.flux);
        controllers.push(Box::new(Kubelet::default()));
        controllers.push(Box::new(percona));
        let authority = Ca::new("the sandbox's Let's Encrypt")?;
        controllers.push(Box::new(CertManager::new(authority, Default::default())));
        let operators = Operators::start(client, pace(), controllers);
        Ok(Running {
            sim,
            disks,
            operators,
            _server: server,
            _shop: shop,
        })
    }
}

/// A client that goes straight to the API, as pods do.
fn client(sim: &KubeSim) -> anyhow::Result<Client> {
    sim.listen()?;
    let config = Kubeconfig::parse(&sim.direct_conf()?, "the sandbox")?;
    Ok(direct(&config, Dialer::direct())?)
}

fn pace() -> Pace {
    Pace {
        every: Duration::from_millis(50),
        ..Pace::default()
    }
}
