//! Consuming: a task that asks for messages whenever there is room for some.
//!
//! SQS knows no connections: each delivery stands for itself and is lost by itself, when hiding
//! its message from others could not be renewed in time ([`super::delivery`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use backon::BackoffBuilder;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::delivery::SqsHandle;
use super::envelope::{self, Letter, Opened};
use super::errors::Kind;
use super::service::Service;
use crate::queue::deliveries::{Deliveries, backoff};
use crate::queue::{Delivery, Handle, QueueError};

/// SQS gives no more at a time.
const BATCH: usize = 10;

/// Starts to consume. The queues are looked for at once, so that useless settings are told at once;
/// a service that is away is waited for.
pub(super) async fn start(
    service: Arc<Service>,
    prefetch: u16,
    stop: CancellationToken,
    tasks: TaskTracker,
) -> Result<Deliveries, QueueError> {
    match service.queues().await {
        Ok(_) => {}
        Err(error) if error.passes() => {
            warn!(%error, "the queue is away; waiting for it");
        }
        Err(error) => return Err(error),
    }
    // One: what waits here takes a slot already.
    let (sender, deliveries) = mpsc::channel(1);
    // With the task all deliveries end.
    let guard = stop.clone().drop_guard();
    let task = Task {
        service,
        slots: Arc::new(Semaphore::new(usize::from(prefetch.max(1)))),
        deliveries: sender,
        stop,
        tasks: tasks.clone(),
    };
    tasks.spawn(task.run());
    Ok(Deliveries::new(deliveries, guard))
}

struct Task {
    service: Arc<Service>,
    slots: Arc<Semaphore>,
    deliveries: mpsc::Sender<Result<Delivery, QueueError>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Task {
    async fn run(self) {
        let mut waits = backoff().build();
        let mut away = false;
        while !self.stop.is_cancelled() {
            match self.round().await {
                Ok(()) => {
                    if std::mem::take(&mut away) {
                        info!("consuming again");
                        waits = backoff().build();
                    }
                }
                Err(error) if error.passes() => {
                    warn!(%error, "failed to consume; trying again");
                    away = true;
                    let wait = waits.next().unwrap_or(Duration::from_secs(5));
                    tokio::select! {
                        () = self.stop.cancelled() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
                Err(error) => {
                    // Nobody may be listening any more; then there is nobody to tell.
                    self.pass_on(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// Asks once for messages and passes on what comes.
    async fn round(&self) -> Result<(), QueueError> {
        let queues = self.service.queues().await?;
        let mut slots = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            slots = self.free_slots() => slots,
        };
        let settings = &self.service.settings;
        let asked = Instant::now();
        // Not abandoned when we are to stop: what an abandoned question finds stays hidden.
        let calls = self.service.calls().await;
        let messages = calls
            .receive(
                &queues.work,
                slots.len(),
                settings.visibility,
                settings.poll,
            )
            .await
            .map_err(|failed| {
                if failed.kind == Kind::Absent {
                    self.service.forget(&queues);
                }
                failed.during("consume")
            })?;
        // All are held before the first is passed on, which may take a while. There is a slot for
        // each: no more were asked for.
        let held: Vec<Taken> = messages
            .iter()
            .zip(slots.drain(..))
            .map(|(message, slot)| self.hold(&queues.work, message, (asked, slot)))
            .collect();
        let mut result = Ok(());
        for taken in held {
            if let Err(error) = self.pass(taken).await {
                // The others are not to wait for it; it goes back by being dropped.
                result = Err(error);
            }
        }
        result
    }

    /// At least one slot, and more if they are free.
    async fn free_slots(&self) -> Vec<OwnedSemaphorePermit> {
        let slots = &self.slots;
        // It is never closed.
        let first = Arc::clone(slots).acquire_owned().await;
        let more = std::iter::from_fn(|| Arc::clone(slots).try_acquire_owned().ok());
        first.into_iter().chain(more).take(BATCH).collect()
    }

    fn hold(
        &self,
        queue: &str,
        message: &Message,
        since: (Instant, OwnedSemaphorePermit),
    ) -> Taken {
        let text = message.body().unwrap_or_default();
        let receipt = message.receipt_handle().unwrap_or_default();
        let none = HashMap::new();
        let opened = envelope::open(text, message.message_attributes().unwrap_or(&none));
        let letter = match &opened {
            Ok(opened) => Letter::new(opened.id.as_deref(), &opened.body),
            Err(_) => Letter::new(None, text.as_bytes()),
        };
        let receives = message.attributes().and_then(|attributes| {
            let count = attributes.get(&MessageSystemAttributeName::ApproximateReceiveCount)?;
            count.parse::<u32>().ok()
        });
        let lost = self.stop.child_token();
        Taken {
            opened,
            redelivered: receives.is_some_and(|count| count > 1),
            handle: SqsHandle::hold(
                &self.service,
                queue,
                receipt,
                letter,
                since,
                lost,
                &self.tasks,
            ),
        }
    }

    /// Passes a message to whoever consumes, or deals with it here.
    async fn pass(&self, taken: Taken) -> Result<(), QueueError> {
        let Taken {
            opened,
            redelivered,
            handle,
        } = taken;
        match opened {
            Err(reason) => {
                warn!(%reason, "a message that nobody can read goes to the dead queue");
                handle.dead_letter(&reason).await
            }
            Ok(opened) if !opened.delay_left.is_zero() => handle.post_on(opened.delay_left).await,
            Ok(opened) => {
                let delivery = deliver(handle, opened.body, redelivered);
                self.pass_on(Ok(delivery)).await;
                Ok(())
            }
        }
    }

    async fn pass_on(&self, next: Result<Delivery, QueueError>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            // When nobody consumes any more, a delivery goes back by being dropped.
            _ = self.deliveries.send(next) => {}
        }
    }
}

/// A message that we hold.
struct Taken {
    opened: Result<Opened, String>,
    redelivered: bool,
    handle: SqsHandle,
}

fn deliver(handle: SqsHandle, body: Bytes, redelivered: bool) -> Delivery {
    Delivery {
        body,
        redelivered,
        lost: handle.lost().clone(),
        handle: Box::new(handle),
    }
}
