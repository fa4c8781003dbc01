//! The programs that the simulated workers run instead of real jobs: straight-line code drawn from
//! the seed, with everything that real jobs do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use jobs::ids::{JobName, StepKey};
use jobs::message::{Demo, Job};
use jobs::plan::PlannedJob;
use worker::engine::{Ctx, JobError, Patience, Poll, Proof, Proven};
use worker::jobs::Functions;

use super::machine::Gate;
use super::outside::{LATE, Trouble};
use super::stage::Stage;

/// One thing that a program does.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Steps that take a while, side by side; each fails so many times first.
    Work(Vec<Effort>),
    /// Chooses a name, records it, looks for it, creates it.
    Make,
    /// Waits until the thing made last is so old.
    Wait(Duration),
    /// Kills its worker so many times.
    Trap(u32),
    /// Fails, whatever one does.
    Fail,
    /// Takes away everything that these jobs have made.
    TakeAway(Vec<JobName>),
}

/// A step's work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    time: Duration,
    stumbles: u32,
}

/// The program of one job.
pub(crate) type Program = Vec<Op>;

/// All programs of a plan.
#[derive(Debug)]
pub(crate) struct Programs {
    stage: Arc<Stage>,
    programs: BTreeMap<JobName, Program>,
}

impl Programs {
    /// Draws a plan of one to four jobs and their programs, and one that cleans up after them all if wished.
    pub(crate) fn draw(stage: &Arc<Stage>, clean_up: bool) -> (Vec<PlannedJob>, Arc<Self>) {
        let mut jobs: Vec<PlannedJob> = Vec::new();
        let mut programs = BTreeMap::new();
        let poisoned = stage.chance(10);
        for n in 0..=stage.below(4) {
            let payload = Job::Demo(Demo {
                steps: 1,
                step_ms: 0,
                abort_at: None,
                fail_at: None,
                child: false,
                node: Some(format!("n{n}").parse().expect("a label")),
            });
            let needs = jobs.iter().map(|job| job.name.clone());
            let needs = needs.filter(|_| stage.chance(40)).collect();
            let mut program = draw(stage);
            if poisoned && n == 0 {
                let at = stage.below(program.len() as u64 + 1);
                program.insert(at as usize, Op::Trap(1 + stage.below(4) as u32));
            }
            programs.insert(payload.name(), program);
            jobs.push(PlannedJob {
                name: payload.name(),
                payload,
                needs,
                always: stage.chance(10),
            });
        }
        if clean_up {
            let payload = Job::LoadTestCleanUp;
            let needs: Vec<JobName> = jobs.iter().map(|job| job.name.clone()).collect();
            programs.insert(payload.name(), vec![Op::TakeAway(needs.clone())]);
            jobs.push(PlannedJob {
                name: payload.name(),
                payload,
                needs,
                always: true,
            });
        }
        let programs = Self {
            stage: Arc::clone(stage),
            programs,
        };
        (jobs, Arc::new(programs))
    }

    /// These programs on one worker.
    pub(crate) fn on(self: &Arc<Self>, gate: &Arc<Gate>) -> OnWorker {
        OnWorker {
            programs: Arc::clone(self),
            gate: Arc::clone(gate),
        }
    }

    /// Whether a job must fail.
    pub(crate) fn must_fail(&self, job: &JobName) -> bool {
        let program = self.programs.get(job).into_iter().flatten();
        program.into_iter().any(|op| matches!(op, Op::Fail))
    }

    /// Whether what a job made is taken away in the end.
    pub(crate) fn is_taken_away(&self, job: &JobName) -> bool {
        let all = self.programs.values().flatten();
        all.into_iter()
            .any(|op| matches!(op, Op::TakeAway(jobs) if jobs.contains(job)))
    }

    /// The slots that a job fills when it succeeds.
    pub(crate) fn slots(&self, job: &JobName) -> Vec<String> {
        let program = self.programs.get(job).into_iter().flatten().enumerate();
        program
            .filter(|(_, op)| matches!(op, Op::Make))
            .map(|(at, _)| slot(job, at))
            .collect()
    }
}

