//! The disaster: every server is gone, the data volumes are what is left. The hosts are real ones
//! (Linux namespaces with sshd and disks), and so are broker and workers.

use std::time::Duration;

use anyhow::ensure;
use e2e::recovery::Begun;
use e2e::site::Site;
use e2e::{disks, history};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sandbox::clo::Operation;
use tokio::time::{Instant, timeout};

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(300);

const NODES: usize = 17;
const VOLUMES: usize = 7;

/// A cluster that was recovered once, has something on its disks, and then lost all its servers.
async fn disaster(site: &Site) -> anyhow::Result<(Begun, Before)> {
    let mut workers = site.workers(&[])?;
    workers.spawn()?;
    let first = site.begin(None).await?;
    first.finished(LONG).await?;
    workers.stop().await?;
    disks::leave_canaries(&site.sandbox, &first.cluster).await?;
    let disks = disks::look(&site.sandbox, &first.cluster).await?;
    assert_eq!(disks.len(), VOLUMES);
    let devices = devices(site);
    site.sandbox.clo.destroy_all_servers().await;
    Ok((first, Before { disks, devices }))
}

struct Before {
    disks: std::collections::BTreeMap<jobs::ids::NodeName, disks::DataDisk>,
    devices: Vec<(String, Option<String>)>,
}

fn devices(site: &Site) -> Vec<(String, Option<String>)> {
    let volumes = site.sandbox.clo.snapshot().volumes;
    let ours = volumes.into_iter().filter(|v| !v.bootable && !v.local);
    ours.map(|v| (v.id, v.device)).collect()
}

/// The world after two recoveries: nothing twice, nothing lost.
async fn check(site: &Site, begun: &Begun, before: &Before) -> anyhow::Result<()> {
    let snapshot = site.sandbox.clo.snapshot();
    assert_eq!(snapshot.servers.len(), NODES);
    let mut names: Vec<_> = snapshot.servers.iter().map(|s| &s.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), NODES, "a node has two servers");
    assert_eq!(devices(site).len(), VOLUMES);
    assert_eq!(snapshot.balancers.len(), 1);
    assert_eq!(snapshot.balancers[0].rules.len(), 5);
    let effects = |operation| site.sandbox.clo.effects(operation);
    assert_eq!(effects(Operation::CreateServer), 2 * NODES);
    assert_eq!(effects(Operation::CreateVolume), VOLUMES);
    assert_eq!(effects(Operation::CreateBalancer), 1);
    assert_eq!(effects(Operation::DeleteVolume), 0);
    assert_eq!(effects(Operation::DeleteServer), 0);
    assert_eq!(site.sandbox.clo.troubles(), Vec::<String>::new());

    // Same volumes at the same nodes, same file systems, and what was on them.
    let after = disks::look(&site.sandbox, &begun.cluster).await?;
    assert_eq!(after, before.disks);
    let songs = disks::songs(&site.sandbox, &begun.cluster).await?;
    let heard = after.into_iter().map(|(node, disk)| (node, disk.canary));
    assert_eq!(heard.collect::<std::collections::BTreeMap<_, _>>(), songs);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_destroyed_servers_come_back_with_their_data() -> anyhow::Result<()> {
    let site = Site::real(Duration::from_millis(500)).await?;
    let (first, before) = disaster(&site).await?;
    // The hypervisor gives the disks other names this time.
    for node in before.disks.keys() {
        site.sandbox.clo.faults().next_device(node.as_str(), "vdf");
    }
    let mut workers = site.workers(&[])?;
    workers.spawn()?;
    workers.spawn()?;
    let second = site.begin(None).await?;
    second.finished(LONG).await?;
    check(&site, &second, &before).await?;
    for (volume, device) in devices(&site) {
        let then = before.devices.iter().find(|(id, _)| *id == volume);
        ensure!(
            then.is_some_and(|(_, then)| *then != device),
            "{volume} is {device:?} again"
        );
    }
    for begun in [&first, &second] {
        let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
        assert_eq!(
            (history.jobs, history.takeovers),
            (begun.plan.jobs().len(), 0)
        );
    }
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_kill_nine_every_few_seconds() -> anyhow::Result<()> {
    let seed = match std::env::var("REKINDLE_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    eprintln!("REKINDLE_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);

    let site = Site::real(Duration::from_secs(8)).await?;
    let (_, before) = disaster(&site).await?;
    let mut workers = site.workers(&[])?;
    workers.spawn()?;
    workers.spawn()?;
    let second = site.begin(None).await?;
    let began = Instant::now();
    let mut kills = 0;
    loop {
        let pause = Duration::from_millis(dice.random_range(2000..=3000));
        match timeout(pause, second.finished(LONG)).await {
            Ok(finished) => break finished?,
            Err(_) => {
                let pids = workers.pids();
                workers
                    .kill9(pids[dice.random_range(0..pids.len())])
                    .await?;
                workers.spawn()?;
                kills += 1;
            }
        }
        ensure!(began.elapsed() < LONG, "not finished after {kills} kills");
    }
    let history = history::check(&site.sandbox, &second.cluster, &second.id)?;
    eprintln!("{kills} kills, {:?}, {history:?}", began.elapsed());
    ensure!(kills >= 3 && history.takeovers > 0, "that was no chaos");
    assert_eq!(history.jobs, second.plan.jobs().len());
    check(&site, &second, &before).await?;
    workers.stop().await?;
    site.stop().await
}
