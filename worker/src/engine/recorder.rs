//! The one writer of a job's record during a turn: group commit, heartbeat, self-fencing.
//!
//! Steps that finish while a PUT is in flight go into the next one together. Between checkpoints a
//! heartbeat renews the lease by the same means: one more version. Whoever loses the race for a
//! version, or cannot renew within the lease, has lost the job and stops at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jobs::ids::StepKey;
use jobs::keys::Series;
use jobs::record::{Change, JobRecord, JobVersion, StepRecord, WaitRecord};
use jobs::store::{Appended, Store, StoreError};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::process::Process;

/// What a turn asks its recorder to write.
#[derive(Debug)]
enum Request {
    Step {
        key: StepKey,
        output: Value,
        took: Duration,
        durable: oneshot::Sender<()>,
    },
    Begun {
        key: StepKey,
        durable: oneshot::Sender<()>,
    },
    Wait {
        key: StepKey,
        record: WaitRecord,
    },
}

/// The turn's side of the recorder.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    requests: mpsc::Sender<Request>,
    lost: CancellationToken,
    until: Arc<Mutex<Instant>>,
}

/// The record as the recorder last wrote it, given back at the end of the turn.
#[derive(Debug)]
pub(crate) struct Held {
    store: Store,
    series: Arc<Series>,
    version: u64,
    /// The state that is durable.
    pub(crate) record: JobRecord,
}

/// The lease is not ours any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl Recorder {
    /// Starts to record on top of `version`, a full version that we wrote ourselves and `sent` then.
    pub(crate) fn start(
        process: Arc<dyn Process>,
        store: Store,
        series: Series,
        version: u64,
        record: JobRecord,
        sent: Instant,
        lease: Duration,
    ) -> (Self, oneshot::Receiver<Result<Held, Lost>>) {
        let (requests, inbox) = mpsc::channel(256);
        let (give_back, given_back) = oneshot::channel();
        let lost = CancellationToken::new();
        let held = Held {
            store,
            series: Arc::new(series),
            version,
            record,
        };
        let until = Arc::new(Mutex::new(sent + lease));
        let task = Loop {
            process: Arc::clone(&process),
            held,
            base: version,
            since_full: 0,
            inbox,
            lost: lost.clone(),
            lease,
            renewed: sent,
            until: Arc::clone(&until),
        };
        process.spawn(Box::pin(async move {
            // Nobody waits for the record any more when the whole turn is gone.
            let _ = give_back.send(task.run().await);
        }));
        let recorder = Self {
            requests,
            lost,
            until,
        };
        (recorder, given_back)
    }

    /// For how long from now the lease holds if it is not renewed.
    pub(crate) fn left(&self) -> Duration {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.saturating_duration_since(Instant::now())
    }

    /// Whether the lease has run out by our own clock, and with it the turn. A process that was
    /// frozen finds out by this before it does anything else.
    pub(crate) fn has_run_out(&self) -> bool {
        let out = self.left().is_zero();
        if out && !self.lost.is_cancelled() {
            tracing::warn!("the lease ran out before it was renewed");
            self.lost.cancel();
        }
        out
    }

    /// Fires when the lease is lost.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Records a finished step; returns once that is durable.
    pub(crate) async fn step(
        &self,
        key: StepKey,
        output: Value,
        took: Duration,
    ) -> Result<(), Lost> {
        self.ask(|durable| Request::Step {
            key,
            output,
            took,
            durable,
        })
        .await
    }

    /// Records that a step begins; returns once that is durable.
    pub(crate) async fn begun(&self, key: StepKey) -> Result<(), Lost> {
        self.ask(|durable| Request::Begun { key, durable }).await
    }

    /// Notes how far a wait has come; written with the next version.
    pub(crate) async fn wait(&self, key: StepKey, record: WaitRecord) -> Result<(), Lost> {
        self.requests
            .send(Request::Wait { key, record })
            .await
            .map_err(|_| Lost)
    }

    async fn ask(&self, request: impl FnOnce(oneshot::Sender<()>) -> Request) -> Result<(), Lost> {
        let (durable, done) = oneshot::channel();
        self.requests
            .send(request(durable))
            .await
            .map_err(|_| Lost)?;
        done.await.map_err(|_| Lost)
    }
}

