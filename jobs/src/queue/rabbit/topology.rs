//! Names and properties of our queues on the broker, and how they are declared and counted.
//!
//! For a work queue `q` there are `q` itself, `q.dead`, and one wait queue `q.wait.<ms>` for each
//! delay step. One queue per step, because a broker expires messages only at the head of a queue:
//! a short delay behind a long one would wait for both. Wait queues are declared when first
//! needed and never expire: `x-expires` does not look whether messages are inside.

use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ErrorKind};

use super::errors;
use crate::queue::QueueError;

/// How long one answer of the broker may take. A quorum queue needs a leader election first.
pub(super) const RPC_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a work queue that vanished stays absent before we make it again. When it is back
/// before the broker has told its consumers, RabbitMQ moves them over to the new queue by itself,
/// and 3.10 then forgets their acknowledgements: such a consumer looks alive and gets nothing.
/// Nothing that we could ask the broker says that it has told them all, so this is a time.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// Delay steps in milliseconds; a delay is rounded up to the next one. The last is `MAX_DELAY`.
const STEPS: [u64; 19] = [
    100,
    250,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    2 * 3_600_000,
    6 * 3_600_000,
    12 * 3_600_000,
    24 * 3_600_000,
    7 * 24 * 3_600_000,
];

/// After so many deliveries the broker itself moves a message to the dead queue: a net under the
/// worker's own counting, for messages that kill workers. Each end of a consumer counts for every
/// message it had prefetched, so the limit is far beyond a storm of restarts; RabbitMQ 4's own
/// default of 20 is not, and is therefore never left to apply.
const DELIVERY_LIMIT: i64 = 1_000;

/// Looking into the dead queue counts as a delivery on RabbitMQ 4; this is "no limit" in words
/// that 3.10 accepts too (-1 is refused there).
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// One of our queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Work,
    Dead,
    Wait { ms: u64 },
}

impl Target {
    /// Where a message with this delay goes.
    pub(super) fn after(delay: Duration) -> Target {
        if delay.is_zero() {
            return Target::Work;
        }
        let ms = STEPS
            .into_iter()
            .find(|step| Duration::from_millis(*step) >= delay)
            .unwrap_or(STEPS[STEPS.len() - 1]);
        Target::Wait { ms }
    }

    /// All wait queues that can exist.
    pub(super) fn waits() -> impl Iterator<Item = Target> {
        STEPS.into_iter().map(|ms| Target::Wait { ms })
    }

    /// The queue's name on the broker, which is its routing key on the default exchange.
    pub(super) fn name(self, queue: &str) -> String {
        match self {
            Target::Work => queue.to_owned(),
            Target::Dead => format!("{queue}.dead"),
            Target::Wait { ms } => format!("{queue}.wait.{ms}"),
        }
    }

    fn arguments(self, queue: &str) -> FieldTable {
        let mut table = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| {
            table.insert(name.into(), value);
        };
        let text = |value: &str| AMQPValue::LongString(value.into());
        set("x-queue-type", text("quorum"));
        let next = match self {
            Target::Work => {
                set("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT));
                Some(Target::Dead)
            }
            Target::Dead => {
                set(
                    "x-delivery-limit",
                    AMQPValue::LongLongInt(NO_DELIVERY_LIMIT),
                );
                None
            }
            Target::Wait { ms } => {
                set("x-message-ttl", AMQPValue::LongLongInt(ms.cast_signed()));
                Some(Target::Work)
            }
        };
        if let Some(next) = next {
            set("x-dead-letter-exchange", text(""));
            set("x-dead-letter-routing-key", text(&next.name(queue)));
            // At-least-once: a message moves only when the next queue has confirmed it. The
            // broker wants reject-publish for that, so that it never drops a message itself.
            set("x-dead-letter-strategy", text("at-least-once"));
            set("x-overflow", text("reject-publish"));
        }
        table
    }
}

/// Declares a queue if it is absent. Works on a channel of its own: when the broker objects, it
/// closes the channel.
pub(super) async fn declare(
    connection: &Connection,
    queue: &str,
    target: Target,
) -> Result<(), QueueError> {
    let name = target.name(queue);
    let declared = async {
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.as_str().into(), options, target.arguments(queue))
            .await?;
        channel.close(200, "done".into()).await
    };
    match tokio::time::timeout(RPC_TIMEOUT, declared).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(errors::of_declare(&name, &error)),
        Err(_) => Err(errors::no_answer("declare", RPC_TIMEOUT)),
    }
}

/// Ready messages in a queue; an absent queue has none.
pub(super) async fn count(
    connection: &Connection,
    queue: &str,
    target: Target,
) -> Result<u64, QueueError> {
    let counted = async {
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let found = channel
            .queue_declare(target.name(queue).into(), options, FieldTable::default())
            .await?;
        let ready = u64::from(found.message_count());
        channel.close(200, "done".into()).await?;
        Ok(ready)
    };
    match tokio::time::timeout(RPC_TIMEOUT, counted).await {
        Ok(Err(error)) if is_absent(&error) => Ok(0),
        Ok(result) => result.map_err(|error| errors::of("depth", &error)),
        Err(_) => Err(errors::no_answer("depth", RPC_TIMEOUT)),
    }
}

/// Removes the ready messages of a queue; an absent queue has none.
pub(super) async fn purge(
    connection: &Connection,
    queue: &str,
    target: Target,
) -> Result<(), QueueError> {
    let purged = async {
        let channel = connection.create_channel().await?;
        let options = QueuePurgeOptions::default();
        channel
            .queue_purge(target.name(queue).into(), options)
            .await?;
        channel.close(200, "done".into()).await
    };
    match tokio::time::timeout(RPC_TIMEOUT, purged).await {
        Ok(Err(error)) if is_absent(&error) => Ok(()),
        Ok(result) => result.map_err(|error| errors::of("purge", &error)),
        Err(_) => Err(errors::no_answer("purge", RPC_TIMEOUT)),
    }
}

fn is_absent(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == 404)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::MAX_DELAY;

    #[test]
    fn a_delay_is_never_rounded_down() {
        for ms in [1, 99, 100, 101, 999, 1_000, 1_001, 3_600_001, 86_400_001] {
            let Target::Wait { ms: step } = Target::after(Duration::from_millis(ms)) else {
                panic!("{ms} ms does not wait");
            };
            assert!(step >= ms, "{ms} ms became {step} ms");
        }
        assert_eq!(Target::after(Duration::ZERO), Target::Work);
        assert_eq!(
            Target::after(Duration::from_nanos(1)),
            Target::Wait { ms: 100 }
        );
    }

    #[test]
    fn the_longest_delay_has_a_step() {
        let last = Duration::from_millis(STEPS[STEPS.len() - 1]);
        assert_eq!(last, MAX_DELAY);
        assert!(STEPS.is_sorted());
    }
}
