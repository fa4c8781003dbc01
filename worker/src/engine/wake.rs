//! The message that woke us: what it is for, how it is left, and letting go of it.
//!
//! One message keeps a job going: the one for its next turn, posted when a turn ends. Every other
//! one is surplus, and surplus dies: a message that finds the job held by a living owner, or its next
//! turn not due, is acknowledged. So neither duplicates nor the sweep's second thoughts live on, and
//! nothing but its own message begins a turn before its time.
//!
//! The exception is a message that somebody may rely on: it comes again, so its last taker may be
//! gone without having posted another one; or it is a **watch message**. A turn whose time is used up
//! while a step still runs posts one and acknowledges its own message, since a broker takes back what
//! is kept too long. From then on the lease alone protects the turn. The watch message goes round
//! until the watched turn has ended, one way or the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jobs::ids::JobName;
use jobs::message::JobMessage;
use jobs::queue::{Delivery, Outgoing, QueueError};
use jobs::record::{JobRecord, Status};
use tokio::time::Instant;

use super::turn::Leave;

/// What a message is for: the last part of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// It begins the turn of this number.
    Turn(u64),
    /// It watches over the turn of this epoch.
    Watch(u64),
    /// A job that this one needs has ended.
    After,
    /// An operator wants the job to go on now.
    Operator,
}

const WATCH: &str = "watch-";
const SWEEP: &str = "sweep-";
const AFTER: &str = "after-";

impl Call {
    fn of(id: &str) -> Self {
        let last = id.rsplit('.').next().unwrap_or_default();
        let number = |text: &str| text.parse().ok();
        if last.starts_with(AFTER) {
            return Self::After;
        }
        let turn = number(last.strip_prefix(SWEEP).unwrap_or(last)).map(Self::Turn);
        let watch = || Some(Self::Watch(number(last.strip_prefix(WATCH)?)?));
        turn.or_else(watch).unwrap_or(Self::Operator)
    }

    /// The sweep's word for a turn.
    pub(super) fn swept(turn: u64) -> String {
        format!("{SWEEP}{turn}")
    }

    /// The word for a job that needed `name`.
    pub(super) fn after(name: &JobName) -> String {
        format!("{AFTER}{}", name.as_str().replace('/', "-"))
    }

    fn word(self) -> String {
        match self {
            Self::Turn(turn) => turn.to_string(),
            Self::Watch(epoch) => format!("{WATCH}{epoch}"),
            Self::After => AFTER.into(),
            Self::Operator => "post".into(),
        }
    }

