//! Load-test-clean-up: takes away what the load test made, however it ended.

use jobs::keys;
use jobs::message::Job;
use jobs::record::{Status, Temporary};
use jobs::spec::Driver;
use serde_json::json;

use super::load_test::{k6, yandex};
use super::provision::building;
use crate::engine::{Ctx, JobError, Poll, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &[
    "over",
    // At Yandex Cloud.
    "found",
    "deleted",
    // On a given cluster.
    "touched",
    "namespaces",
    "operator",
    "prove",
];

/// Deletes what is left of this recovery's load test, and proves that nothing is.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    // An operator may have put the test back while this job was on its way.
    ctx.wait(("over", ctx.generation()), building(ctx), || is_over(ctx))
        .await?;
    let deleted: Vec<Temporary> = match driver(ctx) {
        Some(Driver::Yandex) => yandex::clean_up(ctx).await?,
        Some(Driver::Kubeconfig) => k6::clean_up(ctx).await?,
        Some(Driver::Local) | None => vec![],
    };
    ctx.prove("clean", || async {
        let left: Vec<Temporary> = match driver(ctx) {
            Some(Driver::Yandex) => yandex::left(ctx).await?,
            Some(Driver::Kubeconfig) => k6::left(ctx).await?,
            Some(Driver::Local) | None => vec![],
        };
        Ok::<_, JobError>(Proof {
            expected: json!({"left": []}),
            holds: left.is_empty(),
            observed: json!({"left": left, "deleted": deleted}),
        })
    })
    .await
}

/// Whether nobody makes anything for the load test any more.
async fn is_over(ctx: &Ctx) -> Result<Poll<()>, JobError> {
    for job in ctx.plan().jobs() {
        if !matches!(job.payload, Job::LoadTest(_)) {
            continue;
        }
        let series = keys::job(ctx.cluster(), ctx.recovery(), &job.name);
        let stored = ctx.store().read_job(&series).await?;
        let status = stored.map(|stored| stored.record.status);
        if matches!(
            status,
            Some(Status::Running | Status::Waiting | Status::Retrying)
        ) {
            return Ok(Poll::Pending(format!("{} goes on", job.name)));
        }
    }
    Ok(Poll::Ready(()))
}

/// Where the load of this recovery's test came from.
fn driver(ctx: &Ctx) -> Option<Driver> {
    let jobs = ctx.plan().jobs().iter();
    let mut tests = jobs.filter_map(|job| match &job.payload {
        Job::LoadTest(test) => Some(test),
        _ => None,
    });
    let section = ctx.spec().load_test.as_ref()?;
    let test = tests.next()?;
    Some(test.driver.unwrap_or(section.driver))
}
