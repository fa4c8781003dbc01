//! One turn: from a delivery to its acknowledgement.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use jobs::keys;
use jobs::message::JobMessage;
use jobs::plan::{PlannedJob, Readiness};
use jobs::queue::{Delivery, QueueError};
use jobs::record::{Event, JobRecord, JobVersion, RecoveryRecord, Status};
use jobs::store::{Appended, CleanUp, Recovery, StoreError};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tracing::Instrument;

use super::ctx::{Ctx, Inner};
use super::decide::{Decision, decide, is_last_chance};
use super::error::{Interrupt, JobError};
use super::flags::FlagWatch;
use super::lease::Watched;
use super::recorder::{Lost, Recorder};
use super::service::Engine;
use super::wake::{Call, Wake};

/// How a turn leaves its message.
#[derive(Debug)]
pub(super) enum Leave {
    /// Done with it.
    Ack,
    /// The same once more after this time.
    Again(Duration),
    /// Another one in its place after this time.
    Instead(Call, Duration),
    /// Keep it for people, with the reason.
    Dead(String),
    /// Do not touch it: the broker gives it to somebody else.
    Untouched,
}

/// A job that is ours now.
struct Claimed {
    series: keys::Series,
    /// The version that we claimed it with.
    version: u64,
    /// When we sent that version: the lease counts from here, not from an answer that may be late.
    sent: Instant,
    record: JobRecord,
    /// Keeps others that crashed as often from running beside it.
    alone: Option<OwnedMutexGuard<()>>,
}

/// Why a turn could not be carried through.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// A delivery that the store keeps us from handling comes again after this time.
const STORE_PAUSE: Duration = Duration::from_secs(5);

impl Engine {
    /// Handles one delivery, whatever it is.
    pub(super) async fn turn(self: Arc<Self>, delivery: Delivery) {
        let message = match JobMessage::decode(&delivery.body) {
            Ok(message) => message,
            Err(reason) => {
                tracing::error!(%reason, "not a job message; it goes to the dead queue");
                if let Err(e) = delivery.handle.dead_letter(&reason.to_string()).await {
                    tracing::warn!(error = %e, "could not dead-letter; the broker will deliver it again");
                }
                return;
            }
        };
        let span = Self::span(&message.cluster, &message.recovery, &message.job);
        let wake = Wake::new(message, delivery);
        self.turn_of(&wake).instrument(span).await;
    }

    async fn turn_of(&self, wake: &Wake) {
        let leave = match self.work(wake).await {
            Ok(leave) => leave,
            Err(TurnError::Store(e)) if e.is_transient() => {
                tracing::warn!(error = %e, "the store keeps the turn from going on; it comes again");
                Leave::Again(STORE_PAUSE)
            }
            Err(TurnError::Store(e)) => {
                tracing::error!(error = %e, "the turn cannot go on");
                Leave::Dead(e.to_string())
            }
            Err(TurnError::Queue(e)) => {
                tracing::warn!(error = %e, "the queue failed; the broker will deliver again");
                Leave::Untouched
            }
        };
        if wake.delivery.lost.is_cancelled() {
            return;
        }
        if let Err(e) = wake.leave(leave).await {
            tracing::warn!(error = %e, "could not settle the message; it comes again");
        }
    }

