//! A delivery while somebody holds it: SQS hides the message from others for a while, and a task
//! renews that until the delivery is settled, dropped or lost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::BackoffBuilder;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::envelope::Letter;
use super::errors::{self, Kind};
use super::service::Service;
use crate::queue::deliveries::backoff;
use crate::queue::{Handle, Outgoing, QueueError};

/// What handle and renewing task share.
#[derive(Debug)]
struct Held {
    service: Arc<Service>,
    /// URL of the work queue, as it was when the message came.
    queue: String,
    receipt: String,
    /// Fires when somebody else may get the message.
    lost: CancellationToken,
    /// Fires when nobody holds the delivery any more.
    over: CancellationToken,
    settled: AtomicBool,
}

/// The way back for one delivery.
pub(super) struct SqsHandle {
    held: Arc<Held>,
    /// The message as it is posted on, or sent to the dead queue.
    letter: Letter,
}

impl SqsHandle {
    /// Begins to hold a message that was asked for at `asked`. `lost` fires with its parent too,
    /// when the consumer goes. The slot is free again once the message is settled or given back.
    pub(super) fn hold(
        service: &Arc<Service>,
        queue: &str,
        receipt: &str,
        letter: Letter,
        (asked, slot): (Instant, OwnedSemaphorePermit),
        lost: CancellationToken,
        tasks: &TaskTracker,
    ) -> SqsHandle {
        let held = Arc::new(Held {
            service: Arc::clone(service),
            queue: queue.to_owned(),
            receipt: receipt.to_owned(),
            lost,
            over: CancellationToken::new(),
            settled: AtomicBool::new(false),
        });
        let keeper = Arc::clone(&held);
        tasks.spawn(async move {
            keeper.keep(asked).await;
            drop(slot);
        });
        SqsHandle { held, letter }
    }

    pub(super) fn lost(&self) -> &CancellationToken {
        &self.held.lost
    }

    /// Sends the rest of a delayed message on its way, and is done with this part.
    pub(super) async fn post_on(&self, left: Duration) -> Result<(), QueueError> {
        let posted = self.held.service.post(self.letter.clone(), left);
        self.held.unless_lost("publish", posted).await?;
        self.held.settle("ack").await
    }
}

impl Held {
    /// Renews until the delivery is over, then gives the message back unless it was settled.
    async fn keep(&self, asked: Instant) {
        let visibility = self.service.settings.visibility;
        // Counted from the question: SQS hid the message at some time between it and the answer.
        let mut hidden_until = asked + visibility;
        loop {
            tokio::select! {
                biased;
                () = self.over.cancelled() => break,
                () = self.lost.cancelled() => break,
                () = sleep_until(hidden_until - visibility * 2 / 3) => {}
            }
            // Not abandoned half-way, since it could take effect after the message is given back.
            match self.renew(hidden_until - visibility / 6).await {
                Some(until) => hidden_until = until,
                None => {
                    // Not given back: it may be somebody else's already.
                    warn!("a delivery could not be renewed and is lost");
                    self.lost.cancel();
                    return;
                }
            }
        }
        if self.settled.load(Ordering::Acquire) {
            return;
        }
        self.lost.cancel();
        let calls = self.service.calls().await;
        if let Err(error) = calls.hide(&self.queue, &self.receipt, Duration::ZERO).await {
            debug!(?error, "a message comes back by itself");
        }
    }

    /// Hides the message for another while; gives up at the deadline, or when it is not ours.
    async fn renew(&self, deadline: Instant) -> Option<Instant> {
        let visibility = self.service.settings.visibility;
        let calls = self.service.calls().await;
        let mut waits = backoff().build();
        loop {
            let now = Instant::now();
            let renewed = calls.hide(&self.queue, &self.receipt, visibility);
            match timeout_at(deadline, renewed).await {
                Ok(Ok(())) => return Some(now + visibility),
                Ok(Err(failed)) if matches!(failed.kind, Kind::Stale | Kind::Absent) => {
                    debug!(?failed, "the message is not ours any more");
                    return None;
                }
                Ok(Err(failed)) => debug!(?failed, "failed to renew a delivery; trying again"),
                Err(_) => return None,
            }
            // The deadline cuts the next try short.
            sleep_until(deadline.min(now + waits.next()?)).await;
        }
    }

    /// Does something that only the holder may do, unless the delivery is lost before it is done.
    async fn unless_lost<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(errors::gone(doing)),
            done = work => done,
        }
    }

    async fn settle(&self, doing: &'static str) -> Result<(), QueueError> {
        let deleted = async {
            if self.settled.swap(true, Ordering::AcqRel) {
                return Err(errors::settled(doing));
            }
            let calls = self.service.calls().await;
            let deleted = calls.delete(&self.queue, &self.receipt).await;
            deleted.map_err(|failed| {
                // Dropping the handle gives it back; it may be tried again before.
                self.settled.store(false, Ordering::Release);
                failed.during(doing)
            })
        };
        self.unless_lost(doing, deleted).await?;
        self.over.cancel();
        Ok(())
    }
}

#[async_trait]
impl Handle for SqsHandle {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        super::check(message, delay)?;
        let published = self.held.service.publish(message, delay);
        self.held.unless_lost("publish", published).await
    }

    async fn ack(&self) -> Result<(), QueueError> {
        self.held.settle("ack").await
    }

    async fn dead_letter(&self, reason: &str) -> Result<(), QueueError> {
        if self.held.settled.load(Ordering::Acquire) {
            return Err(errors::settled("dead-letter"));
        }
        let letter = self.letter.clone().reason(reason);
        let buried = self.held.service.bury(&letter);
        self.held.unless_lost("dead-letter", buried).await?;
        self.held.settle("dead-letter").await
    }
}

impl Drop for SqsHandle {
    fn drop(&mut self) {
        self.held.over.cancel();
    }
}

impl fmt::Debug for SqsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqsHandle").finish_non_exhaustive()
    }
}
