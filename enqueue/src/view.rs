//! A recovery as it stands, read from S3 alone: no worker and no broker is asked.
//!
//! What is settled is taken from the job records themselves and not from their markers: markers
//! are an index for workers, written after the record, and stay behind when a job is reopened.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys;
use jobs::message::Job;
use jobs::plan::{Plan, PlannedJob, Readiness, Settled};
use jobs::record::{JobRecord, JobView, LoadResult, Outcome, RecoveryRecord, Status, why};
use jobs::store::{Store, StoreError, StoredJob};
use serde::Serialize;

use crate::cli::Target;
use crate::error::CliError;
use crate::exit::ExitCode;

/// Reads at most this many records at a time.
const PARALLEL: usize = 16;

/// The records of a recovery at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) record: RecoveryRecord,
    pub(crate) plan: Arc<Plan>,
    /// Whether it holds its cluster.
    pub(crate) active: bool,
    /// Jobs that have a record.
    pub(crate) jobs: BTreeMap<JobName, StoredJob>,
}

impl Snapshot {
    /// Reads a recovery; `None` when the cluster has none of that id.
    pub(crate) async fn load(
        store: &Store,
        cluster: &ClusterName,
        id: &RecoveryId,
    ) -> Result<Option<Self>, StoreError> {
        let Some(record) = store.recovery_record(cluster, id).await? else {
            return Ok(None);
        };
        let (plan, _) = store.recovery_inputs(&record.inputs).await?;
        let mut snapshot = Self {
            record,
            plan,
            active: false,
            jobs: BTreeMap::new(),
        };
        snapshot.refresh(store).await?;
        Ok(Some(snapshot))
    }

    /// Reads again what can have changed. The jobs first: a job is settled before its recovery ends.
    pub(crate) async fn refresh(&mut self, store: &Store) -> Result<(), StoreError> {
        let (cluster, id) = (self.record.cluster.clone(), self.record.id.clone());
        // What has succeeded stays so, unless it runs again on account of others: a watch over a
        // large recovery reads only what is left.
        let changes = |job: &&PlannedJob| {
            let known = self.jobs.get(&job.name).map(|stored| stored.record.status);
            job.always || known != Some(Status::Succeeded)
        };
        let open = self.plan.jobs().iter().filter(changes);
        let open: Vec<&JobName> = open.map(|job| &job.name).collect();
        let reads = open.into_iter().map(|name| {
            let series = keys::job(&cluster, &id, name);
            async move {
                Ok::<_, StoreError>(
                    store
                        .read_job(&series)
                        .await?
                        .map(|job| (name.clone(), job)),
                )
            }
        });
        let jobs: Vec<Option<(JobName, StoredJob)>> = stream::iter(reads)
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let (record, active) =
            tokio::try_join!(store.recovery_record(&cluster, &id), store.active(&cluster))?;
        if let Some(record) = record {
            self.record = record;
        }
        self.active = active.as_ref() == Some(&id);
        self.jobs.extend(jobs.into_iter().flatten());
        Ok(())
    }

    /// What the records say is settled.
    pub(crate) fn settled(&self) -> Settled {
        let having = |wanted: fn(Status) -> bool| {
            let jobs = self.jobs.iter();
            jobs.filter(move |(_, job)| wanted(job.record.status))
                .map(|(name, _)| name.clone())
                .collect()
        };
        Settled {
            done: having(|status| status == Status::Succeeded),
            failed: having(Status::is_stuck),
        }
    }

    /// As people see it.
    pub(crate) fn view(&self) -> View {
        let settled = self.settled();
        let readiness = self.plan.readiness(&settled);
        let row = |job: &PlannedJob| {
            let record = self.jobs.get(&job.name).map(|stored| &stored.record);
            let stands = readiness.get(&job.name).unwrap_or(&Readiness::Ready);
            Row::new(&job.name, record, stands, &self.record)
        };
        let jobs: Vec<Row> = self.plan.jobs().iter().map(row).collect();
        let mut records = self.jobs.values().map(|stored| &stored.record);
        let test = records.find(|record| matches!(record.payload, Job::LoadTest(_)));
        View {
            load: test.and_then(LoadResult::of),
            state: state(&self.record, &jobs),
            progress: Progress::of(&jobs),
            active: self.active,
            recovery: self.record.clone(),
            jobs,
        }
    }
}

/// A recovery as people see it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct View {
    pub(crate) recovery: RecoveryRecord,
    pub(crate) state: State,
    pub(crate) active: bool,
    pub(crate) progress: Progress,
    pub(crate) jobs: Vec<Row>,
    /// What the load test came to, if it came to anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load: Option<LoadResult>,
}

/// One job of it, without its record.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) view: JobView,
    /// It cannot run unless a job that failed is retried.
    pub(crate) blocked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Timestamp>,
}

impl Row {
    /// Where it stands, in a word.
    pub(crate) fn stands(&self) -> String {
        match self.blocked {
            true => "blocked".into(),
            false => self.view.status.to_string(),
        }
    }

    /// Why it stands there, without saying again where.
    pub(crate) fn why(&self) -> &str {
        let why = self.view.why.as_str();
        let again = why.strip_prefix(self.stands().as_str());
        again.and_then(|why| why.strip_prefix(": ")).unwrap_or(why)
    }

