//! Load-test: the last proof. The recovered application is loaded from outside, and a verdict says whether it bore
//! that.
//!
//! Three drivers make the load: the worker itself (`local`), or k6 on a given cluster or on a temporary one at
//! Yandex Cloud (`k6`, `yandex`). All of them end in the same result, which one function judges (`crate::load`).
//! Whatever a test makes carries its name and is taken away by `load-test-clean-up`, a job of its own, however the
//! test ended.

pub(super) mod k6;
mod local;
pub(super) mod yandex;

use std::num::NonZeroU32;
use std::time::Duration;

use jobs::message::LoadTest as Message;
use jobs::record::{LoadResult, Runner};
use jobs::spec::{Driver, LoadTest as Section};
use serde_json::json;

use crate::engine::{Ctx, JobError, Proof, Proven};
use crate::load;

/// The step names.
pub const STEPS: &[&str] = &[
    "run",
    "script",
    "local",
    // The temporary cluster.
    "key",
    "network",
    "network-made",
    "subnet",
    "subnet-made",
    "cluster",
    "cluster-made",
    "system",
    "system-made",
    "runners",
    "runners-made",
    "nodes",
    // k6 on it, or on a given one.
    "bundle",
    "operator",
    "foundation",
    "definitions",
    "rest",
    "controllers",
    "namespace",
    "test",
    "loaded",
    "collected",
    "result",
    "prove",
];

/// A load test as it is run: the spec's, with what the job was told instead.
#[derive(Debug, Clone)]
pub(super) struct Test {
    /// Its unique name, a DNS label of at most 40 characters: `load-<recovery>-<generation>`.
    pub(super) run: String,
    pub(super) driver: Driver,
    /// With `${DOMAIN}` in it.
    pub(super) target: String,
    pub(super) virtual_users: NonZeroU32,
    pub(super) iterations: NonZeroU32,
    pub(super) parallelism: NonZeroU32,
    pub(super) max_duration: Duration,
    /// Digest of a k6 script among the inputs; ours when absent.
    pub(super) script: Option<String>,
    pub(super) section: Section,
}

impl Test {
    /// The test that a job of this recovery stands for.
    pub(super) fn of(ctx: &Ctx, job: &Message) -> Result<Self, JobError> {
        let section = ctx.spec().load_test.as_ref().ok_or_else(|| {
            JobError::fatal("the spec has no `load_test` section: there is nothing to load")
        })?;
        let section = section.told(job).map_err(|problems| {
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            JobError::fatal(texts.join("; "))
        })?;
        let recovery: String = ctx.recovery().as_str().chars().take(30).collect();
        Ok(Self {
            run: format!(
                "load-{}-{}",
                recovery.trim_end_matches('-'),
                ctx.generation()
            ),
            driver: section.driver,
            target: section.target.clone(),
            virtual_users: section.virtual_users,
            iterations: section.iterations,
            parallelism: section.parallelism,
            max_duration: section.max_duration.unsigned_abs(),
            script: job.script.clone(),
            section,
        })
    }
}

/// Loads the application, and proves that it bore it.
pub async fn run(ctx: &Ctx, job: &Message) -> Result<Proven, JobError> {
    let test = Test::of(ctx, job)?;
    let runners: Vec<Runner> = match test.driver {
        Driver::Local => local::run(ctx, &test).await?,
        Driver::Kubeconfig => k6::run(ctx, &test, &k6::Place::Given).await?,
        Driver::Yandex => {
            let cluster = yandex::build(ctx, &test).await?;
            k6::run(ctx, &test, &k6::Place::Yandex(cluster)).await?
        }
    };
    let result: LoadResult = ctx
        .step(("result", ctx.generation()), || async {
            Ok::<_, JobError>(load::result(
                load::Asked {
                    run: test.run.clone(),
                    driver: test.driver,
                    target: test.target.clone(),
                    virtual_users: test.virtual_users.get(),
                    iterations: test.iterations.get(),
                    thresholds: &test.section.thresholds,
                },
                runners,
            ))
        })
        .await?;
    if !result.passed() {
        return Err(JobError::fatal(load::why(&result)));
    }
    ctx.prove("load", || async {
        Ok::<_, JobError>(Proof {
            expected: json!({"runners": result.runners.len(), "thresholds": load::expected(&result)}),
            observed: json!({"total": result.total, "thresholds": load::observed(&result)}),
            holds: result.passed(),
        })
    })
    .await
}
