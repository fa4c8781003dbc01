//! Whole recoveries over SQS: commands and workers are real processes, the queue is an emulator's.

use std::time::Duration;

use anyhow::ensure;
use e2e::history::{self, History};
use e2e::processes::until;
use e2e::recovery::Begun;
use e2e::sqs::SqsSite;
use jobs::ids::ClusterName;
use jobs::queue::Depth;
use jobs::record::Status;
use sandbox::clo::{CloOptions, Operation};
use sandbox::world::Options;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(240);

/// Servers take long enough that whatever happens finds the recovery in the middle.
fn slow_cloud() -> Options {
    let clo = CloOptions {
        boot_time: Duration::from_secs(2),
        max_building: 4,
        ..CloOptions::default()
    };
    Options {
        clo,
        ..Options::default()
    }
}

/// Waits until some jobs are done, some run, and some have not begun.
async fn half_way(begun: &Begun) -> anyhow::Result<()> {
    until("some jobs are done", LONG, async || {
        let records = begun.records().await?;
        let of = records.values().flatten();
        let done = of
            .filter(|record| record.status == Status::Succeeded)
            .count();
        ensure!(done < records.len(), "it is all over");
        Ok((done >= 4).then_some(()))
    })
    .await
}

/// One world, and its history.
fn check(site: &SqsSite, begun: &Begun) -> anyhow::Result<History> {
    let snapshot = site.sandbox.clo.snapshot();
    assert_eq!(snapshot.servers.len(), 17);
    assert_eq!(snapshot.balancers.len(), 1);
    assert_eq!(site.sandbox.clo.effects(Operation::CreateServer), 17);
    assert_eq!(site.sandbox.clo.effects(Operation::CreateVolume), 7);
    let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    assert_eq!(history.jobs, begun.plan.jobs().len());
    Ok(history)
}

/// Everything is acknowledged and nothing was given up: what is left are wake-ups for later.
async fn nothing_is_left(site: &SqsSite) -> anyhow::Result<()> {
    let queue = site.emulator.queue()?;
    until("the queue is empty", LONG, async || {
        let Depth { ready, dead, .. } = queue.depth().await?;
        ensure!(dead == 0, "{dead} messages are dead");
        Ok((ready == 0).then_some(()))
    })
    .await?;
    queue.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_commands_and_two_workers_recover_a_cluster_over_sqs() -> anyhow::Result<()> {
    let site = SqsSite::with(Options::default()).await?;
    let doctor = site.rekindle("doctor").await?;
    ensure!(doctor.contains("ok     queue"), "{doctor}");
    // No sweep: the messages alone carry it.
    let mut workers = site.workers(&["--sweep", "0"])?;
    workers.spawn()?;
    workers.spawn()?;
    let recover = "recover --cluster test --spec cluster.yaml --key ci-1 --wait --timeout 4m";
    let said = site.rekindle(recover).await?;
    ensure!(said.contains("succeeded"), "{said}");
    assert_eq!(site.sandbox.clo.effects(Operation::CreateServer), 17);
    assert_eq!(site.sandbox.clo.effects(Operation::CreateVolume), 7);
    let status = site.rekindle("status --cluster test --output json").await?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let id = status["recovery"]["id"].as_str().unwrap_or_default();
    let cluster = ClusterName::new("test")?;
    let history = history::check(&site.sandbox, &cluster, &jobs::ids::RecoveryId::new(id)?)?;
    ensure!(history.jobs > 17, "{history:?}");
    assert_eq!(history.takeovers, 0);
    nothing_is_left(&site).await?;
    workers.stop().await?;
    let said = site.rekindle("purge rekindle-jobs-dead").await?;
    ensure!(said.contains("rekindle retry"), "{said}");
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_worker_killed_half_way_over_sqs() -> anyhow::Result<()> {
    let site = SqsSite::with(slow_cloud()).await?;
    // No sweep: what the dead worker held has to come back by itself.
    let mut workers = site.workers(&["--sweep", "0"])?;
    let first = workers.spawn()?;
    workers.spawn()?;
    let begun = site.begin().await?;
    half_way(&begun).await?;
    workers.kill9(first).await?;
    begun.finished(LONG).await?;
    let history = check(&site, &begun)?;
    ensure!(history.takeovers > 0, "it held no job: {history:?}");
    nothing_is_left(&site).await?;
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_sqs_loses_everything_half_way() -> anyhow::Result<()> {
    let site = SqsSite::with(slow_cloud()).await?;
    let mut workers = site.workers(&["--sweep", "2", "--lease", "5"])?;
    workers.spawn()?;
    workers.spawn()?;
    let begun = site.begin().await?;
    half_way(&begun).await?;
    site.emulator.wipe().await?;
    begun.finished(LONG).await?;
    let history = check(&site, &begun)?;
    // The workers lived: nobody was taken for dead.
    assert_eq!(history.takeovers, 0);
    workers.stop().await?;
    site.stop().await
}
