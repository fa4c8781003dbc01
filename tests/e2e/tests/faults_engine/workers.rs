//! Workers die, stop, and come back.

use std::time::Duration;

use e2e::lab::{LONG, Lab, demo, quick, report, small, steps_are_recorded_once, until};
use jiff::Timestamp;
use jobs::ids::StepKey;
use jobs::record::{JobRecord, Status};
use worker::engine::Options as EngineOptions;

use super::{a_dead_process, unswept};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_steps_are_not_run_again_and_its_death_is_counted() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let first = lab.worker_with(unswept()).await?;
    let begun = lab.run(vec![demo("a", 60, 20, None, &[])?]).await?;
    until("it has steps", || async {
        Ok(begun
            .record("demo/a")
            .await?
            .is_some_and(|r| r.steps.len() >= 10))
    })
    .await?;
    first.kill();
    let left = begun.record("demo/a").await?.unwrap();
    assert!(left.owner.is_some(), "nobody gave the lease back");
    assert!(left.steps.len() < 60, "it died in the middle");
    let second = lab.worker_with(unswept()).await?;
    begun.finished(LONG).await?;
    second.stop().await?;
    let record = begun.record("demo/a").await?.unwrap();
    assert_eq!((record.epoch, record.crashes.in_a_row), (2, 1));
    assert_eq!(record.attempts, 0, "a crash is no failure");
    for (key, step) in &left.steps {
        assert_eq!(record.steps[key], *step, "what was recorded stays");
    }
    assert!(record.steps.values().any(|s| s.epoch == 2));
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_again_and_again_make_everything_exactly_once() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let options = EngineOptions {
        lease: Duration::from_millis(700),
        ..quick()
    };
    let begun = lab.recover(&small("test")).await?;
    for pair in [[300, 900], [600, 1200]] {
        // Any moment will do.
        for kill_after in pair {
            let worker = lab.worker_with(options.clone()).await?;
            tokio::time::sleep(Duration::from_millis(kill_after)).await;
            worker.kill();
        }
        // A third death at one place would be a quarantine, and rightly: all jobs get further first.
        let before = begun.records().await?;
        let worker = lab.worker_with(options.clone()).await?;
        until("every job has got further", || async {
            let after = begun.records().await?;
            Ok(before.iter().all(|(name, before)| {
                let (Some(before), Some(after)) = (before, &after[name]) else {
                    return true;
                };
                after.status == Status::Succeeded || after.steps.len() > before.steps.len()
            }))
        })
        .await?;
        worker.stop().await?;
    }
    let last = lab.worker_with(options).await?;
    begun.finished(LONG).await?;
    last.stop().await?;
    lab.is_whole(3, 1, 1)?;
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_gives_the_lease_back_and_counts_as_neither_crash_nor_failure()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let first = lab.worker_with(unswept()).await?;
    let begun = lab.run(vec![demo("a", 60, 20, None, &[])?]).await?;
    until("it has steps", || async {
        Ok(begun
            .record("demo/a")
            .await?
            .is_some_and(|r| r.steps.len() >= 5))
    })
    .await?;
    first.stop().await?;
    let left = begun.record("demo/a").await?.unwrap();
    assert_eq!(left.status, Status::Waiting);
    assert_eq!(
        (left.owner.clone(), left.attempts, left.crashes.in_a_row),
        (None, 0, 0)
    );
    let second = lab.worker_with(unswept()).await?;
    begun.finished(LONG).await?;
    second.stop().await?;
    let record = begun.record("demo/a").await?.unwrap();
    assert_eq!((record.epoch, record.crashes.in_a_row), (2, 0));
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_stopped_in_order_leave_no_lease_that_others_must_wait_for() -> anyhow::Result<()> {
    let options = EngineOptions {
        lease: Duration::from_secs(600),
        sweep: None,
        ..quick()
    };
    let lab = Lab::start().await?;
    let begun = lab.recover(&small("test")).await?;
    let steps = async || {
        let records = begun.records().await?;
        let done = |r: &Option<_>| {
            r.as_ref()
                .is_some_and(|r: &JobRecord| r.status.is_settled())
        };
        let steps: usize = records.values().flatten().map(|r| r.steps.len()).sum();
        anyhow::Ok((steps, records.values().all(done)))
    };
    for _ in 0..3 {
        let (before, _) = steps().await?;
        let worker = lab.worker_with(options.clone()).await?;
        until("it has done something", || async {
            let (now, finished) = steps().await?;
            Ok(finished || now > before)
        })
        .await?;
        worker.stop().await?;
    }
    let last = lab.worker_with(options).await?;
    begun.finished(LONG).await?;
    last.stop().await?;
    lab.is_whole(3, 1, 1)?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_crash_at_one_step_quarantines_the_job_and_no_other() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.queue.set_hold(true);
    let begun = lab
        .run(vec![
            demo("a", 3, 0, None, &[])?,
            demo("b", 3, 0, None, &[])?,
            demo("after-a", 3, 0, None, &["demo/a"])?,
            report(&["demo/a", "demo/b", "demo/after-a"])?,
        ])
        .await?;
    lab.rewrite(&begun, "demo/a", |record| {
        for _ in 0..3 {
            record.claim(a_dead_process(), Timestamp::now()).unwrap();
        }
        record.crashes.running = vec![StepKey::of("step", 1)];
    })
    .await?;
    lab.queue.set_hold(false);
    let worker = lab.worker().await?;
    let record = begun
        .reaches("demo/a", &[Status::Quarantined], LONG)
        .await?;
    let failure = record.failure.clone().unwrap();
    assert_eq!(failure.step, Some(StepKey::of("step", 1)));
    assert!(
        failure
            .to_string()
            .contains("crashed 3 times in a row while `step/1` ran"),
        "{failure}"
    );
    assert_eq!((record.owner, record.steps.len()), (None, 0));
    begun.reaches("demo/b", &[Status::Succeeded], LONG).await?;
    begun.reaches("report", &[Status::Succeeded], LONG).await?;
    assert_eq!(lab.report(&begun).unwrap()["verdict"], "failed");
    until("its message is in the dead queue", || async {
        Ok(lab
            .dead()
            .await?
            .iter()
            .any(|d| d.reason.contains("step/1")))
    })
    .await?;
    assert_eq!(begun.record("demo/after-a").await?, None, "it is blocked");
    // A person mends it.
    lab.reopen(&begun, "report", Some("write")).await?;
    lab.retry(&begun, "demo/a", None).await?;
    begun.finished(LONG).await?;
    assert_eq!(lab.report(&begun).unwrap()["verdict"], "passed");
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_store_is_no_crash_of_the_job() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.sandbox.clo.faults().stuck_building("test-cache-1", 1);
    let worker = lab
        .worker_with(EngineOptions {
            lease: Duration::from_millis(700),
            ..quick()
        })
        .await?;
    let begun = lab.recover(&small("test")).await?;
    let waits = || async {
        let record = begun.record("provision/test-cache-1").await?;
        Ok(record.is_some_and(|r| r.waits.contains_key("active/0") && r.owner.is_some()))
    };
    for _ in 0..4 {
        until("the job waits for its server", waits).await?;
        let epoch = begun.record("provision/test-cache-1").await?.unwrap().epoch;
        lab.sandbox.s3.faults().set_down(true);
        // Longer than the lease. There is nothing to wait for: nobody can write a word of it down.
        tokio::time::sleep(Duration::from_millis(1000)).await;
        lab.sandbox.s3.faults().set_down(false);
        until("the job has been taken up again", || async {
            let record = begun.record("provision/test-cache-1").await?.unwrap();
            assert_ne!(record.status, Status::Quarantined, "{:?}", record.crashes);
            Ok(record.epoch > epoch)
        })
        .await?;
    }
    let record = begun.record("provision/test-cache-1").await?.unwrap();
    assert_eq!(
        record.crashes.in_a_row, 0,
        "the worker was alive all the time"
    );
    worker.kill();
    lab.sandbox.stop().await
}
