//! Jobs fail, panic, wait for long, or come from another build.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::lab::{LONG, Lab, demo, quick, report, small, until};
use jiff::Timestamp;
use jobs::ids::{JobName, StepKey};
use jobs::record::{Event, Status, StepRecord};
use sandbox::hosts::simulated::CommandFault;
use worker::engine::Options as EngineOptions;

use super::{a_dead_process, unswept};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_for_good_blocks_what_needs_it_and_the_report_says_so()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    // Every acknowledgement is lost once: also the report's message comes again.
    lab.queue.set_redeliver(true);
    let worker = lab.worker().await?;
    let begun = lab
        .run(vec![
            demo("bad", 3, 0, Some(1), &[])?,
            demo("good", 3, 0, None, &[])?,
            demo("after-bad", 1, 0, None, &["demo/bad"])?,
            demo("after-good", 1, 0, None, &["demo/good"])?,
            report(&["demo/after-bad", "demo/after-good"])?,
        ])
        .await?;
    let bad = begun.reaches("demo/bad", &[Status::Failed], LONG).await?;
    assert_eq!(bad.attempts, 1, "what no repetition cures is not repeated");
    begun
        .reaches("demo/after-good", &[Status::Succeeded], LONG)
        .await?;
    begun.reaches("report", &[Status::Succeeded], LONG).await?;
    assert_eq!(begun.record("demo/after-bad").await?, None);
    let written = lab.report(&begun).unwrap();
    assert_eq!(written["verdict"], "failed");
    assert_eq!(
        written["not_succeeded"],
        serde_json::json!(["demo/bad", "demo/after-bad"])
    );
    let dead = lab.dead().await?;
    assert!(
        dead.iter()
            .any(|d| d.reason.contains("at `step/1`") && d.reason.contains("as the job asked for")),
        "{dead:?}"
    );
    // All messages have come and gone; the report counts for now only.
    lab.idle().await?;
    let settled = lab.store.settled(&begun.cluster, &begun.id).await?;
    let expected: BTreeSet<JobName> = ["demo/good", "demo/after-good"]
        .map(|name| JobName::new(name).unwrap())
        .into();
    assert_eq!(settled.done, expected, "a report on a failure is not done");
    let record = lab.store.recovery_record(&begun.cluster, &begun.id).await?;
    assert_eq!(record.unwrap().finished, None, "it waits for a retry");
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_used_up_then_the_job_fails_and_a_retry_makes_it_whole() -> anyhow::Result<()>
{
    let lab = Lab::start().await?;
    let faults = lab.hosts().faults();
    faults.add(
        CommandFault::on("wipefs")
            .server("test-cache-1")
            .times(1000),
    );
    let worker = lab
        .worker_with(EngineOptions {
            attempts: 3,
            ..quick()
        })
        .await?;
    let begun = lab.recover(&small("test")).await?;
    let record = begun
        .reaches("mount/test-cache-1", &[Status::Failed], LONG)
        .await?;
    assert_eq!((record.attempts, record.turn), (3, 3));
    let failure = record.failure.unwrap();
    assert_eq!(failure.step, Some(StepKey::of("fs-plan", "data")));
    assert!(failure.to_string().contains("wipefs"), "{failure}");
    begun.reaches("report", &[Status::Succeeded], LONG).await?;
    let written = lab.report(&begun).unwrap();
    assert_eq!(written["verdict"], "failed");
    assert_eq!(
        written["not_succeeded"],
        serde_json::json!(["mount/test-cache-1"])
    );
    until("its message is in the dead queue", || async {
        Ok(lab
            .dead()
            .await?
            .iter()
            .any(|d| d.reason.contains("wipefs")))
    })
    .await?;
    // A retry before the cause is mended fails again; then it is mended.
    lab.reopen(&begun, "report", Some("write")).await?;
    lab.retry(&begun, "mount/test-cache-1", None).await?;
    let record = begun
        .reaches("mount/test-cache-1", &[Status::Failed], LONG)
        .await?;
    assert_eq!((record.generation, record.attempts), (1, 3));
    begun.reaches("report", &[Status::Succeeded], LONG).await?;
    faults.clear();
    lab.reopen(&begun, "report", Some("write")).await?;
    lab.retry(&begun, "mount/test-cache-1", None).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    assert_eq!(lab.report(&begun).unwrap()["verdict"], "passed");
    assert_eq!(
        begun
            .record("mount/test-cache-1")
            .await?
            .unwrap()
            .generation,
        2
    );
    lab.is_whole(3, 1, 1)?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_gives_its_turn_to_the_others() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.sandbox.clo.faults().stuck_building("test-master-1", 1);
    let worker = lab
        .worker_with(EngineOptions {
            concurrency: 1,
            turn: Duration::from_millis(400),
            ..unswept()
        })
        .await?;
    let begun = lab.recover(&small("test")).await?;
    for job in [
        "provision/test-cache-1",
        "load-balancer",
        "mount/test-cache-1",
    ] {
        begun.reaches(job, &[Status::Succeeded], LONG).await?;
    }
    until("the waiting job has had several turns", || async {
        let record = begun.record("provision/test-master-1").await?;
        Ok(record.is_some_and(|r| {
            r.turn > 2 && r.waits.get("active/0").is_some_and(|w| w.waited_ms > 400)
        }))
    })
    .await?;
    let record = begun.record("provision/test-master-1").await?.unwrap();
    assert_eq!((record.attempts, record.crashes.in_a_row), (0, 0));
    worker.stop().await?;
    // The time waited is on record: shortly before its deadline the next turn sees it pass.
    lab.rewrite(&begun, "provision/test-master-1", |record| {
        let wait = record.waits.get_mut("active/0").unwrap();
        assert!(wait.seen.contains("BUILDING"), "{wait:?}");
        wait.waited_ms = 30 * 60 * 1000 - 10;
    })
    .await?;
    let worker = lab.worker().await?;
    let record = begun
        .reaches("provision/test-master-1", &[Status::Failed], LONG)
        .await?;
    let failure = record.failure.unwrap();
    assert_eq!(failure.step, Some(StepKey::of("active", 0)));
    let text = failure.to_string();
    assert!(
        text.contains("waited 1800 s of at most 1800 s") && text.contains("is BUILDING"),
        "{text}"
    );
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_another_build_park_the_job_and_nothing_runs() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.queue.set_hold(true);
    let begun = lab
        .run(vec![
            demo("a", 3, 0, None, &[])?,
            demo("b", 3, 0, None, &[])?,
        ])
        .await?;
    lab.rewrite(&begun, "demo/a", |record| {
        record.claim(a_dead_process(), Timestamp::now()).unwrap();
        record.steps.insert(
            StepKey::of("warp", 1),
            StepRecord {
                n: 1,
                output: serde_json::Value::Null,
                at: Timestamp::now(),
                ms: 1,
                epoch: 1,
            },
        );
        record.release(Event::Yield, Timestamp::now()).unwrap();
    })
    .await?;
    lab.queue.set_hold(false);
    let worker = lab.worker().await?;
    let record = begun.reaches("demo/a", &[Status::Parked], LONG).await?;
    let text = record.failure.unwrap().to_string();
    assert!(text.contains("warp/1"), "{text}");
    assert_eq!(record.steps.len(), 1, "nothing ran");
    begun.reaches("demo/b", &[Status::Succeeded], LONG).await?;
    until("its message is in the dead queue", || async {
        Ok(lab
            .dead()
            .await?
            .iter()
            .any(|d| d.reason.contains("warp/1")))
    })
    .await?;
    lab.retry(&begun, "demo/a", Some("warp/1")).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_job_is_a_failed_attempt_and_the_worker_lives() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.queue.set_hold(true);
    let begun = lab
        .run(vec![
            demo("a", 3, 0, None, &[])?,
            demo("b", 3, 0, None, &[])?,
        ])
        .await?;
    // Recorded results whose sum does not fit: adding them up panics in a build with checks.
    lab.rewrite(&begun, "demo/a", |record| {
        record.claim(a_dead_process(), Timestamp::now()).unwrap();
        for n in 0..2 {
            let step = StepRecord {
                n: n + 1,
                output: u64::MAX.into(),
                at: Timestamp::now(),
                ms: 1,
                epoch: 1,
            };
            record.steps.insert(StepKey::of("step", n), step);
        }
        record.release(Event::Yield, Timestamp::now()).unwrap();
    })
    .await?;
    lab.queue.set_hold(false);
    let worker = lab
        .worker_with(EngineOptions {
            attempts: 2,
            ..quick()
        })
        .await?;
    let record = begun.reaches("demo/a", &[Status::Failed], LONG).await?;
    assert_eq!((record.attempts, record.crashes.in_a_row), (2, 0));
    let text = record.failure.unwrap().to_string();
    assert!(
        text.contains("the job panicked") && text.contains("overflow"),
        "{text}"
    );
    begun.reaches("demo/b", &[Status::Succeeded], LONG).await?;
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_are_recovered_at_once_and_do_not_touch_each_other() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let (a, b) = (lab.worker().await?, lab.worker().await?);
    let one = lab.recover(&small("one")).await?;
    let two = lab.recover(&small("two")).await?;
    one.finished(LONG).await?;
    two.finished(LONG).await?;
    a.stop().await?;
    b.stop().await?;
    assert_eq!(lab.created(), [6, 2, 2, 2]);
    let snapshot = lab.sandbox.clo.snapshot();
    for begun in [&one, &two] {
        let cluster = lab.cluster(&begun.cluster);
        let mut servers = BTreeSet::new();
        for node in cluster.nodes().await? {
            let server = snapshot
                .servers
                .iter()
                .find(|s| s.id == node.server)
                .unwrap();
            assert_eq!(server.name, node.node.as_str());
            assert!(server.name.starts_with(begun.cluster.as_str()));
            servers.insert(node.server);
        }
        assert_eq!(servers.len(), 3);
        let volumes = cluster.volumes().await?;
        assert_eq!(volumes.len(), 1);
        let volume = snapshot
            .volumes
            .iter()
            .find(|v| v.id == volumes[0].id)
            .unwrap();
        assert_eq!(volume.name, format!("{}-cache-1-data", begun.cluster));
        assert!(servers.contains(volume.attached_to.as_ref().unwrap()));
        let lb = cluster.load_balancer().await?.unwrap();
        let balancer = snapshot.balancers.iter().find(|b| b.id == lb.id).unwrap();
        assert!(servers.contains(&balancer.rules[0].server));
    }
    lab.sandbox.stop().await
}
