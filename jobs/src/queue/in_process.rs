//! The queue inside one process: for runs without a broker, and for tests, where
//! it misbehaves on demand in every way a broker is allowed to.
//!
//! Time is tokio's, so tests with paused time run at once and delays are exact.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Consumer, Dead, Delivery, Depth, Handle, Outgoing, Pile, Queue, QueueError, cut_reason,
};

/// A queue in memory, as one client of it has it. Clones are the same client.
#[derive(Clone, Default)]
pub struct InProcess {
    shared: Arc<Shared>,
    client: u64,
}

/// In which order ready messages are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    #[default]
    Fifo,
    /// Newest first.
    Reverse,
    /// In an order that only the seed decides.
    Shuffled(u64),
}

impl InProcess {
    /// An empty queue that behaves well.
    pub fn new() -> InProcess {
        InProcess::default()
    }

    /// The same queue for another client, as another process would have it: what is broken or closed
    /// for one of them is not for the others.
    #[must_use]
    pub fn as_another_client(&self) -> InProcess {
        let client = self.shared.lock().number();
        InProcess {
            shared: Arc::clone(&self.shared),
            client,
        }
    }

    /// Deliveries that are neither acknowledged nor back.
    pub fn in_flight(&self) -> u64 {
        self.shared.lock().unacked.len() as u64
    }

    /// Delivers in another order from now on.
    pub fn set_order(&self, order: Order) {
        self.shared.change(|state| state.order = order);
    }

    /// From now on each published message is there twice, as after a publish whose confirmation
    /// was lost and that was repeated.
    pub fn set_duplicate(&self, on: bool) {
        self.shared.change(|state| state.duplicate = on);
    }

    /// From now on each message comes once more after it was acknowledged, as after an
    /// acknowledgement that never reached the broker.
    pub fn set_redeliver(&self, on: bool) {
        self.shared.change(|state| state.redeliver = on);
    }

    /// While held, nothing is delivered; everything is kept.
    pub fn set_hold(&self, on: bool) {
        self.shared.change(|state| state.hold = on);
    }

    /// Lets the next `count` publishes fail as [`QueueError::Unconfirmed`]; `arrives` says whether
    /// the messages are in the queue nevertheless.
    pub fn fail_publishes(&self, count: u32, arrives: bool) {
        self.shared
            .change(|state| state.failures = Failures { count, arrives });
    }

    /// Cuts all connections: what is unacknowledged comes back, `lost` fires for all deliveries,
    /// their handles fail. Consumers go on with a new connection.
    pub fn break_connections(&self) {
        self.shared.change(State::break_connections);
    }

    /// Cuts this client's connections alone.
    pub fn break_connection(&self) {
        self.shared
            .change(|state| state.break_connection(self.client));
    }

    /// While away, this client reaches the broker no more: its connections break, its consumers wait,
    /// and what it publishes fails and does not arrive.
    pub fn set_away(&self, on: bool) {
        self.shared.change(|state| {
            state.client(self.client).away = on;
            if on {
                state.break_connection(self.client);
            }
        });
    }

    /// Loses every message, dead ones too, and all connections: a broker with a fresh disk.
    pub fn wipe(&self) {
        self.shared.change(|state| {
            state.break_connections();
            state.ready.clear();
            state.delayed.clear();
            state.dead.clear();
        });
    }
}

#[async_trait]
impl Queue for InProcess {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.shared.publish(self.client, message, delay)
    }

    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        let mut state = self.shared.lock();
        let client = state.client(self.client);
        if client.closed {
            return Err(QueueError::closed("consume"));
        }
        let lost = client.connection.child_token();
        Ok(Box::new(InProcessConsumer {
            client: self.client,
            number: state.number(),
            prefetch: usize::from(prefetch.max(1)),
            lost,
            shared: Arc::clone(&self.shared),
        }))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let mut state = self.shared.lock();
        state.promote();
        Ok(Depth {
            ready: state.ready.len() as u64,
            delayed: state.delayed.len() as u64,
            dead: state.dead.len() as u64,
        })
    }

    async fn purge(&self, pile: Pile) -> Result<(), QueueError> {
        self.shared.change(|state| {
            state.promote();
            match pile {
                Pile::Work => state.ready.clear(),
                Pile::Dead => state.dead.clear(),
            }
        });
        Ok(())
    }

    fn name(&self, pile: Pile) -> String {
        match pile {
            Pile::Work => "in-process".to_owned(),
            Pile::Dead => "in-process.dead".to_owned(),
        }
    }

    async fn dead(&self, most: usize) -> Result<Vec<Dead>, QueueError> {
        Ok(self.shared.lock().dead.iter().take(most).cloned().collect())
    }

    async fn close(&self) {
        self.shared.change(|state| {
            state.client(self.client).closed = true;
            state.break_connection(self.client);
        });
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("InProcess")
            .field("ready", &state.ready.len())
            .field("delayed", &state.delayed.len())
            .field("unacked", &state.unacked.len())
            .field("dead", &state.dead.len())
            .finish()
    }
}

