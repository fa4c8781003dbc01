//! The only task that publishes on a connection. It works in rounds, like a group commit: all
//! publishes that wait are sent, then all their confirmations are awaited together.
//!
//! Rounds are needed because lapin attaches a returned (unroutable) message to whichever
//! confirmation comes next, not to its own: only after all confirmations of a round are there is
//! it known which messages came back. They also keep delivery tags in the order of the frames,
//! which lapin does not when several tasks publish on one channel.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::try_join_all;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::config::Settings;
use super::topology::{self, SETTLE, Target};
use super::{REASON_HEADER, errors};
use crate::queue::{QueueError, cut_reason};

/// Most messages in one round.
const ROUND: usize = 128;

const PERSISTENT: u8 = 2;

/// A message on its way to the broker, and where to tell how it went.
pub(super) struct Publishing {
    doing: &'static str,
    target: Target,
    body: Bytes,
    properties: BasicProperties,
    answer: oneshot::Sender<Result<(), QueueError>>,
}

impl Publishing {
    pub(super) fn new(
        doing: &'static str,
        target: Target,
        id: Option<&str>,
        body: &Bytes,
        reason: Option<&str>,
        answer: oneshot::Sender<Result<(), QueueError>>,
    ) -> Publishing {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_timestamp(now.map_or(0, |since| since.as_secs()));
        if let Some(id) = id {
            properties = properties.with_message_id(id.into());
        }
        if let Some(reason) = reason {
            let mut headers = FieldTable::default();
            let reason = AMQPValue::LongString(cut_reason(reason).into());
            headers.insert(REASON_HEADER.into(), reason);
            properties = properties.with_headers(headers);
        }
        Publishing {
            doing,
            target,
            body: body.clone(),
            properties,
            answer,
        }
    }
}

pub(super) struct Publisher {
    pub(super) settings: Arc<Settings>,
    pub(super) connection: Arc<Connection>,
    pub(super) channel: Channel,
    pub(super) lost: CancellationToken,
}

/// What the broker said to one message.
enum Said {
    Confirmed,
    /// There is no queue of that name.
    Returned,
    Refused,
}

/// Why a whole round failed.
enum Broken {
    Late,
    Error(lapin::Error),
}

impl Publisher {
    /// Publishes until the connection is lost or nobody can ask any more.
    pub(super) async fn run(self, mut requests: mpsc::Receiver<Publishing>) {
        let lost = self.lost.clone();
        let mut round = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = lost.cancelled() => return,
                taken = requests.recv_many(&mut round, ROUND) => {
                    if taken == 0 {
                        return;
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.publish(std::mem::take(&mut round)) => {}
                () = lost.cancelled() => return,
            }
        }
    }

    async fn publish(&self, round: Vec<Publishing>) {
        let returned = self.round(round).await;
        if returned.is_empty() {
            return;
        }
        // The queues vanished: a broker with a fresh disk, or an operator. They are made again,
        // the work queue too when only a wait queue was missed: a message that leaves its wait
        // queue while there is no work queue is tried again by the broker after three minutes.
        tokio::time::sleep(SETTLE).await;
        let mut targets: HashSet<Target> = returned.iter().map(|one| one.target).collect();
        targets.extend([Target::Dead, Target::Work]);
        for target in targets {
            let declared = topology::declare(&self.connection, &self.settings.queue, target).await;
            if let Err(error) = declared {
                tracing::warn!(%error, "failed to make a vanished queue again");
            }
        }
        for one in self.round(returned).await {
            let error = QueueError::Unreachable {
                doing: one.doing,
                reason: format!(
                    "the broker has no queue `{}`, although it was declared just now",
                    one.target.name(&self.settings.queue)
                ),
            };
            answer(one, Err(error));
        }
    }

    /// Sends all and answers those whose fate is known. What is left was returned by the broker.
    async fn round(&self, round: Vec<Publishing>) -> Vec<Publishing> {
        let said = match self.send(&round).await {
            Ok(said) => said,
            Err(broken) => {
                for one in round {
                    let error = match &broken {
                        Broken::Late => QueueError::Unconfirmed {
                            doing: one.doing,
                            after: self.settings.confirm_timeout,
                        },
                        Broken::Error(error) => errors::of(one.doing, error),
                    };
                    answer(one, Err(error));
                }
                // Nothing can be said about this channel's confirmations any more.
                self.lost.cancel();
                return Vec::new();
            }
        };
        let mut returned = Vec::new();
        for (one, said) in round.into_iter().zip(said) {
            match said {
                Said::Confirmed => answer(one, Ok(())),
                Said::Returned => returned.push(one),
                Said::Refused => {
                    let error = QueueError::Unreachable {
                        doing: one.doing,
                        reason: "the broker could not keep the message".to_owned(),
                    };
                    answer(one, Err(error));
                }
            }
        }
        returned
    }

    async fn send(&self, round: &[Publishing]) -> Result<Vec<Said>, Broken> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirmed = async {
            let sent = round.iter().map(|one| {
                self.channel.basic_publish(
                    "".into(),
                    one.target.name(&self.settings.queue).into(),
                    options,
                    &one.body,
                    one.properties.clone(),
                )
            });
            try_join_all(try_join_all(sent).await?).await
        };
        let confirmations = tokio::time::timeout(self.settings.confirm_timeout, confirmed)
            .await
            .map_err(|_| Broken::Late)?
            .map_err(Broken::Error)?;

        let confirmed: Vec<bool> = confirmations.iter().map(Confirmation::is_ack).collect();
        let returned: HashSet<String> = confirmations
            .into_iter()
            .filter_map(Confirmation::take_message)
            .map(|message| message.delivery.routing_key.to_string())
            .collect();
        // All messages for a queue that was absent for one of them count as returned: to publish
        // one of them twice is harmless.
        let said = round.iter().zip(confirmed).map(|(one, confirmed)| {
            if returned.contains(&one.target.name(&self.settings.queue)) {
                Said::Returned
            } else if confirmed {
                Said::Confirmed
            } else {
                Said::Refused
            }
        });
        Ok(said.collect())
    }
}

fn answer(one: Publishing, result: Result<(), QueueError>) {
    // Whoever asked may have gone; the message has its fate nevertheless.
    let _ = one.answer.send(result);
}
