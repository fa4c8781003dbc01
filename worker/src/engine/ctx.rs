//! What a job function sees of the engine: steps, waits, proofs, and the world it works on.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobs::ids::{ClusterName, JobName, RecoveryId, StepKey};
use jobs::plan::Plan;
use jobs::record::{JobRecord, WaitRecord};
use jobs::spec::ClusterSpec;
use jobs::store::Store;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Interrupt, JobError};
use super::flags::FlagWatch;
use super::recorder::{Lost, Recorder};
use crate::cloud::clo::Settle;
use crate::world::World;

/// The context of one turn of one job.
#[derive(Debug, Clone)]
pub struct Ctx {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) cluster: ClusterName,
    pub(super) recovery: RecoveryId,
    pub(super) job: JobName,
    pub(super) spec: Arc<ClusterSpec>,
    pub(super) plan: Arc<Plan>,
    pub(super) store: Store,
    pub(super) world: Arc<World>,
    pub(super) recorder: Recorder,
    /// The record as of the claim: finished steps and waits of earlier turns.
    pub(super) record: JobRecord,
    pub(super) flags: FlagWatch,
    /// Fires when the turn should end soon: no new steps.
    pub(super) stop: CancellationToken,
    pub(super) turn_ends: Instant,
    /// Whether it goes on in a recovery that was cancelled.
    pub(super) cleans_up: bool,
    pub(super) known_steps: &'static [&'static str],
    /// Keys used in this turn: a key used twice would give one step the other's result.
    pub(super) used: Mutex<BTreeSet<StepKey>>,
    /// Keeps other jobs that crashed as often from running until this one gets further.
    pub(super) alone: Mutex<Option<OwnedMutexGuard<()>>>,
}

/// What one look in a [`Ctx::wait`] saw.
#[derive(Debug)]
pub enum Poll<T> {
    /// It is there.
    Ready(T),
    /// Not yet; what there is instead, for `rekindle status`.
    Pending(String),
}

/// How long and how often a [`Ctx::wait`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The longest time between two looks. The first ones come sooner: the time between grows with
    /// the time waited, so that what is ready is seen at most about 3 % late.
    pub every: Duration,
    /// After this time of waiting it counts as failed.
    pub deadline: Duration,
}

/// An independent look at the world, and whether it shows what it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What should be.
    pub expected: Value,
    /// What is.
    pub observed: Value,
    /// Whether that is good.
    pub holds: bool,
}

impl Proof {
    /// A proof by equality.
    pub fn equal<T: Serialize + PartialEq>(expected: &T, observed: &T) -> Self {
        let value = |t: &T| serde_json::to_value(t).unwrap_or(Value::Null);
        Self {
            expected: value(expected),
            observed: value(observed),
            holds: expected == observed,
        }
    }
}

/// What a job function returns when all is well. Only [`Ctx::prove`] makes it, so that no job can
/// call itself done without a proof.
#[derive(Debug)]
pub struct Proven(());

/// Looks come at least this far apart.
const LEAST: Duration = Duration::from_millis(500);

