//! `rekindle retry`: puts failed jobs back and posts every job that is due. The second half alone
//! heals a broker that lost its messages.

use jiff::Timestamp;
use jobs::ids::{JobName, StepKey};
use jobs::keys;
use jobs::message::Job;
use jobs::plan::PlannedJob;
use jobs::record::{JobRecord, JobVersion, Retry as Put, Status};
use jobs::store::{Appended, Store};
use serde_json::json;

use crate::cli::Retry;
use crate::commands::flags;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::poster::Poster;
use crate::requester::signature;
use crate::view::{self, Snapshot};

/// Races against a worker that we may lose before we give up.
const TRIES: usize = 8;

pub(crate) async fn run(args: &Retry, out: &mut Out) -> Result<ExitCode, CliError> {
    let store = args.follow.store.connect().await?;
    let mut snapshot = view::find(&store, &args.target).await?;
    let record = &snapshot.record;
    if let Some(end) = &record.finished {
        return Err(flags::has_ended(record, view::outcome(end.outcome).words()));
    }
    let mut chosen = choose(args, &snapshot)?;
    if record.flags.cancelled.is_some() {
        // What made things for a while still has to take them away.
        let cleans_up = |name: &JobName| {
            let job = snapshot.plan.job(name);
            job.is_some_and(|job| job.payload.cleans_up())
        };
        let all = chosen.len();
        chosen.retain(cleans_up);
        if chosen.is_empty() || args.job.is_some() && chosen.len() < all {
            return Err(
                CliError::failed(format!("recovery {} is cancelled", record.id))
                    .hint("wait until it has ended, then `rekindle recover` starts another one"),
            );
        }
    }
    let always = always(&store, &snapshot, &chosen).await?;
    let poster = Poster::connect(&args.follow, &store).await?;
    // First what follows, then what it waits for: the other way round, the last failed job could
    // succeed before its report is open again.
    for name in &always {
        // It looks at the others' results: nothing it recorded holds any more.
        reopen(&store, &snapshot, name, args, From::First).await?;
    }
    for name in &chosen {
        reopen(
            &store,
            &snapshot,
            name,
            args,
            From::Given(args.from.as_ref()),
        )
        .await?;
    }
    snapshot.refresh(&store).await?;
    let posted = poster.post(&store, &snapshot).await?;
    let (cluster, id) = (&snapshot.record.cluster, &snapshot.record.id);
    let reopened: Vec<&JobName> = chosen.iter().chain(&always).collect();
    let paused = &snapshot.record.flags.paused;
    let value = json!({
        "cluster": cluster, "recovery": id, "reopened": reopened, "posted": posted, "paused": paused,
    });
    out.line(&value, || {
        let names: Vec<&str> = reopened.iter().map(|name| name.as_str()).collect();
        let back = match names.as_slice() {
            [] => "no job had failed".to_owned(),
            names => format!("put back {}", names.join(", ")),
        };
        let paused = match paused {
            Some(reason) => format!(
                "\nit is paused ({reason}): `rekindle resume --cluster {cluster}` lets it go on"
            ),
            None => String::new(),
        };
        format!("recovery {id}: {back}; {posted} due jobs posted{paused}")
    });
    poster.finish(&store, snapshot, out).await
}

/// The jobs to put back: the one that was named, or every one that is stuck.
fn choose(args: &Retry, snapshot: &Snapshot) -> Result<Vec<JobName>, CliError> {
    let Some(name) = &args.job else {
        let stuck = snapshot
            .jobs
            .iter()
            .filter(|(_, job)| job.record.status.is_stuck());
        return Ok(stuck.map(|(name, _)| name.clone()).collect());
    };
    if snapshot.plan.job(name).is_none() {
        return Err(CliError::failed(format!(
            "recovery {} has no job `{name}`",
            snapshot.record.id
        ))
        .hint("`rekindle status` names them"));
    }
    let Some(stored) = snapshot.jobs.get(name) else {
        return Err(CliError::failed(format!(
            "job `{name}` has not begun: there is nothing to put back"
        ))
        .hint("without --job, every job that is due is posted"));
    };
    may_reopen(&stored.record, args.from.as_ref())?;
    Ok(vec![name.clone()])
}

