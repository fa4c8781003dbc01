//! k6 on a cluster: its operator, a TestRun, and what all of its runners say.
//!
//! ```text
//! bundle ─→ operator ─→ foundation ─→ definitions ─→ rest ─→ controllers   (unless somebody else's operator is there)
//!        ─→ namespace ─→ test ─→ loaded ─→ collected
//! ```
//!
//! The operator's word is not enough: a run is `finished` when no runner is active, however each of them ended, and
//! a run with a dead runner stays in its stage for ever. So Jobs and Pods are watched too (`life`), and what counts is
//! each runner's exit code and summary (`collect`). A run that breaks is no failed step: what there is of it is
//! collected, and the verdict says why it is not valid.
//!
//! A token may expire, so each step comes to the cluster anew.

mod bundle;
mod clean_up;
mod collect;
mod life;
mod objects;
mod operator;
mod place;

use std::time::Duration;

use jobs::record::Runner;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(in crate::jobs) use clean_up::{clean_up, left};
pub(in crate::jobs) use place::Place;

use super::Test;
use crate::engine::{Ctx, JobError, Poll};
use crate::jobs::switch::patience;
use crate::kube::{Force, Objects};
use collect::Hidden;
use life::{Expected, Seen, Standing};
use objects::Marks;

/// Until all runners run: nodes, images, and the operator, which looks every few seconds.
const BEGIN: Duration = Duration::from_secs(20 * 60);
/// After the load's own end: the iterations that run then, and the operator's next look.
const END: Duration = Duration::from_secs(2 * 60);
/// What a run may take longer by the worker's clock than by the cluster's, which decides.
const SLACK: Duration = Duration::from_secs(10 * 60);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    /// Why it cannot be valid, if it did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

/// Runs the test there, and collects what every runner did.
pub(super) async fn run(ctx: &Ctx, test: &Test, place: &Place) -> Result<Vec<Runner>, JobError> {
    let k6 = test.section.k6.as_ref().ok_or_else(|| {
        JobError::fatal("the spec has no `load_test.k6` section, and the driver needs one")
    })?;
    if test.parallelism > test.virtual_users {
        return Err(JobError::fatal(format!(
            "{} runners share {} virtual users: k6 refuses to run without one for each",
            test.parallelism, test.virtual_users
        )));
    }
    let turn = ctx.generation();
    operator::ensure(ctx, k6, place).await?;

    ctx.step(("namespace", turn), || async {
        let objects = place.objects(ctx).await?;
        surroundings(ctx, test, &objects).await
    })
    .await?;
    ctx.step(("test", turn), || async {
        let run = objects::test_run(test, k6, place, &Marks::of(ctx))?;
        // That it is there already is our own doing: the namespace is ours.
        place.objects(ctx).await?.create(&run).await?;
        Ok::<_, JobError>(())
    })
    .await?;

    let limit = BEGIN + test.max_duration + END;
    let expected = Expected {
        run: &test.run,
        runners: test.parallelism.get(),
        begin: BEGIN,
        limit,
    };
    let ended: Ended = ctx
        .wait(("loaded", turn), patience(ctx, limit + SLACK), || async {
            look(ctx, test, &place.objects(ctx).await?, &expected).await
        })
        .await?;
    ctx.step(("collected", turn), || async {
        let objects = place.objects(ctx).await?;
        let mut runners = collect::runners(ctx, test, &objects).await?;
        if let Some(why) = ended.broken {
            tracing::warn!(run = %test.run, "the run broke: {why}");
            // What the run itself says comes first: the others follow from it.
            let whole = Runner {
                name: test.run.clone(),
                exit_code: None,
                reason: Some(why),
                summary: None,
                raw: None,
            };
            runners.insert(0, whole);
        }
        Ok::<_, JobError>(runners)
    })
    .await
}

/// The namespace of the run, and what its Pods read.
async fn surroundings(ctx: &Ctx, test: &Test, objects: &Objects) -> Result<(), JobError> {
    let marks = Marks::of(ctx);
    let script = objects::script(ctx, test).await?;
    let target = collect::target(ctx, test).await?;
    let namespace = objects::namespace(test, &marks)?;
    if let Some(there) = objects.get(&namespace).await?
        && !marks.are_on(&there, objects::TEST)
    {
        return Err(JobError::fatal(format!(
            "{namespace} is there on the cluster that the load comes from, and it is not of this recovery: \
             delete it, or give this recovery another name"
        )));
    }
    let config = objects::config_map(test, &script)?;
    let secret = objects::secret(test, &target)?;
    objects
        .apply_all([&namespace, &config, &secret], Force::Ours)
        .await?;
    Ok(())
}

/// One look at the run. Pods and Jobs are read before the TestRun, so that its stage is never older than they are; once
/// it is an error they are read again, since it does not say why and they do.
async fn look(
    ctx: &Ctx,
    test: &Test,
    objects: &Objects,
    expected: &Expected<'_>,
) -> Result<Poll<Ended>, JobError> {
    let (mut jobs, mut pods) = parts(test, objects).await?;
    let run = objects.get(&objects::run_of(test)).await?;
    if run.as_ref().is_some_and(life::has_failed) {
        (jobs, pods) = parts(test, objects).await?;
    }
    let seen = Seen {
        now: life::now(objects).await?,
        run: run.as_ref(),
        jobs: &jobs,
        pods: &pods,
    };
    Ok(match life::judge(expected, &seen) {
        Standing::Going(text) => Poll::Pending(text),
        Standing::Finished => Poll::Ready(Ended { broken: None }),
        Standing::Broken { why, pod } => {
            let words = match pod {
                Some(pod) => collect::last_words(objects, &test.run, &pod).await,
                None => None,
            };
            let log = words.map_or_else(String::new, |words| format!("; its log ends: {words}"));
            let hidden = Hidden::of(ctx, test).await?;
            Poll::Ready(Ended {
                broken: Some(hidden.hide(&format!("{why}{log}"))),
            })
        }
    })
}

/// The Jobs and the Pods of a run.
async fn parts(test: &Test, objects: &Objects) -> Result<(Vec<Value>, Vec<Value>), JobError> {
    let (namespace, selector) = (Some(test.run.as_str()), format!("k6_cr={}", test.run));
    let pods = objects.list("v1", "Pod", namespace, &selector).await?;
    let jobs = objects
        .list("batch/v1", "Job", namespace, &selector)
        .await?;
    Ok((jobs, pods))
}
