//! One run: a plan, machines, faults for a while, and the end that must come.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys;
use jobs::message::JobMessage;
use jobs::plan::{Plan, PlannedJob, Readiness};
use jobs::queue::{InProcess, Outgoing, Queue};
use jobs::record::{
    ActiveRecord, Flags, Inputs, JobVersion, Outcome, RecoveryRecord, Requester, Retry, Status,
};
use jobs::spec::ClusterSpec;
use jobs::store::Store;
use worker::engine;

use super::bucket::Bucket;
use super::chaos;
use super::link::Link;
use super::machine::Machine;
use super::program::Programs;
use super::stage::Stage;

/// A small cluster; the programs never look at it.
const SPEC: &str = "version: 1
cluster: demo
servers:
  image: { distribution: ubuntu, version: \"22.04\" }
  keypair: simulation
groups:
  - prefix: bastion
    role: bastion
    instances: { 1: true }
    vcpus: 2
    ram_gb: 2
    boot_disk: { size_gb: 20 }
";

/// How to play.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A flaw of the world that the laws must notice.
    pub flaw: Option<Flaw>,
}

/// Flaws that no engine can make up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The bucket lets every creator of a key win.
    AllWin,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The seed.
    pub seed: u64,
    /// The law that was broken, if one was.
    pub broken: Option<String>,
    /// How much happened.
    pub events: u64,
    /// A digest of everything that happened.
    pub digest: u64,
    /// Virtual time that passed.
    pub time: Duration,
    /// Versions of job records.
    pub versions: u64,
    programs: String,
    last: Vec<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.last {
            writeln!(f, "{line}")?;
        }
        write!(f, "{}", self.programs)?;
        write!(
            f,
            "seed {}: {}; {} events in {:?} of virtual time",
            self.seed,
            self.broken.as_deref().unwrap_or("all is well"),
            self.events,
            self.time
        )
    }
}

/// Plays one seed from its beginning to its end.
pub fn run(seed: u64, options: Options) -> Ended {
    // The store draws the jitter of its retries from this thread's dice.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without a driver needs nothing of the machine");
    runtime.block_on(play(seed, options))
}

async fn play(seed: u64, options: Options) -> Ended {
    let mut bucket = Bucket::default();
    bucket.lets_all_win = options.flaw == Some(Flaw::AllWin);
    let stage = Arc::new(Stage::new(seed, bucket));
    let (jobs, programs) = Programs::draw(&stage);
    let text = jobs
        .iter()
        .map(|job| format!("  {} needs {:?}\n", job.name, job.needs))
        .collect::<String>()
        + &programs.to_string();
    let over = stage.over.clone();
    tokio::select! {
        biased;
        () = over.cancelled() => {}
        ended = whole(&stage, jobs, &programs) => if let Err(e) = ended {
            stage.object(format!("{e:#}"));
        }
    }
    let (events, digest) = stage.digest();
    let broken = stage.broken();
    Ended {
        seed,
        events,
        digest,
        time: stage.elapsed(),
        versions: stage.law(|laws| Ok(laws.versions())),
        programs: text,
        last: if broken.is_some() {
            stage.last_lines()
        } else {
            Vec::new()
        },
        broken,
    }
}

