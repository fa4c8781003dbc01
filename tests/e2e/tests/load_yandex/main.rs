//! The load test from a temporary cluster at Yandex Cloud: the verdict, and that in the end nothing of it is left,
//! whatever happens in the middle.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use anyhow::{Context, ensure};
use e2e::lab::{LONG, quick, small, until};
use e2e::recovery::begin_one;
use futures::{StreamExt, TryStreamExt, stream};
use jobs::message::Job;
use jobs::record::Status;
use sandbox::operators::k6::Fault;
use sandbox::yandex::{Code, Kind, Seed, YandexFault};

use self::world::{OVER, Scene, failure, reaches_step, result};

/// Worlds at a time: they mostly wait.
const AT_ONCE: usize = 4;
/// More than the test has steps.
const MOST_STEPS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_loaded_from_a_cluster_that_is_gone_afterwards() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let begun = scene.begin().await?;
    let worker = scene.worker().await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    let (tested, cleaned) = scene.ended(&begun).await?;
    let result = result(&tested)?;
    ensure!(result.passed(), "{result:?}");
    let total = result.total.context("a total")?;
    assert_eq!(
        (total.requests, total.iterations, total.failed),
        (30, 30, 0)
    );
    assert_eq!(scene.app.asked(), 30, "as the application counted them");
    assert_eq!(result.runners.len(), 2);

    // Each thing was made once, is named in the record, and was deleted.
    let created: Vec<u64> = scene.yandex.created().into_values().collect();
    assert_eq!(created, [1, 1, 1, 2], "{:?}", scene.yandex.created());
    assert_eq!(scene.yandex.created(), scene.yandex.deleted());
    let proof = &cleaned
        .steps
        .iter()
        .find(|(key, _)| key.as_str() == "prove/clean");
    let observed = &proof.context("a proof")?.1.output["observed"];
    assert_eq!(observed["left"], serde_json::json!([]));
    let deleted = observed["deleted"].as_array().context("a list")?;
    assert_eq!(deleted.len(), 5, "{observed}");
    for thing in deleted {
        let id = thing["id"].as_str().context("an id")?;
        ensure!(
            serde_json::to_string(&tested.steps)?.contains(id),
            "{thing}"
        );
    }
    scene.is_clean()?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_bear_the_load_fails_and_is_cleaned_up_all_the_same() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.app.breaks();
    let begun = scene.begin().await?;
    let worker = scene.worker().await?;
    let (tested, cleaned) = scene.ended(&begun).await?;
    worker.stop().await?;
    assert_eq!(tested.status, Status::Failed);
    ensure!(
        failure(&tested).contains("error_rate is 1"),
        "{}",
        failure(&tested)
    );
    assert_eq!(cleaned.status, Status::Succeeded, "{}", failure(&cleaned));
    scene.is_clean()?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_makes_no_result_and_leaves_nothing() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.faults.set(Fault::OutOfMemory(2));
    let begun = scene.begin().await?;
    let worker = scene.worker().await?;
    let (tested, _) = scene.ended(&begun).await?;
    worker.stop().await?;
    ensure!(
        failure(&tested).contains("OOMKilled"),
        "{}",
        failure(&tested)
    );
    ensure!(!result(&tested)?.invalid.is_empty());
    scene.is_clean()?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_made_says_why_and_leaves_nothing() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let fault = YandexFault::on("POST", "/managed-kubernetes/v1/clusters");
    let fault = fault.leaves(Code::Internal, "the zone is on fire");
    scene.yandex.faults().add(fault.always());
    let begun = scene.begin().await?;
    let worker = scene.worker().await?;
    let (tested, cleaned) = scene.ended(&begun).await?;
    worker.stop().await?;
    assert_eq!(tested.status, Status::Failed);
    ensure!(
        failure(&tested).contains("the zone is on fire"),
        "{}",
        failure(&tested)
    );
    assert_eq!(cleaned.status, Status::Succeeded, "{}", failure(&cleaned));
    scene.is_clean()?;
    scene.lab.sandbox.stop().await
}

/// A worker that dies at any step: another one goes on, and the end is the same.
#[tokio::test(flavor = "multi_thread")]
async fn heavy_workers_die_at_every_step_and_nothing_is_made_twice_or_left() -> anyhow::Result<()> {
    let died = stream::iter(1..MOST_STEPS).map(|steps| async move {
        let scene = Scene::new().await?;
        let begun = scene.begin().await?;
        let worker = scene.worker().await?;
        let reached = reaches_step(&begun, steps).await?;
        worker.kill();
        let worker = scene.worker().await?;
        begun
            .finished(LONG)
            .await
            .with_context(|| format!("killed at step {steps}"))?;
        worker.stop().await?;
        let (tested, _) = scene.ended(&begun).await?;
        ensure!(result(&tested)?.passed());
        // Only the load itself may come twice.
        let created: Vec<u64> = scene.yandex.created().into_values().collect();
        assert_eq!(created, [1, 1, 1, 2], "killed at step {steps}");
        scene
            .is_clean()
            .with_context(|| format!("killed at step {steps}"))?;
        scene.lab.sandbox.stop().await?;
        anyhow::Ok(reached)
    });
    let died: Vec<bool> = died
        .buffered(AT_ONCE)
        .take_while(reached)
        .try_collect()
        .await?;
    ensure!(died.len() > 15, "only {} steps were reached", died.len());
    Ok(())
}

