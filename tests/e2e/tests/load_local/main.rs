//! Load tests by the worker itself: through the load balancer to an application that may be slow, fail, or die.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::lab::{LONG, quick, steps_are_recorded_once};
use e2e::processes::program;
use jobs::message::LoadTest;
use jobs::record::Status;
use jobs::spec::{ClusterSpec, Driver};
use serde_json::Value;
use worker::engine::Options;

use self::world::{Asked, FOREVER, Scene, failed, is_hidden, result, shows, spec};

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_bears_the_load_is_proven_and_every_request_is_counted()
-> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let asked = Asked {
        users: 150,
        iterations: 4,
        ..Asked::default()
    };
    let (begun, result) = scene.passes(asked).await?;
    ensure!(result.passed() && result.driver == Driver::Local);
    let total = result.total.context("a total")?;
    assert_eq!((total.requests, total.failed, total.dropped), (600, 0, 0));
    assert_eq!((total.iterations, total.checks_held), (600, 600));
    assert_eq!(scene.answered(), 600, "as the application counted them");
    let latency = total.latency;
    ensure!(latency.min > 0.0 && latency.min <= latency.med && latency.p95 <= latency.max);
    ensure!(
        total.received > 600 && total.rate() > Some(0.0),
        "{total:?}"
    );

    // Each user came by one connection, and by the load balancer's address.
    let attempts = scene.lab.sandbox.network.attempts();
    let visits = attempts.iter().filter(|a| a.wanted.ends_with(":8080"));
    assert_eq!(visits.count(), 150);

    let record = begun.record("load-test").await?.context("a record")?;
    let proof = &record
        .steps
        .iter()
        .find(|(key, _)| key.as_str() == "prove/load");
    let proof = &proof.context("a proof")?.1.output;
    assert_eq!(proof["expected"]["thresholds"]["p95_ms"], "at most 20000");
    assert_eq!(proof["observed"]["thresholds"]["error_rate"], 0.0);

    // All that was counted is in the bucket, bucket by bucket; the domain is nowhere.
    let raw = result.runners[0].raw.as_deref().context("a raw summary")?;
    let raw = scene.lab.sandbox.s3.object(raw).context("in the bucket")?;
    let raw: Value = serde_json::from_slice(&raw)?;
    let counts = raw["buckets"].as_array().context("buckets")?.iter();
    let counted: u64 = counts.filter_map(|bucket| bucket[1].as_u64()).sum();
    assert_eq!(counted, 600);
    assert_eq!(raw["target"], "http://shop.${DOMAIN}:8080/");
    ensure!(is_hidden(&scene.lab));
    steps_are_recorded_once(&scene.lab, &begun).await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_application_fails_with_what_it_took_and_what_was_asked_for() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.faults.slow(Duration::from_millis(300));
    let asked = Asked {
        p95_ms: 200,
        ..Asked::default()
    };
    let (begun, said) = scene.fails(asked).await?;
    let p95 = result(&begun).await?.total.context("a total")?.latency.p95;
    ensure!(p95 >= 300.0, "{p95}");
    let number = format!("p95_ms is {}", (p95 * 1000.0).round() / 1000.0);
    ensure!(said.contains(&number), "{said}");
    ensure!(said.contains("at most 200 is asked for"), "{said}");
    ensure!(!said.contains("error_rate"), "{said}");
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_fails_too_often_fails_with_its_share() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.faults.failing(0.25);
    // 25 of 100: exactly what is asked for passes, anything less does not.
    let asked = |error_rate| Asked {
        error_rate,
        ..Asked::default()
    };
    scene.passes(asked(0.25)).await?;
    let (begun, said) = scene.fails(asked(0.24)).await?;
    ensure!(said.contains("error_rate is 0.25, at most 0.24"), "{said}");
    ensure!(said.contains("checks is 0.75, at least 0.76"), "{said}");

    let result = result(&begun).await?;
    let raw = result.runners[0].raw.as_deref().context("a raw summary")?;
    ensure!(said.contains(raw), "where to look closer: {said}");
    let raw = scene.lab.sandbox.s3.object(raw).context("in the bucket")?;
    let raw: Value = serde_json::from_slice(&raw)?;
    assert_eq!(raw["failures"][0]["why"], "status 500 instead of 200");
    assert_eq!(raw["failures"][0]["count"], 25);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_dies_in_the_middle_fails_and_the_test_still_ends() -> anyhow::Result<()>
{
    let scene = Scene::new().await?;
    scene.faults.slow(Duration::from_millis(50));
    let asked = Asked {
        iterations: 200,
        ..Asked::default()
    };
    let begun = scene.begin(asked).await?;
    let worker = scene.worker().await?;
    shows(&begun, "of 4000 requests are done").await?;
    scene.app_dies();
    let said = failed(&begun).await?;
    ensure!(said.contains("error_rate is 0."), "{said}");
    let total = result(&begun).await?.total.context("a total")?;
    ensure!(
        total.failed > 0 && total.failed < total.requests,
        "{total:?}"
    );
    assert_eq!((total.requests, total.dropped), (4000, 0));
    ensure!(is_hidden(&scene.lab));
    worker.stop().await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_done_in_time_makes_the_result_invalid() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.faults.slow(FOREVER);
    let asked = Asked {
        at_most: "1s",
        ..Asked::default()
    };
    let (_, said) = scene.fails(asked).await?;
    ensure!(said.contains("the load test is not valid"), "{said}");
    ensure!(said.contains("no iteration came to its end"), "{said}");
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_test_that_is_cancelled_ends_in_the_middle() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.faults.slow(FOREVER);
    let asked = Asked {
        iterations: 1000,
        at_most: "9h",
        ..Asked::default()
    };
    let begun = scene.begin(asked).await?;
    let worker = scene.worker().await?;
    shows(&begun, "0 of 20000 requests are done").await?;
    scene.lab.cancel(&begun).await?;
    // All of it would take seven hours.
    begun
        .reaches("load-test", &[Status::Cancelled], LONG)
        .await?;
    worker.stop().await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_under_the_load_is_followed_by_one_that_begins_it_again()
-> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.faults.slow(Duration::from_millis(100));
    let asked = Asked {
        iterations: 30,
        ..Asked::default()
    };
    let begun = scene.begin(asked).await?;
    let first = scene.worker().await?;
    shows(&begun, "of 600 requests are done").await?;
    first.kill();
    let second = scene.worker().await?;
    begun.finished(LONG).await?;
    second.stop().await?;
    let result = result(&begun).await?;
    assert_eq!(result.runners[0].name, "worker-2", "of another lease");
    assert_eq!(result.total.context("a total")?.requests, 600);
    ensure!(scene.answered() > 600, "the first one had begun");
    steps_are_recorded_once(&scene.lab, &begun).await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_outlasts_turn_and_lease_is_made_once() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.faults.slow(Duration::from_millis(100));
    let asked = Asked {
        iterations: 60,
        ..Asked::default()
    };
    let options = || Options {
        turn: Duration::from_secs(1),
        ..quick()
    };
    let begun = scene.begin(asked).await?;
    let workers = [
        scene.worker_with(options()).await?,
        scene.worker_with(options()).await?,
    ];
    begun.finished(LONG).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let result = result(&begun).await?;
    ensure!(result.total.context("a total")?.duration_ms > 5000.0);
    assert_eq!(result.runners[0].name, "worker-1", "of the first lease");
    assert_eq!(scene.answered(), 1200);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_refused_by_the_name_of_its_flag() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let job = LoadTest {
        script: Some("0".repeat(64)),
        ..LoadTest::default()
    };
    let (_, said) = scene.fails_with(Asked::default(), job).await?;
    ensure!(said.contains("--script"), "{said}");
    assert_eq!(scene.answered(), 0);
    scene.lab.sandbox.stop().await
}

