//! A machine that runs workers, one after the other: it can be killed at any await, frozen for a
//! while, stopped in order, and its wall clock can jump.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use jobs::queue::{InProcess, Queue};
use jobs::record::Owner;
use jobs::store::StoreError;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use worker::engine::{Engine, Options, Process};
use worker::world::World;

use super::broker::Broker;
use super::link::Link;
use super::program::Programs;
use super::stage::{Stage, lock};

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    stage: Arc<Stage>,
    name: String,
    programs: Arc<Programs>,
    options: Options,
    broker: InProcess,
    /// By how many seconds its wall clock is wrong.
    skew: Arc<AtomicI64>,
    starts: Mutex<u32>,
    running: Mutex<Option<Running>>,
}

/// A worker that runs.
#[derive(Debug, Clone)]
struct Running {
    gate: Arc<Gate>,
    link: Link,
    client: InProcess,
    shutdown: CancellationToken,
}

impl Machine {
    pub(crate) fn new(
        stage: &Arc<Stage>,
        name: String,
        programs: &Arc<Programs>,
        options: Options,
        broker: &InProcess,
    ) -> Self {
        Self {
            stage: Arc::clone(stage),
            name,
            programs: Arc::clone(programs),
            options,
            broker: broker.clone(),
            skew: Arc::default(),
            starts: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// Starts a worker, unless one runs.
    pub(crate) fn start(&self) -> Result<(), StoreError> {
        if self.running().is_some_and(|r| !r.gate.is_over()) {
            return Ok(());
        }
        let start = {
            let mut starts = lock(&self.starts);
            *starts += 1;
            *starts
        };
        let who = format!("{}.{start}", self.name);
        self.stage.note(format_args!("{who} starts"));
        let link = Link::new(&self.stage, &who);
        let store = link.store()?;
        let writer = store.writer();
        self.stage.law(|laws| laws.started(&who, writer));
        let gate = Arc::new(Gate::new(&self.stage, &who));
        let client = self.broker.as_another_client();
        let shutdown = CancellationToken::new();
        let process = Arc::new(Simulated {
            stage: Arc::clone(&self.stage),
            gate: Arc::clone(&gate),
            machine: self.name.clone(),
            start,
            skew: Arc::clone(&self.skew),
        });
        let engine = Engine::within(
            process,
            Arc::new(self.programs.on(&gate)),
            store,
            Arc::new(Broker::new(&self.stage, &who, client.clone())),
            World::default(),
            self.options.clone(),
            shutdown.clone(),
        );
        let ended = Arc::clone(&gate);
        let closing = client.clone();
        gate.spawn(
            async move {
                // A worker whose broker refuses it is started again, as by systemd.
                let _ = engine.run().await;
                closing.close().await;
                ended.end("stopped");
            }
            .boxed(),
        );
        *lock(&self.running) = Some(Running {
            gate,
            link,
            client,
            shutdown,
        });
        Ok(())
    }

    /// Ends the worker between two polls, without a word. Its connections break.
    pub(crate) async fn kill(&self) {
        if let Some(running) = self.running() {
            running.gate.end("killed");
            running.client.close().await;
        }
    }

    /// Tells the worker to end, as SIGTERM does.
    pub(crate) fn stop(&self) {
        if let Some(running) = self.running() {
            self.stage
                .note(format_args!("{} is told to stop", self.name));
            running.shutdown.cancel();
        }
    }

    /// Nothing of the worker runs for a while. The broker hangs up on it after `patience`.
    pub(crate) async fn freeze(&self, time: Duration, patience: Duration) {
        let Some(running) = self.running() else {
            return;
        };
        running.gate.set_frozen(true);
        if time > patience {
            tokio::time::sleep(patience).await;
            running.client.break_connection();
            tokio::time::sleep(time - patience).await;
        } else {
            tokio::time::sleep(time).await;
        }
        running.gate.set_frozen(false);
    }

    /// The worker reaches the store no more, or again.
    pub(crate) fn set_away_from_store(&self, away: bool) {
        if let Some(running) = self.running() {
            self.stage
                .note(format_args!("{} away from the store: {away}", self.name));
            running.link.set_away(away);
        }
    }

    /// The worker reaches the broker no more, or again.
    pub(crate) fn set_away_from_broker(&self, away: bool) {
        if let Some(running) = self.running() {
            self.stage
                .note(format_args!("{} away from the broker: {away}", self.name));
            running.client.set_away(away);
        }
    }

    /// The connection to the broker breaks and is made anew.
    pub(crate) fn break_connection(&self) {
        if let Some(running) = self.running() {
            self.stage
                .note(format_args!("{} loses its connection", self.name));
            running.client.break_connection();
        }
    }

    /// The wall clock jumps.
    pub(crate) fn jump(&self, seconds: i64) {
        self.stage
            .note(format_args!("{} clock jumps {seconds} s", self.name));
        self.skew.store(seconds, Ordering::Relaxed);
    }

    /// Everything works again: nothing frozen, nothing away, a worker runs.
    pub(crate) fn heal(&self) -> Result<(), StoreError> {
        if let Some(running) = self.running() {
            running.gate.set_frozen(false);
            running.link.set_away(false);
            running.client.set_away(false);
        }
        self.start()
    }

    fn running(&self) -> Option<Running> {
        lock(&self.running).clone()
    }
}

/// The gate that every poll of a worker's tasks goes through.
pub(crate) struct Gate {
    stage: Arc<Stage>,
    who: Arc<str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frozen: bool,
    over: bool,
    numbers: u64,
    /// How to have each task polled, since what it waits for knows nothing of the gate.
    wakers: BTreeMap<u64, Waker>,
}

impl Gate {
    fn new(stage: &Arc<Stage>, who: &str) -> Self {
        Self {
            stage: Arc::clone(stage),
            who: who.into(),
            state: Mutex::default(),
        }
    }

    /// Which worker this is.
    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    /// Ends every task before its next poll.
    pub(crate) fn end(&self, how: &str) {
        let wakers = {
            let mut state = lock(&self.state);
            if state.over {
                return;
            }
            state.over = true;
            std::mem::take(&mut state.wakers)
        };
        self.stage.note(format_args!("{} {how}", self.who));
        wakers.into_values().for_each(Waker::wake);
    }

    fn is_over(&self) -> bool {
        lock(&self.state).over
    }

    fn set_frozen(&self, frozen: bool) {
        let wakers: Vec<Waker> = {
            let mut state = lock(&self.state);
            if state.over || state.frozen == frozen {
                return;
            }
            state.frozen = frozen;
            state.wakers.values().cloned().collect()
        };
        let how = if frozen { "freezes" } else { "thaws" };
        self.stage.note(format_args!("{} {how}", self.who));
        if !frozen {
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn spawn(self: &Arc<Self>, task: BoxFuture<'static, ()>) {
        let number = {
            let mut state = lock(&self.state);
            state.numbers += 1;
            state.numbers
        };
        tokio::spawn(Gated {
            gate: Arc::clone(self),
            number,
            task: Some(AssertUnwindSafe(task).catch_unwind().boxed()),
        });
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("who", &self.who)
            .finish_non_exhaustive()
    }
}

/// A task of a worker.
struct Gated {
    gate: Arc<Gate>,
    number: u64,
    task: Option<BoxFuture<'static, Result<(), Box<dyn Any + Send>>>>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let frozen = {
            let mut state = lock(&self.gate.state);
            if !state.over {
                state.wakers.insert(self.number, cx.waker().clone());
            }
            match state.over {
                true => None,
                false => Some(state.frozen),
            }
        };
        let ended = match (frozen, &mut self.task) {
            (Some(true), Some(_)) => return Poll::Pending,
            (Some(false), Some(task)) => match task.poll_unpin(cx) {
                Poll::Pending if !self.gate.is_over() => return Poll::Pending,
                Poll::Pending => Ok(()),
                Poll::Ready(ended) => ended,
            },
            _ => Ok(()),
        };
        self.task = None;
        lock(&self.gate.state).wakers.remove(&self.number);
        if ended.is_err() {
            self.gate
                .stage
                .object(format!("{}: a task of the engine panicked", self.gate.who));
        }
        Poll::Ready(())
    }
}

/// The process of a worker, as its engine sees it.
#[derive(Debug)]
struct Simulated {
    stage: Arc<Stage>,
    gate: Arc<Gate>,
    machine: String,
    start: u32,
    skew: Arc<AtomicI64>,
}

impl Process for Simulated {
    fn owner(&self, worker: Uuid) -> Owner {
        Owner {
            worker,
            host: self.machine.clone(),
            realm: self.machine.clone(),
            pid: self.start,
            started: 1,
        }
    }

    fn is_gone(&self, owner: &Owner, me: &Owner) -> bool {
        // A machine runs one worker at a time.
        owner.realm == me.realm && owner.pid < me.pid
    }

    fn now(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.stage.elapsed()).unwrap_or_default();
        let skew = SignedDuration::from_secs(self.skew.load(Ordering::Relaxed));
        let year = SignedDuration::from_hours(24 * 366 * 56);
        Timestamp::UNIX_EPOCH + year + since + skew
    }

    fn chance(&self) -> f64 {
        self.stage.fraction()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.gate.spawn(task);
    }
}
