//! What nobody is told about any more, the sweep finds in the records.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use e2e::lab::{LONG, Lab, demo, quick, small};
use e2e::recovery::begin;
use jobs::queue::InProcess;

/// The worker that finished the last job died before it could write the recovery's end, and the
/// broker lost the message.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_whose_end_was_forgotten_is_ended() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let lost = InProcess::new();
    let plan = vec![
        demo("a", 1, 0, None, &[])?,
        demo("b", 1, 0, None, &["demo/a"])?,
    ];
    let begun = begin(&lab.store, &lost, &small("demo"), Some(plan)).await?;
    for job in begun.plan.jobs() {
        lab.store
            .mark_done(&begun.cluster, &begun.id, &job.name)
            .await?;
    }
    let worker = lab.worker_with(quick()).await?;
    begun.finished(LONG).await?;
    assert_eq!(
        lab.store.active(&begun.cluster).await?,
        None,
        "the cluster is free"
    );
    worker.stop().await?;
    lab.sandbox.stop().await
}
