//! Worker processes and how they end: killed, crashing by themselves, asked to stop. RabbitMQ, the
//! store and the workers are real processes and sockets; the jobs are demo jobs without effects.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::history;
use e2e::processes::until;
use e2e::recovery::Begun;
use e2e::site::{Site, demo};
use jobs::record::{JobRecord, Status};

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(180);

/// Waits until a job is owned by some process and has at least this many steps.
async fn running(
    begun: &Begun,
    job: &str,
    steps: usize,
    not: u32,
) -> anyhow::Result<(u32, JobRecord)> {
    let what = format!("{job} runs and has {steps} steps");
    // Well below a lease of 60 s.
    until(&what, Duration::from_secs(30), async || {
        let record = begun.record(job).await?;
        Ok(record
            .filter(|r| r.steps.len() >= steps)
            .and_then(|r| Some((r.owner.as_ref()?.pid, r)))
            .filter(|(pid, _)| *pid != not))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_worker_crash_resumes_without_waiting_for_the_lease() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    // Nobody waits for this lease: the deadlines are shorter. So the other worker must see that
    // the owner was a process of its own host that is gone.
    let mut workers = site.workers(&["--lease", "60", "--sweep", "0"])?;
    workers.spawn()?;
    workers.spawn()?;
    let begun = site.begin(Some(vec![demo("a", 40, 200, None)])).await?;
    let (first, before) = running(&begun, "demo/a", 3, 0).await?;
    workers.kill9(first).await?;
    let (second, _) = running(&begun, "demo/a", before.steps.len() + 2, first).await?;
    ensure!(workers.pids().contains(&second), "a stranger took it");
    let record = begun.reaches("demo/a", &[Status::Succeeded], LONG).await?;
    assert_eq!((record.epoch, record.crashes.in_a_row), (2, 1));
    let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    assert_eq!((history.steps, history.takeovers), (41, 1));
    begun.finished(LONG).await?;
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_poison_job_is_quarantined_and_others_go_on() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = site.workers(&[])?;
    workers.spawn()?;
    // The bystander's steps are longer than the time between two crashes: it crashes along, at the
    // same step each time, and has done nothing wrong.
    let plan = vec![
        demo("poison", 5, 50, Some(2)),
        demo("bystander", 3, 2000, None),
    ];
    let begun = site.begin(Some(plan)).await?;
    let mut crashes = 0;
    let quarantined = until("the poison is quarantined", LONG, async || {
        for status in workers.fallen()? {
            ensure!(!status.success(), "a worker ended by itself");
            crashes += 1;
            workers.spawn()?;
        }
        let record = begun.record("demo/poison").await?;
        Ok(record.filter(|r| r.status.is_settled()))
    })
    .await?;
    assert_eq!(quarantined.status, Status::Quarantined);
    assert_eq!(crashes, 3);
    let failure = quarantined.failure.context("it has a reason")?;
    assert_eq!(failure.step.as_ref().map(|s| s.as_str()), Some("step/2"));
    ensure!(failure.to_string().contains("crashed 3 times"), "{failure}");
    begun
        .reaches("demo/bystander", &[Status::Succeeded], LONG)
        .await?;
    history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_sigterm_gives_the_lease_back() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = site.workers(&["--lease", "60", "--sweep", "0"])?;
    let first = workers.spawn()?;
    let begun = site.begin(Some(vec![demo("a", 12, 1000, None)])).await?;
    let (owner, _) = running(&begun, "demo/a", 2, 0).await?;
    assert_eq!(owner, first);
    let status = workers.terminate(first, LONG).await?;
    assert_eq!(status.code(), Some(0), "{status}");
    let between = begun.record("demo/a").await?.context("it has a record")?;
    assert_eq!(between.owner, None, "the lease is given back");
    assert_eq!((between.status, between.epoch), (Status::Waiting, 1));
    assert_eq!((between.attempts, between.crashes.in_a_row), (0, 0));
    assert!(between.failure.is_none() && between.steps.len() < 12);

    let second = workers.spawn()?;
    let (owner, _) = running(&begun, "demo/a", between.steps.len() + 1, first).await?;
    assert_eq!(owner, second);
    let record = begun.reaches("demo/a", &[Status::Succeeded], LONG).await?;
    assert_eq!(
        (record.epoch, record.attempts, record.crashes.in_a_row),
        (2, 0, 0)
    );
    let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    assert_eq!((history.steps, history.takeovers), (13, 0));
    workers.stop().await?;
    site.stop().await
}
