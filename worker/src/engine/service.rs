//! The worker's loop: receive, run turns side by side, sweep, shut down in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys::Series;
use jobs::plan::Plan;
use jobs::queue::{Queue, QueueError};
use jobs::record::{Inputs, Owner};
use jobs::spec::ClusterSpec;
use jobs::store::{Store, StoreError};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::flags::FlagWatch;
use super::lease::Seen;
use super::process::{Process, ThisProcess};
use super::watch::Charge;
use crate::jobs::{Functions, Kinds};
use crate::world::World;

/// The settings of the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Turns at a time.
    pub concurrency: u16,
    /// How long a turn may take before it yields at the next step; at most 60 s.
    pub turn: Duration,
    /// How long a lease holds without a sign of life.
    pub lease: Duration,
    /// Failed attempts in a row until a job fails.
    pub attempts: u32,
    /// The first pause after a failed attempt; it doubles, with full jitter.
    pub backoff: Duration,
    /// The longest pause between two attempts.
    pub backoff_cap: Duration,
    /// How often the sweep looks for jobs that fell through. `None` for never.
    pub sweep: Option<Duration>,
    /// How often at most the sweep tends what is beside all jobs.
    pub tend: Duration,
    /// How long running steps get to finish on shutdown.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 16,
            turn: Duration::from_secs(45),
            lease: Duration::from_secs(10),
            attempts: 8,
            backoff: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(60),
            sweep: Some(Duration::from_secs(15)),
            tend: Duration::from_secs(10 * 60),
            grace: Duration::from_secs(20),
        }
    }
}

/// A worker's engine.
#[derive(Debug)]
pub struct Engine {
    pub(super) process: Arc<dyn Process>,
    pub(super) functions: Arc<dyn Functions>,
    pub(super) store: Store,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) world: Arc<World>,
    pub(super) options: Options,
    pub(super) me: Owner,
    /// Fires when the worker shuts down: no new steps.
    pub(super) shutdown: CancellationToken,
    /// Fires when the grace is over: running steps are dropped.
    pub(super) halt: CancellationToken,
    pub(super) inputs: Mutex<HashMap<Inputs, Known>>,
    pub(super) flags: Mutex<HashMap<(ClusterName, RecoveryId), FlagWatch>>,
    pub(super) seen: Mutex<HashMap<Series, Seen>>,
    /// Jobs that somebody may hold, as of the last sweep.
    pub(super) watched: Mutex<BTreeMap<Series, Charge>>,
    /// Held by the one job whose next crash would quarantine it, until it gets further.
    pub(super) last_chances: Arc<Mutex<()>>,
}

/// The inputs of a recovery; they never change.
pub(super) type Known = (Arc<Plan>, Arc<ClusterSpec>);

/// Recoveries whose inputs and flags are kept in memory.
const REMEMBER: usize = 64;

impl Engine {
    /// Puts an engine together. `shutdown` ends [`Engine::run`].
    pub fn new(
        store: Store,
        queue: Arc<dyn Queue>,
        world: World,
        options: Options,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let (process, functions) = (Arc::new(ThisProcess), Arc::new(Kinds));
        Self::within(process, functions, store, queue, world, options, shutdown)
    }

    /// The same within another process than this one and with other job functions: for a simulation.
    pub fn within(
        process: Arc<dyn Process>,
        functions: Arc<dyn Functions>,
        store: Store,
        queue: Arc<dyn Queue>,
        world: World,
        options: Options,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let me = process.owner(store.writer());
        Arc::new(Self {
            process,
            functions,
            store,
            queue,
            world: Arc::new(world),
            options,
            me,
            shutdown,
            halt: CancellationToken::new(),
            inputs: Mutex::new(HashMap::new()),
            flags: Mutex::new(HashMap::new()),
            seen: Mutex::new(HashMap::new()),
            watched: Mutex::default(),
            last_chances: Arc::default(),
        })
    }

    /// Works until `shutdown` fires: receives, runs turns, sweeps, tends. Then stops receiving, lets running
    /// steps reach a save point, gives the leases back, and returns.
    ///
    /// # Errors
    /// When the queue refuses us for good; a broker that is merely away is waited for.
    pub async fn run(self: &Arc<Self>) -> Result<(), QueueError> {
        tokio::select! {
            biased;
            received = self.receive() => received,
            () = self.sweep() => Ok(()),
            () = self.tend() => Ok(()),
        }
    }

    async fn receive(self: &Arc<Self>) -> Result<(), QueueError> {
        let turns = TaskTracker::new();
        let mut consumer = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Ok(()),
            consumer = self.queue.consume(self.options.concurrency) => consumer?,
        };
        tracing::info!(worker = %self.me.worker, concurrency = self.options.concurrency, "ready for jobs");
        let received = loop {
            let delivery = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break Ok(()),
                delivery = consumer.next() => match delivery {
                    Ok(delivery) => delivery,
                    Err(e) => break Err(e),
                },
            };
            let engine = Arc::clone(self);
            self.process.spawn(
                turns
                    .track_future(async move { engine.turn(delivery).await })
                    .boxed(),
            );
        };
        // Deliveries that we hold are acknowledged or returned by their turns; the consumer must
        // live until then, since dropping it may close their connection.
        turns.close();
        let grace = tokio::time::timeout(self.options.grace, turns.wait()).await;
        if grace.is_err() {
            tracing::warn!(
                running = turns.len(),
                "steps did not end in time and are dropped"
            );
            self.halt.cancel();
            turns.wait().await;
        }
        received
    }

    /// Plan and spec of a recovery, from memory when we had them before.
    pub(super) async fn inputs(&self, inputs: &Inputs) -> Result<Known, StoreError> {
        if let Some(known) = self.inputs.lock().await.get(inputs) {
            return Ok(known.clone());
        }
        let known = self.store.recovery_inputs(inputs).await?;
        let mut all = self.inputs.lock().await;
        if all.len() >= REMEMBER {
            all.clear();
        }
        all.insert(inputs.clone(), known.clone());
        Ok(known)
    }

    /// The name by which logs call a job.
    pub(super) fn span(
        cluster: &ClusterName,
        recovery: &RecoveryId,
        job: &JobName,
    ) -> tracing::Span {
        tracing::info_span!("turn", %cluster, %recovery, %job)
    }
}
