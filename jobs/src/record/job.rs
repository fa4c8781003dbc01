//! The job record: lease, epoch, steps, waits, failures.
//!
//! Stored as full versions and deltas: a turn begins and ends with a full one, a step in between
//! is a delta, so that a checkpoint costs the same for the first and the thousandth step.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::status::{Event, IllegalTransition, Status};
use crate::ids::{JobName, StepKey};
use crate::message::Job;

/// A process that holds a lease. Enough to tell, from the same host, whether it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Random id of this process start; never used again.
    pub worker: Uuid,
    /// Host name, for people.
    pub host: String,
    /// Boot id and pid namespace: two processes with the same one see the same process ids.
    pub realm: String,
    /// Process id within that realm.
    pub pid: u32,
    /// Start time of the process in clock ticks after boot (`/proc/<pid>/stat`, field 22), since
    /// process ids are used again.
    pub started: u64,
}

/// A finished step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Place in the order in which steps finished, from 1.
    pub n: u64,
    /// What the step returned; later turns get this instead of running it again.
    pub output: Value,
    /// When it finished (wall clock of the worker; for people only).
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// The lease under which it ran.
    pub epoch: u64,
}

/// How far a wait has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WaitRecord {
    /// Time waited so far in milliseconds: measured by the monotonic clocks of the turns, plus the
    /// delays between them. A jump of a wall clock cannot make a wait expire.
    pub waited_ms: u64,
    /// Polls so far.
    pub polls: u64,
    /// What the last poll saw, for `rekindle status`.
    pub seen: String,
}

/// What a failed attempt may have left in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftBehind {
    /// Nothing.
    Nothing,
    /// Things that the records name; the next attempt adopts them.
    Resources,
    /// Not known: a call's effect was never confirmed. The next attempt looks first.
    Unknown,
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step or wait that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepKey>,
    /// The whole chain of causes, outermost first.
    pub chain: Vec<String>,
    /// What may be left in the world.
    pub left_behind: LeftBehind,
    /// When.
    pub at: Timestamp,
    /// The worker it happened on.
    pub host: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.step {
            write!(f, "at `{step}`: ")?;
        }
        write!(f, "{}", self.chain.join(": "))
    }
}

/// Crashes, counted apart from failures: how often workers died while they held this job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Crashes {
    /// Crashes in a row at the same place.
    pub in_a_row: u32,
    /// Steps that were finished at the last crash: the place.
    pub after_steps: u64,
    /// Steps and looks of waits that were running, as far as known. After a first crash workers
    /// write down what they begin, so from the second crash on this is exact.
    pub running: Vec<StepKey>,
    /// The last thing the job did was to wait: nothing of it runs between two looks. Whoever dies
    /// then does not die of this job.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resting: bool,
}

/// An operator's `rekindle retry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The step from which on results were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<StepKey>,
    /// What the job had failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Everything that is known about a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its name.
    pub job: JobName,
    /// What it is to do.
    pub payload: Job,
    /// Where it stands.
    pub status: Status,
    /// Grows with each claim; fences older owners off.
    pub epoch: u64,
    /// Who holds the lease, if someone does.
    pub owner: Option<Owner>,
    /// Turns begun.
    pub turn: u64,
    /// Times an operator put it back.
    pub generation: u32,
    /// Failed attempts since the last success of a step or the last `retry`.
    pub attempts: u32,
    /// Crashes of workers that held it.
    #[serde(default)]
    pub crashes: Crashes,
    /// Finished steps.
    #[serde(default)]
    pub steps: BTreeMap<StepKey, StepRecord>,
    /// Waits that have begun.
    #[serde(default)]
    pub waits: BTreeMap<StepKey, WaitRecord>,
    /// The last failure, also while it is being retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When the next turn is due (wall clock; for people).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// By how many milliseconds the next turn was put off; the sweep gives it that long.
    #[serde(default)]
    pub delay_ms: u64,
    /// The first claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The last time the record was written in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touched: Option<Timestamp>,
    /// What operators did, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<Retry>,
}

/// A small change between two full versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// A step finished.
    Step {
        /// Its key.
        key: StepKey,
        /// Its result.
        #[serde(flatten)]
        record: StepRecord,
    },
    /// A wait moved on.
    Wait {
        /// Its key.
        key: StepKey,
        /// How far it is.
        #[serde(flatten)]
        record: WaitRecord,
    },
    /// These steps have begun (written only after a crash).
    Running {
        /// Their keys.
        keys: Vec<StepKey>,
    },
}

/// One version of a job record: in full, or what changed since one that is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "version", rename_all = "kebab-case")]
pub enum JobVersion {
    /// The whole record.
    Full(Box<JobRecord>),
    /// Changes on top of the versions since `base`. An empty list is a heartbeat.
    Delta {
        /// The last full version.
        base: u64,
        /// The lease under which it was written.
        epoch: u64,
        /// The changes, in order.
        changes: Vec<Change>,
    },
}

