//! The queue over RabbitMQ 3.10 and newer: quorum queues, publisher confirms, delays by wait
//! queues. Queues that vanish half-way are made again; connections that break are replaced.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use lapin::options::{BasicGetOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Consumer, Dead, Depth, Outgoing, Pile, Queue, QueueError};
use config::Settings;
use link::Link;
use topology::{RPC_TIMEOUT, Target};

mod config;
mod consumer;
mod errors;
mod link;
mod publisher;
mod topology;
mod wire;

pub use config::RabbitConfig;

/// Carries the reason of a dead letter.
const REASON_HEADER: &str = "x-rekindle-reason";

/// So many dead messages are looked through to keep their order; beyond, it is approximate.
const SCAN: usize = 1_000;

/// A queue on a RabbitMQ broker. Connects when first used.
pub struct Rabbit {
    settings: Arc<Settings>,
    /// The connection for everything but consuming; made when needed, replaced when lost.
    link: Mutex<Option<Arc<Link>>>,
    closed: CancellationToken,
    consumers: TaskTracker,
}

impl Rabbit {
    /// Checks the settings; does not connect yet.
    pub fn new(config: RabbitConfig) -> Result<Rabbit, QueueError> {
        Ok(Rabbit {
            settings: Arc::new(Settings::try_from(config)?),
            link: Mutex::default(),
            closed: CancellationToken::new(),
            consumers: TaskTracker::new(),
        })
    }

    async fn link(&self, doing: &'static str) -> Result<Arc<Link>, QueueError> {
        // Held while connecting, so that many publishers make one connection.
        let mut link = self.link.lock().await;
        if self.closed.is_cancelled() {
            return Err(QueueError::closed(doing));
        }
        if let Some(link) = link.as_ref().filter(|link| !link.is_lost()) {
            return Ok(Arc::clone(link));
        }
        let fresh = Link::open(&self.settings, "publisher").await?;
        Ok(Arc::clone(link.insert(fresh)))
    }
}

#[async_trait]
impl Queue for Rabbit {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        message.check(delay)?;
        self.link("publish").await?.publish(message, delay).await
    }

    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        if self.closed.is_cancelled() {
            return Err(QueueError::closed("consume"));
        }
        let stop = self.closed.child_token();
        let settings = Arc::clone(&self.settings);
        let consumer = consumer::start(settings, prefetch, stop, &self.consumers).await?;
        Ok(Box::new(consumer))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let link = self.link("depth").await?;
        let count = |target| topology::count(link.connection(), &self.settings.queue, target);
        Ok(Depth {
            ready: count(Target::Work).await?,
            delayed: try_join_all(Target::waits().map(count))
                .await?
                .into_iter()
                .sum(),
            dead: count(Target::Dead).await?,
        })
    }

    async fn dead(&self, most: usize) -> Result<Vec<Dead>, QueueError> {
        let link = self.link("dead").await?;
        let looked = look(&link, &self.settings.queue, most);
        tokio::time::timeout(RPC_TIMEOUT, looked)
            .await
            .map_err(|_| errors::no_answer("dead", RPC_TIMEOUT))?
            .map_err(|error| errors::of("dead", &error))
    }

    async fn purge(&self, pile: Pile) -> Result<(), QueueError> {
        let link = self.link("purge").await?;
        topology::purge(link.connection(), &self.settings.queue, target(pile)).await
    }

    fn name(&self, pile: Pile) -> String {
        target(pile).name(&self.settings.queue)
    }

    async fn close(&self) {
        self.closed.cancel();
        self.consumers.close();
        self.consumers.wait().await;
        if let Some(link) = self.link.lock().await.take() {
            link.close().await;
        }
    }
}

impl fmt::Debug for Rabbit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rabbit")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn target(pile: Pile) -> Target {
    match pile {
        Pile::Work => Target::Work,
        Pile::Dead => Target::Dead,
    }
}

/// Takes all dead messages without acknowledging them, and puts them back in the same order.
///
/// All, because what is put back goes behind what was put back before: taking some would turn
/// the order around a little each time.
async fn look(link: &Link, queue: &str, most: usize) -> Result<Vec<Dead>, lapin::Error> {
    let channel = link.connection().create_channel().await?;
    let name = Target::Dead.name(queue);
    let mut dead = Vec::new();
    let mut tags = Vec::new();
    while tags.len() < most.max(SCAN) {
        let options = BasicGetOptions::default();
        let Some(got) = channel.basic_get(name.as_str().into(), options).await? else {
            break;
        };
        tags.push(got.delivery.delivery_tag);
        if dead.len() < most {
            dead.push(Dead {
                reason: reason(&got.delivery.properties, queue),
                body: Bytes::from(got.delivery.data),
            });
        }
    }
    // Not by reject or by closing the channel: both count as failed deliveries. And one by one:
    // with `multiple` they come back in reversed order.
    let options = BasicNackOptions {
        requeue: true,
        ..BasicNackOptions::default()
    };
    for tag in tags {
        channel.basic_nack(tag, options).await?;
    }
    channel.close(200, "done".into()).await?;
    Ok(dead)
}

/// Why a message is dead: our own header, or what the broker wrote when it gave the message up.
fn reason(properties: &lapin::BasicProperties, queue: &str) -> String {
    let headers = properties.headers().as_ref().map(|table| table.inner());
    let header = |name: &str| headers.and_then(|headers| headers.get(name));
    if let Some(AMQPValue::LongString(reason)) = header(REASON_HEADER) {
        return String::from_utf8_lossy(reason.as_bytes()).into_owned();
    }
    let Some(AMQPValue::FieldArray(deaths)) = header("x-death") else {
        return "unknown: the message carries no reason".to_owned();
    };
    // Delayed messages have died in a wait queue too: only the work queue's entry counts.
    let died = deaths.as_slice().iter().find_map(|death| {
        let AMQPValue::FieldTable(death) = death else {
            return None;
        };
        let from = death
            .inner()
            .get("queue")
            .and_then(AMQPValue::as_long_string);
        let why = death
            .inner()
            .get("reason")
            .and_then(AMQPValue::as_long_string);
        (from?.to_string() == queue).then(|| why.map(ToString::to_string))?
    });
    match died.as_deref() {
        Some("delivery_limit") => {
            "the broker gave up: delivered too often without an acknowledgement (delivery_limit)"
                .to_owned()
        }
        Some(other) => format!("the broker gave up ({other})"),
        None => "the broker gave up".to_owned(),
    }
}
