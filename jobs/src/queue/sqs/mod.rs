//! The queue over Amazon SQS and what speaks its API: standard queues, long polls, delays of any
//! length by posting again, a dead queue. Queues that vanish are made again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Consumer, Dead, Depth, Outgoing, Pile, Queue, QueueError};
use calls::Calls;
use config::Settings;
use envelope::LARGEST_BODY;
use errors::Kind;
use service::Service;

mod calls;
mod config;
mod consumer;
mod delivery;
mod envelope;
mod errors;
mod queues;
mod service;

pub use config::SqsConfig;

/// So many dead messages are looked through to find the oldest; beyond, it is approximate.
const SCAN: usize = 100;

/// So many batches of ten are taken by one purge: it ends also when messages come all the time.
const MOST_BATCHES: usize = 10_000;

/// How long the messages that are looked at are hidden, should we die while we look.
const LOOK: Duration = Duration::from_secs(30);

/// Two queues on SQS, one for work and one for the dead. Connects when first used.
///
/// What SQS counts is approximate: [`Depth`] may lag behind by some seconds, and messages that
/// somebody holds count as neither ready nor delayed.
pub struct Sqs {
    service: Arc<Service>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl Sqs {
    /// Checks the settings; does not connect yet.
    pub fn new(config: SqsConfig) -> Result<Sqs, QueueError> {
        Ok(Sqs {
            service: Arc::new(Service::new(Settings::try_from(config)?)),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    fn open(&self, doing: &'static str) -> Result<(), QueueError> {
        match self.closed.is_cancelled() {
            true => Err(QueueError::closed(doing)),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Queue for Sqs {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        check(message, delay)?;
        self.open("publish")?;
        self.service.publish(message, delay).await
    }

    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        self.open("consume")?;
        let stop = self.closed.child_token();
        let (service, tasks) = (Arc::clone(&self.service), self.tasks.clone());
        let consumer = consumer::start(service, prefetch, stop, tasks).await?;
        Ok(Box::new(consumer))
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        use QueueAttributeName as Name;
        self.open("depth")?;
        let (work, dead) = self.service.attributes().await?;
        let count = |found: &calls::Attributes, name: Name| -> Result<u64, QueueError> {
            let number = found.get(&name).and_then(|text| text.parse().ok());
            number.ok_or_else(|| QueueError::Unreachable {
                doing: "depth",
                reason: format!("the service does not tell {name}"),
            })
        };
        Ok(Depth {
            ready: count(&work, Name::ApproximateNumberOfMessages)?,
            delayed: count(&work, Name::ApproximateNumberOfMessagesDelayed)?,
            // Somebody may be looking at them.
            dead: count(&dead, Name::ApproximateNumberOfMessages)?
                + count(&dead, Name::ApproximateNumberOfMessagesNotVisible)?,
        })
    }

    async fn dead(&self, most: usize) -> Result<Vec<Dead>, QueueError> {
        self.open("dead")?;
        let queues = self.service.queues().await?;
        let looked = look(&self.service, &queues.dead, most).await;
        looked.map_err(|failed| {
            if failed.kind == Kind::Absent {
                self.service.forget(&queues);
            }
            failed.during("dead")
        })
    }

    async fn purge(&self, pile: Pile) -> Result<(), QueueError> {
        self.open("purge")?;
        let queues = self.service.queues().await?;
        let calls = self.service.calls().await;
        let purged = match pile {
            Pile::Work => drain(calls, &queues.work).await,
            Pile::Dead => calls.purge(&queues.dead).await,
        };
        purged.map_err(|failed| {
            if failed.kind == Kind::Absent {
                self.service.forget(&queues);
            }
            failed.of_purging(&self.name(pile))
        })
    }

    fn name(&self, pile: Pile) -> String {
        let settings = &self.service.settings;
        match pile {
            Pile::Work => settings.work.clone(),
            Pile::Dead => settings.dead.clone(),
        }
    }

    fn largest_body(&self) -> usize {
        LARGEST_BODY
    }

    async fn close(&self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl fmt::Debug for Sqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqs")
            .field("settings", &self.service.settings)
            .finish_non_exhaustive()
    }
}

/// Checks a message before it is sent anywhere.
fn check(message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
    message.check(delay)?;
    message.check_size(LARGEST_BODY)
}

/// Takes and deletes what is ready. SQS' own purge would also take what workers hold: they would lose
/// it in the middle of their turns.
async fn drain(calls: &Calls, queue: &str) -> Result<(), errors::Failed> {
    for _ in 0..MOST_BATCHES {
        // As when looking: a question that waits a little asks all of SQS' servers.
        let batch = calls.receive(queue, 10, LOOK, Duration::from_secs(1));
        let batch = batch.await?;
        if batch.is_empty() {
            break;
        }
        let receipts = batch.iter().filter_map(Message::receipt_handle);
        try_join_all(receipts.map(|receipt| calls.delete(queue, receipt))).await?;
    }
    Ok(())
}

/// Hides all dead messages (or very many) for a moment, and puts them back. All, because SQS gives
/// them in any order.
async fn look(service: &Service, queue: &str, most: usize) -> Result<Vec<Dead>, errors::Failed> {
    let calls = service.calls().await;
    let mut found: Vec<Message> = Vec::new();
    let mut failed = None;
    while found.len() < most.max(SCAN) {
        // Waiting a little asks all of SQS' servers; without, some messages are not seen.
        match calls.receive(queue, 10, LOOK, Duration::from_secs(1)).await {
            Ok(batch) if batch.is_empty() => break,
            Ok(batch) => found.extend(batch),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    for batch in found.chunks(10) {
        let back = batch.iter().map(|message| {
            let receipt = message.receipt_handle().unwrap_or_default();
            calls.hide(queue, receipt, Duration::ZERO)
        });
        // One that fails comes back by itself.
        join_all(back).await;
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    let age = |message: &Message| {
        let sent = system(message, &MessageSystemAttributeName::SentTimestamp);
        let sent = sent.and_then(|text| text.parse::<u64>().ok());
        (sent, message.message_id().map(ToOwned::to_owned))
    };
    found.sort_by_cached_key(age);
    // SQS may give a message twice.
    found.dedup_by_key(|message| age(message));
    Ok(found.iter().take(most).map(dead).collect())
}

fn dead(message: &Message) -> Dead {
    let none = HashMap::new();
    let attributes = message.message_attributes().unwrap_or(&none);
    let text = message.body().unwrap_or_default();
    let gave_up = MessageSystemAttributeName::DeadLetterQueueSourceArn;
    let reason = match envelope::reason(attributes) {
        Some(reason) => reason,
        None if system(message, &gave_up).is_some() => {
            "the queue gave up: received too often without an acknowledgement (maxReceiveCount)"
        }
        None => "unknown: the message carries no reason",
    };
    Dead {
        body: match envelope::open(text, attributes) {
            Ok(opened) => opened.body,
            Err(_) => Bytes::copy_from_slice(text.as_bytes()),
        },
        reason: reason.to_owned(),
    }
}

fn system<'a>(message: &'a Message, name: &MessageSystemAttributeName) -> Option<&'a str> {
    message.attributes()?.get(name).map(String::as_str)
}
