//! The queue as a worker of the harness has it: past the tap, open for as long as the world is, and
//! never waiting long.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jobs::ids::JobName;
use jobs::message::JobMessage;
use jobs::queue::{
    Consumer, Dead, Delivery, Depth, Handle, InProcess, Outgoing, Pile, Queue, QueueError,
};
use sandbox::hosts::simulated::Cut;

use super::tap::Tap;

/// No message is later than this: how long a job is put off is not what is tested here, and too
/// early a message is harmless.
const LATEST: Duration = Duration::from_millis(40);

/// A queue behind a tap.
#[derive(Debug, Clone)]
pub struct Tapped {
    queue: InProcess,
    tap: Tap,
    parked: Option<Parked>,
}

/// Where the messages of one job are kept instead of being delivered, while its world is prepared.
#[derive(Debug, Clone)]
pub struct Parked {
    job: JobName,
    messages: Arc<Mutex<Vec<Outgoing>>>,
}

impl Parked {
    /// Keeps the messages of this job.
    pub fn new(job: JobName) -> Self {
        Self {
            job,
            messages: Arc::default(),
        }
    }

    /// What was kept so far.
    pub fn messages(&self) -> Vec<Outgoing> {
        let messages = self.messages.lock();
        messages.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keeps(&self, message: &Outgoing) -> bool {
        let ours = JobMessage::decode(&message.body).is_ok_and(|m| m.job == self.job);
        if ours {
            let messages = self.messages.lock();
            messages
                .unwrap_or_else(PoisonError::into_inner)
                .push(message.clone());
        }
        ours
    }
}

impl Tapped {
    /// Puts the tap on a queue.
    pub fn new(queue: InProcess, tap: Tap, parked: Option<Parked>) -> Self {
        Self { queue, tap, parked }
    }

    async fn publishing<F>(
        &self,
        message: &Outgoing,
        delay: Duration,
        publish: F,
    ) -> Result<(), QueueError>
    where
        F: AsyncFnOnce(Duration) -> Result<(), QueueError>,
    {
        if self.parked.as_ref().is_some_and(|p| p.keeps(message)) {
            return Ok(());
        }
        let ticket = self
            .tap
            .before("queue publish".into())
            .await
            .map_err(unconfirmed)?;
        publish(delay.min(LATEST)).await?;
        self.tap.after(ticket).await.map_err(unconfirmed)
    }
}

fn unconfirmed(_: Cut) -> QueueError {
    QueueError::Unconfirmed {
        doing: "publish",
        after: Duration::ZERO,
    }
}

fn unreachable(doing: &'static str) -> QueueError {
    let reason = "cut by the harness".to_owned();
    QueueError::Unreachable { doing, reason }
}

#[async_trait]
impl Queue for Tapped {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.publishing(message, delay, async |delay| {
            self.queue.publish(message, delay).await
        })
        .await
    }

    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        Ok(Box::new(TappedConsumer {
            consumer: self.queue.consume(prefetch).await?,
            queue: self.clone(),
        }))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.queue.depth().await
    }

    async fn dead(&self, most: usize) -> Result<Vec<Dead>, QueueError> {
        self.queue.dead(most).await
    }

    async fn purge(&self, pile: Pile) -> Result<(), QueueError> {
        self.queue.purge(pile).await
    }

    fn name(&self, pile: Pile) -> String {
        self.queue.name(pile)
    }

    /// The broker serves the others on.
    async fn close(&self) {}
}

struct TappedConsumer {
    consumer: Box<dyn Consumer>,
    queue: Tapped,
}

#[async_trait]
impl Consumer for TappedConsumer {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        let delivery = self.consumer.next().await?;
        Ok(Delivery {
            handle: Box::new(TappedHandle {
                handle: delivery.handle,
                queue: self.queue.clone(),
            }),
            ..delivery
        })
    }
}

impl fmt::Debug for TappedConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.consumer.fmt(f)
    }
}

struct TappedHandle {
    handle: Box<dyn Handle>,
    queue: Tapped,
}

#[async_trait]
impl Handle for TappedHandle {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        let publish = async |delay| self.handle.publish(message, delay).await;
        self.queue.publishing(message, delay, publish).await
    }

    async fn ack(&self) -> Result<(), QueueError> {
        let tap = &self.queue.tap;
        let cut = |Cut| unreachable("ack");
        let ticket = tap.before("queue ack".into()).await.map_err(cut)?;
        self.handle.ack().await?;
        tap.after(ticket).await.map_err(cut)
    }

    async fn dead_letter(&self, reason: &str) -> Result<(), QueueError> {
        let tap = &self.queue.tap;
        let cut = |Cut| unreachable("dead-letter");
        let ticket = tap.before("queue dead-letter".into()).await.map_err(cut)?;
        self.handle.dead_letter(reason).await?;
        tap.after(ticket).await.map_err(cut)
    }
}

impl fmt::Debug for TappedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}