fn may_reopen(record: &JobRecord, from: Option<&StepKey>) -> Result<(), CliError> {
    let name = &record.job;
    match record.status {
        Status::Running => {
            let owner = record
                .owner
                .as_ref()
                .map_or_else(String::new, |o| format!(" on {} (pid {})", o.host, o.pid));
            return Err(CliError::failed(format!("job `{name}` is running{owner}"))
                .hint("wait for it, or `rekindle pause` the recovery first; a dead worker's jobs are taken over by themselves"));
        }
        Status::Succeeded => {
            return Err(CliError::failed(format!(
                "job `{name}` succeeded: there is nothing to put back"
            )));
        }
        Status::Pending => {
            return Err(CliError::failed(format!(
                "job `{name}` is pending: there is nothing to put back"
            ))
            .hint("without --job, every job that is due is posted"));
        }
        // Its runners go on, and a second test would be measured under the load of both.
        Status::Waiting | Status::Retrying if matches!(record.payload, Job::LoadTest(_)) => {
            return Err(CliError::failed(format!(
                "job `{name}` is {}: its load may be going on",
                record.status
            ))
            .hint("wait until it has ended, or cancel the recovery"));
        }
        Status::Cancelled => {
            return Err(CliError::failed(format!(
                "job `{name}` is cancelled, for good"
            )));
        }
        _ => {}
    }
    match from {
        Some(step) if !record.steps.contains_key(step) => {
            let mut steps: Vec<_> = record.steps.iter().collect();
            steps.sort_by_key(|(_, step)| step.n);
            let names: Vec<&str> = steps.iter().map(|(key, _)| key.as_str()).collect();
            let there = if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            };
            Err(
                CliError::usage(format!("job `{name}` has no recorded step `{step}`"))
                    .hint(format!("recorded steps: {there}")),
            )
        }
        _ => Ok(()),
    }
}

/// Jobs that ran in spite of a failure: they run again once the others are done. A marker of
/// success would mean that nothing had failed when they ran.
async fn always(
    store: &Store,
    snapshot: &Snapshot,
    chosen: &[JobName],
) -> Result<Vec<JobName>, CliError> {
    let settled = store
        .settled(&snapshot.record.cluster, &snapshot.record.id)
        .await?;
    let mut names = Vec::new();
    for job in snapshot.plan.jobs().iter().filter(|job| job.always) {
        let Some(stored) = snapshot.jobs.get(&job.name) else {
            continue;
        };
        if chosen.contains(&job.name) || settled.done.contains(&job.name) {
            continue;
        }
        match stored.record.status {
            // It would count for a state that is about to change, and not be run again.
            status if status == Status::Running || at_it(job, status) => {
                let does = match job.payload.cleans_up() {
                    true => "takes away what the failed one made",
                    false => "sums up what failed",
                };
                return Err(
                    CliError::failed(format!("job `{}` is {status}: it {does}", job.name))
                        .hint("try again when it is done; `rekindle watch` shows it"),
                );
            }
            Status::Cancelled => {}
            status if status.is_settled() => names.push(job.name.clone()),
            _ => {}
        }
    }
    Ok(names)
}

/// Whether a job that cleans up is in the middle of it.
fn at_it(job: &PlannedJob, status: Status) -> bool {
    job.payload.cleans_up() && matches!(status, Status::Waiting | Status::Retrying)
}

/// From which step on results are dropped.
#[derive(Clone, Copy)]
enum From<'a> {
    First,
    Given(Option<&'a StepKey>),
}

/// Puts one job back, by the next version of its record.
async fn reopen(
    store: &Store,
    snapshot: &Snapshot,
    name: &JobName,
    args: &Retry,
    from: From<'_>,
) -> Result<(), CliError> {
    let series = keys::job(&snapshot.record.cluster, &snapshot.record.id, name);
    for _ in 0..TRIES {
        let stored = store.read_job(&series).await?;
        let Some(stored) = stored else { return Ok(()) };
        let mut record = stored.record;
        let from = match from {
            From::First => record
                .steps
                .iter()
                .min_by_key(|(_, step)| step.n)
                .map(|(key, _)| key.clone()),
            From::Given(step) => {
                may_reopen(&record, step)?;
                step.cloned()
            }
        };
        let now = Timestamp::now();
        record.reopen(Put {
            by: signature(),
            reason: args.reason.clone(),
            at: now,
            from,
            failure: None,
        })?;
        record.touched = Some(now);
        let full = JobVersion::Full(Box::new(record));
        if store.append(&series, stored.version + 1, &full).await? == Appended::Won {
            return Ok(());
        }
    }
    Err(
        CliError::failed(format!("job `{name}` changes all the time"))
            .hint("`rekindle status` shows who works on it"),
    )
}
