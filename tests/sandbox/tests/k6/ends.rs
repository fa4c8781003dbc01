//! How tests end that do not go well.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbox::operators::k6::Fault;
use serde_json::json;

use crate::lab::{BEGIN, Lab};

#[tokio::test]
async fn an_application_that_fails_is_a_finished_test_with_exit_code_99() {
    let lab = Lab::start().await;
    lab.shop.answers.store(503, Ordering::SeqCst);
    lab.begin(&Lab::spec(4, 2)).await;
    lab.until_stage("finished").await;
    for of in ["1", "2"] {
        assert_eq!(lab.ended(of).await, (99, "Error".to_owned()));
        assert_eq!(lab.phase(of).await, "Failed");
        assert_eq!(lab.job(of).await["status"]["failed"], 1);
        let metrics = lab.summary(of).await["metrics"].clone();
        // What passes is that a request failed.
        assert_eq!(
            metrics["http_req_failed"]["values"],
            json!({ "rate": 1, "passes": 4, "fails": 0 })
        );
        assert_eq!(
            metrics["http_req_failed"]["thresholds"],
            json!({ "rate<=0.01": { "ok": false } })
        );
        assert_eq!(
            metrics["checks"]["values"],
            json!({ "rate": 0, "passes": 0, "fails": 4 })
        );
        assert!(
            metrics
                .get("http_req_duration{expected_response:true}")
                .is_none()
        );
        assert!(
            lab.log(of)
                .await
                .contains("'checks', 'http_req_failed' have been crossed")
        );
    }
    assert_eq!(lab.shop.asked(), 8);
}

#[tokio::test]
async fn what_cannot_be_reached_at_all_counts_as_requests_that_failed() {
    let lab = Lab::start().await;
    let mut spec = Lab::spec(2, 3);
    // Nobody listens there.
    Lab::set(&mut spec, "TARGET", "http://127.0.0.1:1/");
    lab.begin(&spec).await;
    lab.until_stage("finished").await;
    let summary = lab.summary("1").await;
    assert_eq!(lab.ended("1").await.0, 99);
    assert_eq!(Lab::count(&summary, "http_reqs", "count"), 3);
    assert_eq!(Lab::count(&summary, "http_req_failed", "passes"), 3);
    assert_eq!(summary["metrics"]["http_req_duration"]["values"]["max"], 0);
    assert_eq!(
        lab.log("1").await.matches("msg=\"Request Failed\"").count(),
        3
    );
}

#[tokio::test]
async fn a_url_that_is_none_leaves_metrics_without_samples() {
    let lab = Lab::start().await;
    let mut spec = Lab::spec(2, 1);
    Lab::set(&mut spec, "TARGET", "shop.example.org");
    lab.begin(&spec).await;
    lab.until_stage("finished").await;
    // A threshold that has nothing to look at holds.
    assert_eq!(lab.ended("1").await.0, 0);
    let summary = lab.summary("1").await;
    assert_eq!(Lab::count(&summary, "iterations", "count"), 1);
    assert!(summary["metrics"].get("http_reqs").is_none());
    assert_eq!(summary["metrics"]["checks"]["values"]["passes"], 0);
}

#[tokio::test]
async fn a_runner_that_dies_at_once_leaves_the_test_created_for_ever() {
    let lab = Lab::start().await;
    lab.faults.set(Fault::DiesAtOnce(2));
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until("it is dead", async || lab.phase("2").await == "Failed")
        .await;
    lab.until("the other one runs", async || {
        lab.phase("1").await == "Running"
    })
    .await;
    assert_eq!(lab.ended("2").await, (107, "Error".to_owned()));
    lab.ticks(20).await;
    assert_eq!(lab.stage().await, "created");
    assert_eq!(lab.processes().len(), 1);
    assert_eq!(lab.shop.asked(), 0);
}

#[tokio::test]
async fn a_runner_that_is_killed_finishes_the_test_all_the_same() {
    for (fault, reason) in [
        (Fault::OutOfMemory(1), "OOMKilled"),
        (Fault::Killed(1), "Error"),
    ] {
        let lab = Lab::start().await;
        lab.faults.set(fault);
        lab.begin(&Lab::spec(2, 50)).await;
        lab.until_stage("finished").await;
        assert_eq!(lab.ended("1").await, (137, reason.to_owned()));
        assert_eq!(lab.ended("2").await, (0, "Completed".to_owned()));
        assert!(!lab.log("1").await.contains(BEGIN));
        assert_eq!(lab.shop.asked(), 51);
    }
}

