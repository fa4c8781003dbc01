//! Why a job stands where it stands: the question that operators ask first.

use std::fmt;

use serde::Serialize;

use super::{Flags, JobRecord, Status};
use crate::ids::JobName;
use crate::plan::Readiness;

/// A job as `rekindle status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    /// Its name.
    pub job: JobName,
    /// Where it stands.
    pub status: Status,
    /// Steps finished.
    pub steps: usize,
    /// Failed attempts in a row.
    pub attempts: u32,
    /// Why it stands there, in a sentence; empty when there is nothing to explain.
    pub why: String,
    /// The record, if the job has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<JobRecord>,
}

/// Why a job does not run, or what it is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Nothing to explain.
    Done,
    /// Waits for other jobs.
    Needs(Vec<JobName>),
    /// Cannot run since these failed or are blocked themselves.
    Blocked(Vec<JobName>),
    /// May run, but no worker has taken it.
    NoWorker,
    /// The recovery is paused.
    Paused(String),
    /// The recovery is cancelled.
    Cancelled(String),
    /// A worker is at it.
    RunsOn(String),
    /// Waits for something outside; what the last look saw.
    WaitsFor(String),
    /// An attempt failed and is repeated.
    Retries {
        /// Failed attempts in a row.
        attempts: u32,
        /// The failure.
        failure: String,
    },
    /// Settled and not well: what happened, and what to do.
    Stuck {
        /// What happened.
        what: String,
        /// The next command.
        next: &'static str,
    },
}

/// Explains one job.
pub fn why(record: Option<&JobRecord>, readiness: &Readiness, flags: &Flags) -> Why {
    let Some(record) = record else {
        return idle(readiness, flags);
    };
    let failure = || {
        record
            .failure
            .as_ref()
            .map_or_else(|| "no reason recorded".into(), ToString::to_string)
    };
    let stuck = |what: String, next: &'static str| Why::Stuck { what, next };
    match record.status {
        Status::Succeeded => Why::Done,
        Status::Failed => stuck(failure(), "mend the cause, then `rekindle retry`"),
        Status::Quarantined => stuck(failure(), "look at the worker's log, then `rekindle retry`"),
        Status::Parked => stuck(
            failure(),
            "run the worker version that began it, or `rekindle retry --from STEP`",
        ),
        Status::NeedsApproval => stuck(failure(), "decide, then `rekindle retry`"),
        Status::Cancelled => Why::Cancelled(flags.cancelled.clone().unwrap_or_default()),
        Status::Running => match &record.owner {
            Some(owner) => Why::RunsOn(format!(
                "{} (pid {}), epoch {}",
                owner.host, owner.pid, record.epoch
            )),
            None => Why::NoWorker,
        },
        Status::Pending => idle(readiness, flags),
        _ if flags.cancelled.is_some() || flags.paused.is_some() => idle(readiness, flags),
        Status::Waiting => match record.waits.iter().max_by_key(|(_, wait)| wait.polls) {
            Some((key, wait)) => Why::WaitsFor(format!(
                "{key}: {} (for {} s)",
                wait.seen,
                wait.waited_ms / 1000
            )),
            None => Why::NoWorker,
        },
        Status::Retrying => Why::Retries {
            attempts: record.attempts,
            failure: failure(),
        },
    }
}

fn idle(readiness: &Readiness, flags: &Flags) -> Why {
    if let Some(reason) = &flags.cancelled {
        return Why::Cancelled(reason.clone());
    }
    if let Some(reason) = &flags.paused {
        return Why::Paused(reason.clone());
    }
    match readiness {
        Readiness::Needs(jobs) => Why::Needs(jobs.clone()),
        Readiness::Blocked(jobs) => Why::Blocked(jobs.clone()),
        Readiness::Ready | Readiness::Done | Readiness::Failed => Why::NoWorker,
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |jobs: &[JobName]| match jobs {
            [] => "nothing".to_owned(),
            [one] => one.to_string(),
            [a, b] => format!("{a} and {b}"),
            [a, b, rest @ ..] => format!("{a}, {b} and {} more", rest.len()),
        };
        match self {
            Why::Done => Ok(()),
            Why::Needs(jobs) => write!(f, "waits for {}", names(jobs)),
            Why::Blocked(jobs) => write!(f, "blocked: {} did not succeed", names(jobs)),
            Why::NoWorker => write!(f, "due: waits for a worker to take it"),
            Why::Paused(reason) => write!(f, "paused: {reason}"),
            Why::Cancelled(reason) => write!(f, "cancelled: {reason}"),
            Why::RunsOn(worker) => write!(f, "runs on {worker}"),
            Why::WaitsFor(what) => write!(f, "waits: {what}"),
            Why::Retries { attempts, failure } => {
                write!(f, "failed {attempts} times, is retried: {failure}")
            }
            Why::Stuck { what, next } => write!(f, "{what}; {next}"),
        }
    }
}