    async fn work(&self, wake: &Wake) -> Result<Leave, TurnError> {
        let Wake {
            message, delivery, ..
        } = wake;
        let (cluster, id) = (&message.cluster, &message.recovery);
        let read = Instant::now();
        let Some(record) = self.store.recovery_record(cluster, id).await? else {
            return Ok(Leave::Dead(format!(
                "the bucket has no recovery `{id}` of cluster `{cluster}`"
            )));
        };
        let flags = self.flag_watch(&record, read).await;
        let (plan, spec) = self.inputs(&record.inputs).await?;
        let recovery = Recovery { record, plan, spec };
        let Some(job) = recovery.plan.job(&message.job).cloned() else {
            return Ok(Leave::Dead(format!(
                "the plan of recovery `{id}` has no job `{}`",
                message.job
            )));
        };
        if job.payload != message.payload {
            return Ok(Leave::Dead(
                "the message's payload is not what the plan says".into(),
            ));
        }
        if recovery.record.finished.is_some() {
            self.free_cluster(cluster, id).await?;
            return Ok(Leave::Ack);
        }
        let series = keys::job(cluster, id, &job.name);
        // The epoch whose owner we saw alive.
        let mut alive = None;
        loop {
            let stored = self.store.read_job(&series).await?;
            let record = stored.as_ref().map(|s| &s.record);
            let owned = stored.as_ref().filter(|s| s.record.owner.is_some());
            let dead = match owned.filter(|s| alive != Some(s.record.epoch)) {
                None => false,
                Some(stored) => match self.watch_over(&series, stored).await? {
                    Watched::Dead => true,
                    Watched::Unknown => return Ok(Leave::Untouched),
                    Watched::Changed => {
                        alive = Some(stored.record.epoch);
                        continue;
                    }
                },
            };
            let readiness = self.readiness(&recovery, &job, record).await?;
            let steps = self.functions.steps(&job.payload);
            match decide(
                record,
                &readiness,
                &recovery.record.flags,
                job.payload.cleans_up(),
                dead,
                &self.me,
                steps,
            ) {
                Decision::Succeeded => {
                    // A message that comes again must not turn "ran although something failed"
                    // into "done": the marker that is there stands.
                    if readiness != Readiness::Failed {
                        let generation = record.map_or(0, |r| r.generation);
                        self.mark_succeeded(&recovery, &job, generation).await?;
                    }
                    self.post_followers(&recovery, &job.name, delivery).await?;
                    return Ok(Leave::Ack);
                }
                Decision::Nothing(why) => {
                    tracing::debug!(why, "nothing to do");
                    // A crash between a failure's record and its marker is repaired here.
                    if let Some(record) =
                        record.filter(|r| r.status.is_stuck() && r.status != Status::Cancelled)
                    {
                        self.store
                            .mark_failed(cluster, id, &job.name, record.generation)
                            .await?;
                        self.post_followers(&recovery, &job.name, delivery).await?;
                        // The turn that failed had no message to keep for people, or did not get
                        // to it.
                        if let Some(failure) = &record.failure
                            && wake.may_be_the_last(record)
                        {
                            return Ok(Leave::Dead(failure.to_string()));
                        }
                    }
                    return Ok(Leave::Ack);
                }
                Decision::Held(owner) => {
                    let (host, pid) = (owner.host, owner.pid);
                    tracing::debug!(host, pid, "another worker is at it");
                    return Ok(match record.filter(|r| wake.may_be_the_last(r)) {
                        Some(record) => {
                            Leave::Instead(Call::Watch(record.epoch), self.options.lease)
                        }
                        None => Leave::Ack,
                    });
                }
                Decision::Cancel => {
                    self.end_cancelled(&recovery, delivery).await?;
                    return Ok(Leave::Ack);
                }
                Decision::Quarantine => {
                    let at = stored
                        .as_ref()
                        .map(|s| s.record.crashes.running.clone())
                        .unwrap_or_default();
                    let place = match at.first() {
                        Some(step) => format!("while `{step}` ran"),
                        None => format!(
                            "after {} steps",
                            stored.as_ref().map_or(0, |s| s.record.steps.len())
                        ),
                    };
                    let reason = format!(
                        "the worker process crashed {} times in a row {place}",
                        super::decide::MOST_CRASHES
                    );
                    let step = at.into_iter().next();
                    if let Some(generation) = self
                        .settle_unrun(&series, stored, &job, Event::Quarantine, &reason, step)
                        .await?
                    {
                        return self
                            .after_failure(&recovery, &job, delivery, generation, reason)
                            .await;
                    }
                }
                Decision::Park(steps) => {
                    let reason = format!(
                        "recorded steps are not known to this build: {}",
                        steps.join(", ")
                    );
                    if let Some(generation) = self
                        .settle_unrun(&series, stored, &job, Event::Park, &reason, None)
                        .await?
                    {
                        return self
                            .after_failure(&recovery, &job, delivery, generation, reason)
                            .await;
                    }
                }
                Decision::Claim if record.is_some_and(|r| !wake.is_due(r)) => {
                    tracing::debug!("its next turn has a message of its own");
                    return Ok(match record.filter(|r| wake.may_be_all_there_is(r)) {
                        Some(record) => Leave::Instead(
                            Call::Turn(record.turn + 1),
                            Duration::from_millis(record.delay_ms),
                        ),
                        None => Leave::Ack,
                    });
                }
                Decision::Claim => {
                    let mut record = stored.as_ref().map_or_else(
                        || JobRecord::new(job.name.clone(), job.payload.clone()),
                        |s| s.record.clone(),
                    );
                    let version = stored.map_or(0, |s| s.version) + 1;
                    record
                        .claim(self.me.clone(), self.process.now())
                        .expect("the decision looked at the status");
                    // A job that crashed along with the one that is to blame must not be blamed
                    // for it: those with one chance left get it one after the other.
                    let alone = if is_last_chance(&record) {
                        match Arc::clone(&self.last_chances).try_lock_owned() {
                            Ok(alone) => Some(alone),
                            // The sweep calls again, as long as the record stands still.
                            Err(_) if wake.is_swept() => return Ok(Leave::Ack),
                            // Not sooner: any copy of this message comes round as often.
                            Err(_) => return Ok(Leave::Again(self.options.lease)),
                        }
                    } else {
                        None
                    };
                    let full = JobVersion::Full(Box::new(record));
                    let sent = Instant::now();
                    if self.store.append(&series, version, &full).await? == Appended::Won {
                        let JobVersion::Full(record) = full else {
                            unreachable!("made three lines above")
                        };
                        let claimed = Claimed {
                            series,
                            version,
                            sent,
                            record: *record,
                            alone,
                        };
                        return self.run_turn(recovery, flags, job, claimed, wake).await;
                    }
                }
            }
            // Somebody was faster: look again at what it says now.
        }
    }