impl Held {
    /// Writes the turn's last version, in full.
    pub(crate) async fn close(mut self, record: JobRecord) -> Result<JobRecord, StoreErrorOrLost> {
        self.version += 1;
        let body = JobVersion::Full(Box::new(record));
        match self.store.append(&self.series, self.version, &body).await? {
            Appended::Lost => Err(StoreErrorOrLost::Lost),
            Appended::Won => match body {
                JobVersion::Full(record) => Ok(*record),
                JobVersion::Delta { .. } => unreachable!("made four lines above"),
            },
        }
    }
}

/// Why a turn's end could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreErrorOrLost {
    #[error("somebody else owns the job")]
    Lost,
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Loop {
    process: Arc<dyn Process>,
    held: Held,
    base: u64,
    since_full: u64,
    inbox: mpsc::Receiver<Request>,
    lost: CancellationToken,
    lease: Duration,
    renewed: Instant,
    /// When the lease runs out, for those who ask.
    until: Arc<Mutex<Instant>>,
}

impl Loop {
    async fn run(mut self) -> Result<Held, Lost> {
        loop {
            let mut batch = Vec::new();
            let beat = self.renewed + self.lease / 3;
            tokio::select! {
                biased;
                () = self.lost.cancelled() => return Err(Lost),
                n = self.inbox.recv_many(&mut batch, 256) => if n == 0 { return Ok(self.held) },
                () = sleep_until(beat) => {}
            }
            if let Err(reason) = self.write(batch).await {
                tracing::warn!(job = %self.held.record.job, epoch = self.held.record.epoch, reason, "lost the lease");
                self.lost.cancel();
                return Err(Lost);
            }
        }
    }

    async fn write(&mut self, batch: Vec<Request>) -> Result<(), String> {
        if Instant::now() >= self.renewed + self.lease {
            return Err("it was not renewed in time".into());
        }
        let mut changes = Vec::with_capacity(batch.len());
        let mut waiters = Vec::with_capacity(batch.len());
        for request in batch {
            let change = match request {
                Request::Step {
                    key,
                    output,
                    took,
                    durable,
                } => {
                    waiters.push(durable);
                    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    let record = &self.held.record;
                    let record = StepRecord {
                        n: record.next_step_number(),
                        output,
                        at: self.process.now(),
                        ms,
                        epoch: record.epoch,
                    };
                    Change::Step { key, record }
                }
                Request::Begun { key, durable } => {
                    waiters.push(durable);
                    let mut keys = self.held.record.crashes.running.clone();
                    keys.push(key);
                    Change::Running { keys }
                }
                Request::Wait { key, record } => Change::Wait { key, record },
            };
            self.held.record.apply(change.clone());
            changes.push(change);
        }
        // A full version when the deltas since the last one weigh as much as the record itself, so
        // that both a checkpoint and a resume cost the same, however many steps there are.
        let full = self.since_full >= 64.max(self.held.record.steps.len() as u64);
        let next = self.held.version + 1;
        let body = if full {
            JobVersion::Full(Box::new(self.held.record.clone()))
        } else {
            JobVersion::Delta {
                base: self.base,
                epoch: self.held.record.epoch,
                changes,
            }
        };
        let sent = Instant::now();
        let append = self.held.store.append(&self.held.series, next, &body);
        // A lease that is not renewed in time may be somebody else's: stop even if the store would
        // still answer. The time counts from the last write that we sent and that took effect.
        match timeout_at(self.renewed + self.lease, append).await {
            Err(_) => Err("it could not be renewed in time".into()),
            Ok(Err(e)) => Err(e.to_string()),
            Ok(Ok(Appended::Lost)) => Err("somebody else wrote the next version".into()),
            Ok(Ok(Appended::Won)) => {
                self.held.version = next;
                self.renewed = sent;
                *self.until.lock().unwrap_or_else(PoisonError::into_inner) = sent + self.lease;
                self.since_full = if full { 0 } else { self.since_full + 1 };
                self.base = if full { next } else { self.base };
                for waiter in waiters {
                    // The step may have been cancelled meanwhile; its record stands all the same.
                    let _ = waiter.send(());
                }
                Ok(())
            }
        }
    }
}