struct InProcessConsumer {
    client: u64,
    number: u64,
    prefetch: usize,
    lost: CancellationToken,
    shared: Arc<Shared>,
}

#[async_trait]
impl Consumer for InProcessConsumer {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        let shared = Arc::clone(&self.shared);
        loop {
            // Registered before looking, so that a change right after the look is not missed.
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let due = {
                let mut state = shared.lock();
                let client = state.client(self.client);
                if client.closed {
                    return Err(QueueError::closed("consume"));
                }
                if self.lost.is_cancelled() {
                    self.lost = client.connection.child_token();
                }
                let away = client.away;
                match state.take(self.client, self.number, self.prefetch) {
                    Some((tag, entry)) => return Ok(self.deliver(tag, entry)),
                    None if away => None,
                    None => state.delayed.keys().next().map(|(due, _)| *due),
                }
            };
            match due {
                Some(due) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }
}

impl InProcessConsumer {
    fn deliver(&self, tag: u64, entry: Entry) -> Delivery {
        Delivery {
            body: entry.message.body,
            redelivered: entry.redelivered,
            lost: self.lost.clone(),
            handle: Box::new(InProcessHandle {
                client: self.client,
                tag,
                lost: self.lost.clone(),
                shared: Arc::clone(&self.shared),
            }),
        }
    }
}

impl Drop for InProcessConsumer {
    fn drop(&mut self) {
        self.lost.cancel();
        self.shared
            .change(|state| state.give_back(|unacked| unacked.consumer == self.number));
    }
}

impl fmt::Debug for InProcessConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessConsumer")
            .field("number", &self.number)
            .field("prefetch", &self.prefetch)
            .finish_non_exhaustive()
    }
}

struct InProcessHandle {
    client: u64,
    tag: u64,
    lost: CancellationToken,
    shared: Arc<Shared>,
}

impl InProcessHandle {
    fn check(&self, doing: &'static str) -> Result<(), QueueError> {
        if self.lost.is_cancelled() {
            let reason = "the connection of this delivery is gone".to_owned();
            return Err(QueueError::Unreachable { doing, reason });
        }
        Ok(())
    }

    fn settle(&self, doing: &'static str, reason: Option<&str>) -> Result<(), QueueError> {
        self.check(doing)?;
        self.shared.change(|state| {
            let Some(Unacked { entry, .. }) = state.unacked.remove(&self.tag) else {
                let reason = "the delivery was settled before".to_owned();
                return Err(QueueError::Unreachable { doing, reason });
            };
            if let Some(reason) = reason {
                state.dead.push_back(Dead {
                    body: entry.message.body.clone(),
                    reason: cut_reason(reason).to_owned(),
                });
            }
            if state.redeliver && !entry.redelivered {
                state.ready.push_back(Entry {
                    redelivered: true,
                    ..entry
                });
            }
            Ok(())
        })
    }
}

#[async_trait]
impl Handle for InProcessHandle {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.check("publish")?;
        self.shared.publish(self.client, message, delay)
    }

    async fn ack(&self) -> Result<(), QueueError> {
        self.settle("ack", None)
    }

    async fn dead_letter(&self, reason: &str) -> Result<(), QueueError> {
        self.settle("dead-letter", Some(reason))
    }
}

impl Drop for InProcessHandle {
    fn drop(&mut self) {
        self.shared.change(|state| {
            if let Some(unacked) = state.unacked.remove(&self.tag) {
                state.put_back(unacked.entry);
            }
        });
    }
}

