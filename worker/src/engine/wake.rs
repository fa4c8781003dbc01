//! The message that woke us, and letting go of it: a step may take longer than a broker lets anybody
//! keep a delivery. RabbitMQ would close the connection, the message would come again, and the step
//! would begin anew, without an end.
//!
//! So a turn whose time is used up while a step still runs posts a **watch message** and
//! acknowledges its own. From then on the lease alone protects it. Whoever gets the watch message
//! meets the lease and posts it again; should the turn die, that message finds out.

use std::sync::atomic::{AtomicBool, Ordering};

use jobs::message::JobMessage;
use jobs::queue::{Delivery, Outgoing, QueueError};
use tokio::time::Instant;

use super::service::Engine;

/// Begins the turn part of a watch message's id; the epoch that it watches over follows.
const WATCH: &str = "watch-";

/// The message that woke us.
#[derive(Debug)]
pub(super) struct Wake {
    pub(super) message: JobMessage,
    pub(super) delivery: Delivery,
    let_go: AtomicBool,
}

impl Wake {
    pub(super) fn new(message: JobMessage, delivery: Delivery) -> Self {
        Self {
            message,
            delivery,
            let_go: AtomicBool::new(false),
        }
    }

    /// Whether the message is no longer ours to settle.
    pub(super) fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }

    /// Resolves when the broker may have given our message to somebody else.
    pub(super) async fn taken_back(&self) {
        self.delivery.lost.cancelled().await;
        if self.is_let_go() {
            // It is not ours any more: the connection may go.
            std::future::pending::<()>().await;
        }
    }

    /// The epoch that this message watches over, if it is a watch message.
    pub(super) fn watches(&self) -> Option<u64> {
        let turn = self.message.id.rsplit('.').next()?;
        turn.strip_prefix(WATCH)?.parse().ok()
    }

    /// Whether this is a watch message that the living owner of `epoch` does not need: a later turn
    /// than the watched one began with a message of its own. One that comes again may be that very
    /// message.
    pub(super) fn is_outlived(&self, epoch: u64) -> bool {
        !self.delivery.redelivered && self.watches().is_some_and(|watched| watched < epoch)
    }
}

impl Engine {
    /// Lets go of the message at `when`; never resolves. Without an answer of the broker it is kept
    /// and the attempt repeated.
    pub(super) async fn let_go(&self, wake: &Wake, epoch: u64, when: Instant) {
        tokio::time::sleep_until(when).await;
        while let Err(error) = self.post_watch(wake, epoch).await {
            tracing::warn!(%error, "could not let go of the message yet");
            tokio::time::sleep(self.options.lease).await;
        }
        std::future::pending::<()>().await;
    }

    async fn post_watch(&self, wake: &Wake, epoch: u64) -> Result<(), QueueError> {
        let turn = format!("{WATCH}{epoch}");
        let watch = self.turn_message(&wake.message, &turn);
        let handle = &wake.delivery.handle;
        handle.publish(&watch, self.options.lease).await?;
        // Before the attempt: an acknowledgement whose fate is unknown is not sent twice, and a
        // message that comes again all the same meets the lease.
        wake.let_go.store(true, Ordering::Relaxed);
        tracing::info!(
            epoch,
            "a step outlasts the turn; the lease alone protects it now"
        );
        if let Err(error) = handle.ack().await {
            tracing::warn!(%error, "could not acknowledge; the message comes again");
        }
        Ok(())
    }

    /// The message for the next turn of the job that `message` was for. A watch message stays one.
    pub(super) fn next_turn(&self, message: &JobMessage) -> Outgoing {
        let turn = message.id.rsplit('.').next().unwrap_or_default();
        if turn.starts_with(WATCH) {
            return self.turn_message(message, turn);
        }
        let turn = turn.parse::<u64>().unwrap_or(0) + 1;
        self.turn_message(message, &turn.to_string())
    }

    fn turn_message(&self, message: &JobMessage, turn: &str) -> Outgoing {
        let mut next = JobMessage::new(
            &message.cluster,
            &message.recovery,
            message.job.clone(),
            message.payload.clone(),
            turn,
        );
        next.traceparent.clone_from(&message.traceparent);
        Outgoing {
            id: next.id.chars().take(128).collect(),
            body: next.encode().into(),
        }
    }
}