async fn whole(
    stage: &Arc<Stage>,
    jobs: Vec<PlannedJob>,
    programs: &Arc<Programs>,
) -> anyhow::Result<()> {
    let broker = InProcess::new();
    let operator = Operator::begin(stage, jobs, &broker).await?;
    // Without the sweep nothing may be lost either, as long as the broker keeps what it has.
    let swept = stage.chance(60);
    let machines: Vec<Arc<Machine>> = (0..=stage.below(4))
        .map(|n| format!("m{n}"))
        .map(|name| {
            Arc::new(Machine::new(
                stage,
                name,
                programs,
                settings(swept),
                &broker,
            ))
        })
        .collect();
    for machine in &machines {
        machine.start()?;
    }
    chaos::play(stage, &machines, &broker, swept).await;
    let until = tokio::time::Instant::now() + chaos::PATIENCE;
    while !operator.is_settled(stage).await? {
        anyhow::ensure!(
            tokio::time::Instant::now() < until,
            "not everything came to its end: {}",
            operator.states(stage)
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Jobs may have killed their workers.
        for machine in &machines {
            machine.start()?;
        }
    }
    operator.judge(stage, programs).await?;
    // What is left over must go away by itself.
    let until = tokio::time::Instant::now() + chaos::PATIENCE;
    while broker.in_flight() > 0 || broker.depth().await?.delayed + broker.depth().await?.ready > 0
    {
        anyhow::ensure!(
            tokio::time::Instant::now() < until,
            "messages circulate although everything is settled: {broker:?}"
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        // Somebody has to take them: all workers may have been told to stop.
        for machine in &machines {
            machine.start()?;
        }
    }
    for machine in &machines {
        machine.stop();
    }
    Ok(())
}

fn settings(swept: bool) -> engine::Options {
    engine::Options {
        concurrency: 4,
        turn: Duration::from_secs(20),
        lease: Duration::from_secs(10),
        backoff_cap: Duration::from_secs(20),
        sweep: swept.then_some(Duration::from_secs(15)),
        grace: Duration::from_secs(5),
        ..engine::Options::default()
    }
}

/// Who began the recovery, and puts jobs back that were quarantined.
struct Operator {
    cluster: ClusterName,
    id: RecoveryId,
    plan: Plan,
    store: Store,
    broker: InProcess,
}

impl Operator {
    async fn begin(
        stage: &Arc<Stage>,
        jobs: Vec<PlannedJob>,
        broker: &InProcess,
    ) -> anyhow::Result<Self> {
        let store = Link::new(stage, "operator").store()?;
        let yaml = SPEC.to_owned();
        let spec = ClusterSpec::parse(&yaml).map_err(|p| anyhow::anyhow!("{p:?}"))?;
        let plan = Plan::new(jobs)?;
        let now = jiff::Timestamp::UNIX_EPOCH;
        let id = RecoveryId::from_key(&spec.cluster, "simulation");
        let record = RecoveryRecord {
            id: id.clone(),
            cluster: spec.cluster.clone(),
            purpose: "recover".into(),
            key: None,
            inputs: Inputs {
                spec: store.put_input(Bytes::from(yaml)).await?,
                plan: store.put_input(serde_json::to_vec(&plan)?.into()).await?,
            },
            requester: Requester::default(),
            created: now,
            flags: Flags::default(),
            finished: None,
        };
        let operator = Self {
            cluster: spec.cluster,
            id,
            plan,
            store,
            broker: broker.clone(),
        };
        let (cluster, id) = (&operator.cluster, &operator.id);
        operator
            .store
            .append(&keys::recovery(cluster, id), 1, &record)
            .await?;
        let active = ActiveRecord {
            recovery: Some(id.clone()),
            since: now,
        };
        operator
            .store
            .append(&keys::active(cluster), 1, &active)
            .await?;
        for job in operator.plan.jobs().iter().filter(|j| j.needs.is_empty()) {
            operator.post(job).await?;
        }
        Ok(operator)
    }

    async fn post(&self, job: &PlannedJob) -> anyhow::Result<()> {
        let (name, payload) = (job.name.clone(), job.payload.clone());
        let message = JobMessage::new(&self.cluster, &self.id, name, payload, "post-1");
        let outgoing = Outgoing {
            id: message.id.clone(),
            body: message.encode().into(),
        };
        Ok(self.broker.publish(&outgoing, Duration::ZERO).await?)
    }

    /// Whether nothing more will happen. Puts back what was quarantined.
    async fn is_settled(&self, stage: &Arc<Stage>) -> anyhow::Result<bool> {
        let settled = self.store.settled(&self.cluster, &self.id).await?;
        let readiness = self.plan.readiness(&settled);
        let mut put_back = false;
        for job in self.plan.jobs() {
            let status = stage.law(|laws| Ok(laws.record(&job.name).map(|r| r.status)));
            let mended = || job.needs.iter().all(|need| settled.done.contains(need));
            let again = match status {
                Some(Status::Quarantined) => true,
                // It ran although something had failed that has succeeded since.
                Some(Status::Succeeded) => settled.failed.contains(&job.name) && mended(),
                _ => false,
            };
            if again {
                stage.note(format_args!("operator puts {} back", job.name));
                self.put_back(job).await?;
                stage.law(|laws| laws.excuse(4));
                put_back = true;
            }
        }
        let open = |r: &Readiness| matches!(r, Readiness::Ready | Readiness::Needs(_));
        Ok(!put_back && !readiness.values().any(open))
    }

    async fn put_back(&self, job: &PlannedJob) -> anyhow::Result<()> {
        let series = keys::job(&self.cluster, &self.id, &job.name);
        let stored = self.store.read_job(&series).await?;
        let stored = stored.context("it has a record")?;
        let mut record = stored.record;
        record.reopen(Retry {
            by: "operator".into(),
            reason: "mended".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            from: None,
            failure: None,
        })?;
        let body = JobVersion::Full(Box::new(record));
        self.store
            .append(&series, stored.version + 1, &body)
            .await?;
        self.post(job).await
    }

    fn states(&self, stage: &Arc<Stage>) -> String {
        let jobs = self.plan.jobs().iter();
        jobs.map(|job| {
            let status = stage.law(|laws| Ok(laws.record(&job.name).map(|r| r.status)));
            let status = status.map_or_else(|| "untouched".into(), |s| s.to_string());
            format!("{} {status}; ", job.name)
        })
        .collect()
    }

    /// Whether the end is the one that the programs say, and the world as after a run without faults.
    async fn judge(&self, stage: &Arc<Stage>, programs: &Programs) -> anyhow::Result<()> {
        let mut expected: Vec<String> = Vec::new();
        let mut failed: Vec<&JobName> = Vec::new();
        for job in self.plan.jobs() {
            let blocked = job.needs.iter().any(|need| failed.contains(&need)) && !job.always;
            let fails = blocked || programs.must_fail(&job.name);
            let status = stage.law(|laws| Ok(laws.record(&job.name).map(|r| r.status)));
            let right = match (blocked, fails) {
                (true, _) => status.is_none(),
                (false, true) => status == Some(Status::Failed),
                (false, false) => status == Some(Status::Succeeded),
            };
            anyhow::ensure!(right, "{} ended as {status:?}", job.name);
            if !blocked {
                expected.extend(programs.slots(&job.name));
            }
            // What ran although something failed counts as not done.
            if fails || job.needs.iter().any(|need| failed.contains(&need)) {
                failed.push(&job.name);
            }
        }
        let mut slots = stage.outside.slots();
        slots.sort_unstable();
        expected.sort_unstable();
        anyhow::ensure!(slots == expected, "made {slots:?}, not {expected:?}");
        let until = tokio::time::Instant::now() + chaos::PATIENCE;
        loop {
            let record = self.store.recovery_record(&self.cluster, &self.id).await?;
            let outcome = record.and_then(|r| r.finished).map(|f| f.outcome);
            let active = self.store.active(&self.cluster).await?;
            match (failed.is_empty(), outcome) {
                (true, Some(Outcome::Succeeded)) if active.is_none() => return Ok(()),
                (false, None) => return Ok(()),
                (true, _) if tokio::time::Instant::now() < until => {}
                _ => anyhow::bail!("the recovery ended as {outcome:?}, active {active:?}"),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}