#[test]
fn a_test_of_nothing_cannot_be_asked_for() {
    for field in ["virtual_users", "iterations"] {
        let one = spec("http://shop.example.org/", Asked::default());
        let line = one.lines().find(|line| line.contains(field)).unwrap();
        let none = one.replace(line, &format!("  {field}: 0"));
        ClusterSpec::parse(&one).unwrap();
        let problems = ClusterSpec::parse(&none).unwrap_err();
        assert!(format!("{problems:?}").contains(field), "{problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_a_load_test_of_an_application_that_is_too_slow_ends_with_exit_code_1()
-> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let folder = tempfile::tempdir()?;
    let asked = Asked {
        p95_ms: 200,
        ..Asked::default()
    };
    let spec = spec("http://shop.example.org:8080/", asked);
    std::fs::write(folder.path().join("cluster.yaml"), spec)?;
    let load = async |key: &str| {
        let output = tokio::process::Command::new(program("rekindle")?)
            .args(["load-test", "--cluster", "test", "--spec", "cluster.yaml"])
            .args(["--key", key, "--here", "--wait"])
            .env_clear()
            .envs(scene.lab.sandbox.environment())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(LONG, output).await??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        anyhow::Ok((
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        ))
    };
    let (code, said) = load("fast").await?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(scene.answered(), 100);
    scene.faults.slow(Duration::from_millis(300));
    let (code, said) = load("slow").await?;
    assert_eq!(code, Some(1), "{said}");
    ensure!(said.contains("p95_ms is 3"), "{said}");
    scene.lab.sandbox.stop().await
}