    /// Whether it may begin the next turn of a job that nobody holds. Between two turns only the
    /// message posted with the pause may: that the pause is over shows by nothing else. And a word of
    /// the operator, which counts once: when it comes `again` a turn may have followed it already.
    fn is_due(self, record: &JobRecord, again: bool) -> bool {
        let pauses = matches!(record.status, Status::Waiting | Status::Retrying);
        !pauses
            || record.delay_ms == 0
            || match self {
                Self::Turn(turn) => turn > record.turn,
                Self::Watch(_) | Self::After => false,
                Self::Operator => !again,
            }
    }
}

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

    /// Whether it may begin the next turn of a job that nobody holds.
    pub(super) fn is_due(&self, record: &JobRecord) -> bool {
        self.call().is_due(record, self.delivery.redelivered)
    }

    /// Whether the message for the next turn of a job that pauses may be gone. One that came while
    /// the job waited for its needs once more (an operator had put them back) has died.
    pub(super) fn may_be_all_there_is(&self, record: &JobRecord) -> bool {
        self.may_be_the_last(record) || self.call() == Call::After
    }

    /// Whether it is the sweep's word, or the watch's.
    pub(super) fn is_swept(&self) -> bool {
        let last = self.message.id.rsplit('.').next();
        last.is_some_and(|word| word.starts_with(SWEEP))
    }

    /// Whether the job may have no other message than this one.
    pub(super) fn may_be_the_last(&self, record: &JobRecord) -> bool {
        self.delivery.redelivered || self.call() == Call::Watch(record.epoch)
    }

    /// Settles the message, unless it is not ours any more.
    pub(super) async fn leave(&self, leave: Leave) -> Result<(), QueueError> {
        let handle = &self.delivery.handle;
        match leave {
            Leave::Untouched => return Ok(()),
            Leave::Ack => {}
            Leave::Again(delay) => self.publish(self.message.clone(), delay).await?,
            Leave::Instead(call, delay) => self.publish(self.instead(call), delay).await?,
            Leave::Dead(reason) if !self.is_let_go() => return handle.dead_letter(&reason).await,
            // The watch message finds the failure.
            Leave::Dead(_) => {}
        }
        if self.is_let_go() {
            return Ok(());
        }
        handle.ack().await
    }

    /// Calls `then` when the broker may have given the message to somebody else; never resolves.
    pub(super) async fn when_taken_back(&self, then: impl FnOnce()) {
        self.delivery.lost.cancelled().await;
        if !self.is_let_go() {
            then();
        }
        std::future::pending().await
    }

    /// Lets go of the message at `when`, once; never resolves. Without an answer of the broker it is
    /// kept, and the attempt repeated after a `lease`.
    pub(super) async fn let_go(&self, epoch: u64, when: Instant, lease: Duration) {
        tokio::time::sleep_until(when).await;
        while !self.delivery.lost.is_cancelled() {
            match self.post_watch(epoch, lease).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(%error, "could not let go of the message yet"),
            }
            tokio::time::sleep(lease).await;
        }
        std::future::pending().await
    }

    async fn post_watch(&self, epoch: u64, lease: Duration) -> Result<(), QueueError> {
        self.publish(self.instead(Call::Watch(epoch)), lease)
            .await?;
        // Before the attempt: an acknowledgement whose fate is unknown is not sent twice, and a
        // message that comes again all the same meets the lease.
        self.let_go.store(true, Ordering::Relaxed);
        tracing::info!(
            epoch,
            "a step outlasts the turn; the lease alone protects it now"
        );
        if let Err(error) = self.delivery.handle.ack().await {
            tracing::warn!(%error, "could not acknowledge; the message comes again");
        }
        Ok(())
    }

    fn call(&self) -> Call {
        Call::of(&self.message.id)
    }

    fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }

    fn instead(&self, call: Call) -> JobMessage {
        let message = &self.message;
        let (job, payload) = (message.job.clone(), message.payload.clone());
        let (cluster, recovery) = (&message.cluster, &message.recovery);
        JobMessage {
            traceparent: message.traceparent.clone(),
            ..JobMessage::new(cluster, recovery, job, payload, &call.word())
        }
    }

    async fn publish(&self, message: JobMessage, delay: Duration) -> Result<(), QueueError> {
        let outgoing = Outgoing {
            id: message.id.chars().take(128).collect(),
            body: message.encode().into(),
        };
        self.delivery.handle.publish(&outgoing, delay).await
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jobs::message::{Demo, Job};
    use jobs::record::Event;

    use super::*;
    use crate::engine::here;

    #[test]
    fn a_message_says_what_it_is_for() {
        let check = |last: &str, call: Call| {
            assert_eq!(Call::of(&format!("r-1.demo/a.{last}")), call, "{last}");
        };
        check("7", Call::Turn(7));
        check("sweep-3", Call::Turn(3));
        check("after-provision-test-web-1", Call::After);
        check("watch-5", Call::Watch(5));
        check("post-1f3c0a", Call::Operator);
        for call in [Call::Turn(4), Call::Watch(2), Call::After, Call::Operator] {
            check(&call.word(), call);
        }
        check(&Call::swept(9), Call::Turn(9));
    }

    #[test]
    fn only_its_own_message_begins_a_turn_that_waits_for_its_time() {
        let now = Timestamp::UNIX_EPOCH;
        let payload = Job::Demo(Demo {
            steps: 1,
            step_ms: 0,
            abort_at: None,
            fail_at: None,
            child: false,
            node: None,
        });
        let mut record = JobRecord::new(payload.name(), payload);
        assert!(Call::Turn(0).is_due(&record, false), "nobody has begun yet");
        record.claim(here(uuid::Uuid::nil()), now).expect("pending");
        record.release(Event::Retry, now).expect("running");
        assert!(Call::Turn(1).is_due(&record, true), "there is no pause");
        record.delay_ms = 500;
        let due = |call: Call, again| call.is_due(&record, again);
        assert!(due(Call::Turn(2), true) && due(Call::Operator, false));
        assert!(!due(Call::Operator, true), "its turn has been");
        for surplus in [Call::Turn(1), Call::Turn(0), Call::Watch(1), Call::After] {
            assert!(!due(surplus, false), "{surplus:?}");
        }
    }
}