#[tokio::test]
async fn a_runner_without_a_place_or_an_image_is_never_one_that_runs() {
    let lab = Lab::start().await;
    lab.faults.set(Fault::NeverScheduled(1));
    lab.faults.set(Fault::ImagePullFails(2));
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until("it cannot be pulled", async || {
        lab.waits("2")
            .await
            .starts_with("ImagePullBackOff: Back-off pulling image \"grafana/k6:2.2.0\"")
    })
    .await;
    lab.ticks(10).await;
    let conditions = lab.pod("1").await["status"]["conditions"].clone();
    assert_eq!(conditions[0]["reason"], "Unschedulable");
    assert!(
        conditions[0]["message"]
            .as_str()
            .unwrap()
            .starts_with("0/3 nodes are available")
    );
    assert_eq!(lab.phase("1").await, "Pending");
    assert_eq!(lab.stage().await, "created");
    // What goes away by itself goes on by itself.
    lab.faults.clear();
    lab.until_stage("finished").await;
}

#[tokio::test]
async fn a_starter_that_fails_leaves_runners_that_wait_for_ever() {
    let lab = Lab::start().await;
    lab.faults.set(Fault::StarterFails);
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until("its Job has failed", async || {
        lab.job("starter").await["status"]["failed"] == 1
    })
    .await;
    assert_eq!(lab.ended("starter").await.0, 7);
    lab.ticks(20).await;
    assert_eq!(lab.stage().await, "started");
    assert_eq!(lab.phase("1").await, "Running");
    assert_eq!(lab.shop.asked(), 0);
}

#[tokio::test]
async fn an_initializer_that_fails_is_an_error() {
    let lab = Lab::start().await;
    lab.faults.set(Fault::InitializerFails);
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until_stage("error").await;
    assert_eq!(lab.phase("initializer").await, "Failed");
    assert!(lab.log("initializer").await.contains("level=error"));
    assert!(lab.job("1").await.is_null());
}

#[tokio::test]
async fn a_summary_can_be_missing_though_all_went_well() {
    let lab = Lab::start().await;
    lab.faults.set(Fault::NoSummary(2));
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until_stage("finished").await;
    assert_eq!(lab.ended("2").await.0, 0);
    assert_eq!(lab.log("2").await, "");
    assert_eq!(Lab::count(&lab.summary("1").await, "http_reqs", "count"), 1);
}

#[tokio::test]
async fn what_is_not_done_in_time_is_dropped() {
    let lab = Lab::start().await;
    lab.faults.set(Fault::Slow(1, Duration::from_millis(300)));
    let mut spec = Lab::spec(2, 20);
    spec["parallelism"] = 1.into();
    Lab::set(&mut spec, "MAX_DURATION", "500ms");
    lab.begin(&spec).await;
    lab.until_stage("finished").await;
    let summary = lab.summary("1").await;
    let (done, dropped) = (
        Lab::count(&summary, "iterations", "count"),
        Lab::count(&summary, "dropped_iterations", "count"),
    );
    assert!(done >= 2 && dropped >= 20, "{done} {dropped}");
    assert_eq!(done + dropped, 40);
    assert_eq!(lab.ended("1").await.0, 0);
}

#[tokio::test]
async fn a_pod_that_vanishes_is_one_runner_less() {
    let lab = Lab::start().await;
    lab.faults.set(Fault::Vanishes(2));
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until_stage("finished").await;
    let runners = lab.runners().await;
    assert_eq!(runners.len(), 1);
    assert_eq!(lab.job("2").await["status"]["failed"], 1);
    assert_eq!(Lab::count(&lab.summary("1").await, "http_reqs", "count"), 1);
    lab.until_no_process().await;
}

#[tokio::test]
async fn a_log_that_is_rotated_has_lost_its_beginning() {
    let lab = Lab::with(|settings| settings.log_limit = Some(500)).await;
    let mut spec = Lab::spec(2, 20);
    spec["parallelism"] = 1.into();
    spec["initializer"] = json!({ "disabled": true });
    Lab::set(&mut spec, "TARGET", "http://127.0.0.1:1/");
    lab.begin(&spec).await;
    lab.until_stage("finished").await;
    let log = lab.log("1").await;
    assert!(!log.is_empty() && !log.contains(BEGIN), "{log}");
}
