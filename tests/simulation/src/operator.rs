//! Who began the recovery: puts jobs back that were quarantined, may pause or cancel it in the middle,
//! and judges the end.

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
use jobs::store::{Store, StoreError};

use super::chaos;
use super::link::Link;
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

/// What the operator says in the middle of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Nothing,
    /// Stop after so long, go on after so long again.
    Pause(Duration, Duration),
    /// End it after so long.
    Cancel(Duration),
}

impl Word {
    /// Draws one, with dice of its own: a seed without words stays what it was.
    pub(crate) fn draw(seed: u64, may_cancel: bool) -> Self {
        let mut dice = fastrand::Rng::with_seed(!seed);
        let mut time = |most| Duration::from_millis(dice.u64(..most));
        let (at, pause) = (time(60_000), time(90_000));
        if may_cancel && dice.bool() {
            Self::Cancel(at)
        } else {
            Self::Pause(at, pause)
        }
    }
}

/// Who began the recovery, and puts jobs back that were quarantined.
pub(crate) struct Operator {
    cluster: ClusterName,
    id: RecoveryId,
    plan: Plan,
    store: Store,
    broker: InProcess,
}

impl Operator {
    pub(crate) async fn begin(
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
                secrets: None,
                flux: None,
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
            operator.post(stage, job).await?;
        }
        Ok(operator)
    }

    /// Says a word.
    pub(crate) async fn speak(&self, stage: &Stage, word: Word) -> anyhow::Result<()> {
        match word {
            Word::Nothing => Ok(()),
            Word::Cancel(at) => {
                tokio::time::sleep(at).await;
                self.change(stage, |flags| flags.cancelled = Some("enough".into()))
                    .await
            }
            Word::Pause(at, pause) => {
                tokio::time::sleep(at).await;
                self.change(stage, |flags| flags.paused = Some("wait".into()))
                    .await?;
                tokio::time::sleep(pause).await;
                self.change(stage, |flags| flags.paused = None).await?;
                // Messages that came meanwhile are gone.
                let settled = self.store.settled(&self.cluster, &self.id).await?;
                let readiness = self.plan.readiness(&settled);
                for job in self.plan.jobs() {
                    if readiness.get(&job.name) == Some(&Readiness::Ready) {
                        self.post(stage, job).await?;
                    }
                }
                stage.law(|laws| laws.excuse(8));
                Ok(())
            }
        }
    }

    /// Changes the flags of a recovery that has not ended.
    async fn change(&self, stage: &Stage, change: impl Fn(&mut Flags)) -> anyhow::Result<()> {
        let series = keys::recovery(&self.cluster, &self.id);
        self.store
            .update(&series, |record: Option<RecoveryRecord>| {
                let open = record.filter(|record| record.finished.is_none());
                Ok::<_, StoreError>(open.map(|mut record| {
                    change(&mut record.flags);
                    stage.note(format_args!("operator: {:?}", record.flags));
                    record
                }))
            })
            .await?;
        Ok(())
    }

    async fn post(&self, stage: &Stage, job: &PlannedJob) -> anyhow::Result<()> {
        stage.law(|laws| laws.called(&job.name));
        let (name, payload) = (job.name.clone(), job.payload.clone());
        let message = JobMessage::new(&self.cluster, &self.id, name, payload, "post-1");
        let outgoing = Outgoing {
            id: message.id.clone(),
            body: message.encode().into(),
        };
        Ok(self.broker.publish(&outgoing, Duration::ZERO).await?)
    }

    /// Whether nothing more will happen. Puts back what was quarantined.
    pub(crate) async fn is_settled(&self, stage: &Arc<Stage>) -> anyhow::Result<bool> {
        let record = self.store.recovery_record(&self.cluster, &self.id).await?;
        if let Some(record) = record.filter(|record| record.flags.cancelled.is_some()) {
            if record.finished.is_none() {
                self.mend_clean_ups(stage).await?;
            }
            return Ok(record.finished.is_some());
        }
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
            if again && self.reopen_clean_ups(stage, job).await? {
                stage.note(format_args!("operator puts {} back", job.name));
                self.put_back(stage, job).await?;
                stage.law(|laws| laws.excuse(4));
                put_back = true;
            }
        }
        let open = |r: &Readiness| matches!(r, Readiness::Ready | Readiness::Needs(_));
        Ok(!put_back && !readiness.values().any(open))
    }

    /// Puts back what could not clean up after a recovery that was cancelled.
    async fn mend_clean_ups(&self, stage: &Arc<Stage>) -> anyhow::Result<()> {
        for job in self
            .plan
            .jobs()
            .iter()
            .filter(|job| job.payload.cleans_up())
        {
            let status = stage.law(|laws| Ok(laws.record(&job.name).map(|r| r.status)));
            if matches!(status, Some(Status::Quarantined | Status::Failed)) {
                stage.note(format_args!("operator puts {} back", job.name));
                self.put_back(stage, job).await?;
                stage.law(|laws| laws.excuse(4));
            }
        }
        Ok(())
    }

    /// What has taken away what the job made has to do that once more, as with `rekindle retry`: `false` while it
    /// is at it.
    async fn reopen_clean_ups(&self, stage: &Stage, job: &PlannedJob) -> anyhow::Result<bool> {
        let clean_ups = self.plan.successors(&job.name);
        for clean_up in clean_ups.filter(|other| other.payload.cleans_up()) {
            let status = stage.law(|laws| Ok(laws.record(&clean_up.name).map(|r| r.status)));
            match status {
                None | Some(Status::Pending) => {}
                Some(status) if status.is_settled() => self.reopen(clean_up).await?,
                Some(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn put_back(&self, stage: &Stage, job: &PlannedJob) -> anyhow::Result<()> {
        self.reopen(job).await?;
        self.post(stage, job).await
    }

    async fn reopen(&self, job: &PlannedJob) -> anyhow::Result<()> {
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
        Ok(())
    }

    pub(crate) fn states(&self, stage: &Arc<Stage>) -> String {
        let jobs = self.plan.jobs().iter();
        jobs.map(|job| {
            let status = stage.law(|laws| Ok(laws.record(&job.name).map(|r| r.status)));
            let status = status.map_or_else(|| "untouched".into(), |s| s.to_string());
            format!("{} {status}; ", job.name)
        })
        .collect()
    }

    /// Whether the end is the one that the programs say, and the world as after a run without faults.
    pub(crate) async fn judge(
        &self,
        stage: &Arc<Stage>,
        programs: &Programs,
    ) -> anyhow::Result<()> {
        let record = self.store.recovery_record(&self.cluster, &self.id).await?;
        if record.is_some_and(|record| record.flags.cancelled.is_some()) {
            return self.judge_cancelled(stage, programs).await;
        }
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
            if !blocked && !programs.is_taken_away(&job.name) {
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

    /// A cancelled recovery ends, with every job settled and nothing made twice.
    async fn judge_cancelled(&self, stage: &Arc<Stage>, programs: &Programs) -> anyhow::Result<()> {
        let may: Vec<String> = self
            .plan
            .jobs()
            .iter()
            .flat_map(|job| programs.slots(&job.name))
            .collect();
        let mut slots = stage.outside.slots();
        slots.sort_unstable();
        let twice = slots.windows(2).any(|pair| pair[0] == pair[1]);
        anyhow::ensure!(!twice, "made twice: {slots:?}");
        anyhow::ensure!(
            slots.iter().all(|slot| may.contains(slot)),
            "made {slots:?}"
        );
        let left: Vec<String> = self
            .plan
            .jobs()
            .iter()
            .filter(|job| programs.is_taken_away(&job.name))
            .flat_map(|job| programs.slots(&job.name))
            .filter(|slot| slots.contains(slot))
            .collect();
        anyhow::ensure!(left.is_empty(), "never taken away: {left:?}");
        let until = tokio::time::Instant::now() + chaos::PATIENCE;
        loop {
            let settled = self.plan.jobs().iter().all(|job| {
                let status = stage.law(|laws| Ok(laws.record(&job.name).map(|r| r.status)));
                status.is_some_and(Status::is_settled)
            });
            let active = self.store.active(&self.cluster).await?;
            if settled && active.is_none() {
                return Ok(());
            }
            anyhow::ensure!(
                tokio::time::Instant::now() < until,
                "it was cancelled; {}active {active:?}",
                self.states(stage)
            );
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}