    async fn run_turn(
        &self,
        recovery: Recovery,
        flags: FlagWatch,
        job: PlannedJob,
        claimed: Claimed,
        wake: &Wake,
    ) -> Result<Leave, TurnError> {
        let Claimed {
            series,
            version,
            sent,
            record,
            alone,
        } = claimed;
        tracing::info!(
            epoch = record.epoch,
            turn = record.turn,
            steps = record.steps.len(),
            "turn begins"
        );
        let (recorder, writing) = Recorder::start(
            Arc::clone(&self.process),
            self.store.clone(),
            series.clone(),
            version,
            record.clone(),
            sent,
            self.options.lease,
        );
        let (lost, lease) = (recorder.lost().clone(), recorder.clone());
        let stop = self.shutdown.child_token();
        let (epoch, turn_ends) = (record.epoch, Instant::now() + self.options.turn);
        let ctx = Ctx {
            inner: Arc::new(Inner {
                cluster: recovery.record.cluster.clone(),
                recovery: recovery.record.id.clone(),
                job: job.name.clone(),
                spec: Arc::clone(&recovery.spec),
                plan: Arc::clone(&recovery.plan),
                store: self.store.clone(),
                world: Arc::clone(&self.world),
                recorder,
                record,
                flags,
                stop: stop.clone(),
                turn_ends,
                cleans_up: job.payload.cleans_up(),
                known_steps: self.functions.steps(&job.payload),
                used: Mutex::default(),
                alone: Mutex::new(alone),
            }),
        };
        let mut work =
            std::panic::AssertUnwindSafe(self.functions.run(&ctx, &job.payload)).catch_unwind();
        // A process that was frozen for a while wakes up in the middle of this: it looks at the
        // clock before it goes on.
        let work = std::future::poll_fn(move |cx| {
            if lease.has_run_out() {
                return Poll::Ready(Ok(Err(JobError::interrupted(Interrupt::LostLease))));
            }
            work.poll_unpin(cx)
        });
        let ended = tokio::select! {
            biased;
            () = lost.cancelled() => Err(JobError::interrupted(Interrupt::LostLease)),
            () = self.halt.cancelled() => Err(JobError::interrupted(Interrupt::Shutdown)),
            // The broker may have given the message to somebody else, who will wait for the lease. What
            // runs may finish, or a step would never end on a broker that flaps; nothing new begins.
            () = wake.when_taken_back(|| stop.cancel()) => unreachable!("it never resolves"),
            ended = work => ended.unwrap_or_else(|panic| Err(JobError::retry(format!("the job panicked: {}", panic_text(panic.as_ref()))))),
            () = wake.let_go(epoch, turn_ends, self.options.lease) => unreachable!("it never resolves"),
        };
        // All that is left of the turn is its recorder; without the context it ends by itself.
        drop(ctx);
        let held = match writing.await {
            Ok(Ok(held)) => held,
            // Nothing is posted and nothing acknowledged: what is to become of the message is for
            // whoever gets it next.
            Ok(Err(Lost)) => return Ok(Leave::Untouched),
            Err(e) => {
                tracing::error!(error = %e, "the recorder failed");
                return Ok(Leave::Untouched);
            }
        };
        self.end_turn(&recovery, &job, held, ended, &wake.delivery)
            .await
    }

