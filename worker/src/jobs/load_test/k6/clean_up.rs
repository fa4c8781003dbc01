//! Takes away what a test made on a given cluster, and nothing else.
//!
//! What is ours is found by our labels and our field manager on the cluster itself, so it is also found when the
//! job's record ends in the middle. The operator goes last, and only if nobody else's test needs it: with the
//! definition of TestRun all TestRuns go.

use std::time::Duration;

use jobs::keys;
use jobs::message::Job;
use jobs::record::Temporary;
use serde_json::Value;

use super::objects::{K6_IO, Marks, OPERATOR, TEST};
use super::place::Place;
use crate::engine::{Ctx, JobError, Poll};
use crate::jobs::switch::patience;
use crate::kube::{KubeError, Object, Objects};

/// A namespace goes with its Pods, each of which has half a minute.
const GONE: Duration = Duration::from_secs(15 * 60);
/// What belongs to a run.
const OF_TEST: [Kind; 1] = [("v1", "Namespace")];
/// What belongs to the operator, in the order in which it goes. What is in its namespace goes with that.
const OF_OPERATOR: [Kind; 4] = [
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("v1", "Namespace"),
];
/// What the operator works for.
const WORK: [&str; 2] = ["TestRun", "PrivateLoadZone"];

/// Version and kind.
type Kind = (&'static str, &'static str);

/// Takes away what `run` made on a given cluster, in this recovery; says what that was. A temporary cluster goes as
/// a whole. Called by the job `load-test-clean-up`.
pub(in crate::jobs) async fn clean_up(ctx: &Ctx) -> Result<Vec<Temporary>, JobError> {
    let turn = ctx.generation();
    let touched: bool = ctx.step(("touched", turn), || touched(ctx)).await?;
    if !touched {
        return Ok(vec![]);
    }
    let (mut found, operator): (Vec<Temporary>, Vec<Temporary>) = ctx
        .step(("found", turn), || async {
            let objects = Place::Given.objects(ctx).await?;
            let marks = Marks::of(ctx);
            let of_test = ours(&objects, &marks, &OF_TEST, TEST).await?;
            let operator = ours(&objects, &marks, &OF_OPERATOR, OPERATOR).await?;
            let all = |found: &[Value]| found.iter().map(temporary).collect();
            Ok::<_, JobError>((all(&of_test), all(&operator)))
        })
        .await?;
    ctx.wait(("namespaces", turn), patience(ctx, GONE), || async {
        let objects = Place::Given.objects(ctx).await?;
        delete(&objects, &Marks::of(ctx), &OF_TEST, TEST).await
    })
    .await?;
    let all: bool = ctx
        .wait(("operator", turn), patience(ctx, GONE), || async {
            let objects = Place::Given.objects(ctx).await?;
            if is_needed(&objects).await? {
                return Ok(Poll::Ready(false));
            }
            let deleted = delete(&objects, &Marks::of(ctx), &OF_OPERATOR, OPERATOR).await?;
            Ok::<_, JobError>(match deleted {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending(text) => Poll::Pending(text),
            })
        })
        .await?;
    match all {
        true => found.extend(operator),
        false => tracing::warn!("the operator of k6 stays: somebody else's test needs it"),
    }
    Ok(found)
}

/// What of it is there now. An operator that somebody else's test needs is not ours any more.
pub(in crate::jobs) async fn left(ctx: &Ctx) -> Result<Vec<Temporary>, JobError> {
    if !touched(ctx).await? {
        return Ok(vec![]);
    }
    let objects = Place::Given.objects(ctx).await?;
    let marks = Marks::of(ctx);
    let mut left = ours(&objects, &marks, &OF_TEST, TEST).await?;
    if !is_needed(&objects).await? {
        left.extend(ours(&objects, &marks, &OF_OPERATOR, OPERATOR).await?);
    }
    Ok(left.iter().map(temporary).collect())
}

/// Whether the load test came as far as to the cluster: before it looks for an operator it changes nothing. Without
/// that nobody asks for the secret that leads there.
async fn touched(ctx: &Ctx) -> Result<bool, JobError> {
    for job in ctx.plan().jobs() {
        if !matches!(job.payload, Job::LoadTest(_)) {
            continue;
        }
        let series = keys::job(ctx.cluster(), ctx.recovery(), &job.name);
        let Some(stored) = ctx.store().read_job(&series).await? else {
            continue;
        };
        let record = stored.record;
        let mut steps = record.steps.keys();
        // Of an earlier generation some steps may be forgotten.
        if record.generation > 0 || steps.any(|key| key.as_str().starts_with("operator/")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What carries our marks, by our own hand.
async fn ours(
    objects: &Objects,
    marks: &Marks,
    kinds: &[Kind],
    part: &str,
) -> Result<Vec<Value>, JobError> {
    let mut all = Vec::new();
    let selector = marks.selector(part);
    for (version, kind) in kinds {
        let found = objects.list(version, kind, None, &selector).await?;
        let mine = found.into_iter();
        all.extend(mine.filter(|seen| marks.are_on(seen, part)));
    }
    Ok(all)
}

/// Deletes it, one kind after the other, each object as the one that was seen. Done when none is left.
async fn delete(
    objects: &Objects,
    marks: &Marks,
    kinds: &[Kind],
    part: &str,
) -> Result<Poll<()>, JobError> {
    for kind in kinds {
        let there = ours(objects, marks, &[*kind], part).await?;
        let Some(first) = there.first().map(at) else {
            continue;
        };
        for seen in &there {
            if seen["metadata"]["deletionTimestamp"].is_null() {
                let uid = seen["metadata"]["uid"].as_str();
                objects.delete(&at(seen), uid).await?;
            }
        }
        return Ok(Poll::Pending(match there.len() {
            1 => format!("{first} is being deleted"),
            many => format!("{first} and {} more are being deleted", many - 1),
        }));
    }
    Ok(Poll::Ready(()))
}

/// Whether somebody has work for the operator.
async fn is_needed(objects: &Objects) -> Result<bool, JobError> {
    for kind in WORK {
        match objects.list(K6_IO, kind, None, "").await {
            Ok(found) if found.is_empty() => {}
            Err(KubeError::UnknownKind { .. }) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn at(seen: &Value) -> Object {
    let text = |at: &str| seen.pointer(at).and_then(Value::as_str);
    Object::at(
        text("/apiVersion").unwrap_or_default(),
        text("/kind").unwrap_or_default(),
        None,
        text("/metadata/name").unwrap_or_default(),
    )
}

fn temporary(seen: &Value) -> Temporary {
    let text = |at: &str| {
        let text = seen.pointer(at).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    Temporary {
        kind: text("/kind"),
        name: text("/metadata/name"),
        id: text("/metadata/uid"),
    }
}