impl JobRecord {
    /// A job that nobody has touched yet.
    pub fn new(job: JobName, payload: Job) -> Self {
        Self {
            job,
            payload,
            status: Status::Pending,
            epoch: 0,
            owner: None,
            turn: 0,
            generation: 0,
            attempts: 0,
            crashes: Crashes::default(),
            steps: BTreeMap::new(),
            waits: BTreeMap::new(),
            failure: None,
            due: None,
            delay_ms: 0,
            started: None,
            ended: None,
            touched: None,
            retries: Vec::new(),
        }
    }

    /// Whether it may have made anything: a job that makes what another one takes away records a step first.
    pub fn has_begun(&self) -> bool {
        !self.steps.is_empty() || !self.waits.is_empty() || self.generation > 0
    }

    /// Moves the status.
    pub fn happen(&mut self, event: Event) -> Result<(), IllegalTransition> {
        self.status = self.status.next(event)?;
        Ok(())
    }

    /// A worker takes the job: next epoch, next turn. When the record still has another owner that
    /// one died without a word, which counts as a crash at the place the steps show: unless it is
    /// known that the job did nothing but wait.
    pub fn claim(&mut self, owner: Owner, now: Timestamp) -> Result<(), IllegalTransition> {
        self.happen(Event::Claim)?;
        if self.is_owned_by_another(&owner) {
            self.crashes.in_a_row = self.crashes_with(&owner);
            self.crashes.after_steps = self.steps.len() as u64;
        }
        // The new owner has begun nothing yet.
        self.crashes.running.clear();
        self.crashes.resting = false;
        self.owner = Some(owner);
        self.epoch += 1;
        self.turn += 1;
        self.due = None;
        self.touched = Some(now);
        self.started.get_or_insert(now);
        Ok(())
    }

    /// Crashes in a row at this place, should `next` take the job now. An owner that is `next`
    /// itself lives: it lost its lease, to an outage of the store for example. And whoever died
    /// while the job did nothing but wait did not die of it.
    pub fn crashes_with(&self, next: &Owner) -> u32 {
        let crashes = &self.crashes;
        let here = crashes.in_a_row > 0 && crashes.after_steps == self.steps.len() as u64;
        let so_far = if here { crashes.in_a_row } else { 0 };
        let innocent = here && crashes.resting && crashes.running.is_empty();
        so_far + u32::from(self.is_owned_by_another(next) && !innocent)
    }

    fn is_owned_by_another(&self, next: &Owner) -> bool {
        let other = |owner: &Owner| owner.worker != next.worker;
        self.owner.as_ref().is_some_and(other)
    }

    /// The owner lets go; `event` says why.
    pub fn release(&mut self, event: Event, now: Timestamp) -> Result<(), IllegalTransition> {
        self.happen(event)?;
        self.owner = None;
        self.touched = Some(now);
        // Whoever writes this is alive: what was running has ended.
        self.crashes.running.clear();
        self.crashes.resting = false;
        // It went through this place and lives. A shutdown may have come before it.
        if matches!(event, Event::Yield | Event::Retry) {
            self.crashes.in_a_row = 0;
        }
        if self.status.is_settled() {
            self.ended = Some(now);
            self.due = None;
        }
        Ok(())
    }

