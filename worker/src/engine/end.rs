//! The end of a turn: its last version, the marker, what follows. In this order a crash in between
//! is repaired by the next delivery.

use jobs::ids::StepKey;
use jobs::keys;
use jobs::plan::PlannedJob;
use jobs::queue::Delivery;
use jobs::record::{Event, Failure, JobRecord, JobVersion, LeftBehind, Status};
use jobs::store::{Appended, Recovery, StoreError, StoredJob};

use super::ctx::Proven;
use super::error::{Again, Interrupt, JobError};
use super::recorder::{Held, StoreErrorOrLost};
use super::service::Engine;
use super::turn::{Leave, TurnError};
use super::wake::Call;

impl Engine {
    /// Writes the turn's last version, then the marker, then posts what follows: in this order a
    /// crash in between is repaired by the next delivery.
    pub(super) async fn end_turn(
        &self,
        recovery: &Recovery,
        job: &PlannedJob,
        held: Held,
        ended: Result<Proven, JobError>,
        delivery: &Delivery,
    ) -> Result<Leave, TurnError> {
        let mut record = held.record.clone();
        let (event, delay) = self.judge(&mut record, &ended);
        let now = self.process.now();
        record
            .release(event, now)
            .expect("a running job may end in each of these ways");
        record.delay_ms = delay.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        record.due = delay.and_then(|d| {
            now.checked_add(jiff::SignedDuration::try_from(d).ok()?)
                .ok()
        });
        match &ended {
            Ok(_) => tracing::info!(steps = record.steps.len(), "job succeeded"),
            Err(JobError {
                again: Again::Interrupted(why),
                ..
            }) => tracing::info!(?why, "turn ends"),
            Err(e) if record.status == Status::Retrying => {
                tracing::warn!(error = %e, attempt = record.attempts, "attempt failed")
            }
            Err(e) => tracing::error!(error = %e, status = %record.status, "job failed"),
        }
        let record = match held.close(record).await {
            Ok(record) => record,
            Err(StoreErrorOrLost::Lost) => {
                tracing::warn!("lost the lease at the end of the turn");
                return Ok(Leave::Untouched);
            }
            Err(StoreErrorOrLost::Store(e)) => return Err(e.into()),
        };
        if delivery.lost.is_cancelled() {
            return Ok(Leave::Untouched);
        }
        let over = matches!(record.status, Status::Succeeded | Status::Cancelled);
        let cancelled = job.payload.cleans_up() && over && {
            let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
            let now = self.store.recovery_record(cluster, id).await?;
            now.is_some_and(|now| now.flags.cancelled.is_some())
        };
        match record.status {
            // It was the last thing that a cancelled recovery waited for.
            _ if cancelled => {
                self.end_cancelled(recovery, delivery).await?;
                Ok(Leave::Ack)
            }
            Status::Succeeded => {
                self.mark_succeeded(recovery, job, record.generation)
                    .await?;
                self.post_followers(recovery, &job.name, delivery).await?;
                Ok(Leave::Ack)
            }
            Status::Waiting
                if matches!(
                    ended,
                    Err(JobError {
                        again: Again::Interrupted(Interrupt::Paused),
                        ..
                    })
                ) =>
            {
                Ok(Leave::Ack)
            }
            Status::Waiting | Status::Retrying => Ok(Leave::Instead(
                Call::Turn(record.turn + 1),
                delay.unwrap_or_default(),
            )),
            Status::Cancelled => {
                self.end_cancelled(recovery, delivery).await?;
                Ok(Leave::Ack)
            }
            _ => {
                let reason = record
                    .failure
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string);
                self.after_failure(recovery, job, delivery, record.generation, reason)
                    .await
            }
        }
    }

    /// A failed job's marker, what may run all the same, and its message in the dead queue. The
    /// generation is that of the failure: an operator may have put the job back meanwhile.
    pub(super) async fn after_failure(
        &self,
        recovery: &Recovery,
        job: &PlannedJob,
        delivery: &Delivery,
        generation: u32,
        reason: String,
    ) -> Result<Leave, TurnError> {
        let (cluster, id) = (&recovery.record.cluster, &recovery.record.id);
        self.store
            .mark_failed(cluster, id, &job.name, generation)
            .await?;
        self.post_followers(recovery, &job.name, delivery).await?;
        Ok(Leave::Dead(reason))
    }

    /// Settles a job without running it; says in which generation. `None` when somebody else wrote
    /// first.
    pub(super) async fn settle_unrun(
        &self,
        series: &keys::Series,
        stored: Option<StoredJob>,
        job: &PlannedJob,
        event: Event,
        reason: &str,
        step: Option<StepKey>,
    ) -> Result<Option<u32>, StoreError> {
        let version = stored.as_ref().map_or(0, |s| s.version) + 1;
        let mut record = stored.map_or_else(
            || JobRecord::new(job.name.clone(), job.payload.clone()),
            |s| s.record,
        );
        let now = self.process.now();
        let running = record.crashes.running.clone();
        // Claimed and released in one version: nobody else could have run it in between.
        record
            .claim(self.me.clone(), now)
            .expect("only an unsettled job comes here");
        record
            .release(event, now)
            .expect("a running job may be settled");
        record.crashes.running = running;
        record.failure = Some(Failure {
            step,
            chain: vec![reason.to_owned()],
            left_behind: LeftBehind::Unknown,
            at: now,
            host: self.me.host.clone(),
        });
        tracing::error!(status = %record.status, reason, "job settled without a turn");
        let generation = record.generation;
        let full = JobVersion::Full(Box::new(record));
        let won = self.store.append(series, version, &full).await? == Appended::Won;
        Ok(won.then_some(generation))
    }
}
