//! Markers: what a worker asks of the store to know what is done.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use e2e::lab::Lab;
use jobs::ids::{ClusterName, JobName, RecoveryId};

#[tokio::test(flavor = "multi_thread")]
async fn a_done_marker_is_read_once_and_a_worker_that_is_behind_catches_up_with_one_listing()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let (cluster, id) = (ClusterName::new("demo")?, RecoveryId::new("r-1")?);
    let jobs: Vec<JobName> = (0..40)
        .map(|n| JobName::new(format!("demo/n{n}")))
        .collect::<Result<_, _>>()?;
    let missing = JobName::new("demo/missing")?;
    for job in &jobs {
        lab.store.mark_done(&cluster, &id, job).await?;
    }
    let other = lab.store.as_another_writer();
    let all: Vec<&JobName> = jobs.iter().collect();
    let with_missing: Vec<&JobName> = [&missing].into_iter().chain(&jobs).collect();
    // Who asks, for which ones, and what it costs in GETs and LISTs.
    for (store, asked, done, cost) in [
        (&lab.store, &all[..], true, (0, 0)),
        (&other, &all[..10], true, (10, 0)),
        (&other, &all[..10], true, (0, 0)),
        (&other, &with_missing[..], false, (1, 0)),
        (&other, &all[..], true, (16, 1)),
        (&other, &all[..], true, (0, 0)),
        (&other, &with_missing[..], false, (1, 0)),
    ] {
        let before = lab.sandbox.s3.stats();
        let answer = store.are_done(&cluster, &id, asked.iter().copied()).await?;
        let after = lab.sandbox.s3.stats();
        let paid = (after.get - before.get, after.list - before.list);
        assert_eq!((answer, paid), (done, cost), "{} jobs", asked.len());
    }
    lab.store.mark_done(&cluster, &id, &missing).await?;
    assert!(
        other.are_done(&cluster, &id, with_missing).await?,
        "what was missing is asked for again"
    );
    lab.sandbox.stop().await
}