    /// Applies a delta's change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Step { key, record } => {
                self.crashes.running.retain(|running| *running != key);
                self.crashes.resting = false;
                self.waits.remove(&key);
                self.attempts = 0;
                self.failure = None;
                self.steps.insert(key, record);
            }
            Change::Wait { key, record } => {
                // How far a step is, is no look that went well: the step may still be a trap.
                if record.polls > 0 {
                    self.crashes.running.retain(|running| *running != key);
                    // The place is none. It is watched all the same.
                    self.crashes.resting = self.crashes.in_a_row > 0;
                    self.crashes.in_a_row = self.crashes.in_a_row.min(1);
                }
                self.waits.insert(key, record);
            }
            Change::Running { keys } => self.crashes.running = keys,
        }
    }

    /// An operator puts the job back: the same steps, a new generation. With `from`, results from
    /// that step on are dropped, so that it and all that finished after it run again.
    pub fn reopen(&mut self, retry: Retry) -> Result<(), IllegalTransition> {
        self.happen(Event::Reopen)?;
        if let Some(first) = retry
            .from
            .as_ref()
            .and_then(|key| self.steps.get(key))
            .map(|step| step.n)
        {
            self.steps.retain(|_, step| step.n < first);
        }
        self.waits.clear();
        self.generation += 1;
        self.attempts = 0;
        self.crashes = Crashes::default();
        self.ended = None;
        self.due = None;
        let failure = self.failure.take();
        self.retries.push(Retry { failure, ..retry });
        Ok(())
    }

    /// The number of the next step to finish. There are no gaps: a step is recorded once, and an
    /// operator drops the last ones only.
    pub fn next_step_number(&self) -> u64 {
        self.steps.len() as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Demo;

    fn record() -> JobRecord {
        let payload = Job::Demo(Demo {
            steps: 3,
            step_ms: 0,
            abort_at: None,
            fail_at: None,
            child: false,
            node: None,
        });
        JobRecord::new(payload.name(), payload)
    }

    fn owner() -> Owner {
        Owner {
            worker: Uuid::new_v4(),
            host: "h".into(),
            realm: "b".into(),
            pid: 1,
            started: 1,
        }
    }

    fn step(n: u64) -> Change {
        let record = StepRecord {
            n,
            output: Value::Null,
            at: Timestamp::UNIX_EPOCH,
            ms: 0,
            epoch: 1,
        };
        Change::Step {
            key: StepKey::of("s", n),
            record,
        }
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn crashes_count_in_a_row_at_the_same_place_only() {
        let mut record = record();
        record.claim(owner(), NOW).expect("pending");
        record.claim(owner(), NOW).expect("owner died");
        record.claim(owner(), NOW).expect("owner died");
        assert_eq!(record.crashes.in_a_row, 2);
        record.apply(step(1));
        record.claim(owner(), NOW).expect("owner died");
        assert_eq!(record.crashes.in_a_row, 1, "a step later is another place");
        record.release(Event::Release, NOW).expect("running");
        record.claim(owner(), NOW).expect("waiting");
        assert_eq!(record.crashes.in_a_row, 1, "a shutdown is no crash");
        assert_eq!((record.epoch, record.turn), (5, 5));
        record.release(Event::Yield, NOW).expect("running");
        assert_eq!(
            record.crashes.in_a_row, 0,
            "a turn that ends well ends the row"
        );
    }

    #[test]
    fn a_worker_that_takes_its_own_job_again_has_not_crashed() {
        let (mut record, me) = (record(), owner());
        for _ in 0..4 {
            record.claim(me.clone(), NOW).expect("ours or pending");
        }
        assert_eq!((record.crashes.in_a_row, record.epoch), (0, 4));
        assert_eq!(
            (record.crashes_with(&me), record.crashes_with(&owner())),
            (0, 1)
        );
    }

    #[test]
    fn how_far_a_step_is_does_not_say_that_it_is_no_trap() {
        let mut record = record();
        record.claim(owner(), NOW).expect("pending");
        for dead in 1..=3 {
            record.apply(Change::Running {
                keys: vec![StepKey::of("local", 0)],
            });
            record.apply(Change::Wait {
                key: StepKey::of("local", 0),
                record: WaitRecord::default(),
            });
            record.claim(owner(), NOW).expect("owner died");
            assert_eq!(record.crashes.in_a_row, dead);
        }
    }

    #[test]
    fn who_dies_while_a_job_waits_does_not_die_of_it() {
        let look = || Change::Running {
            keys: vec![StepKey::of("active", "x")],
        };
        let pending = || Change::Wait {
            key: StepKey::of("active", "x"),
            record: WaitRecord {
                polls: 1,
                ..WaitRecord::default()
            },
        };
        let mut record = record();
        record.claim(owner(), NOW).expect("pending");
        record.claim(owner(), NOW).expect("owner died");
        for _ in 0..5 {
            record.apply(look());
            record.apply(pending());
            record.claim(owner(), NOW).expect("owner died");
            assert_eq!(record.crashes.in_a_row, 1, "it was waiting");
        }
        record.apply(look());
        record.claim(owner(), NOW).expect("owner died");
        assert_eq!(record.crashes.in_a_row, 2, "it was looking");
        record.claim(owner(), NOW).expect("owner died");
        assert_eq!(record.crashes.in_a_row, 3, "it had not begun to wait");
    }

    #[test]
    fn a_retry_keeps_steps_or_drops_them_from_one_on() {
        let mut record = record();
        record.claim(owner(), NOW).expect("pending");
        for n in 1..=3 {
            record.apply(step(n));
        }
        record.release(Event::Fail, NOW).expect("running");
        let retry = |from: Option<StepKey>| Retry {
            by: "me".into(),
            reason: "again".into(),
            at: NOW,
            from,
            failure: None,
        };
        let mut kept = record.clone();
        kept.reopen(retry(None)).expect("failed");
        assert_eq!(
            (kept.steps.len(), kept.generation, kept.status),
            (3, 1, Status::Pending)
        );
        record
            .reopen(retry(Some(StepKey::of("s", 2))))
            .expect("failed");
        assert_eq!(
            record.steps.keys().map(StepKey::as_str).collect::<Vec<_>>(),
            ["s/1"]
        );
    }

    #[test]
    fn versions_survive_the_round_trip() {
        for version in [
            JobVersion::Full(Box::new(record())),
            JobVersion::Delta {
                base: 3,
                epoch: 2,
                changes: vec![
                    step(1),
                    Change::Running {
                        keys: vec!["a".into()],
                    },
                ],
            },
        ] {
            let text = serde_json::to_string(&version).expect("plain data");
            assert_eq!(
                serde_json::from_str::<JobVersion>(&text).expect("our own"),
                version
            );
        }
    }
}
