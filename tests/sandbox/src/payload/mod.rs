//! What runs on a cluster of the sandbox, and what is left of it when the cluster is gone.
//!
//! [`Estate`] is what lies in the bucket: the recovery begins with nothing else. [`Payload`] brings a new cluster to
//! life as soon as Kubernetes stands on it: the operators that play Flux, Helm, the kubelet, Percona's operator and
//! cert-manager, the database they restore, and the shop behind the load balancer. None of them knows Rekindle:
//! they see objects in the Kubernetes API and in the bucket.

mod bucket;
mod crew;
mod estate;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use tokio::task::JoinHandle;
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;

use crate::hosts::simulated::{Service, SimulatedHosts};
use crate::kube_sim::KubeSim;
use crate::operators::app::AppFaults;
use crate::world::Sandbox;

pub use bucket::OverHttp;
pub use crew::{Crew, Surroundings};
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
    crew: Crew,
}

impl Payload {
    /// Waits for clusters on the world's simulated hosts, and brings each to life.
    ///
    /// # Errors
    /// When the world has real hosts: nothing of this runs on them.
    pub fn follow(sandbox: &Sandbox, estate: &Estate) -> anyhow::Result<Self> {
        let hosts = sandbox.simulated.clone();
        let hosts = hosts.context("the payload runs on in-process hosts only")?;
        let around = Surroundings::new(sandbox, estate);
        let shop = around.shop.clone();
        let running = Arc::default();
        let task = tokio::spawn(follow(around, hosts, Arc::clone(&running)));
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
        self.look(|running| running.crew.rows())?
    }

    /// How often a living database was written over.
    pub fn destroyed(&self) -> u32 {
        let destroyed = self.look(|running| running.crew.destroyed());
        destroyed.unwrap_or_default()
    }

    /// What operators could not do in their last tick, a line each.
    pub fn errors(&self) -> String {
        self.look(|running| running.crew.errors())
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

async fn follow(around: Surroundings, hosts: SimulatedHosts, running: Arc<Mutex<Option<Running>>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let newest = hosts.kubes().pop();
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
            Some(sim) => match begin(&around, &hosts, sim).await {
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

async fn begin(
    around: &Surroundings,
    hosts: &SimulatedHosts,
    sim: Arc<KubeSim>,
) -> anyhow::Result<Running> {
    let crew = around.begin(client(&sim)?, PRIMARY).await?;
    hosts.route(format!("{PRIMARY}:5432").parse()?, crew.database());
    for web in WEB {
        hosts.listen(web, HTTP, Service::At(crew.shop()));
    }
    Ok(Running { sim, crew })
}

/// A client that goes straight to the API, as pods do.
fn client(sim: &KubeSim) -> anyhow::Result<Client> {
    sim.listen()?;
    let config = Kubeconfig::parse(&sim.direct_conf()?, "the sandbox")?;
    Ok(direct(&config, Dialer::direct())?)
}