impl Ctx {
    /// The cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.inner.cluster
    }

    /// The recovery.
    pub fn recovery(&self) -> &RecoveryId {
        &self.inner.recovery
    }

    /// The job.
    pub fn job(&self) -> &JobName {
        &self.inner.job
    }

    /// The job's lease epoch, for records that must not take a late writer's word.
    pub fn epoch(&self) -> u64 {
        self.inner.record.epoch
    }

    /// How often an operator put the job back.
    pub fn generation(&self) -> u32 {
        self.inner.record.generation
    }

    /// The cluster's spec, as this recovery has it.
    pub fn spec(&self) -> &ClusterSpec {
        &self.inner.spec
    }

    /// The recovery's plan.
    pub fn plan(&self) -> &Plan {
        &self.inner.plan
    }

    /// The store, for the cluster's records.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Cloud, network and keys.
    pub fn world(&self) -> &World {
        &self.inner.world
    }

    /// For how long from now the lease holds without a further sign of life. Whatever acts for this
    /// job elsewhere, such as a program, must not go on beyond it.
    pub fn lease_left(&self) -> Duration {
        self.inner.recorder.left()
    }

    /// How long to look before something is created. An earlier turn may have sent the create and
    /// ended before its result was on record; then a list that lags behind is not "nothing there".
    pub fn settle(&self) -> Settle {
        let settle = self.inner.world.settle;
        if self.inner.record.turn > 1 {
            settle.after_a_lost_turn()
        } else {
            settle
        }
    }

    /// Whether a step is finished already.
    pub fn is_done(&self, key: impl Into<StepKey>) -> bool {
        self.inner.record.steps.contains_key(&key.into())
    }

    /// Runs `f` once: its result is recorded, and later turns get the record instead. Returns when
    /// the record is durable. A failure is not recorded; the next attempt runs `f` again.
    pub async fn step<T, E, F, Fut>(&self, key: impl Into<StepKey>, f: F) -> Result<T, JobError>
    where
        T: Serialize + DeserializeOwned,
        E: Into<JobError>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let key = key.into();
        if let Some(done) = self.recorded(&key)? {
            return Ok(done);
        }
        self.gate().await?;
        self.watch(&key).await?;
        let began = Instant::now();
        tracing::debug!(step = %key, "step begins");
        let value = f().await.map_err(|e| e.into().at(&key))?;
        let output = serde_json::to_value(&value).map_err(|e| JobError::fatal(e).at(&key))?;
        let took = began.elapsed();
        self.inner
            .recorder
            .step(key.clone(), output, took)
            .await
            .map_err(lost)?;
        self.got_further();
        tracing::debug!(step = %key, ms = took.as_millis(), "step done");
        Ok(value)
    }

    /// Looks until it is ready. When the turn's time is used up the job yields and goes on in a
    /// later turn, so nothing is held for long. Looks that fail for a transient reason count as
    /// "not yet". The time waited survives restarts and does not depend on wall clocks.
    pub async fn wait<T, E, F, Fut>(
        &self,
        key: impl Into<StepKey>,
        patience: Patience,
        mut look: F,
    ) -> Result<T, JobError>
    where
        T: Serialize + DeserializeOwned,
        E: Into<JobError>,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Poll<T>, E>>,
    {
        let key = key.into();
        if let Some(done) = self.recorded(&key)? {
            return Ok(done);
        }
        let began = Instant::now();
        let mut so_far = self
            .inner
            .record
            .waits
            .get(&key)
            .cloned()
            .unwrap_or_default();
        let before = Duration::from_millis(so_far.waited_ms);
        loop {
            self.gate().await?;
            self.watch(&key).await?;
            so_far.polls += 1;
            let seen = match look().await.map_err(Into::into) {
                Ok(Poll::Ready(value)) => {
                    let output =
                        serde_json::to_value(&value).map_err(|e| JobError::fatal(e).at(&key))?;
                    self.inner
                        .recorder
                        .step(key.clone(), output, before + began.elapsed())
                        .await
                        .map_err(lost)?;
                    self.got_further();
                    return Ok(value);
                }
                Ok(Poll::Pending(seen)) => seen,
                Err(
                    error @ JobError {
                        again: super::error::Again::Retry { .. },
                        ..
                    },
                ) => error.chain().join(": "),
                Err(error) => return Err(error.at(&key)),
            };
            let waited = before + began.elapsed();
            if waited >= patience.deadline {
                let text = format!(
                    "waited {} s of at most {} s; last seen: {seen}",
                    waited.as_secs(),
                    patience.deadline.as_secs()
                );
                return Err(JobError::fatal(text).at(&key));
            }
            let pause = waited
                .mul_f64(0.03)
                .clamp(LEAST.min(patience.every), patience.every);
            let last_look_of_turn = Instant::now() + pause >= self.inner.turn_ends;
            let news = so_far.seen != seen;
            let counted = if last_look_of_turn {
                waited + pause
            } else {
                waited
            };
            so_far.waited_ms = u64::try_from(counted.as_millis()).unwrap_or(u64::MAX);
            so_far.seen = seen;
            if news || last_look_of_turn || self.is_watched() {
                self.inner
                    .recorder
                    .wait(key.clone(), so_far.clone())
                    .await
                    .map_err(lost)?;
                self.got_further();
            }
            if last_look_of_turn {
                return Err(JobError::interrupted(Interrupt::Yield(pause)).at(&key));
            }
            tokio::select! {
                biased;
                () = self.inner.stop.cancelled() => {
                    self.inner.recorder.wait(key.clone(), so_far.clone()).await.map_err(lost)?;
                    return Err(JobError::interrupted(Interrupt::Shutdown).at(&key));
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// How far a step is, from inside of it: for one that takes many minutes and cannot be a wait, since what it does
    /// lives in this process. It shows like a wait in `rekindle status`. Fails as soon as the recovery is known to be
    /// cancelled; a shutdown or a pause lets a step finish, as always.
    pub async fn still(&self, key: &StepKey, since: Instant, seen: String) -> Result<(), JobError> {
        let flags = self.inner.flags.now(&self.inner.store).await?;
        if flags.cancelled.is_some() {
            return Err(JobError::interrupted(Interrupt::Cancelled));
        }
        let record = WaitRecord {
            waited_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            // None of them is a look.
            polls: 0,
            seen,
        };
        self.inner
            .recorder
            .wait(key.clone(), record)
            .await
            .map_err(lost)
    }

    /// Takes an independent look at the world and records it. A proof that does not hold fails the
    /// attempt; nothing is done without one.
    pub async fn prove<E, F, Fut>(&self, name: &'static str, look: F) -> Result<Proven, JobError>
    where
        E: Into<JobError>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Proof, E>>,
    {
        let key = StepKey::of("prove", name);
        let checked = || async {
            let proof = look().await.map_err(Into::into)?;
            if proof.holds {
                return Ok(proof);
            }
            let text = format!(
                "the proof `{name}` does not hold: expected {}, observed {}",
                proof.expected, proof.observed
            );
            Err(JobError::retry(text))
        };
        self.step(key, checked).await.map(|_: Proof| Proven(()))
    }

    fn recorded<T: DeserializeOwned>(&self, key: &StepKey) -> Result<Option<T>, JobError> {
        let name = key.as_str().split('/').next().unwrap_or_default();
        if !self.inner.known_steps.contains(&name) {
            return Err(JobError::fatal(format!(
                "the code uses step `{key}` but does not declare `{name}`"
            )));
        }
        if !self
            .inner
            .used
            .lock()
            .expect("no panic while held")
            .insert(key.clone())
        {
            return Err(JobError::fatal(format!(
                "the code uses step `{key}` twice in a turn"
            )));
        }
        let Some(step) = self.inner.record.steps.get(key) else {
            return Ok(None);
        };
        let value = serde_json::from_value(step.output.clone());
        value.map(Some).map_err(|e| {
            JobError::fatal(format!("the recorded output does not fit this build: {e}")).at(key)
        })
    }

    /// Whether a worker died while it held this job: from then on it is on record what runs.
    fn is_watched(&self) -> bool {
        self.inner.record.crashes.in_a_row > 0
    }

    async fn watch(&self, key: &StepKey) -> Result<(), JobError> {
        if self.is_watched() {
            self.inner.recorder.begun(key.clone()).await.map_err(lost)?;
        }
        Ok(())
    }

    /// The place where workers died is behind us.
    fn got_further(&self) {
        self.inner.alone.lock().expect("no panic while held").take();
    }

    /// Whether anything new may begin: asked before every step and look.
    async fn gate(&self) -> Result<(), JobError> {
        if self.inner.stop.is_cancelled() {
            return Err(JobError::interrupted(Interrupt::Shutdown));
        }
        let flags = self.inner.flags.now(&self.inner.store).await?;
        if flags.cancelled.is_some() {
            if !self.inner.cleans_up {
                return Err(JobError::interrupted(Interrupt::Cancelled));
            }
        } else if flags.paused.is_some() {
            return Err(JobError::interrupted(Interrupt::Paused));
        }
        if Instant::now() >= self.inner.turn_ends {
            return Err(JobError::interrupted(Interrupt::Yield(Duration::ZERO)));
        }
        // Last, since reading the flags may have taken long.
        if self.inner.recorder.has_run_out() {
            return Err(JobError::interrupted(Interrupt::LostLease));
        }
        Ok(())
    }
}

fn lost(_: Lost) -> JobError {
    JobError::interrupted(Interrupt::LostLease)
}