    /// The marker of a job that succeeded.
    pub(super) async fn mark_succeeded(
        &self,
        recovery: &Recovery,
        job: &PlannedJob,
        generation: u32,
    ) -> Result<(), StoreError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        if job.always && !self.store.are_done(cluster, id, &job.needs).await? {
            // It ran although something failed: it counts for this generation only.
            self.store
                .mark_failed(cluster, id, &job.name, generation)
                .await
        } else {
            self.store.mark_done(cluster, id, &job.name).await
        }
    }

    async fn readiness(
        &self,
        recovery: &Recovery,
        job: &PlannedJob,
        record: Option<&JobRecord>,
    ) -> Result<Readiness, StoreError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        if job.payload.cleans_up() && recovery.record.flags.cancelled.is_some() {
            // Cancelled jobs have no markers: their records tell.
            return Ok(match self.store.clean_up(cluster, id, job).await? {
                CleanUp::Due => Readiness::Ready,
                CleanUp::Nothing | CleanUp::Failed | CleanUp::Waits => {
                    Readiness::Needs(job.needs.clone())
                }
            });
        }
        // Once begun, its needs were met.
        if job.needs.is_empty() || record.is_some_and(|r| r.epoch > 0 && !job.always) {
            return Ok(Readiness::Ready);
        }
        if !job.always && self.store.are_done(cluster, id, &job.needs).await? {
            return Ok(Readiness::Ready);
        }
        // It was woken too early, or it wants to know what failed: all markers tell.
        let settled = self.store.settled(cluster, id).await?;
        Ok(recovery
            .plan
            .readiness(&settled)
            .remove(&job.name)
            .unwrap_or(Readiness::Needs(job.needs.clone())))
    }

    /// The watch on a recovery's flags; it learns what we read at `read`.
    async fn flag_watch(&self, record: &RecoveryRecord, read: Instant) -> FlagWatch {
        let watch = {
            let mut all = self.flags.lock().await;
            if all.len() > 256 {
                all.clear();
            }
            all.entry((record.cluster.clone(), record.id.clone()))
                .or_insert_with(|| FlagWatch::new(record, read))
                .clone()
        };
        watch.learn(&record.flags, read).await;
        watch
    }
}

/// The payload of a panic, when it is a text.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a text".into())
}
