//! The broker only wakes workers up: whatever becomes of it, the recovery finishes from what is in
//! the bucket.

use std::time::Duration;

use anyhow::ensure;
use e2e::processes::until;
use e2e::recovery::Begun;
use e2e::site::Site;
use e2e::{history, processes::Workers};
use jobs::record::Status;
use sandbox::clo::{CloOptions, Operation};
use sandbox::world::Options;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(240);

/// Servers take long enough that the broker's end finds the recovery in the middle.
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

/// A recovery that is half-way: some jobs are done, some run, some have not begun.
async fn half_way(site: &Site, args: &[&str]) -> anyhow::Result<(Workers, Begun)> {
    let mut workers = site.workers(args)?;
    workers.spawn()?;
    workers.spawn()?;
    let begun = site.begin(None).await?;
    until("some jobs are done", LONG, async || {
        let records = begun.records().await?;
        let is = |status| {
            let of = records.values().flatten();
            of.filter(|record| record.status == status).count()
        };
        ensure!(is(Status::Succeeded) < records.len(), "it is all over");
        Ok((is(Status::Succeeded) >= 4).then_some(()))
    })
    .await?;
    Ok((workers, begun))
}

async fn check(site: &Site, begun: &Begun) -> anyhow::Result<()> {
    let snapshot = site.sandbox.clo.snapshot();
    assert_eq!(snapshot.servers.len(), 17);
    assert_eq!(snapshot.balancers.len(), 1);
    assert_eq!(site.sandbox.clo.effects(Operation::CreateServer), 17);
    assert_eq!(site.sandbox.clo.effects(Operation::CreateVolume), 7);
    let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    assert_eq!(history.jobs, begun.plan.jobs().len());
    // The workers lived: nobody was taken for dead.
    assert_eq!(history.takeovers, 0);
    let failed = begun.records().await?.into_values().flatten();
    assert_eq!(failed.map(|r| r.crashes.in_a_row).sum::<u32>(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_broker_killed_and_restarted_half_way() -> anyhow::Result<()> {
    let site = Site::with(slow_cloud()).await?;
    // No sweep: the messages themselves have to survive.
    let (workers, begun) = half_way(&site, &["--sweep", "0"]).await?;
    site.broker.kill9().await?;
    site.broker.restart().await?;
    begun.finished(LONG).await?;
    check(&site, &begun).await?;
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_broker_wiped_half_way() -> anyhow::Result<()> {
    let site = Site::with(slow_cloud()).await?;
    let (workers, begun) = half_way(&site, &["--sweep", "2", "--lease", "5"]).await?;
    site.broker.wipe().await?;
    begun.finished(LONG).await?;
    check(&site, &begun).await?;
    workers.stop().await?;
    site.stop().await
}
