//! The driver `local`: the worker itself makes the load.
//!
//! All of it is one step, since connections live in this process. A worker that dies begins it again: to ask an
//! application for a page changes nothing.

use std::time::Duration;

use jobs::ids::StepKey;
use jobs::keys;
use jobs::record::{Runner, Summary};
use jobs::store::Created;
use serde_json::json;
use tokio::time::Instant;

use super::Test;
use crate::application::{Target, Way};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError};
use crate::load::users::{Load, Plan, Tally};

/// How long an answer may take, to its end.
const ANSWER: Duration = Duration::from_secs(30);
/// How often one looks whether the recovery was cancelled, and tells how far the load is.
const LOOK: Duration = Duration::from_secs(2);

/// Loads the target from this process.
pub(super) async fn run(ctx: &Ctx, test: &Test) -> Result<Vec<Runner>, JobError> {
    if test.script.is_some() {
        return Err(JobError::fatal(
            "the driver `local` runs no script, and --script gives one: leave it out, or take the driver `kubeconfig` or \
             `yandex`",
        ));
    }
    let key = StepKey::of("local", ctx.generation());
    let runner: Runner = ctx.step(key.clone(), || load(ctx, test, &key)).await?;
    Ok(vec![runner])
}

async fn load(ctx: &Ctx, test: &Test, key: &StepKey) -> Result<Runner, JobError> {
    let target = Target::of(ctx, &test.target).await?;
    let lb = Cluster::of(ctx).load_balancer().await?;
    let way = Way::new(ctx.world(), lb.as_ref(), &target);
    let way = way.map_err(|failure| {
        JobError::fatal(target.hide(format!("the target `{}`: {failure}", test.target)))
    })?;
    let plan = Plan {
        users: test.virtual_users.get(),
        iterations: test.iterations.get(),
        at_most: test.max_duration,
        answer: ANSWER,
    };
    tracing::info!(
        users = plan.users,
        iterations = plan.iterations,
        through = way.through(),
        "the load begins"
    );
    let mut load = Load::start(way, plan).map_err(JobError::fatal)?;
    let (began, every) = (Instant::now(), ctx.world().poll.unwrap_or(LOOK).min(LOOK));
    loop {
        tokio::select! {
            biased;
            () = load.ended() => break,
            () = tokio::time::sleep(every) => {
                ctx.still(key, began, load.progress().to_string()).await?;
            }
        }
    }
    let (tally, lasted) = load.counted().await;
    let summary = tally.summary(plan.requests(), lasted);
    // A lease has one epoch, so this name is used once.
    let name = format!("worker-{}", ctx.epoch());
    let raw = keep(ctx, test, &name, &target, &tally, &summary).await?;
    Ok(Runner {
        name,
        // It is not a program of its own, but it did come to its end.
        exit_code: Some(0),
        reason: None,
        summary: Some(summary),
        raw: Some(raw),
    })
}

/// Puts everything that was counted into the bucket; says under which key.
async fn keep(
    ctx: &Ctx,
    test: &Test,
    name: &str,
    target: &Target,
    tally: &Tally,
    summary: &Summary,
) -> Result<String, JobError> {
    let failures = tally.failures().iter();
    let failures: Vec<_> = failures
        .map(|(why, count)| json!({"why": target.hide(why.clone()), "count": count}))
        .collect();
    for failure in &failures {
        tracing::warn!(why = %failure["why"], count = %failure["count"], "requests failed");
    }
    let body = json!({
        "runner": name,
        "target": test.target,
        "virtual_users": test.virtual_users,
        "iterations": test.iterations,
        "summary": summary,
        "failures": failures,
        // How many requests took at most so many microseconds.
        "buckets": tally.buckets(),
    });
    let key = keys::load_summary(ctx.cluster(), ctx.recovery(), &test.run, name);
    match ctx.store().create(&key, body.to_string().into()).await? {
        Created::New => Ok(key),
        Created::Exists(_) => Err(JobError::fatal(format!(
            "`{key}` in the bucket is not ours: nothing but this run writes there"
        ))),
    }
}
