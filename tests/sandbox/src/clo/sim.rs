//! What a test holds: one running project.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::CloFaults;
use super::foreign::Foreign;
use super::operation::Operation;
use super::options::CloOptions;
use super::snapshot::Snapshot;
use super::world::{BalancerStatus, Entity, RuleStatus, ServerStatus, World, new_id};
use super::{http, lifecycle};
use crate::hosts::Hosts;

/// Why the simulator did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No port on the loopback interface.
    #[error("failed to listen on 127.0.0.1")]
    Listen(#[source] std::io::Error),
}

/// A mutating call as it arrived, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which call.
    pub operation: Operation,
    /// The name of the thing it is about, and of the server concerned, as far as there are any.
    pub names: Vec<String>,
    /// The id in the path; for creates, the id of what was made.
    pub id: Option<String>,
    /// The status the simulator came to; `None` when a fault met the call before any effect.
    pub status: Option<u16>,
    /// Whether a fault spoilt or withheld the answer.
    pub faulty: bool,
}

impl Call {
    /// Whether the call changed the world, whatever its caller was told.
    pub fn had_effect(&self) -> bool {
        self.status.is_some_and(|s| (200..300).contains(&s))
    }
}

/// The running simulator. Dropping it closes its port and stops its clockwork; the hosts are
/// left to whoever made them.
#[derive(Debug)]
pub struct CloSim {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl CloSim {
    /// Starts an empty project on a port of its own.
    pub async fn start(options: CloOptions, hosts: Arc<dyn Hosts>) -> Result<Self, StartError> {
        let (token, project) = (format!("clo-{}", new_id()), new_id());
        Self::with(options, hosts, token, project, World::new()).await
    }

    /// The same project once more, on a port of its own: token, ids and all that exists, but no
    /// faults, and nothing counted yet. What is still being built stays unfinished in the copy, so
    /// copy a cloud that has settled.
    pub async fn copy(&self, hosts: Arc<dyn Hosts>) -> Result<Self, StartError> {
        let Inner {
            options,
            token,
            project,
            ..
        } = &*self.inner;
        let world = self.inner.world().clone();
        Self::with(
            options.clone(),
            hosts,
            token.clone(),
            project.clone(),
            world,
        )
        .await
    }