fn draw(stage: &Stage) -> Program {
    let mut program = Vec::new();
    for _ in 0..=stage.below(5) {
        program.push(match stage.below(10) {
            0..=2 => Op::Work(vec![effort(stage)]),
            3 => Op::Work((0..=stage.below(4)).map(|_| effort(stage)).collect()),
            4..=7 => Op::Make,
            _ => Op::Wait(stage.between(100, 60_000)),
        });
    }
    if stage.chance(5) {
        program.push(Op::Fail);
    }
    program
}

fn effort(stage: &Stage) -> Effort {
    let time = match stage.below(10) {
        0 => stage.between(5_000, 30_000),
        1..=3 => stage.between(500, 5_000),
        _ => stage.between(0, 200),
    };
    let stumbles = if stage.chance(20) {
        1 + stage.below(2) as u32
    } else {
        0
    };
    Effort { time, stumbles }
}

fn slot(job: &JobName, at: usize) -> String {
    format!("{job}#{at}")
}

/// The programs as one worker runs them.
#[derive(Debug)]
pub(crate) struct OnWorker {
    programs: Arc<Programs>,
    gate: Arc<Gate>,
}

const STEPS: &[&str] = &[
    "work", "name", "make", "ready", "trap", "fail", "take", "prove",
];

impl Functions for OnWorker {
    fn run<'a>(&'a self, ctx: &'a Ctx, _: &'a Job) -> BoxFuture<'a, Result<Proven, JobError>> {
        self.program(ctx).boxed()
    }

    fn steps(&self, _: &Job) -> &'static [&'static str] {
        STEPS
    }
}

impl OnWorker {
    async fn program(&self, ctx: &Ctx) -> Result<Proven, JobError> {
        let program = self.programs.programs.get(ctx.job());
        let program = program.ok_or_else(|| JobError::fatal("there is no such program"))?;
        let mut made: Option<(usize, String)> = None;
        // The steps that this run has behind it: it may count on their being on record.
        let mut behind: Vec<StepKey> = Vec::new();
        for (at, op) in program.iter().enumerate() {
            match op {
                Op::Work(efforts) => {
                    let key = |n| StepKey::of("work", format!("{at}-{n}"));
                    let steps = efforts.iter().enumerate().map(|(n, effort)| {
                        let behind = &behind;
                        ctx.step(key(n), move || self.work(ctx, key(n), behind, *effort))
                    });
                    try_join_all(steps).await?;
                    behind.extend((0..efforts.len()).map(key));
                }
                Op::Make => {
                    let slot = slot(ctx.job(), at);
                    let name: String = ctx
                        .step(("name", at), || async {
                            self.begins(ctx, &("name", at).into(), &behind);
                            Ok::<_, JobError>(format!("thing-{}", self.stage().below(1 << 40)))
                        })
                        .await?;
                    behind.push(("name", at).into());
                    ctx.step(("make", at), || self.make(ctx, at, &behind, &slot, &name))
                        .await?;
                    behind.push(("make", at).into());
                    made = Some((at, name));
                }
                Op::Wait(age) => {
                    let Some(name) = &made else { continue };
                    let patience = Patience {
                        every: Duration::from_secs(5),
                        deadline: Duration::from_secs(3600),
                    };
                    ctx.wait(("ready", at), patience, || {
                        self.is_old(ctx, at, &behind, name, *age)
                    })
                    .await?;
                    behind.push(("ready", at).into());
                }
                Op::Trap(times) => {
                    ctx.step(("trap", at), || self.trap(ctx, at, &behind, *times))
                        .await?;
                    behind.push(("trap", at).into());
                }
                Op::Fail => {
                    ctx.step(("fail", at), || async {
                        self.begins(ctx, &("fail", at).into(), &behind);
                        Err::<(), _>(JobError::fatal("this program fails"))
                    })
                    .await?;
                }
                Op::TakeAway(jobs) => {
                    let key = || StepKey::of("take", ctx.generation());
                    ctx.step(key(), || self.take_away(ctx, key(), &behind, jobs))
                        .await?;
                    behind.push(key());
                }
            }
        }
        let slots = self.programs.slots(ctx.job());
        ctx.prove("things", || async {
            self.begins(ctx, &("prove", "things").into(), &behind);
            let outside = &self.stage().outside;
            // What was put back after a clean-up goes on with what it had recorded.
            let there = slots
                .iter()
                .filter(|slot| !outside.of(slot).is_empty() || outside.was_taken(slot));
            Ok::<_, JobError>(Proof::equal(&slots.len(), &there.count()))
        })
        .await
    }

