//! Report: what was done, how long it took, and the proofs, put together from the records alone.
//! It is written when something failed too: then it says what was not done.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jobs::ids::JobName;
use jobs::keys;
use jobs::record::{JobRecord, Status};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &["write", "prove"];

/// Writes `report.json`.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let key = keys::report(ctx.cluster(), ctx.recovery());
    let digest: String = ctx
        .step("write", || async {
            let report = build(ctx).await?;
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

async fn build(ctx: &Ctx) -> Result<Value, JobError> {
    let store = ctx.store();
    let recovery = store
        .recovery_record(ctx.cluster(), ctx.recovery())
        .await?
        .ok_or_else(|| JobError::fatal("the recovery has no record"))?;
    let others: Vec<JobName> = ctx
        .plan()
        .jobs()
        .iter()
        .map(|job| job.name.clone())
        .filter(|name| name != ctx.job())
        .collect();
    let reads: Vec<_> = others.into_iter().map(|name| read(ctx, name)).collect();
    let records: Vec<_> = stream::iter(reads).buffered(16).try_collect().await?;
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
    let cluster = Cluster::of(ctx);
    Ok(json!({
        "report": 1,
        "cluster": recovery.cluster,
        "recovery": recovery.id,
        "purpose": recovery.purpose,
        "requester": recovery.requester,
        "tool": concat!("rekindle ", env!("CARGO_PKG_VERSION")),
        "inputs": recovery.inputs,
        "declared": recovery.created,
        "written": now,
        "rto_seconds": now.duration_since(recovery.created).as_secs(),
        "verdict": if failed.is_empty() { "passed" } else { "failed" },
        "not_succeeded": failed,
        "jobs": records.iter().map(|(name, r)| job_of(name.as_str(), r.as_ref())).collect::<Vec<_>>(),
        "proofs": proofs,
        "nodes": cluster.nodes().await?,
        "volumes": cluster.volumes().await?,
        "load_balancer": cluster.load_balancer().await?,
    }))
}

async fn read(ctx: &Ctx, name: JobName) -> Result<(JobName, Option<JobRecord>), JobError> {
    let stored = ctx
        .store()
        .read_job(&keys::job(ctx.cluster(), ctx.recovery(), &name))
        .await?;
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
