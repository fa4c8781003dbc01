//! Reap: deletes what carries our label at Yandex Cloud and is past its time to live, and nothing else.
//!
//! It is the last net: whatever became of a recovery and its workers, its temporary cluster does not cost money for
//! ever. What is past its time is so by two clocks, the cloud's and ours: whichever is behind counts. Something of
//! ours that does not say how long it may live is reported and left alone.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use jobs::record::Temporary;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::load_test::yandex::temporary;
use super::provision::building;
use crate::cloud::yandex::{Everything, Fate, Left, Removal, Yandex, YandexError, fate, plan};
use crate::engine::{Ctx, JobError, Poll, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &["expired", "deleted", "prove"];

/// How often the sweep's reaper looks at what it has begun to delete, and how many times it does so.
const EVERY: Duration = Duration::from_secs(15);
const LOOKS: u32 = 120;

/// What one look saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// Ours, and past its time.
    expired: Vec<Temporary>,
    /// Ours, and it does not say until when.
    unreadable: Vec<Temporary>,
}

impl Seen {
    fn of(all: &Everything) -> Self {
        let with = |wanted: Fate| {
            let found = all.resources.iter();
            let found = found.filter(|resource| fate(&resource.labels, all.at) == wanted);
            found.map(temporary).collect()
        };
        Self {
            expired: with(Fate::Expired),
            unreadable: with(Fate::Unreadable),
        }
    }
}

/// Deletes it, and proves that none of it is left.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let yandex = ctx.world().yandex()?;
    let round = ctx.generation();
    let first: Seen = ctx
        .step(("expired", round), || async {
            Ok::<_, JobError>(Seen::of(&yandex.everything().await?))
        })
        .await?;
    let removal = Removal::default();
    let seen: Mutex<BTreeSet<Temporary>> = Mutex::new(first.expired.into_iter().collect());
    let deleted: Vec<Temporary> = ctx
        .wait(("deleted", round), building(ctx), || async {
            let left = go_on(yandex, &removal).await?;
            let mut seen = seen.lock().expect("no panic while held");
            seen.extend(left.resources.iter().map(temporary));
            Ok::<_, JobError>(match left.is_empty() {
                true => Poll::Ready(seen.iter().cloned().collect()),
                false => Poll::Pending(left.text()),
            })
        })
        .await?;
    ctx.prove("reaped", || async {
        let now = Seen::of(&yandex.everything().await?);
        Ok::<_, JobError>(Proof {
            expected: json!({"expired": []}),
            holds: now.expired.is_empty(),
            observed: json!({
                "expired": now.expired,
                "deleted": deleted,
                "without a time to live, left alone": now.unreadable,
            }),
        })
    })
    .await
}

/// Deletes what can be deleted now of what is past its time.
async fn go_on(yandex: &Yandex, removal: &Removal) -> Result<Left, YandexError> {
    let all = yandex.everything().await?;
    let expired = plan(&all.resources, |it| {
        fate(&it.labels, all.at) == Fate::Expired
    });
    removal.go_on(yandex, expired).await
}

/// The same beside a worker's other work, for what no recovery cleans up any more. Nobody waits for it, so what goes
/// wrong is only told; the next time comes.
pub(super) async fn sweep(yandex: &Yandex, poll: Option<Duration>) {
    let removal = Removal::default();
    for _ in 0..LOOKS {
        match go_on(yandex, &removal).await {
            Ok(left) if left.is_empty() => return,
            Ok(left) => tracing::info!(left = left.text(), "reaping at Yandex Cloud"),
            Err(error) => {
                tracing::warn!(%error, "what is past its time at Yandex Cloud could not be reaped");
                return;
            }
        }
        tokio::time::sleep(poll.unwrap_or(EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use jiff::Timestamp;

    use super::*;
    use crate::cloud::yandex::{Kind, Resource, Status};

    #[test]
    fn what_lives_and_what_is_strange_is_not_even_mentioned() {
        let resource = |id: &str, labels: &[(&str, &str)]| Resource {
            kind: Kind::Network,
            id: id.into(),
            name: "n".into(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            parent: None,
            status: Status::Other,
        };
        let all = Everything {
            resources: vec![
                resource("strange", &[("rekindle-until", "1")]),
                resource("lives", &[("rekindle", "test"), ("rekindle-until", "2000")]),
                resource("past", &[("rekindle", "other"), ("rekindle-until", "999")]),
                resource("odd", &[("rekindle", "test"), ("rekindle-until", "soon")]),
            ],
            at: Timestamp::from_second(1000).unwrap(),
        };
        let seen = Seen::of(&all);
        let ids = |all: &[Temporary]| all.iter().map(|it| it.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&seen.expired), ["past"]);
        assert_eq!(ids(&seen.unreadable), ["odd"]);
    }
}
