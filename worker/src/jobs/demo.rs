//! A job without effects: to watch crash and resume by hand, and to measure the engine.

use std::time::Duration;

use jobs::message::Demo;

use crate::engine::{Ctx, JobError, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &["step", "prove"];

/// Counts to `steps`.
pub async fn run(ctx: &Ctx, job: &Demo) -> Result<Proven, JobError> {
    let mut sum: u64 = 0;
    for n in 0..job.steps {
        sum += ctx.step(("step", n), || one_step(job, n)).await?;
    }
    ctx.prove("sum", || async {
        let expected: u64 = (0..u64::from(job.steps)).sum();
        Ok::<_, JobError>(Proof::equal(&expected, &sum))
    })
    .await
}

async fn one_step(job: &Demo, n: u32) -> Result<u64, JobError> {
    if job.step_ms > 0 {
        tokio::time::sleep(Duration::from_millis(job.step_ms)).await;
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