    fn new(
        name: &JobName,
        record: Option<&JobRecord>,
        readiness: &Readiness,
        recovery: &RecoveryRecord,
    ) -> Self {
        let why = why(record, readiness, &recovery.flags).to_string();
        let view = JobView {
            job: name.clone(),
            status: record.map_or(Status::Pending, |r| r.status),
            steps: record.map_or(0, |r| r.steps.len()),
            attempts: record.map_or(0, |r| r.attempts),
            why,
            record: None,
        };
        Self {
            blocked: !view.status.is_settled() && matches!(readiness, Readiness::Blocked(_)),
            started: record.and_then(|r| r.started),
            ended: record.and_then(|r| r.ended),
            view,
        }
    }
}

/// How many jobs stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    pub(crate) jobs: usize,
    pub(crate) succeeded: usize,
    pub(crate) running: usize,
    /// Between two turns.
    pub(crate) waiting: usize,
    /// Not begun.
    pub(crate) pending: usize,
    /// Settled and not well.
    pub(crate) stuck: usize,
    pub(crate) cancelled: usize,
    /// Cannot run because of one that is stuck.
    pub(crate) blocked: usize,
}

impl Progress {
    fn of(rows: &[Row]) -> Self {
        let mut progress = Self {
            jobs: rows.len(),
            ..Self::default()
        };
        for row in rows {
            *match row.view.status {
                _ if row.blocked => &mut progress.blocked,
                Status::Succeeded => &mut progress.succeeded,
                Status::Running => &mut progress.running,
                Status::Waiting | Status::Retrying => &mut progress.waiting,
                Status::Pending => &mut progress.pending,
                Status::Failed | Status::Quarantined | Status::Parked | Status::NeedsApproval => {
                    &mut progress.stuck
                }
                Status::Cancelled => &mut progress.cancelled,
            } += 1;
        }
        progress
    }
}

/// Where a recovery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Jobs run, or are going to.
    Running,
    /// An operator paused it.
    Paused,
    /// It is cancelled; something still runs.
    Cancelling,
    /// Every job succeeded; a worker is about to say so in the recovery's record.
    Finishing,
    /// Settled, and not well: it waits for a retry.
    Failed,
    /// Settled but for an approval.
    NeedsApproval,
    /// Ended well.
    Succeeded,
    /// Ended by an operator.
    Cancelled,
}

impl State {
    /// The exit code of whoever waited for it; `None` while there is something to wait for.
    pub(crate) fn exit_code(self) -> Option<ExitCode> {
        match self {
            Self::Running | Self::Paused | Self::Cancelling | Self::Finishing => None,
            Self::Failed | Self::Cancelled => Some(ExitCode::Failed),
            Self::NeedsApproval => Some(ExitCode::NeedsApproval),
            Self::Succeeded => Some(ExitCode::Done),
        }
    }

    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelling => "cancelled, something still runs",
            Self::Finishing => "every job succeeded",
            Self::Failed => "failed: it waits for `rekindle retry`",
            Self::NeedsApproval => "waits for approval by `rekindle retry`",
            Self::Succeeded => "succeeded",
            Self::Cancelled => "cancelled",
        }
    }
}

fn state(record: &RecoveryRecord, rows: &[Row]) -> State {
    if let Some(finished) = &record.finished {
        return outcome(finished.outcome);
    }
    if record.flags.cancelled.is_some() {
        let settled = rows.iter().all(|row| row.view.status.is_settled());
        let clean_up = Job::LoadTestCleanUp.name();
        let failed = |row: &Row| {
            row.view.job == clean_up
                && row.view.status.is_stuck()
                && row.view.status != Status::Cancelled
        };
        return match settled && rows.iter().any(failed) {
            true => State::Failed,
            false => State::Cancelling,
        };
    }
    let status = |row: &Row| row.view.status;
    if rows
        .iter()
        .all(|row| status(row).is_settled() || row.blocked)
    {
        let stuck: Vec<Status> = rows.iter().map(status).filter(|s| s.is_stuck()).collect();
        return match stuck.as_slice() {
            [] => State::Finishing,
            all if all.iter().all(|s| *s == Status::NeedsApproval) => State::NeedsApproval,
            _ => State::Failed,
        };
    }
    if record.flags.paused.is_some() {
        return State::Paused;
    }
    State::Running
}

/// The state of a recovery that has ended.
pub(crate) fn outcome(outcome: Outcome) -> State {
    match outcome {
        Outcome::Succeeded => State::Succeeded,
        Outcome::Cancelled => State::Cancelled,
    }
}

/// The recovery that a command means.
pub(crate) async fn find(store: &Store, target: &Target) -> Result<Snapshot, CliError> {
    let cluster = &target.cluster.name;
    let id = match &target.recovery {
        Some(id) => id.clone(),
        None => match store.active(cluster).await? {
            Some(id) => id,
            None => last(store, cluster).await?,
        },
    };
    Snapshot::load(store, cluster, &id).await?.ok_or_else(|| {
        CliError::failed(format!("cluster `{cluster}` has no recovery `{id}`"))
            .hint(format!("`rekindle list --cluster {cluster}` names them"))
    })
}

async fn last(store: &Store, cluster: &ClusterName) -> Result<RecoveryId, CliError> {
    let records = store.recoveries(cluster).await?;
    if let Some(last) = records.first() {
        return Ok(last.id.clone());
    }
    Err(CliError::failed(format!(
        "the bucket knows no recovery of cluster `{cluster}`"
    ))
    .hint("`rekindle list` names the clusters; `rekindle recover` starts a recovery"))
}
