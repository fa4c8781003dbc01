//! The laws: what must hold after every event. They are told what happened at the moment when it
//! happened, from the bucket's and the cloud's side, and know nothing of what workers believe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use jobs::ids::{JobName, StepKey};
use jobs::keys::Series;
use jobs::message::JobMessage;
use jobs::record::{Change, JobRecord, JobVersion, RecoveryRecord, Status, Versioned};
use uuid::Uuid;

/// Messages that a job may have published beyond its share.
const FREE: u64 = 12;

/// How long after an operator's word a step may still begin: flags are read every 2 s; a store that
/// does not answer makes it longer, and a lease (10 s) that cannot be renewed ends it.
const LATE: Duration = Duration::from_secs(20);

/// Everything that is known for sure.
#[derive(Debug, Default)]
pub(crate) struct Laws {
    workers: BTreeMap<Uuid, String>,
    keys: BTreeSet<String>,
    jobs: BTreeMap<JobName, Known>,
    /// The operator ended the recovery: only what cleans up may go on.
    cancelled: bool,
    /// Since when the operator wants nothing more to begin.
    silent: Option<Duration>,
    /// Of how many messages more per job we know a reason.
    reasons: u64,
}

/// A job as its record in the bucket has it.
#[derive(Debug, Default)]
struct Known {
    version: u64,
    base: u64,
    record: Option<JobRecord>,
    /// Who wrote the claim of the present epoch.
    holder: Option<Uuid>,
    /// When the record was last let go.
    released: Option<Duration>,
    published: u64,
    /// Times that the operator may still end a pause of the job.
    calls: u64,
}

impl Laws {
    /// A worker starts; it writes under this id.
    pub(crate) fn started(&mut self, who: &str, writer: Uuid) -> Result<(), String> {
        self.workers.insert(writer, who.to_owned());
        self.reasons += 4;
        Ok(())
    }

    /// Something went wrong that explains some messages more.
    pub(crate) fn excuse(&mut self, messages: u64) -> Result<(), String> {
        self.reasons += messages;
        Ok(())
    }

    /// The operator wants a job to go on now, whatever it waits for.
    pub(crate) fn called(&mut self, job: &JobName) -> Result<(), String> {
        self.jobs.entry(job.clone()).or_default().calls += 1;
        Ok(())
    }

