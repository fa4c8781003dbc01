//! Workers die, messages come twice, late or never, operators change their minds: one world.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::lab::{LONG, Lab, demo, quick, report, small, steps_are_recorded_once, until};
use jiff::Timestamp;
use jobs::ids::{JobName, StepKey};
use jobs::queue::Order;
use jobs::record::{Event, Flags, Outcome, Owner, Status, StepRecord};
use sandbox::hosts::simulated::CommandFault;
use worker::engine::Options as EngineOptions;

/// A process of this host that is gone for certain.
fn a_dead_process() -> Owner {
    Owner {
        pid: u32::MAX,
        ..worker::engine::here(uuid::Uuid::new_v4())
    }
}

fn paused() -> Flags {
    Flags {
        paused: Some("lunch".into()),
        cancelled: None,
    }
}

fn cancelled() -> Flags {
    Flags {
        paused: None,
        cancelled: Some("wrong cluster".into()),
    }
}

/// No sweep: what is not posted by its own turn stays lying, and a test sees it.
fn unswept() -> EngineOptions {
    EngineOptions {
        sweep: None,
        ..quick()
    }
}

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
    for kill_after in [300, 900, 600, 1200] {
        let worker = lab.worker_with(options.clone()).await?;
        tokio::time::sleep(Duration::from_millis(kill_after)).await;
        worker.kill();
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
    for _ in 0..3 {
        let worker = lab.worker_with(options.clone()).await?;
        tokio::time::sleep(Duration::from_millis(400)).await;
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

/// The small cluster, with a queue that does what queues may do; for the first seconds only, since
/// a broker that never stops to double every message drowns everybody.
async fn recovered_by(
    disturb: impl Fn(&jobs::queue::InProcess),
    now_and_then: impl Fn(&jobs::queue::InProcess),
) -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    disturb(&lab.queue);
    let (one, two) = (lab.worker().await?, lab.worker().await?);
    let begun = lab.recover(&small("test")).await?;
    let disturbed = async {
        for _ in 0..16 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            now_and_then(&lab.queue);
        }
        lab.queue.set_duplicate(false);
        lab.queue.set_redeliver(false);
        lab.queue.set_hold(false);
        lab.queue.fail_publishes(0, false);
    };
    let (finished, ()) = tokio::join!(begun.finished(LONG), disturbed);
    finished?;
    one.stop().await?;
    two.stop().await?;
    lab.is_whole(3, 1, 1)?;
    steps_are_recorded_once(&lab, &begun).await?;
    assert!(lab.dead().await?.is_empty(), "{:?}", lab.dead().await?);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_comes_twice() -> anyhow::Result<()> {
    recovered_by(
        |queue| {
            queue.set_duplicate(true);
            queue.set_redeliver(true);
        },
        |_| (),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_in_the_wrong_order() -> anyhow::Result<()> {
    recovered_by(|queue| queue.set_order(Order::Reverse), |_| ()).await?;
    recovered_by(
        |queue| {
            queue.set_order(Order::Shuffled(7));
            queue.set_redeliver(true);
        },
        |_| (),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_late_and_connections_break() -> anyhow::Result<()> {
    let held = std::cell::Cell::new(false);
    recovered_by(
        |_| (),
        |queue| {
            held.set(!held.get());
            queue.set_hold(held.get());
            if !held.get() {
                queue.break_connections();
            }
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_are_not_confirmed() -> anyhow::Result<()> {
    for arrives in [false, true] {
        recovered_by(|_| (), |queue| queue.fail_publishes(2, arrives)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_broker_loses_nothing() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let begun = lab.recover(&small("test")).await?;
    lab.queue.wipe();
    let worker = lab.worker().await?;
    lab.sandbox
        .clo
        .wait_until("a server", |s| !s.servers.is_empty())
        .await;
    lab.queue.wipe();
    begun.finished(LONG).await?;
    worker.stop().await?;
    lab.is_whole(3, 1, 1)?;
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

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
async fn pause_stops_at_the_next_step_and_resume_goes_on_at_once() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let worker = lab.worker_with(unswept()).await?;
    let begun = lab.run(vec![demo("a", 200, 20, None, &[])?]).await?;
    until("it has steps", || async {
        Ok(begun
            .record("demo/a")
            .await?
            .is_some_and(|r| r.steps.len() >= 5))
    })
    .await?;
    lab.flags(&begun, &paused()).await?;
    let record = begun.reaches("demo/a", &[Status::Waiting], LONG).await?;
    assert!(record.steps.len() < 200);
    assert_eq!((record.attempts, record.owner), (0, None));
    // A message that comes while it is paused changes nothing.
    let job = begun.plan.jobs()[0].clone();
    begun.post(&lab.queue, &job, "early").await?;
    lab.idle().await?;
    assert_eq!(begun.record("demo/a").await?.unwrap().epoch, record.epoch);
    // Nobody sweeps here: the one message after the resume must do.
    lab.flags(&begun, &Flags::default()).await?;
    begun.post(&lab.queue, &job, "resume").await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_the_recovery_and_frees_the_cluster() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let worker = lab.worker().await?;
    let begun = lab
        .run(vec![
            demo("a", 1000, 20, None, &[])?,
            demo("b", 1, 0, None, &["demo/a"])?,
        ])
        .await?;
    begun.reaches("demo/a", &[Status::Running], LONG).await?;
    lab.flags(&begun, &cancelled()).await?;
    ends_as_cancelled(&lab, &begun).await?;
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_also_ends_what_a_dead_worker_held() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let worker = lab.worker().await?;
    let begun = lab
        .run(vec![
            demo("a", 1000, 20, None, &[])?,
            demo("b", 1, 0, None, &["demo/a"])?,
        ])
        .await?;
    begun.reaches("demo/a", &[Status::Running], LONG).await?;
    worker.kill();
    lab.flags(&begun, &cancelled()).await?;
    // Its message is lost too: only the sweep sees it, and of its process nothing is known.
    lab.queue.wipe();
    let other = lab.worker().await?;
    ends_as_cancelled(&lab, &begun).await?;
    other.stop().await?;
    lab.sandbox.stop().await
}

async fn ends_as_cancelled(lab: &Lab, begun: &e2e::recovery::Begun) -> anyhow::Result<()> {
    until("the recovery ends", || async {
        let record = lab.store.recovery_record(&begun.cluster, &begun.id).await?;
        Ok(record.unwrap().finished.is_some())
    })
    .await?;
    let record = lab.store.recovery_record(&begun.cluster, &begun.id).await?;
    assert_eq!(
        record.unwrap().finished.unwrap().outcome,
        Outcome::Cancelled
    );
    assert_eq!(lab.store.active(&begun.cluster).await?, None);
    for job in ["demo/a", "demo/b"] {
        let record = begun.record(job).await?.unwrap();
        assert_eq!(
            (record.status, record.owner),
            (Status::Cancelled, None),
            "{job}"
        );
    }
    Ok(())
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
