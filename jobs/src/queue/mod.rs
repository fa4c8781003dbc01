//! The queue seam: it only wakes workers up; S3 decides (docs/decisions/0002).
//!
//! A message may be delivered any number of times, late and in any order. What an
//! implementation promises is small: a confirmed [`Queue::publish`] is delivered at least once,
//! not before its delay; an unacknowledged delivery comes back when its consumer goes away; a
//! dead-lettered body is kept with its reason. One conformance suite ([`conformance`]) runs over
//! all implementations.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub mod conformance;
mod deliveries;
mod in_process;
mod rabbit;
mod sqs;

pub use in_process::{InProcess, Order};
pub use rabbit::{Rabbit, RabbitConfig};
pub use sqs::{Sqs, SqsConfig};

/// Largest body that any [`Queue::publish`] takes; brokers of today refuse 16 MiB. Some queues take
/// less: [`Queue::largest_body`].
pub const MAX_BODY: usize = 8 * 1024 * 1024;

/// Longest delay that [`Queue::publish`] takes.
pub const MAX_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// A longer reason is cut in the dead queue: it travels in one AMQP frame.
pub const MAX_REASON: usize = 8 * 1024;

/// A message on its way out: an opaque body and its id (derived, so that duplicates are visible).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Message id, at most 128 printable ASCII characters.
    pub id: String,
    /// The encoded job message; the queue never looks inside.
    pub body: Bytes,
}

/// How many messages stand where, as far as the broker can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Ready to be delivered now.
    pub ready: u64,
    /// Waiting for their delay to pass.
    pub delayed: u64,
    /// In the dead queue.
    pub dead: u64,
}

/// Which of the two queues: every broker has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pile {
    /// What is to be delivered.
    Work,
    /// What was given up.
    Dead,
}

/// A message in the dead queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// The body as it was received.
    pub body: Bytes,
    /// Why it was dead-lettered.
    pub reason: String,
}

/// Why a queue operation failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The broker cannot be reached, or the connection broke in the middle of `doing`.
    #[error("{doing}: the queue is not reachable: {reason}")]
    Unreachable {
        /// What we were doing, for example `publish`.
        doing: &'static str,
        /// The client library's words, without credentials.
        reason: String,
    },
    /// The broker did not confirm in time: the message may or may not have arrived.
    #[error("{doing}: no confirmation after {after:?}; the message may or may not be there")]
    Unconfirmed {
        /// What we were doing.
        doing: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// The broker has a queue of that name with other properties (AMQP 406; attributes on SQS).
    #[error(
        "queue `{queue}` exists on the broker with other properties ({reason}); \
         delete it there once it is empty, or set another queue name"
    )]
    Different {
        /// The queue's name.
        queue: String,
        /// The broker's words.
        reason: String,
    },
    /// The broker was asked to purge a queue again too soon (SQS: once in 60 s).
    #[error("purge: queue `{queue}` was purged less than {after:?} ago: try again then")]
    TooSoon {
        /// The queue's name.
        queue: String,
        /// How long to leave between two purges.
        after: Duration,
    },
    /// A setting such as the URL makes no sense.
    #[error("{field}: {reason}")]
    Config {
        /// The setting, for example `AMQP_URL`.
        field: &'static str,
        /// What is wrong with it; never repeats a password.
        reason: String,
    },
    /// The broker refused us (credentials, virtual host).
    #[error("{doing}: the broker refused access: {reason}")]
    Refused {
        /// What we were doing.
        doing: &'static str,
        /// The broker's words.
        reason: String,
    },
}

impl QueueError {
    fn closed(doing: &'static str) -> QueueError {
        QueueError::Unreachable {
            doing,
            reason: "the queue was closed".to_owned(),
        }
    }

    /// A consumer tries on after this one.
    fn passes(&self) -> bool {
        matches!(
            self,
            QueueError::Unreachable { .. } | QueueError::Unconfirmed { .. }
        )
    }
}

impl Outgoing {
    /// Checks what every implementation asks of a message, before it is sent anywhere.
    fn check(&self, delay: Duration) -> Result<(), QueueError> {
        let wrong = |field, reason: String| Err(QueueError::Config { field, reason });
        if self.id.is_empty()
            || self.id.len() > 128
            || !self.id.bytes().all(|b| b.is_ascii_graphic())
        {
            return wrong(
                "message id",
                format!("{:?} is not 1 to 128 printable ASCII characters", self.id),
            );
        }
        if delay > MAX_DELAY {
            return wrong("delay", format!("{delay:?} is more than {MAX_DELAY:?}"));
        }
        self.check_size(MAX_BODY)
    }

    /// Checks that the body is not larger than this.
    fn check_size(&self, largest: usize) -> Result<(), QueueError> {
        if self.body.len() > largest {
            return Err(QueueError::Config {
                field: "message body",
                reason: format!("{} bytes are more than {largest}", self.body.len()),
            });
        }
        Ok(())
    }
}

/// Cuts a reason to [`MAX_REASON`] bytes at a character boundary.
fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}

/// Where job messages go in and come out. Implementations are shared as `Arc<dyn Queue>`.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug {
    /// Puts a message into the queue, to be delivered not before `delay` has passed (delays may
    /// be rounded up to the next step the implementation has). Returns once the broker confirmed.
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError>;

    /// Starts to consume with at most `prefetch` unacknowledged deliveries at a time.
    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError>;

    /// Counts the messages.
    async fn depth(&self) -> Result<Depth, QueueError>;

    /// Looks at up to `most` dead messages, oldest first, without removing them.
    async fn dead(&self, most: usize) -> Result<Vec<Dead>, QueueError>;

    /// Removes messages for good: dead ones, or those that are ready to be delivered. What a consumer
    /// holds stays with it, and what waits for its delay still comes.
    async fn purge(&self, pile: Pile) -> Result<(), QueueError>;

    /// The queue's name on the broker. Connects to nothing.
    fn name(&self, pile: Pile) -> String;

    /// The largest body that [`Queue::publish`] takes, in bytes: [`MAX_BODY`], or what there is room for.
    fn largest_body(&self) -> usize {
        MAX_BODY
    }

    /// Closes connections in an orderly way. Unacknowledged deliveries go back to the queue.
    async fn close(&self);
}

/// A running consumer. It reconnects by itself with backoff; dropping it returns what is unacknowledged.
#[async_trait]
pub trait Consumer: Send + fmt::Debug {
    /// Waits for the next delivery. While the broker is away this waits (and logs); an error
    /// means that trying on is useless: `Different`, `Refused` or `Config`.
    async fn next(&mut self) -> Result<Delivery, QueueError>;
}

/// One delivery, bound to the connection it came on.
#[derive(Debug)]
pub struct Delivery {
    /// The body as it was published.
    pub body: Bytes,
    /// The broker says that it was delivered before.
    pub redelivered: bool,
    /// Fires when the connection this delivery came on is gone, or when it could not be held any
    /// longer: somebody else may get the message.
    pub lost: CancellationToken,
    /// The way back to the broker, on this very connection.
    pub handle: Box<dyn Handle>,
}

/// What can be done with a delivery. All three act on the connection that the delivery came on
/// and fail when that is gone, so that a worker that was cut off publishes nothing.
#[async_trait]
pub trait Handle: Send + Sync + fmt::Debug {
    /// Publishes a follow-up message, as [`Queue::publish`] does.
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError>;
    /// Acknowledges: the message is done with.
    async fn ack(&self) -> Result<(), QueueError>;
    /// Moves the message to the dead queue with a reason, then acknowledges it.
    async fn dead_letter(&self, reason: &str) -> Result<(), QueueError>;
}
