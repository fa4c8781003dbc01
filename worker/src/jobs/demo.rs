//! A job without effects: to watch crash and resume by hand, and to measure the engine.

use std::time::Duration;

use jobs::message::Demo;

use crate::child::Program;
use crate::engine::{Ctx, JobError, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &["step", "prove"];

/// Counts to `steps`.
pub async fn run(ctx: &Ctx, job: &Demo) -> Result<Proven, JobError> {
    let mut sum: u64 = 0;
    for n in 0..job.steps {
        sum += ctx.step(("step", n), || one_step(ctx, job, n)).await?;
    }
    ctx.prove("sum", || async {
        let expected: u64 = (0..u64::from(job.steps)).sum();
        Ok::<_, JobError>(Proof::equal(&expected, &sum))
    })
    .await
}

async fn one_step(ctx: &Ctx, job: &Demo, n: u32) -> Result<u64, JobError> {
    let time = Duration::from_millis(job.step_ms);
    if job.child {
        spend_in_a_program(ctx, time).await?;
    } else if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    if job.abort_at == Some(n) {
        tracing::error!(n, "aborting, as the job asked for");
        std::process::abort();
    }
    if job.fail_at == Some(n) {
        return Err(JobError::fatal(format!(
            "step {n} fails, as the job asked for"
        )));
    }
    Ok(u64::from(n))
}

/// A shell with a child of its own, as programs have that install clusters.
async fn spend_in_a_program(ctx: &Ctx, time: Duration) -> Result<(), JobError> {
    let program = Program::new("sh")
        .arg("-c")
        .arg("sleep \"$1\" & wait")
        .arg("demo")
        .arg(time.as_secs_f64().to_string());
    let finished = program
        .run(|| ctx.lease_left())
        .await
        .map_err(JobError::retry)?;
    if finished.is_success() {
        Ok(())
    } else {
        Err(JobError::retry(format!(
            "sleep ended: {:?}",
            finished.ended
        )))
    }
}
