//! A worker's connection to the broker: the in-process queue behind calls that take a while, whose
//! confirmations get lost, and whose messages arrive twice.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jobs::message::JobMessage;
use jobs::queue::{
    Consumer, Dead, Delivery, Depth, Handle, InProcess, Outgoing, Pile, Queue, QueueError,
};

use super::stage::Stage;

/// One worker's client.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    inner: InProcess,
    call: Call,
}

/// What every call of a client goes through.
#[derive(Debug, Clone)]
struct Call {
    stage: Arc<Stage>,
    who: Arc<str>,
}

impl Broker {
    pub(crate) fn new(stage: &Arc<Stage>, who: &str, inner: InProcess) -> Self {
        Self {
            inner,
            call: Call {
                stage: Arc::clone(stage),
                who: who.into(),
            },
        }
    }
}

impl Call {
    async fn takes_a_while(&self) {
        tokio::time::sleep(self.stage.between(1, 15)).await;
    }

    fn goes_wrong(&self) -> bool {
        self.stage.chance(self.stage.weather().queue)
    }

    /// Publishes by `publish`, as often as this weather wants it.
    async fn publish<F, Fut>(
        &self,
        message: &Outgoing,
        delay: Duration,
        publish: F,
    ) -> Result<(), QueueError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<(), QueueError>>,
    {
        self.takes_a_while().await;
        let unconfirmed = Err(QueueError::Unconfirmed {
            doing: "publish",
            after: Duration::ZERO,
        });
        let wrong = self.goes_wrong();
        if wrong && self.stage.chance(50) {
            self.stage
                .note(format_args!("{} publish {} lost", self.who, message.id));
            return unconfirmed;
        }
        publish().await?;
        let twice = self.stage.chance(self.stage.weather().twice);
        if twice {
            publish().await?;
        }
        self.stage.note(format_args!(
            "{} publish {} in {delay:?}{}{}",
            self.who,
            message.id,
            if twice { " twice" } else { "" },
            if wrong { " unconfirmed" } else { "" },
        ));
        if let Ok(message) = JobMessage::decode(&message.body) {
            let copies = if twice { 2 } else { 1 };
            let who = &self.who;
            self.stage.law(|laws| laws.published(who, &message, copies));
        }
        self.takes_a_while().await;
        if wrong { unconfirmed } else { Ok(()) }
    }
}

#[async_trait]
impl Queue for Broker {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.call
            .publish(message, delay, || self.inner.publish(message, delay))
            .await
    }

    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        let inner = self.inner.consume(prefetch).await?;
        let call = self.call.clone();
        Ok(Box::new(Tap { inner, call }))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.inner.depth().await
    }

    async fn dead(&self, most: usize) -> Result<Vec<Dead>, QueueError> {
        self.inner.dead(most).await
    }

    async fn purge(&self, pile: Pile) -> Result<(), QueueError> {
        self.inner.purge(pile).await
    }

    fn name(&self, pile: Pile) -> String {
        self.inner.name(pile)
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[derive(Debug)]
struct Tap {
    inner: Box<dyn Consumer>,
    call: Call,
}

#[async_trait]
impl Consumer for Tap {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        let delivery = self.inner.next().await?;
        self.call.takes_a_while().await;
        let what = JobMessage::decode(&delivery.body).map_or_else(|e| e.to_string(), |m| m.id);
        self.call.stage.note(format_args!(
            "{} takes {what}{}",
            self.call.who,
            if delivery.redelivered { " again" } else { "" }
        ));
        if delivery.redelivered {
            // It is answered once more, and so may be what it calls for.
            self.call.stage.law(|laws| laws.excuse(2));
        }
        let call = self.call.clone();
        Ok(Delivery {
            handle: Box::new(Grip {
                inner: std::sync::Mutex::new(Some(delivery.handle.into())),
                what,
                call,
            }),
            ..delivery
        })
    }
}

/// The handle of a delivery; empty once an acknowledgement of it was lost.
#[derive(Debug)]
struct Grip {
    inner: std::sync::Mutex<Option<Arc<dyn Handle>>>,
    what: String,
    call: Call,
}

impl Grip {
    fn handle(&self, doing: &'static str) -> Result<Arc<dyn Handle>, QueueError> {
        super::stage::lock(&self.inner)
            .clone()
            .ok_or(QueueError::Unreachable {
                doing,
                reason: "the delivery was given back".into(),
            })
    }

    /// Nobody confirms an acknowledgement: one that is lost looks like one that is not.
    fn is_lost(&self, doing: &str) -> bool {
        let lost = self.call.goes_wrong();
        let (who, what) = (&self.call.who, &self.what);
        let how = if lost { " lost" } else { "" };
        self.call
            .stage
            .note(format_args!("{who} {doing} {what}{how}"));
        if lost {
            super::stage::lock(&self.inner).take();
        }
        lost
    }
}

#[async_trait]
impl Handle for Grip {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        let handle = self.handle("publish")?;
        self.call
            .publish(message, delay, || handle.publish(message, delay))
            .await
    }

    async fn ack(&self) -> Result<(), QueueError> {
        self.call.takes_a_while().await;
        let handle = self.handle("ack")?;
        if self.is_lost("ack") {
            return Ok(());
        }
        handle.ack().await
    }

    async fn dead_letter(&self, reason: &str) -> Result<(), QueueError> {
        self.call.takes_a_while().await;
        let handle = self.handle("dead-letter")?;
        if self.is_lost("dead-letter") {
            return Ok(());
        }
        handle.dead_letter(reason).await
    }
}