/// Cancelled in the middle of any step: the clean-up still runs, and only then is the cluster free.
#[tokio::test(flavor = "multi_thread")]
async fn heavy_a_recovery_cancelled_at_any_step_leaves_nothing() -> anyhow::Result<()> {
    let cancelled = stream::iter(0..MOST_STEPS).map(|steps| async move {
        let scene = Scene::new().await?;
        let begun = scene.begin().await?;
        let worker = scene.worker().await?;
        let reached = reaches_step(&begun, steps).await?;
        scene.lab.cancel(&begun).await?;
        scene
            .is_over(&begun)
            .await
            .with_context(|| format!("cancelled at step {steps}"))?;
        let (tested, cleaned) = scene.ended(&begun).await?;
        // What never began needs no clean-up.
        let needed = tested.has_begun();
        ensure!(
            (cleaned.status == Status::Succeeded) == needed,
            "cancelled at step {steps}: {:?} {}",
            cleaned.status,
            failure(&cleaned)
        );
        worker.stop().await?;
        scene
            .is_clean()
            .with_context(|| format!("cancelled at step {steps}"))?;
        scene.lab.sandbox.stop().await?;
        anyhow::Ok(reached)
    });
    let cancelled: Vec<bool> = cancelled
        .buffered(AT_ONCE)
        .take_while(reached)
        .try_collect()
        .await?;
    ensure!(
        cancelled.len() > 15,
        "only {} steps were reached",
        cancelled.len()
    );
    Ok(())
}

/// Cancelled while no worker lives: the next one that comes cleans up.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_after_a_cancelled_and_dead_worker_cleans_up() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let begun = scene.begin().await?;
    let worker = scene.worker().await?;
    scene
        .yandex
        .wait_until("a cluster", |things| {
            things
                .iter()
                .any(|thing| thing.kind == Kind::Cluster && !thing.stranger)
        })
        .await;
    worker.kill();
    scene.lab.cancel(&begun).await?;
    ensure!(!scene.yandex.ours().is_empty());
    let worker = scene.worker().await?;
    scene.is_over(&begun).await?;
    worker.stop().await?;
    scene.is_clean()?;
    scene.lab.sandbox.stop().await
}

/// A clean-up that fails does not let a cancelled recovery end; put back, it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_recovery_whose_clean_up_failed_stays_open() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let begun = scene.begin().await?;
    let worker = scene.worker().await?;
    reaches_step(&begun, 6).await?;
    // Whoever may not delete cannot clean up.
    let forbidden = YandexFault::on("DELETE", "/**").answer(403);
    scene.yandex.faults().add(forbidden.always());
    scene.lab.cancel(&begun).await?;
    let failed = begun.reaches("load-test-clean-up", &OVER, LONG).await?;
    assert_eq!(failed.status, Status::Failed, "{}", failure(&failed));
    ensure!(!scene.yandex.ours().is_empty());
    // Several sweeps go by.
    tokio::time::sleep(quick().sweep.context("it sweeps")? * 3).await;
    let store = &scene.lab.store;
    ensure!(store.active(&begun.cluster).await? == Some(begun.id.clone()));

    scene.yandex.faults().clear();
    scene.lab.reopen(&begun, "load-test-clean-up", None).await?;
    scene.is_over(&begun).await?;
    worker.stop().await?;
    scene.is_clean()?;
    scene.lab.sandbox.stop().await
}

/// What nobody cleaned up is deleted past its time to live, by its label, and by nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_past_its_time_is_reaped_by_any_worker() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let past = (jiff::Timestamp::now().as_second() - 60).to_string();
    let coming = (jiff::Timestamp::now().as_second() + 3600).to_string();
    let labelled = |name: &str, until: &str| {
        Seed::ours(name)
            .label("rekindle", "lost")
            .label("rekindle-recovery", "r-lost")
            .label("rekindle-until", until)
    };
    scene.yandex.seed(labelled("expired", &past));
    let kept = scene.yandex.seed(labelled("alive", &coming)).len();
    let unreadable = scene.yandex.seed(labelled("odd", "soon")).len();
    let worker = scene.worker().await?;
    until("what is expired is gone", async || {
        Ok(scene.yandex.ours().len() == kept + unreadable)
    })
    .await?;

    // The same by its command, with a proof.
    scene.yandex.seed(labelled("expired-too", &past));
    let (store, queue) = (&scene.lab.store, &scene.lab.queue);
    let begun = begin_one(store, queue, &small("test"), Job::Reap).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    assert_eq!(scene.yandex.ours().len(), kept + unreadable);
    let record = begun.record("reap").await?.context("a record")?;
    let steps = serde_json::to_string(&record.steps)?;
    ensure!(
        steps.contains("expired-too") && steps.contains("odd"),
        "{steps}"
    );
    assert_eq!(
        scene.yandex.strangers_touched(),
        0,
        "{:?}",
        scene.yandex.touches()
    );
    scene.lab.sandbox.stop().await
}

fn reached(died: &anyhow::Result<bool>) -> futures::future::Ready<bool> {
    futures::future::ready(!matches!(died, Ok(false)))
}