    async fn with(
        options: CloOptions,
        hosts: Arc<dyn Hosts>,
        token: String,
        project: String,
        world: World,
    ) -> Result<Self, StartError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(StartError::Listen)?;
        let address = listener.local_addr().map_err(StartError::Listen)?;
        let inner = Arc::new(Inner {
            building: Semaphore::new(options.max_building),
            options,
            hosts,
            token,
            project,
            world: Mutex::new(world),
            faults: CloFaults::default(),
            counts: Mutex::default(),
            log: Mutex::default(),
            troubles: Mutex::default(),
            locks: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        inner.spawn(http::serve(inner.clone(), listener));
        Ok(Self { inner, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Base URL, without `/v2`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bearer token the API wants.
    pub fn token(&self) -> &str {
        &self.inner.token
    }

    /// The project's id.
    pub fn project(&self) -> &str {
        &self.inner.project
    }

    /// The switchboard of faults.
    pub fn faults(&self) -> &CloFaults {
        &self.inner.faults
    }

    /// Everything that exists now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.inner.world())
    }

    /// Waits until the project looks as asked.
    ///
    /// # Panics
    /// With `what` and the snapshot when it does not within 20 s.
    pub async fn wait_until(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let snapshot = self.snapshot();
            if holds(&snapshot) {
                return snapshot;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what} did not come about in the simulated cloud: {snapshot:#?}\nhosts said: {:?}",
                self.troubles()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How often each call arrived, whatever became of it.
    pub fn calls(&self) -> BTreeMap<Operation, u64> {
        lock(&self.inner.counts).clone()
    }

    /// How often this call changed the world.
    pub fn effects(&self, operation: Operation) -> usize {
        let log = lock(&self.inner.log);
        log.iter()
            .filter(|call| call.operation == operation && call.had_effect())
            .count()
    }

    /// All mutating calls in order.
    pub fn log(&self) -> Vec<Call> {
        lock(&self.inner.log).clone()
    }

    /// What the hosts refused to do for the simulator; empty in a healthy sandbox.
    pub fn troubles(&self) -> Vec<String> {
        lock(&self.inner.troubles).clone()
    }

    /// Seeds what belongs to somebody else in the same project.
    pub async fn foreign(&self, strangers: Foreign) -> anyhow::Result<()> {
        strangers.seed(&self.inner).await
    }

    /// The disaster: all our servers die with their local and boot disks, volumes survive.
    pub async fn destroy_all_servers(&self) {
        let ids: Vec<String> = self
            .snapshot()
            .servers
            .into_iter()
            .filter(|s| !s.foreign)
            .map(|s| s.id)
            .collect();
        futures::future::join_all(ids.iter().map(|id| self.destroy_server(id))).await;
    }

    /// One server dies as if somebody had deleted it in the console.
    pub async fn destroy_server(&self, id: &str) {
        if let Some(server) = self.inner.world().server_mut(id) {
            server.status = ServerStatus::Deleting;
        }
        lifecycle::delete_server(self.inner.clone(), id.to_owned(), Vec::new(), Vec::new()).await;
    }

    /// Where a connection from outside to `ip:port` ends: the candidates inside the private
    /// network, in the order of the rules. `None` when the address leads nowhere.
    pub fn destinations(&self, ip: Ipv4Addr, port: u16) -> Option<Vec<SocketAddr>> {
        let world = self.inner.world();
        let address = world.addresses.iter().find(|a| a.external && a.ip == ip)?;
        match address.attached.as_ref()? {
            Entity::Server(server) => {
                let up = world.server(server)?.status == ServerStatus::Active;
                let inside = world.internal_ip(server)?;
                Some(if up {
                    vec![SocketAddr::new(IpAddr::V4(inside), port)]
                } else {
                    Vec::new()
                })
            }
            Entity::Balancer(balancer) => {
                if world.balancer(balancer)?.status != BalancerStatus::Active {
                    return Some(Vec::new());
                }
                let active = |status| status == Some(ServerStatus::Active);
                Some(
                    world
                        .rules
                        .iter()
                        .filter(|r| r.balancer == *balancer && r.external_port == port)
                        .filter(|r| r.status == RuleStatus::Active)
                        .filter(|r| active(world.server(&r.server).map(|s| s.status)))
                        .filter_map(|r| {
                            let inside = world.address(&r.address)?.ip;
                            Some(SocketAddr::new(IpAddr::V4(inside), r.internal_port))
                        })
                        .collect(),
                )
            }
        }
    }
}

impl Drop for CloSim {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

/// What handlers and background work share.
pub(super) struct Inner {
    pub(super) options: CloOptions,
    pub(super) hosts: Arc<dyn Hosts>,
    pub(super) token: String,
    pub(super) project: String,
    pub(super) faults: CloFaults,
    pub(super) building: Semaphore,
    world: Mutex<World>,
    counts: Mutex<BTreeMap<Operation, u64>>,
    log: Mutex<Vec<Call>>,
    troubles: Mutex<Vec<String>>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token stays out.
        f.debug_struct("Inner")
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Runs until done or until the simulator is dropped.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled_owned(work).await;
        });
    }

    /// Work on one server or volume goes one by one.
    pub(super) async fn exclusively(&self, id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let mutex = lock(&self.locks).entry(id.to_owned()).or_default().clone();
        mutex.lock_owned().await
    }

    pub(super) fn count(&self, operation: Operation) {
        *lock(&self.counts).entry(operation).or_default() += 1;
    }

    pub(super) fn record(&self, call: Call) {
        if call.operation.is_mutating() {
            lock(&self.log).push(call);
        }
    }

    /// Notes that the hosts could not do what the cloud promised.
    pub(super) fn trouble(&self, what: &str, error: &anyhow::Error) {
        tracing::warn!("simulated cloud: failed to {what}: {error:#}");
        lock(&self.troubles).push(format!("{what}: {error:#}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