    /// An object was written.
    pub(crate) fn wrote(
        &mut self,
        who: &str,
        key: &str,
        body: &Bytes,
        now: Duration,
    ) -> Result<(), String> {
        let first = self.keys.insert(key.to_owned());
        if !first && !key.starts_with("inputs/") {
            return Err(format!("{who} overwrote `{key}`"));
        }
        let mut parts = key.split('/');
        let (Some("clusters"), _, Some("recoveries"), _, Some(kind)) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Ok(());
        };
        let mut rest: Vec<&str> = parts.collect();
        match kind {
            "jobs" => {
                rest.pop();
                let version = Series::split(key).map(|(_, n)| n);
                let version = version.ok_or_else(|| format!("{who} wrote `{key}`"))?;
                let job = name(&rest)?;
                let written: Versioned<JobVersion> = serde_json::from_slice(body)
                    .map_err(|e| format!("{who} wrote a record that cannot be read: {e}"))?;
                let workers = &self.workers;
                let known = self.jobs.entry(job.clone()).or_default();
                known
                    .follows(version, written, now, workers)
                    .map_err(|law| format!("{who}, {job}, version {version}: {law}"))
            }
            "done" => {
                let record = self.record(&name(&rest)?);
                let proven = |r: &JobRecord| {
                    r.status == Status::Succeeded
                        && r.steps.keys().any(|key| key.as_str().starts_with("prove/"))
                };
                match record {
                    Some(record) if proven(record) => Ok(()),
                    _ => Err(format!("{who} marked `{key}` without a proof on record")),
                }
            }
            "recovery" => {
                let written: Versioned<RecoveryRecord> = serde_json::from_slice(body)
                    .map_err(|e| format!("{who} wrote a record that cannot be read: {e}"))?;
                let flags = written.body.flags;
                self.cancelled = flags.cancelled.is_some();
                self.silent = (flags.paused.is_some() || flags.cancelled.is_some())
                    .then(|| self.silent.unwrap_or(now));
                Ok(())
            }
            "failed" => {
                // A marker of an earlier generation counts for nothing: the operator was faster.
                let generation = rest.pop().and_then(|n| n.parse::<u32>().ok());
                let counts = |r: &JobRecord| generation.is_none_or(|n| n >= r.generation);
                match self.record(&name(&rest)?) {
                    Some(record) if record.status.is_settled() || !counts(record) => Ok(()),
                    _ => Err(format!("{who} marked `{key}`, which is not settled")),
                }
            }
            _ => Ok(()),
        }
    }

    /// A step, or a look of a wait, begins on a worker whose program has these steps behind it.
    pub(crate) fn begins(
        &mut self,
        who: &str,
        job: &JobName,
        epoch: u64,
        key: &StepKey,
        behind: &[StepKey],
        now: Duration,
    ) -> Result<(), String> {
        self.acts(who, job, epoch, key)?;
        let cleans_up = self
            .record(job)
            .is_some_and(|record| record.payload.cleans_up());
        if let Some(late) = self
            .silent
            .filter(|_| !(self.cancelled && cleans_up))
            .and_then(|since| now.checked_sub(since + LATE))
        {
            return Err(format!(
                "{who} begins `{key}` of {job} {late:?} too late: the operator said stop"
            ));
        }
        let steps = self.record(job).map(|record| &record.steps);
        let recorded = |key| steps.is_some_and(|steps| steps.contains_key(key));
        if recorded(key) {
            return Err(format!("{who} begins `{key}` of {job}, which is on record"));
        }
        match behind.iter().find(|key| !recorded(key)) {
            Some(early) => Err(format!(
                "{who} begins `{key}` of {job}, but `{early}` before it is not on record"
            )),
            None => Ok(()),
        }
    }

    /// A step is about to have an effect.
    pub(crate) fn acts(
        &mut self,
        who: &str,
        job: &JobName,
        epoch: u64,
        key: &StepKey,
    ) -> Result<(), String> {
        let record = self
            .record(job)
            .ok_or_else(|| format!("{who} runs `{key}` of {job}, which nobody claimed"))?;
        if record.epoch != epoch {
            return Err(format!(
                "{who} runs `{key}` of {job} in epoch {epoch} although epoch {} has begun",
                record.epoch
            ));
        }
        if record.owner.is_none() {
            return Err(format!("{who} runs `{key}` of {job} after it let go"));
        }
        Ok(())
    }

    /// Messages for a job went into the queue.
    pub(crate) fn published(
        &mut self,
        who: &str,
        message: &JobMessage,
        copies: u64,
    ) -> Result<(), String> {
        self.is_due(who, message)?;
        let reasons = self.reasons;
        let known = self.jobs.entry(message.job.clone()).or_default();
        known.published += copies;
        let turns = known.record.as_ref().map_or(0, |r| r.turn);
        let bound = FREE + 4 * turns + reasons;
        if known.published > bound {
            return Err(format!(
                "{} messages of {} in {turns} turns: a storm",
                known.published, message.job
            ));
        }
        Ok(())
    }

    /// What a message says must be on record before it is sent.
    fn is_due(&self, who: &str, message: &JobMessage) -> Result<(), String> {
        let word = message.id.rsplit('.').next().unwrap_or_default();
        let early = |why: &str| Err(format!("{who} publishes {} although {why}", message.id));
        if let Some(needed) = word.strip_prefix("after-") {
            let called = |name: &JobName| name.as_str().replace('/', "-") == needed;
            let needed = self.jobs.iter().find(|(name, _)| called(name));
            let record = needed.and_then(|(_, known)| known.record.as_ref());
            return match record {
                // Or it was, and the operator has put it back since.
                Some(record) if record.status.is_settled() || record.generation > 0 => Ok(()),
                _ => early("that job is not settled"),
            };
        }
        let record = self.record(&message.job);
        match (word.parse::<u64>(), record) {
            (Ok(turn), Some(last)) if turn > last.turn + 1 => early("the turn before has not been"),
            (Ok(turn), Some(last)) if turn == last.turn + 1 && last.owner.is_some() => {
                early("the turn before is not over")
            }
            _ => Ok(()),
        }
    }

    /// A job's record.
    pub(crate) fn record(&self, job: &JobName) -> Option<&JobRecord> {
        self.jobs.get(job)?.record.as_ref()
    }

    /// Versions written, of all jobs.
    pub(crate) fn versions(&self) -> u64 {
        self.jobs.values().map(|known| known.version).sum()
    }
}

