//! What a test holds: one running folder.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::YandexFaults;
use super::iam::Iam;
use super::kubernetes::Api;
use super::options::YandexOptions;
use super::strangers::{self, Seed};
use super::world::{Kind, Thing, World, new_id};
use super::{http, kubernetes};
use crate::hosts::simulated::Tap;
use crate::kube_sim::KubeSim;

/// The log is for assertions; a runaway test must not eat the machine.
const LONGEST_LOG: usize = 200_000;

/// One call as it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The idempotency key that came with it.
    pub key: Option<String>,
    /// The status the simulator came to; `None` when a fault met the call before any effect.
    pub status: Option<u16>,
    /// Whether a fault spoilt, withheld or delayed the answer.
    pub faulty: bool,
}

/// The running simulator. Dropping it closes its ports, stops its clockwork and ends what it started in
/// clusters.
pub struct YandexSim {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl YandexSim {
    /// Starts a folder on a port of its own.
    ///
    /// # Errors
    /// When there is no port, or no key can be made.
    pub async fn start(options: YandexOptions) -> anyhow::Result<Self> {
        let iam = Iam::new(options.token_lifetime)?;
        let mut world = World::default();
        if options.strangers {
            strangers::move_in(&mut world);
        }
        let folder = new_id("b1g");
        Self::with(options, Arc::new(iam), folder, world).await
    }

    async fn with(
        options: YandexOptions,
        iam: Arc<Iam>,
        folder: String,
        world: World,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            options,
            folder,
            iam,
            faults: YandexFaults::default(),
            world: Mutex::new(world),
            clusters: Mutex::default(),
            held: watch::Sender::new(false),
            tap: Mutex::default(),
            kube_tap: Mutex::default(),
            log: Mutex::default(),
            troubles: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        inner.spawn(http::serve(inner.clone(), listener));
        Ok(Self { inner, address })
    }

    /// The same folder once more, on a port of its own: key, tokens, ids and all that exists, but no faults
    /// or taps, and nothing asked yet. What is still being made stays unfinished in the copy, so copy a
    /// folder that has settled. Clusters have their objects and other ports.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn copy(&self) -> anyhow::Result<Self> {
        let Inner {
            options,
            folder,
            iam,
            ..
        } = &*self.inner;
        let world = self.inner.world().clone();
        let copy = Self::with(options.clone(), Arc::clone(iam), folder.clone(), world).await?;
        let clusters: Vec<(String, Arc<KubeSim>)> = self.inner.clusters_by_id();
        for (id, api) in clusters {
            kubernetes::serve(&copy.inner, &id, api.copy())?;
        }
        Ok(copy)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of all its services.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder's id.
    pub fn folder(&self) -> &str {
        &self.inner.folder
    }

    /// Id of the service account that the key belongs to.
    pub fn service_account(&self) -> &str {
        &self.inner.iam.account
    }

    /// The service account's authorized key: the JSON file that the console gives out.
    pub fn service_account_key(&self) -> String {
        self.inner.iam.authorized_key()
    }

    /// A fresh IAM token, for those who do not come with a key.
    pub fn token(&self) -> String {
        self.inner.iam.token().0
    }

    /// No token that was given out is good any more.
    pub fn expire_tokens(&self) {
        self.inner.iam.expire_all();
    }

    /// The switchboard of faults.
    pub fn faults(&self) -> &YandexFaults {
        &self.inner.faults
    }

    /// Lets no operation end, and no node get ready, or lets them again: what is under way stays so for as
    /// long as a test wants to look at it.
    pub fn hold(&self, held: bool) {
        self.inner.held.send_replace(held);
    }

    /// Puts a tap on all calls of the cloud, or takes it off. It hears what [`super::call_name`] calls them.
    pub fn tap(&self, tap: Option<Arc<dyn Tap>>) {
        *lock(&self.inner.tap) = tap;
    }

    /// Puts a tap on the Kubernetes APIs of all clusters, those to come too, or takes it off. It hears those
    /// who come with a token.
    pub fn kube_tap(&self, tap: Option<Arc<dyn Tap>>) {
        *lock(&self.inner.kube_tap) = tap.clone();
        for (_, api) in self.inner.clusters_by_id() {
            api.tap(tap.clone());
        }
    }

    /// Everything that exists now, strangers' things too, in order of creation.
    pub fn things(&self) -> Vec<Thing> {
        self.inner.world().things.clone()
    }

    /// What we made, or was seeded as ours, and still exists.
    pub fn ours(&self) -> Vec<Thing> {
        let mut things = self.things();
        things.retain(|thing| !thing.stranger);
        things
    }

