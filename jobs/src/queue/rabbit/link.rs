//! One connection to the broker, from its making to its loss.
//!
//! A link is never repaired. On any doubt `lost` fires, the connection is closed and the owner
//! builds a new link. lapin's own recovery stays off: it brings deliveries back without a word,
//! and does not recover channels that the broker closed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lapin::Connection;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::config::Settings;
use super::errors;
use super::publisher::{Publisher, Publishing};
use super::topology::{self, RPC_TIMEOUT, Target};
use super::wire::{self, Wire};
use crate::queue::{Outgoing, QueueError};

/// How often the connection's state is looked at. Events tell us at once, but what happened before we
/// listened comes as none.
const LOOK: Duration = Duration::from_secs(1);

/// How long an orderly close may take before the connection is just dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Publishes that may wait for the publisher; more wait before it.
const WAITING_PUBLISHES: usize = 256;

pub(super) struct Link {
    settings: Arc<Settings>,
    connection: Arc<Connection>,
    publisher: mpsc::Sender<Publishing>,
    /// Wait queues that this link declared.
    waits: Mutex<HashSet<Target>>,
    /// Fires when the connection is gone or about to be closed.
    lost: CancellationToken,
    /// Fires when closing is done with.
    ended: CancellationToken,
}

impl Link {
    /// Connects and declares the queues. `role` names the connection on the broker.
    pub(super) async fn open(
        settings: &Arc<Settings>,
        role: &'static str,
    ) -> Result<Arc<Link>, QueueError> {
        let (connection, wire) = wire::connect(settings, role).await?;
        let connection = Arc::new(connection);
        let lost = CancellationToken::new();
        let ended = CancellationToken::new();
        // Before the declarations, so that the connection is closed whatever happens to them.
        let guard = lost.clone().drop_guard();
        let watcher = Watcher {
            connection: Arc::clone(&connection),
            wire,
            lost: lost.clone(),
            ended: ended.clone(),
        };
        tokio::spawn(watcher.run());

        // The dead queue first: the work queue points to it.
        topology::declare(&connection, &settings.queue, Target::Dead).await?;
        topology::declare(&connection, &settings.queue, Target::Work).await?;
        let channel = async {
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok(channel)
        };
        let channel = tokio::time::timeout(RPC_TIMEOUT, channel)
            .await
            .map_err(|_| errors::no_answer("open a channel", RPC_TIMEOUT))?
            .map_err(|error| errors::of("open a channel", &error))?;

        let (publisher, requests) = mpsc::channel(WAITING_PUBLISHES);
        let task = Publisher {
            settings: Arc::clone(settings),
            connection: Arc::clone(&connection),
            channel,
            lost: lost.clone(),
        };
        tokio::spawn(task.run(requests));
        guard.disarm();
        Ok(Arc::new(Link {
            settings: Arc::clone(settings),
            connection,
            publisher,
            waits: Mutex::default(),
            lost,
            ended,
        }))
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Gives the connection up; what is unacknowledged on it goes back to the queue.
    pub(super) fn give_up(&self) {
        self.lost.cancel();
    }

    /// Gives the connection up and waits until the broker knows.
    pub(super) async fn close(&self) {
        self.give_up();
        self.ended.cancelled().await;
    }

    /// Publishes to the work queue, or to the wait queue of the delay's step.
    pub(super) async fn publish(
        &self,
        message: &Outgoing,
        delay: Duration,
    ) -> Result<(), QueueError> {
        message.check(delay)?;
        let target = Target::after(delay);
        if matches!(target, Target::Wait { .. }) {
            self.ensure_wait(target).await?;
        }
        self.send("publish", target, Some(&message.id), &message.body, None)
            .await
    }

    /// Publishes to the dead queue.
    pub(super) async fn bury(
        &self,
        id: Option<&str>,
        body: &Bytes,
        reason: &str,
    ) -> Result<(), QueueError> {
        self.send("dead-letter", Target::Dead, id, body, Some(reason))
            .await
    }

    async fn send(
        &self,
        doing: &'static str,
        target: Target,
        id: Option<&str>,
        body: &Bytes,
        reason: Option<&str>,
    ) -> Result<(), QueueError> {
        if self.is_lost() {
            return Err(errors::gone(doing));
        }
        let (answer, answered) = oneshot::channel();
        let publishing = Publishing::new(doing, target, id, body, reason, answer);
        let exchange = async {
            self.publisher.send(publishing).await.ok()?;
            answered.await.ok()
        };
        // The publisher bounds the time of each publish and answers all of them; it is silent
        // only when the connection was given up. An answer says more than that.
        tokio::select! {
            biased;
            answer = exchange => answer.unwrap_or_else(|| Err(errors::gone(doing))),
            () = self.lost.cancelled() => Err(errors::gone(doing)),
        }
    }

    async fn ensure_wait(&self, target: Target) -> Result<(), QueueError> {
        let declared = |waits: &Mutex<HashSet<Target>>| {
            let waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
            waits.contains(&target)
        };
        if !declared(&self.waits) {
            topology::declare(&self.connection, &self.settings.queue, target).await?;
            let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            waits.insert(target);
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

/// Fires `lost` when the connection breaks, and closes it when somebody else fired that.
struct Watcher {
    connection: Arc<Connection>,
    wire: Wire,
    lost: CancellationToken,
    ended: CancellationToken,
}

impl Watcher {
    async fn run(self) {
        if let Some(reason) = self.until_lost().await {
            debug!(%reason, "the connection to the broker broke");
        }
        self.lost.cancel();
        if self.connection.status().connected() {
            let close = self.connection.close(200, "done".into());
            // A broker that does not answer any more need not be asked twice.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, close).await;
        }
        self.wire.cut();
        self.ended.cancel();
    }

    /// Returns why the connection broke, or nothing when it was given up.
    async fn until_lost(&self) -> Option<String> {
        let mut events = Box::pin(self.connection.events_listener());
        let mut reason = "closed".to_owned();
        while self.connection.status().connected() {
            tokio::select! {
                () = self.lost.cancelled() => return None,
                event = events.next() => match event {
                    // Channel errors arrive here too: the loop's condition tells them apart.
                    Some(lapin::Event::Error(error)) => reason = error.to_string(),
                    Some(lapin::Event::ConnectionBlocked(why)) => {
                        warn!(reason = %why, "the broker is short of resources and takes no messages");
                    }
                    Some(_) => {}
                    None => tokio::time::sleep(LOOK).await,
                },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        Some(reason)
    }
}