impl Known {
    /// Whether a version may follow the last one, and takes it over.
    fn follows(
        &mut self,
        version: u64,
        written: Versioned<JobVersion>,
        now: Duration,
        workers: &BTreeMap<Uuid, String>,
    ) -> Result<(), String> {
        if version != self.version + 1 {
            return Err(format!("it follows version {}", self.version));
        }
        let by_worker = workers.contains_key(&written.writer);
        match (written.body, &mut self.record) {
            (JobVersion::Full(record), None) => {
                self.held_by(&record, written.writer);
                self.record = Some(*record);
            }
            (JobVersion::Full(next), Some(last)) => {
                let kept = last
                    .steps
                    .iter()
                    .all(|(key, step)| next.steps.get(key) == Some(step));
                if by_worker && !kept {
                    return Err("recorded steps were lost or changed".into());
                }
                match next.epoch.checked_sub(last.epoch) {
                    Some(0) => {
                        if by_worker && last.owner.is_some() && self.holder != Some(written.writer)
                        {
                            return Err("it is not by who holds the lease".into());
                        }
                    }
                    Some(1) => {
                        let rested = self.released.map(|at| now.saturating_sub(at));
                        let pause = Duration::from_millis(last.delay_ms);
                        // What is only settled does not run before its time.
                        if next.owner.is_some()
                            && matches!(last.status, Status::Retrying | Status::Waiting)
                            && rested.is_some_and(|rested| rested < pause)
                        {
                            let early = format!("claimed after {rested:?} of {pause:?}");
                            self.calls = self.calls.checked_sub(1).ok_or(early)?;
                        }
                    }
                    _ => return Err(format!("epoch {} after {}", next.epoch, last.epoch)),
                }
                self.released = next.owner.is_none().then_some(now);
                let next = *next;
                if next.owner.is_none() || next.epoch > last.epoch {
                    self.holder = next.owner.as_ref().map(|_| written.writer);
                }
                self.record = Some(next);
            }
            (JobVersion::Delta { .. }, None) => return Err("a change of nothing".into()),
            (
                JobVersion::Delta {
                    base,
                    epoch,
                    changes,
                },
                Some(last),
            ) => {
                if epoch != last.epoch || self.holder != Some(written.writer) {
                    return Err(format!(
                        "a change in epoch {epoch} by another than the holder of epoch {}",
                        last.epoch
                    ));
                }
                if base != self.base {
                    return Err(format!("its base {base} is not the last full version"));
                }
                for change in changes {
                    if let Change::Step { key, .. } = &change
                        && last.steps.contains_key(key)
                    {
                        return Err(format!("`{key}` is recorded twice"));
                    }
                    last.apply(change);
                }
                self.version = version;
                return Ok(());
            }
        }
        self.version = version;
        self.base = version;
        Ok(())
    }

    fn held_by(&mut self, record: &JobRecord, writer: Uuid) {
        self.holder = record.owner.as_ref().map(|_| writer);
    }
}

fn name(parts: &[&str]) -> Result<JobName, String> {
    JobName::new(parts.join("/")).map_err(|e| e.to_string())
}