    /// How many things of each kind we ever made, those too that were rolled back.
    pub fn created(&self) -> BTreeMap<Kind, u64> {
        self.inner.world().created.clone()
    }

    /// How many of them are gone, for whatever reason.
    pub fn deleted(&self) -> BTreeMap<Kind, u64> {
        self.inner.world().deleted.clone()
    }

    /// How often somebody meant to change, delete or build upon a stranger's thing, successful or not.
    pub fn strangers_touched(&self) -> usize {
        self.inner.world().touches.len()
    }

    /// Those calls, in order.
    pub fn touches(&self) -> Vec<String> {
        self.inner.world().touches.clone()
    }

    /// Puts things in; gives them as they are now, in the order in which they must be made.
    pub fn seed(&self, seed: Seed) -> Vec<Thing> {
        seed.sow(&mut self.inner.world())
    }

    /// All calls in order, those for tokens too.
    pub fn log(&self) -> Vec<Asked> {
        lock(&self.inner.log).clone()
    }

    /// The Kubernetes API of a cluster that is RUNNING.
    pub fn kube(&self, cluster: &str) -> Option<Arc<KubeSim>> {
        let clusters = lock(&self.inner.clusters);
        clusters.get(cluster).map(|api| Arc::clone(&api.sim))
    }

    /// What the simulator itself could not do; empty in a healthy sandbox.
    pub fn troubles(&self) -> Vec<String> {
        lock(&self.inner.troubles).clone()
    }

    /// Waits until the folder looks as asked.
    ///
    /// # Panics
    /// With `what` and all there is of ours when it does not within 20 s.
    pub async fn wait_until(&self, what: &str, holds: impl Fn(&[Thing]) -> bool) -> Vec<Thing> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let things = self.things();
            if holds(&things) {
                return things;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what} did not come about in the simulated cloud: {:#?}\nit said: {:?}",
                self.ours(),
                self.troubles()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for YandexSim {
    fn drop(&mut self) {
        self.inner.stop.cancel();
        // They are dropped when nobody is kept from the others by it.
        let clusters = std::mem::take(&mut *self.inner.clusters());
        drop(clusters);
    }
}

impl fmt::Debug for YandexSim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "YandexSim({})", self.address)
    }
}

/// What handlers and background work share.
pub(super) struct Inner {
    pub(super) options: YandexOptions,
    pub(super) folder: String,
    pub(super) iam: Arc<Iam>,
    pub(super) faults: YandexFaults,
    world: Mutex<World>,
    clusters: Mutex<BTreeMap<String, Api>>,
    held: watch::Sender<bool>,
    tap: Mutex<Option<Arc<dyn Tap>>>,
    kube_tap: Mutex<Option<Arc<dyn Tap>>>,
    log: Mutex<Vec<Asked>>,
    troubles: Mutex<Vec<String>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Inner {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub(super) fn clusters(&self) -> MutexGuard<'_, BTreeMap<String, Api>> {
        lock(&self.clusters)
    }

    fn clusters_by_id(&self) -> Vec<(String, Arc<KubeSim>)> {
        let clusters = self.clusters();
        let pairs = clusters.iter();
        pairs
            .map(|(id, api)| (id.clone(), Arc::clone(&api.sim)))
            .collect()
    }

    pub(super) fn tapped(&self) -> Option<Arc<dyn Tap>> {
        lock(&self.tap).clone()
    }

    pub(super) fn kube_tapped(&self) -> Option<Arc<dyn Tap>> {
        lock(&self.kube_tap).clone()
    }

    /// Whether the simulator is not dropped yet.
    pub(super) fn is_open(&self) -> bool {
        !self.stop.is_cancelled()
    }

    /// Runs until done or until the simulator is dropped.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled_owned(work).await;
        });
    }

    /// Waits until operations may end.
    pub(super) async fn let_go(&self) {
        let mut held = self.held.subscribe();
        // The sender lives in self, so that waiting cannot fail.
        let _ = held.wait_for(|held| !held).await;
    }

    pub(super) fn note(&self, asked: Asked) {
        let mut log = lock(&self.log);
        if log.len() < LONGEST_LOG {
            log.push(asked);
        }
    }

    /// Notes that the simulator could not do what the cloud promised.
    pub(super) fn trouble(&self, what: &str, error: &anyhow::Error) {
        tracing::warn!("simulated cloud: failed to {what}: {error:#}");
        lock(&self.troubles).push(format!("{what}: {error:#}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
