//! Consuming: a task that keeps a connection of its own, and the deliveries bound to it.
//!
//! Each consumer has its own connection, so that a delivery, its acknowledgement and its
//! follow-up messages share one fate: a worker that was cut off publishes nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backon::BackoffBuilder;
use bytes::Bytes;
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::config::Settings;
use super::errors;
use super::link::Link;
use super::topology::{RPC_TIMEOUT, SETTLE};
use crate::queue::deliveries::{Deliveries, backoff};
use crate::queue::{Delivery, Handle, Outgoing, QueueError};

/// Starts to consume. The first connection is tried at once, so that useless settings are told at
/// once; a broker that is away is waited for.
pub(super) async fn start(
    settings: Arc<Settings>,
    prefetch: u16,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<Deliveries, QueueError> {
    // One: what waits here is unacknowledged already, and the broker bounds that.
    let (sender, deliveries) = mpsc::channel(1);
    let task = Task {
        settings,
        prefetch: prefetch.max(1),
        deliveries: sender,
    };
    let attached = match task.attach().await {
        Ok(attached) => Some(attached),
        Err(error) if error.passes() => {
            warn!(%error, "the broker is away; waiting for it");
            None
        }
        Err(error) => return Err(error),
    };
    let guard = stop.clone().drop_guard();
    tasks.spawn(async move { task.run(attached, stop).await });
    Ok(Deliveries::new(deliveries, guard))
}

struct Task {
    settings: Arc<Settings>,
    prefetch: u16,
    deliveries: mpsc::Sender<Result<Delivery, QueueError>>,
}

/// A connection with a running consumer. Dropping it gives the connection up, also while
/// deliveries still hold it: dropping a consumer returns what is unacknowledged.
struct Attached {
    link: Arc<Link>,
    stream: lapin::Consumer,
    _channel: Channel,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.link.give_up();
    }
}

impl Task {
    async fn run(&self, mut attached: Option<Attached>, stop: CancellationToken) {
        loop {
            let mut present = match attached.take() {
                Some(present) => present,
                None => {
                    let again = tokio::select! {
                        () = stop.cancelled() => return,
                        again = self.attach_patiently() => again,
                    };
                    match again {
                        Ok(present) => present,
                        Err(error) => {
                            // Nobody may be listening any more; then there is nobody to tell.
                            let _ = self.deliveries.send(Err(error)).await;
                            return;
                        }
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {
                    let link = Arc::clone(&present.link);
                    drop(present);
                    link.close().await;
                    return;
                }
                reason = self.deliver(&mut present) => {
                    warn!(%reason, "the consumer lost its connection to the broker");
                }
            }
        }
    }

    /// Passes deliveries on until the connection or the consumer ends; returns why.
    async fn deliver(&self, attached: &mut Attached) -> String {
        let lost = attached.link.lost().clone();
        loop {
            let delivery = tokio::select! {
                () = lost.cancelled() => return "the connection broke".to_owned(),
                next = attached.stream.next() => match next {
                    Some(Ok(delivery)) => delivery,
                    Some(Err(error)) => return error.to_string(),
                    None => {
                        // The queue is gone. It is made again when all consumers have noticed.
                        tokio::time::sleep(SETTLE).await;
                        return "the broker cancelled the consumer".to_owned();
                    }
                },
            };
            let delivery = wrap(&attached.link, delivery);
            tokio::select! {
                () = lost.cancelled() => return "the connection broke".to_owned(),
                sent = self.deliveries.send(Ok(delivery)) => if sent.is_err() {
                    return "nobody consumes any more".to_owned();
                },
            }
        }
    }

    async fn attach_patiently(&self) -> Result<Attached, QueueError> {
        let mut waits = backoff().build();
        loop {
            match self.attach().await {
                Ok(attached) => {
                    info!("consuming again");
                    return Ok(attached);
                }
                Err(error) if error.passes() => {
                    warn!(%error, "failed to consume; trying again");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(waits.next().unwrap_or(Duration::from_secs(5))).await;
        }
    }

    async fn attach(&self) -> Result<Attached, QueueError> {
        let link = Link::open(&self.settings, "consumer").await?;
        let started = async {
            let channel = link.connection().create_channel().await?;
            // Per consumer: quorum queues refuse the global kind.
            channel
                .basic_qos(self.prefetch, BasicQosOptions { global: false })
                .await?;
            let stream = channel
                .basic_consume(
                    self.settings.queue.as_str().into(),
                    "".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            Ok((channel, stream))
        };
        let (channel, stream) = tokio::time::timeout(RPC_TIMEOUT, started)
            .await
            .map_err(|_| errors::no_answer("consume", RPC_TIMEOUT))?
            .map_err(|error| errors::of("consume", &error))?;
        Ok(Attached {
            link,
            stream,
            _channel: channel,
        })
    }
}

fn wrap(link: &Arc<Link>, delivery: lapin::message::Delivery) -> Delivery {
    let body = Bytes::from(delivery.data);
    let handle = RabbitHandle {
        link: Arc::clone(link),
        id: delivery
            .properties
            .message_id()
            .as_ref()
            .map(|id| id.to_string()),
        body: body.clone(),
        acker: delivery.acker,
        settled: AtomicBool::new(false),
    };
    Delivery {
        body,
        redelivered: delivery.redelivered,
        lost: link.lost().clone(),
        handle: Box::new(handle),
    }
}

struct RabbitHandle {
    link: Arc<Link>,
    id: Option<String>,
    body: Bytes,
    acker: Acker,
    settled: AtomicBool,
}

impl RabbitHandle {
    async fn settle(&self, doing: &'static str) -> Result<(), QueueError> {
        if self.link.is_lost() {
            return Err(errors::gone(doing));
        }
        self.settled.store(true, Ordering::Relaxed);
        let ack = self.acker.ack(BasicAckOptions::default());
        match tokio::time::timeout(RPC_TIMEOUT, ack).await {
            Ok(Ok(true)) => Ok(()),
            // Not an error to lapin, but the message will come again.
            Ok(Ok(false)) => Err(errors::gone(doing)),
            Ok(Err(error)) => Err(errors::of(doing, &error)),
            Err(_) => {
                self.link.give_up();
                Err(errors::no_answer(doing, RPC_TIMEOUT))
            }
        }
    }
}

#[async_trait]
impl Handle for RabbitHandle {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.link.publish(message, delay).await
    }

    async fn ack(&self) -> Result<(), QueueError> {
        self.settle("ack").await
    }

    async fn dead_letter(&self, reason: &str) -> Result<(), QueueError> {
        self.link
            .bury(self.id.as_deref(), &self.body, reason)
            .await?;
        self.settle("dead-letter").await
    }
}

impl Drop for RabbitHandle {
    /// Gives an unsettled delivery back at once, not only when the connection ends.
    fn drop(&mut self) {
        if self.settled.load(Ordering::Relaxed) || self.link.is_lost() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let acker = self.acker.clone();
        runtime.spawn(async move {
            // Not by nack, which RabbitMQ 4.3 no longer counts: a message that makes every turn
            // panic would come back for ever. If this fails the connection is going, and the
            // message comes back by that.
            let reject = acker.reject(BasicRejectOptions { requeue: true });
            let _ = tokio::time::timeout(RPC_TIMEOUT, reject).await;
        });
    }
}

impl fmt::Debug for RabbitHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitHandle")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
