//! Operators pause, resume and cancel.

use e2e::lab::{LONG, Lab, demo, steps_are_recorded_once, until};
use jobs::record::{Flags, Outcome, Status};

use super::unswept;

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
    // It lets go a moment after it has ended.
    until("the cluster is free", || async {
        Ok(lab.store.active(&begun.cluster).await?.is_none())
    })
    .await?;
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
