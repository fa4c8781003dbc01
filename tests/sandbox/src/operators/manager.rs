//! The loop: each tick every controller looks once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kube::Client;
use tokio::task::JoinHandle;

use super::api::Cluster;
use super::faults::Faults;

/// One kind of operator.
#[async_trait]
pub trait Controller: Send {
    /// What it is called, for errors.
    fn name(&self) -> &'static str;

    /// Looks at what is there and does what is to be done at once. It never waits: what takes time is looked at
    /// again in a later tick. An error is kept ([`Operators::last_error`]) and the next tick tries again. It may be
    /// called for the first time on a cluster that already has objects, half done.
    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()>;
}

/// How fast time goes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Real time between two ticks.
    pub every: Duration,
    /// The time that a tick stands for: an interval of a minute is `60 s / stands_for` ticks.
    pub stands_for: Duration,
}

impl Default for Pace {
    /// Ten seconds in a tenth of one.
    fn default() -> Self {
        Self {
            every: Duration::from_millis(100),
            stands_for: Duration::from_secs(10),
        }
    }
}

/// A moment in which controllers look.
#[derive(Debug, Clone)]
pub struct Tick {
    /// Its number, from 1.
    pub number: u64,
    /// The cluster.
    pub cluster: Cluster,
    /// What goes wrong.
    pub faults: Faults,
    stands_for: Duration,
}

impl Tick {
    /// How many ticks a time is: one at least.
    pub fn ticks(&self, time: Duration) -> u64 {
        let one = self.stands_for.as_millis().max(1);
        let ticks = time.as_millis().div_ceil(one).max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// A tick of ten seconds, in a cluster that is not there.
    #[cfg(test)]
    pub(crate) fn of(number: u64) -> Self {
        let nowhere = http::Uri::from_static("http://127.0.0.1:1");
        let client = Client::try_from(kube::Config::new(nowhere));
        Self {
            number,
            cluster: Cluster::new(client.expect("a plain URL is enough")),
            faults: Faults::default(),
            stands_for: Duration::from_secs(10),
        }
    }

    /// The tick in which a time that begins now is over.
    pub fn after(&self, time: Duration) -> u64 {
        self.number.saturating_add(self.ticks(time))
    }
}

/// Running operators. They end when this is dropped; what they wrote stays.
pub struct Operators {
    state: Arc<Mutex<State>>,
    faults: Faults,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    tick: u64,
    errors: BTreeMap<&'static str, String>,
}

impl Operators {
    /// Runs controllers, in this order each tick.
    pub fn start(client: Client, pace: Pace, controllers: Vec<Box<dyn Controller>>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let faults = Faults::default();
        let first = Tick {
            number: 0,
            cluster: Cluster::new(client),
            faults: faults.clone(),
            stands_for: pace.stands_for,
        };
        let task = tokio::spawn(run(first, pace.every, controllers, Arc::clone(&state)));
        Self {
            state,
            faults,
            task,
        }
    }

    /// What goes wrong, to be changed at any time.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// How many ticks there were.
    pub fn ticks(&self) -> u64 {
        lock(&self.state).tick
    }

    /// Why the last tick of a controller did not do all it wanted, if so.
    pub fn last_error(&self, controller: &str) -> Option<String> {
        lock(&self.state).errors.get(controller).cloned()
    }

    /// All such errors, a line each.
    pub fn errors(&self) -> String {
        let state = lock(&self.state);
        let lines = state.errors.iter().map(|(name, e)| format!("{name}: {e}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Ends them, and waits until nothing of them acts any more.
    pub async fn stop(mut self) {
        self.task.abort();
        // Cancelled is what it should be.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Operators {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("Operators")
            .field("tick", &state.tick)
            .field("errors", &state.errors)
            .finish_non_exhaustive()
    }
}

async fn run(
    mut tick: Tick,
    every: Duration,
    mut controllers: Vec<Box<dyn Controller>>,
    state: Arc<Mutex<State>>,
) {
    let mut ticks = tokio::time::interval(every);
    // A tick that takes long is followed by another one, not by many.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tick.number += 1;
        for controller in &mut controllers {
            let done = controller.reconcile(&tick).await;
            let mut state = lock(&state);
            match done {
                Ok(()) => state.errors.remove(controller.name()),
                Err(error) => {
                    tracing::debug!("{}: {error:#}", controller.name());
                    state.errors.insert(controller.name(), format!("{error:#}"))
                }
            };
        }
        lock(&state).tick = tick.number;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
