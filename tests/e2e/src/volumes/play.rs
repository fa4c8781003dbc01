//! Two recoveries side by side, with two workers each, while things go wrong.

use std::time::Duration;

use anyhow::{Context, ensure};
use jobs::plan::Readiness;
use jobs::record::Status;
use sandbox::clo::CloOptions;
use sandbox::hosts::simulated::CommandFault;
use sandbox::world::Options;
use tokio::time::{Instant, sleep};

use super::judge::{Tally, judge};
use super::scene::{Scene, Sequel};
use super::stage::{self, Part, Stage};
use crate::lab::{Lab, Worker};
use crate::recovery::Begun;

/// Two for each recovery.
const WORKERS: usize = 4;
/// What has not settled by then is judged as it stands: what must never happen must not happen on
/// the way either.
const ACT: Duration = Duration::from_secs(60);

/// Plays a scene to its end. An error names everything that must not have happened.
pub async fn play(scene: &Scene) -> anyhow::Result<Tally> {
    let clo = CloOptions {
        boot_disks_survive: scene.seed.is_multiple_of(2),
        ..CloOptions::default()
    };
    let lab = Lab::with(Options {
        clo,
        ..Options::default()
    })
    .await?;
    let mut stage = stage::set(&lab, scene).await?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(lab.worker().await?);
    }
    let mut recoveries = recover(&lab, scene).await?;
    let mut unsettled = settle(&lab, scene, &recoveries, &mut workers).await?;
    let (mut found, mut tally) = judge(&lab, scene, &stage, &recoveries).await?;
    if scene.sequel != Sequel::End {
        lab.sandbox.clo.faults().clear();
        lab.hosts().faults().clear();
        stage = as_it_is_now(&lab, stage, scene).await?;
        match scene.sequel {
            Sequel::End => {}
            Sequel::Disaster => {
                lab.sandbox.clo.destroy_all_servers().await;
                recoveries = recover(&lab, scene).await?;
                unsettled += settle(&lab, scene, &recoveries, &mut workers).await?;
            }
            Sequel::RetryFromFormat => unsettled += retry_from_format(&lab, &recoveries).await?,
        }
        let (after, again) = judge(&lab, scene, &stage, &recoveries).await?;
        found.extend(after);
        tally = again;
    }
    tally.unsettled = unsettled;
    for worker in workers {
        worker.kill();
    }
    lab.sandbox.stop().await?;
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(tally)
}

async fn recover(lab: &Lab, scene: &Scene) -> anyhow::Result<Vec<(usize, Begun)>> {
    let mut recoveries = Vec::new();
    for (index, cluster) in scene.clusters.iter().enumerate() {
        recoveries.push((index, lab.recover(&cluster.spec()).await?));
    }
    Ok(recoveries)
}

/// Waits until no job can go on, killing workers as the scene says. Gives how many recoveries had
/// not settled in the end.
async fn settle(
    lab: &Lab,
    scene: &Scene,
    recoveries: &[(usize, Begun)],
    workers: &mut Vec<Worker>,
) -> anyhow::Result<usize> {
    let began = Instant::now();
    let mut kills = scene.kills.clone();
    kills.sort_unstable();
    loop {
        if let Some(at) = kills.first()
            && began.elapsed() >= Duration::from_millis(*at)
        {
            kills.remove(0);
            workers.remove(0).kill();
            workers.push(lab.worker().await?);
        }
        let mut open = 0;
        for (_, begun) in recoveries {
            let settled = lab.store.settled(&begun.cluster, &begun.id).await?;
            let readiness = begun.plan.readiness(&settled);
            let goes_on = |r: &Readiness| matches!(r, Readiness::Ready | Readiness::Needs(_));
            open += usize::from(readiness.values().any(goes_on));
        }
        if open == 0 || began.elapsed() > ACT {
            return Ok(open);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The stage for the next act: all that exists now, with a file on everything that is mounted. What
/// has a file system by now is never formatted again.
async fn as_it_is_now(lab: &Lab, stage: Stage, scene: &Scene) -> anyhow::Result<Stage> {
    let snapshot = lab.sandbox.clo.snapshot();
    for server in &snapshot.servers {
        for target in lab.hosts().mounts(&server.id).keys() {
            let path = format!("{target}/canary");
            // The file system of a disk that cannot be read takes no file.
            let _ = lab.hosts().put_file(&server.id, &path, b"alive\n");
        }
    }
    let mut parts = Vec::new();
    for volume in snapshot.volumes.iter().filter(|v| !v.bootable && !v.local) {
        // A volume that was made this moment has no disk yet.
        let Some(before) = lab.hosts().disk(&volume.id) else {
            continue;
        };
        let old = stage.parts.iter().find(|part| part.id == volume.id);
        let nodes = match old {
            Some(part) => part.nodes.clone(),
            None => {
                let disks = scene.disks.iter().filter(|d| d.volume() == volume.name);
                disks.map(|d| (d.cluster, d.node.clone())).collect()
            }
        };
        let made = old.is_none_or(|part| part.may_format);
        parts.push(Part {
            id: volume.id.clone(),
            role: format!("`{}`, second act", volume.name),
            nodes,
            may_format: made && before.signature.is_none(),
            before,
        });
    }
    Ok(Stage {
        parts,
        calls: lab.sandbox.clo.log().len(),
        commands: lab.hosts().commands().len(),
    })
}

/// Somebody unmounts the disks, their journals are not clean, and an operator repeats the mount jobs
/// from the step that made the file system. Gives how many did not settle.
async fn retry_from_format(lab: &Lab, recoveries: &[(usize, Begun)]) -> anyhow::Result<usize> {
    let mut unsettled = 0;
    let fault = CommandFault::on("e2fsck").exits(4, "e2fsck: UNEXPECTED INCONSISTENCY");
    lab.hosts().faults().add(fault.times(1000));
    for (_, begun) in recoveries {
        let recovery = lab.store.recovery_record(&begun.cluster, &begun.id).await?;
        if recovery.is_none_or(|record| record.finished.is_some()) {
            // What has ended cannot be repeated.
            continue;
        }
        for (name, record) in begun.records().await? {
            let mounted = record.filter(|r| r.status == Status::Succeeded);
            let Some(node) = name.as_str().strip_prefix("mount/") else {
                continue;
            };
            let Some(record) = mounted else { continue };
            let format = record
                .steps
                .keys()
                .find(|k| k.as_str().starts_with("format/"));
            let format = format.context("a mount job has formatted or kept something")?;
            for target in lab.hosts().mounts(node).keys() {
                let _ = lab.hosts().run(node, &["umount", target], b"").await;
            }
            lab.retry(begun, name.as_str(), Some(format.as_str()))
                .await?;
            let ends = [Status::Succeeded, Status::NeedsApproval, Status::Failed];
            if begun.reaches(name.as_str(), &ends, ACT).await.is_err() {
                unsettled += 1;
            }
        }
    }
    Ok(unsettled)
}