    async fn work(
        &self,
        ctx: &Ctx,
        key: StepKey,
        behind: &[StepKey],
        effort: Effort,
    ) -> Result<(), JobError> {
        self.begins(ctx, &key, behind);
        tokio::time::sleep(effort.time).await;
        self.acts(ctx, &key);
        let times = self.stage().outside.count(&format!("{}/{key}", ctx.job()));
        if times < effort.stumbles {
            return Err(JobError::retry("it stumbled"));
        }
        Ok(())
    }

    async fn make(
        &self,
        ctx: &Ctx,
        at: usize,
        behind: &[StepKey],
        slot: &str,
        name: &str,
    ) -> Result<(), JobError> {
        let key = StepKey::of("make", at);
        self.begins(ctx, &key, behind);
        // An earlier turn's call may still be on its way.
        if ctx.settle().looks_before > 1 {
            tokio::time::sleep(Duration::from_millis(LATE)).await;
        }
        if self.stage().look(name).await.map_err(retry)? {
            return Ok(());
        }
        self.acts(ctx, &key);
        self.stage().make(slot, name).await.map_err(retry)
    }

    async fn is_old(
        &self,
        ctx: &Ctx,
        at: usize,
        behind: &[StepKey],
        (made, name): &(usize, String),
        age: Duration,
    ) -> Result<Poll<()>, JobError> {
        self.begins(ctx, &("ready", at).into(), behind);
        let (made, name) = (*made, name.as_str());
        match self.stage().age(name).await.map_err(retry)? {
            None if self.stage().outside.was_taken(&slot(ctx.job(), made)) => Ok(Poll::Ready(())),
            None => Err(JobError::fatal("what was made is not there")),
            Some(now) if now >= age => Ok(Poll::Ready(())),
            Some(now) => Ok(Poll::Pending(format!("it is {} s old", now.as_secs()))),
        }
    }

    async fn take_away(
        &self,
        ctx: &Ctx,
        key: StepKey,
        behind: &[StepKey],
        jobs: &[JobName],
    ) -> Result<(), JobError> {
        self.begins(ctx, &key, behind);
        // The last call of a worker that died may still be on its way.
        tokio::time::sleep(Duration::from_millis(LATE)).await;
        self.acts(ctx, &key);
        let slots = jobs.iter().flat_map(|job| self.programs.slots(job));
        self.stage().take(slots.collect()).await.map_err(retry)
    }

    async fn trap(
        &self,
        ctx: &Ctx,
        at: usize,
        behind: &[StepKey],
        times: u32,
    ) -> Result<(), JobError> {
        self.begins(ctx, &("trap", at).into(), behind);
        if self.stage().outside.count(&format!("{}/trap", ctx.job())) < times {
            self.gate.end("killed by its job");
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn stage(&self) -> &Arc<Stage> {
        &self.programs.stage
    }

    /// A step or look begins.
    fn begins(&self, ctx: &Ctx, key: &StepKey, behind: &[StepKey]) {
        let who = self.gate.who();
        self.stage().note(format_args!(
            "{who} {} begins {key} ({})",
            ctx.job(),
            ctx.epoch()
        ));
        let now = self.stage().elapsed();
        self.stage()
            .law(|laws| laws.begins(who, ctx.job(), ctx.epoch(), key, behind, now));
    }

    /// A step in the middle is about to change the world.
    fn acts(&self, ctx: &Ctx, key: &StepKey) {
        let who = self.gate.who();
        self.stage()
            .law(|laws| laws.acts(who, ctx.job(), ctx.epoch(), key));
    }
}

fn retry(trouble: Trouble) -> JobError {
    JobError::retry(trouble)
}

impl fmt::Display for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (job, program) in &self.programs {
            writeln!(f, "  {job}: {program:?}")?;
        }
        Ok(())
    }
}