impl fmt::Debug for InProcessHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessHandle")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Entry>,
    delayed: BTreeMap<(Instant, u64), Entry>,
    unacked: BTreeMap<u64, Unacked>,
    dead: VecDeque<Dead>,
    clients: BTreeMap<u64, Client>,
    numbers: u64,
    order: Order,
    duplicate: bool,
    redeliver: bool,
    hold: bool,
    failures: Failures,
}

#[derive(Default)]
struct Client {
    /// Parent of the `lost` tokens of what came over its present connection.
    connection: CancellationToken,
    away: bool,
    closed: bool,
}

#[derive(Clone)]
struct Entry {
    message: Outgoing,
    redelivered: bool,
}

struct Unacked {
    client: u64,
    consumer: u64,
    entry: Entry,
}

#[derive(Default)]
struct Failures {
    count: u32,
    arrives: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below leaves the state half-changed when it panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    fn publish(&self, client: u64, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        message.check(delay)?;
        self.change(|state| {
            let client = state.client(client);
            if client.closed {
                return Err(QueueError::closed("publish"));
            }
            if client.away {
                return Err(QueueError::Unreachable {
                    doing: "publish",
                    reason: "this client is away".to_owned(),
                });
            }
            let fails = state.failures.count > 0;
            state.failures.count = state.failures.count.saturating_sub(1);
            if !fails || state.failures.arrives {
                let copies = if state.duplicate { 2 } else { 1 };
                for _ in 0..copies {
                    state.put(message, delay);
                }
            }
            if fails {
                return Err(QueueError::Unconfirmed {
                    doing: "publish",
                    after: Duration::ZERO,
                });
            }
            Ok(())
        })
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn client(&mut self, number: u64) -> &mut Client {
        self.clients.entry(number).or_default()
    }

    fn put(&mut self, message: &Outgoing, delay: Duration) {
        let entry = Entry {
            message: message.clone(),
            redelivered: false,
        };
        if delay.is_zero() {
            self.ready.push_back(entry);
        } else {
            let number = self.number();
            self.delayed.insert((Instant::now() + delay, number), entry);
        }
    }

    /// Moves messages whose delay has passed to the ready ones.
    fn promote(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now
        {
            self.ready.push_back(first.remove());
        }
    }

    fn take(&mut self, client: u64, consumer: u64, prefetch: usize) -> Option<(u64, Entry)> {
        self.promote();
        let in_flight = |unacked: &&Unacked| unacked.consumer == consumer;
        let away = self.client(client).away;
        if self.hold || away || self.unacked.values().filter(in_flight).count() >= prefetch {
            return None;
        }
        let entry = match self.order {
            Order::Fifo => self.ready.pop_front(),
            Order::Reverse => self.ready.pop_back(),
            Order::Shuffled(seed) => {
                let at = mix(seed.wrapping_add(self.numbers)) % (self.ready.len().max(1) as u64);
                self.ready.remove(at as usize)
            }
        }?;
        let tag = self.number();
        self.unacked.insert(
            tag,
            Unacked {
                client,
                consumer,
                entry: entry.clone(),
            },
        );
        Some((tag, entry))
    }

    fn put_back(&mut self, entry: Entry) {
        self.ready.push_front(Entry {
            redelivered: true,
            ..entry
        });
    }

    fn give_back(&mut self, which: impl Fn(&Unacked) -> bool) {
        let tags: Vec<u64> = self
            .unacked
            .iter()
            .filter(|(_, unacked)| which(unacked))
            .map(|(tag, _)| *tag)
            .collect();
        // Newest first to the front: the oldest is delivered first again.
        for tag in tags.into_iter().rev() {
            if let Some(unacked) = self.unacked.remove(&tag) {
                self.put_back(unacked.entry);
            }
        }
    }

    fn break_connection(&mut self, client: u64) {
        std::mem::take(&mut self.client(client).connection).cancel();
        self.give_back(|unacked| unacked.client == client);
    }

    fn break_connections(&mut self) {
        for client in self.clients.values_mut() {
            std::mem::take(&mut client.connection).cancel();
        }
        self.give_back(|_| true);
    }
}

/// One step of splitmix64: spreads a counter over all values.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
