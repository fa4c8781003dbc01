//! Our two queues: made when absent, looked at when they were there before us.

use aws_sdk_sqs::types::QueueAttributeName as Name;
use serde::Deserialize;

use super::calls::{Attributes, Calls};
use super::config::Settings;
use super::envelope::{DEAD_SIZE, WORK_SIZE};
use super::errors::Kind;
use crate::queue::QueueError;

/// After so many receives SQS itself moves a message to the dead queue: a net under the worker's
/// own counting, for messages that kill workers.
const RECEIVES: u32 = 20;

/// Fewer would bury messages that workers only gave back: one that ends returns what it holds.
const FEWEST_RECEIVES: u32 = 5;

/// The longest that SQS keeps messages: 14 days.
const RETENTION: u64 = 14 * 24 * 3_600;

/// The URLs of our queues, once both are known to be right.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) work: String,
    pub(super) dead: String,
}

impl Queues {
    /// Finds or makes them. The dead queue first: the work queue points to it.
    pub(super) async fn ensure(calls: &Calls, settings: &Settings) -> Result<Queues, QueueError> {
        let (dead, found) = find_or_make(calls, &settings.dead, wanted_of_dead()).await?;
        let change = check_dead(&settings.dead, &found)?;
        adjust(calls, &settings.dead, &dead, change).await?;
        let arn = found.get(&Name::QueueArn).cloned().unwrap_or_default();

        let (work, found) = find_or_make(calls, &settings.work, wanted_of_work(&arn)).await?;
        let path = work.splitn(4, '/').nth(3).unwrap_or_default();
        if let Some(wanted) = &settings.path
            && wanted.trim_start_matches('/') != path
        {
            let reason = format!(
                "these keys see the queue of that name at /{path}, not at {wanted}: \
                 it must belong to their account"
            );
            let field = "SQS_QUEUE";
            return Err(QueueError::Config { field, reason });
        }
        let change = check_work(&settings.work, &found, &arn)?;
        adjust(calls, &settings.work, &work, change).await?;
        Ok(Queues { work, dead })
    }
}

async fn find_or_make(
    calls: &Calls,
    name: &str,
    wanted: Attributes,
) -> Result<(String, Attributes), QueueError> {
    let url = match calls.url(name).await {
        Ok(url) => url,
        Err(failed) if failed.kind == Kind::Absent => {
            tracing::info!(queue = name, "making the queue");
            match calls.create(name, wanted).await {
                Ok(url) => url,
                // Somebody was faster; what they made is looked at below.
                Err(failed) if failed.kind == Kind::Exists => {
                    let found = calls.url(name).await;
                    found.map_err(|_| failed.of_making(name))?
                }
                Err(failed) => return Err(failed.of_making(name)),
            }
        }
        Err(failed) => return Err(failed.during("find the queues")),
    };
    let found = calls.attributes(&url).await;
    let found = found.map_err(|failed| failed.during("look at the queues"))?;
    Ok((url, found))
}

async fn adjust(
    calls: &Calls,
    name: &str,
    url: &str,
    change: Attributes,
) -> Result<(), QueueError> {
    if change.is_empty() {
        return Ok(());
    }
    tracing::info!(queue = name, ?change, "adjusting the queue's attributes");
    let set = calls.set(url, change).await;
    set.map_err(|failed| failed.during("adjust the queues' attributes"))
}

fn wanted_of_dead() -> Attributes {
    Attributes::from([
        (Name::MessageRetentionPeriod, RETENTION.to_string()),
        (Name::MaximumMessageSize, DEAD_SIZE.to_string()),
    ])
}

fn wanted_of_work(dead: &str) -> Attributes {
    let policy = serde_json::json!({
        "deadLetterTargetArn": dead,
        "maxReceiveCount": RECEIVES,
    });
    Attributes::from([
        (Name::MessageRetentionPeriod, RETENTION.to_string()),
        (Name::MaximumMessageSize, WORK_SIZE.to_string()),
        (Name::RedrivePolicy, policy.to_string()),
    ])
}

/// What to change on a dead queue; an error when it cannot be one.
fn check_dead(name: &str, found: &Attributes) -> Result<Attributes, QueueError> {
    is_standard(name, found)?;
    if found.contains_key(&Name::RedrivePolicy) {
        let reason = "it has a redrive policy: looking at dead messages would move them on";
        return Err(different(name, reason));
    }
    let mut change = wanted_of_dead();
    change.retain(|name, least| number(found, name) < least.parse().ok());
    Ok(change)
}

