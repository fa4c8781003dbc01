//! Report: what was done, how long it took, and the proofs, put together from the records alone.
//! It is written when something failed too: then it says what was not done.
//!
//! A report that was posted alone tells about the last recovery of the cluster that did something: its
//! own would have nothing to tell. It lies with the recovery that wrote it, and the other one's own
//! report stays as it was.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jobs::ids::{JobName, RecoveryId};
use jobs::keys;
use jobs::message::Job;
use jobs::plan::Plan;
use jobs::record::{JobRecord, Status};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &["subject", "write", "prove"];

/// Writes `report.json`.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let own = ctx.recovery().clone();
    let subject = match acts(ctx.plan()) {
        true => own,
        false => ctx.step("subject", || last_that_did_something(ctx)).await?,
    };
    let key = keys::report(ctx.cluster(), ctx.recovery());
    let digest: String = ctx
        .step("write", || async {
            let report = build(ctx, &subject).await?;
            let bytes = Bytes::from(serde_json::to_vec_pretty(&report).map_err(JobError::fatal)?);
            let digest = jobs::digest(&bytes);
            ctx.store().put(&key, bytes).await?;
            Ok::<_, JobError>(digest)
        })
        .await?;
    ctx.prove("written", || async {
        let there = ctx
            .store()
            .get(&key)
            .await?
            .map(|bytes| jobs::digest(&bytes));
        Ok::<_, JobError>(Proof::equal(&Some(digest), &there))
    })
    .await
}

/// Whether there is anything in a plan to report on.
fn acts(plan: &Plan) -> bool {
    plan.jobs().iter().any(|job| job.payload != Job::Report)
}

/// The newest of the cluster's recoveries in which a job, other than a report, was begun.
async fn last_that_did_something(ctx: &Ctx) -> Result<RecoveryId, JobError> {
    for record in ctx.store().recoveries(ctx.cluster()).await? {
        let (plan, _) = ctx.store().recovery_inputs(&record.inputs).await?;
        let begun = |(_, job): &(JobName, Option<JobRecord>)| job.is_some();
        if acts(&plan) && read(ctx, &record.id, &plan).await?.iter().any(begun) {
            return Ok(record.id);
        }
    }
    Err(JobError::fatal(format!(
        "no recovery of cluster `{}` has done anything yet: there is nothing to report on (`rekindle cancel` ends this one)",
        ctx.cluster()
    )))
}

async fn build(ctx: &Ctx, subject: &RecoveryId) -> Result<Value, JobError> {
    let store = ctx.store();
    let recovery = store
        .recovery_record(ctx.cluster(), subject)
        .await?
        .ok_or_else(|| JobError::fatal(format!("recovery `{subject}` has no record")))?;
    let records = if subject == ctx.recovery() {
        read(ctx, subject, ctx.plan()).await?
    } else {
        let (plan, _) = store.recovery_inputs(&recovery.inputs).await?;
        read(ctx, subject, &plan).await?
    };
    let failed: Vec<_> = records
        .iter()
        .filter(|(_, r)| !r.as_ref().is_some_and(|r| r.status == Status::Succeeded))
        .map(|(name, _)| name)
        .collect();
    let proofs: Vec<Value> = records
        .iter()
        .filter_map(|(name, r)| Some((name, r.as_ref()?)))
        .flat_map(|(name, r)| proofs_of(name.as_str(), r))
        .collect();
    let now = Timestamp::now();
    // Its own report is written before a recovery ends.
    let ended = recovery.finished.as_ref().map_or(now, |end| end.at);
    let cluster = Cluster::of(ctx);
    Ok(json!({
        "report": 1,
        "cluster": recovery.cluster,
        "recovery": recovery.id,
        "written_by": ctx.recovery(),
        "purpose": recovery.purpose,
        "requester": recovery.requester,
        "tool": concat!("rekindle ", env!("CARGO_PKG_VERSION")),
        "inputs": recovery.inputs,
        "declared": recovery.created,
        "written": now,
        "rto_seconds": ended.duration_since(recovery.created).as_secs(),
        "verdict": if failed.is_empty() { "passed" } else { "failed" },
        "not_succeeded": failed,
        "jobs": records.iter().map(|(name, r)| job_of(name.as_str(), r.as_ref())).collect::<Vec<_>>(),
        "proofs": proofs,
        "nodes": cluster.nodes().await?,
        "volumes": cluster.volumes().await?,
        "load_balancer": cluster.load_balancer().await?,
    }))
}

/// The records of all jobs but reports, in the plan's order.
async fn read(
    ctx: &Ctx,
    recovery: &RecoveryId,
    plan: &Plan,
) -> Result<Vec<(JobName, Option<JobRecord>)>, JobError> {
    let others = plan.jobs().iter().filter(|job| job.payload != Job::Report);
    let reads: Vec<_> = others
        .map(|job| read_one(ctx, recovery, job.name.clone()))
        .collect();
    stream::iter(reads).buffered(16).try_collect().await
}

async fn read_one(
    ctx: &Ctx,
    recovery: &RecoveryId,
    name: JobName,
) -> Result<(JobName, Option<JobRecord>), JobError> {
    let series = keys::job(ctx.cluster(), recovery, &name);
    let stored = ctx.store().read_job(&series).await?;
    Ok((name, stored.map(|s| s.record)))
}

fn job_of(name: &str, record: Option<&JobRecord>) -> Value {
    let Some(record) = record else {
        return json!({"job": name, "status": "not-begun"});
    };
    let mut steps: Vec<_> = record.steps.iter().collect();
    steps.sort_by_key(|(_, step)| step.n);
    let seconds = record
        .started
        .zip(record.ended)
        .map(|(from, to)| to.duration_since(from).as_millis() as f64 / 1000.0);
    json!({
        "job": name,
        "status": record.status,
        "started": record.started,
        "ended": record.ended,
        "seconds": seconds,
        "turns": record.turn,
        "operator_retries": record.retries,
        "failure": record.failure,
        "steps": steps.iter().map(|(key, step)| json!({"step": key, "at": step.at, "ms": step.ms})).collect::<Vec<_>>(),
    })
}

fn proofs_of(name: &str, record: &JobRecord) -> Vec<Value> {
    let proofs = record
        .steps
        .iter()
        .filter_map(|(key, step)| Some((key.as_str().strip_prefix("prove/")?, step)));
    proofs.map(|(proof, step)| json!({"job": name, "proof": proof, "at": step.at, "result": step.output})).collect()
}
