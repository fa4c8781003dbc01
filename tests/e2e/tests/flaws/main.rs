//! The weaknesses of the tool that Rekindle follows, one test each. The numbers are those of the
//! list in the project's notes; other rows have their tests beside the code they are about
//! (`grep flaw_`). Rows about commands that do not exist here (deleting whole projects or free
//! disks) are held by what every test asserts: no code path deletes a volume.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cloud;
mod hosts;
mod records;
mod volumes;

use std::collections::BTreeMap;

use e2e::lab::{LONG, Lab};
use e2e::recovery::Begun;
use jobs::message::Job;
use jobs::plan::{DEFAULT_PLAN, Plan, PlanFile, PlannedJob};
use jobs::spec::ClusterSpec;
use sandbox::clo::{Foreign, Snapshot};
use sandbox::hosts::simulated::DiskView;

/// Strangers with things of every size and kind that ours have.
fn strangers() -> Foreign {
    Foreign {
        servers: vec!["web".into(), "test-cache-9".into(), "shop-master-1".into()],
        volumes: vec![
            ("data".into(), 10),
            ("test-cache-1-data-old".into(), 10),
            ("shop-cache-1-data".into(), 10),
        ],
        boot_disks: vec![("boot".into(), 10), ("old-root".into(), 20)],
        addresses: 3,
    }
}

/// All that is not ours, with what is on the disks.
type Theirs = (Snapshot, BTreeMap<String, Option<DiskView>>);

fn theirs(lab: &Lab) -> Theirs {
    let mut snapshot = lab.sandbox.clo.snapshot();
    snapshot.servers.retain(|s| s.foreign);
    snapshot.volumes.retain(|v| v.foreign);
    snapshot.addresses.retain(|a| a.foreign);
    snapshot.balancers.retain(|b| b.foreign);
    snapshot.keypairs.retain(|k| k.name == "somebody-else");
    let disks = snapshot.volumes.iter();
    let disks = disks.map(|v| (v.id.clone(), lab.hosts().disk(&v.id)));
    let disks = disks.collect();
    (snapshot, disks)
}

/// The small cluster with its jobs up to reachability: nothing is mounted.
fn without_mounts(spec: &str) -> anyhow::Result<Vec<PlannedJob>> {
    let mut jobs = planned(spec)?.jobs().to_vec();
    jobs.retain(|job| !matches!(job.payload, Job::Mount(_) | Job::Report));
    Ok(jobs)
}

fn planned(spec: &str) -> anyhow::Result<Plan> {
    let spec = ClusterSpec::parse(spec).map_err(|p| anyhow::anyhow!("{p:?}"))?;
    PlanFile::parse(DEFAULT_PLAN)
        .and_then(|file| file.expand(&spec))
        .map_err(|p| anyhow::anyhow!("{p:?}"))
}

async fn recovered(lab: &Lab, spec: &str) -> anyhow::Result<Begun> {
    let worker = lab.worker().await?;
    let begun = lab.recover(spec).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    Ok(begun)
}