/// What to change on a work queue; an error when it cannot be one.
fn check_work(name: &str, found: &Attributes, dead: &str) -> Result<Attributes, QueueError> {
    is_standard(name, found)?;
    let mut change = wanted_of_work(dead);
    if let Some(policy) = found.get(&Name::RedrivePolicy) {
        let policy: Redrive = serde_json::from_str(policy)
            .map_err(|error| different(name, format!("its redrive policy is odd: {error}")))?;
        if policy.target != dead {
            let reason = format!("its dead messages go to {}, not to {dead}", policy.target);
            return Err(different(name, reason));
        }
        if policy.receives() < FEWEST_RECEIVES {
            let reason = format!(
                "its redrive policy gives messages up after {} receives; {FEWEST_RECEIVES} are \
                 the fewest",
                policy.receives()
            );
            return Err(different(name, reason));
        }
        change.remove(&Name::RedrivePolicy);
    }
    if number(found, &Name::MessageRetentionPeriod) >= Some(RETENTION) {
        change.remove(&Name::MessageRetentionPeriod);
    }
    // More would let in what does not fit into the dead queue.
    if number(found, &Name::MaximumMessageSize) == Some(WORK_SIZE as u64) {
        change.remove(&Name::MaximumMessageSize);
    }
    Ok(change)
}

fn is_standard(name: &str, found: &Attributes) -> Result<(), QueueError> {
    match found.get(&Name::FifoQueue).map(String::as_str) {
        Some("true") => Err(different(name, "it is a FIFO queue, which takes no delays")),
        _ => Ok(()),
    }
}

fn number(found: &Attributes, name: &Name) -> Option<u64> {
    found.get(name)?.parse().ok()
}

fn different(queue: &str, reason: impl Into<String>) -> QueueError {
    QueueError::Different {
        queue: queue.to_owned(),
        reason: reason.into(),
    }
}

#[derive(Deserialize)]
struct Redrive {
    #[serde(rename = "deadLetterTargetArn")]
    target: String,
    #[serde(rename = "maxReceiveCount")]
    receives: serde_json::Value,
}

impl Redrive {
    /// Some services say it as a number, some as a text.
    fn receives(&self) -> u32 {
        let text = self.receives.to_string();
        text.trim_matches('"').parse().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: &str = "arn:aws:sqs:eu-west-1:1:jobs-dead";

    fn changed(found: &Attributes) -> Vec<&'static str> {
        let change = check_work("jobs", found, DEAD).expect("a work queue");
        let mut names: Vec<_> = change
            .keys()
            .map(|name| match name {
                Name::MessageRetentionPeriod => "retention",
                Name::MaximumMessageSize => "size",
                Name::RedrivePolicy => "redrive",
                other => panic!("{other} is not for us to change"),
            })
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn queues_of_our_making_are_left_alone() {
        assert_eq!(changed(&wanted_of_work(DEAD)), Vec::<&str>::new());
        let change = check_dead("jobs-dead", &wanted_of_dead()).expect("a dead queue");
        assert_eq!(change, Attributes::new());
    }

    #[test]
    fn an_operators_queues_are_adjusted_where_that_is_harmless() {
        let plain = Attributes::from([
            (Name::VisibilityTimeout, "30".to_owned()),
            (Name::MessageRetentionPeriod, "345600".to_owned()),
            (Name::MaximumMessageSize, "1048576".to_owned()),
        ]);
        assert_eq!(changed(&plain), ["redrive", "retention", "size"]);
        let change = check_dead("jobs-dead", &plain).expect("a dead queue");
        let only_retention = [(Name::MessageRetentionPeriod, RETENTION.to_string())];
        assert_eq!(change, Attributes::from(only_retention));

        for receives in ["7", "\"100\""] {
            let mut found = wanted_of_work(DEAD);
            let policy =
                format!(r#"{{"deadLetterTargetArn":"{DEAD}","maxReceiveCount":{receives}}}"#);
            found.insert(Name::RedrivePolicy, policy);
            assert_eq!(changed(&found), Vec::<&str>::new());
        }
    }

    #[test]
    fn queues_that_work_otherwise_are_told_apart() {
        let with = |name, value: &str| {
            let mut found = wanted_of_work(DEAD);
            found.insert(name, value.to_owned());
            let error = check_work("jobs", &found, DEAD).expect_err("another queue");
            assert!(matches!(error, QueueError::Different { .. }), "{error:?}");
            error.to_string()
        };
        assert!(with(Name::FifoQueue, "true").contains("FIFO"));
        assert!(with(Name::RedrivePolicy, "nonsense").contains("odd"));
        let other = r#"{"deadLetterTargetArn":"arn:other","maxReceiveCount":20}"#;
        assert!(with(Name::RedrivePolicy, other).contains("go to arn:other"));
        let few = format!(r#"{{"deadLetterTargetArn":"{DEAD}","maxReceiveCount":"2"}}"#);
        assert!(with(Name::RedrivePolicy, &few).contains("after 2 receives"));
        let chained = Attributes::from([(Name::RedrivePolicy, other.to_owned())]);
        check_dead("jobs-dead", &chained).expect_err("a chain");
    }
}
