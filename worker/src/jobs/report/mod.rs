//! Report: what was done, how long it took, and the proofs, put together from the records alone.
//! It is written when something failed too: then it says what was not done.
//!
//! A report that was posted alone tells about the last recovery of the cluster that did something: its
//! own would have nothing to tell. It lies with the recovery that wrote it, and the other one's own
//! report stays as it was.

mod document;
mod load;
mod page;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jobs::ids::{JobName, RecoveryId};
use jobs::keys;
use jobs::message::Job;
use jobs::plan::Plan;
use jobs::record::JobRecord;
use serde::{Deserialize, Serialize};

use self::document::{Recorded, Report, Sources};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &["subject", "write", "prove"];

/// The digests of what was written.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    json: String,
    html: String,
}

/// Writes `report.json` and, from it, `report.html`.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let own = ctx.recovery().clone();
    let subject = match acts(ctx.plan()) {
        true => own,
        false => ctx.step("subject", || last_that_did_something(ctx)).await?,
    };
    let key = keys::report(ctx.cluster(), ctx.recovery());
    let page = keys::report_page(ctx.cluster(), ctx.recovery());
    let written: Written = ctx
        .step("write", || async {
            let report = build(ctx, &subject).await?;
            let json = Bytes::from(serde_json::to_vec_pretty(&report).map_err(JobError::fatal)?);
            let json_digest = jobs::digest(&json);
            let html = page::render(&report, &json_digest).map_err(JobError::fatal)?;
            let html_digest = jobs::digest(html.as_bytes());
            ctx.store().put(&key, json).await?;
            ctx.store().put(&page, html.into()).await?;
            Ok::<_, JobError>(Written {
                json: json_digest,
                html: html_digest,
            })
        })
        .await?;
    ctx.prove("written", || async {
        let digest = async |key: &str| {
            let there = ctx.store().get(key).await?;
            Ok::<_, JobError>(there.map(|bytes| jobs::digest(&bytes)))
        };
        let there = (digest(&key).await?, digest(&page).await?);
        Ok::<_, JobError>(Proof::equal(
            &(Some(written.json), Some(written.html)),
            &there,
        ))
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

async fn build(ctx: &Ctx, subject: &RecoveryId) -> Result<Report, JobError> {
    let store = ctx.store();
    let recovery = store
        .recovery_record(ctx.cluster(), subject)
        .await?
        .ok_or_else(|| JobError::fatal(format!("recovery `{subject}` has no record")))?;
    let (plan, spec) = store.recovery_inputs(&recovery.inputs).await?;
    let cluster = Cluster::of(ctx);
    Ok(Report::of(Sources {
        recovery: &recovery,
        spec: &spec,
        records: &read(ctx, subject, &plan).await?,
        nodes: cluster.nodes().await?,
        volumes: cluster.volumes().await?,
        load_balancer: cluster.load_balancer().await?,
        writer: ctx.recovery().clone(),
        now: Timestamp::now(),
    }))
}

/// The records of all jobs but reports, in the plan's order.
async fn read(ctx: &Ctx, recovery: &RecoveryId, plan: &Plan) -> Result<Vec<Recorded>, JobError> {
    let others = plan.jobs().iter().filter(|job| job.payload != Job::Report);
    let reads: Vec<_> = others
        .map(|job| read_one(ctx, recovery, job.name.clone()))
        .collect();
    stream::iter(reads).buffered(16).try_collect().await
}

async fn read_one(ctx: &Ctx, recovery: &RecoveryId, name: JobName) -> Result<Recorded, JobError> {
    let series = keys::job(ctx.cluster(), recovery, &name);
    let stored = ctx.store().read_job(&series).await?;
    Ok((name, stored.map(|s| s.record)))
}
