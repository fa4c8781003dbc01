//! Mount: one node's data volumes under their mount points, formatted only if we made them blank.
//!
//! A volume is found by its id, and from its first format on known by the UUID of its file system.
//! Device letters are never used: they move. The rule for formatting (`filesystem`) is the most
//! dangerous line of this project and stands alone.

pub(crate) mod filesystem;
mod fstab;
mod mountinfo;

use std::time::Duration;

use jobs::message::OnNode;
use jobs::record::{NodeRecord, VolumeRecord};
use jobs::spec::DataDisk;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Patience, Poll, Proof, Proven};
use crate::ssh::{HostExt, Ssh};
use filesystem::Plan;

/// The step names.
pub const STEPS: &[&str] = &[
    "find",
    "fs-plan",
    "fs-intent",
    "format",
    "fs-record",
    "fstab",
    "mount",
    "owner",
    "prove",
];

/// Makes the node's volumes available and proves it.
pub async fn run(ctx: &Ctx, job: &OnNode) -> Result<Proven, JobError> {
    let node = ctx
        .spec()
        .node(&job.node)
        .ok_or_else(|| JobError::fatal(format!("the spec has no node `{}`", job.node)))?;
    let cluster = Cluster::of(ctx);
    let record = cluster.provisioned(&job.node).await?;
    let host = ctx.world().ssh(ctx, &record).await?;

    let mut mounted = Vec::new();
    for disk in &node.data_disks {
        let volume = volume_of(&cluster, &record, disk).await?;
        let patience = Patience {
            every: Duration::from_secs(5),
            deadline: Duration::from_secs(5 * 60),
        };
        let device: String = ctx
            .wait(("find", &disk.name), patience, || async {
                // Waiting may outlast the connection.
                let host = ctx.world().ssh(ctx, &record).await?;
                find(&host, &volume.id).await
            })
            .await?;

        let plan: Plan = ctx
            .step(("fs-plan", &disk.name), || {
                filesystem::plan(&host, &device, &volume)
            })
            .await?;
        // The UUID is on record before the first byte is written: after a crash we know our own.
        ctx.step(("fs-intent", &disk.name), || async {
            cluster
                .put_volume(&known(&volume, plan.uuid(), false))
                .await
        })
        .await?;
        ctx.step(("format", &disk.name), || {
            filesystem::carry_out(&host, &device, &plan, &volume)
        })
        .await?;
        ctx.step(("fs-record", &disk.name), || async {
            cluster.put_volume(&known(&volume, plan.uuid(), true)).await
        })
        .await?;

        ctx.step(("fstab", &disk.name), || {
            enter(&host, plan.uuid(), plan.kind(), disk)
        })
        .await?;
        ctx.step(("mount", &disk.name), || mount(&host, plan.uuid(), disk))
            .await?;
        ctx.step(("owner", &disk.name), || set_owner(&host, disk))
            .await?;
        mounted.push((disk, volume, plan.uuid().to_owned()));
    }
    ctx.prove("mounts", || prove(&host, &mounted)).await
}

/// The record of the volume behind a disk.
pub(super) async fn volume_of(
    cluster: &Cluster<'_>,
    node: &NodeRecord,
    disk: &DataDisk,
) -> Result<VolumeRecord, JobError> {
    let missing = |what: &str| {
        JobError::fatal(format!(
            "{what} of disk `{}` of `{}`: provision the node first",
            disk.name, node.node
        ))
    };
    let id = node
        .volumes
        .get(&disk.name)
        .ok_or_else(|| missing("there is no volume on record"))?;
    cluster
        .volume(id)
        .await?
        .ok_or_else(|| missing("there is no record"))
}

fn known(volume: &VolumeRecord, uuid: &str, formatted: bool) -> VolumeRecord {
    VolumeRecord {
        fs_uuid: Some(uuid.to_owned()),
        formatted,
        ..volume.clone()
    }
}

/// The device by the volume's id: the hypervisor shows the first 20 characters as its serial, and
/// udev makes a link of it. A link stays right when the letters move. A missing disk is waited for
/// and then fails the job; it is never skipped.
async fn find(host: &Ssh, volume: &str) -> Result<Poll<String>, JobError> {
    let serial: String = volume.chars().take(20).collect();
    let link = format!("/dev/disk/by-id/virtio-{serial}");
    let there = host.run(&["test", "-b", &link]).await?;
    Ok(match there.status {
        0 => Poll::Ready(link),
        _ => Poll::Pending(format!("the host does not show {link}")),
    })
}

/// One line in fstab, by UUID, with `nofail`: a lost disk must not keep the machine from booting.
async fn enter(host: &Ssh, uuid: &str, kind: &str, disk: &DataDisk) -> Result<(), JobError> {
    let old = host.run_ok(&["cat", "/etc/fstab"]).await?.text();
    let new = fstab::with_entry(&old, uuid, &disk.mount, kind).map_err(JobError::needs_approval)?;
    if new != old {
        host.write_file("/etc/fstab", new.as_bytes(), 0o644).await?;
    }
    Ok(())
}

async fn mount(host: &Ssh, uuid: &str, disk: &DataDisk) -> Result<(), JobError> {
    match mounted_at(host, &disk.mount).await? {
        Some(there) if there == uuid => return Ok(()),
        Some(other) => {
            return Err(JobError::needs_approval(format!(
                "`{}` is the mount point of another file system ({other}) already",
                disk.mount
            )));
        }
        None => {}
    }
    host.run_ok(&["mkdir", "-p", &disk.mount]).await?;
    host.run_ok(&["mount", &disk.mount]).await?;
    match mounted_at(host, &disk.mount).await? {
        Some(there) if there == uuid => Ok(()),
        other => Err(JobError::retry(format!(
            "after `mount`, `{}` shows {other:?} instead of {uuid}",
            disk.mount
        ))),
    }
}

/// The UUID of what is mounted at a path, read from the device itself.
pub(super) async fn mounted_at(host: &Ssh, path: &str) -> Result<Option<String>, JobError> {
    let table = host.run_ok(&["cat", "/proc/self/mountinfo"]).await?.text();
    let Some(source) = mountinfo::source_of(&table, path) else {
        return Ok(None);
    };
    match filesystem::probe(host, &source).await?.uuid {
        Some(uuid) => Ok(Some(uuid)),
        None => Ok(Some(format!("{source}, without a UUID"))),
    }
}

/// Owner, group and mode of the mount point itself: never of what is below, which is live data.
pub(super) async fn set_owner(host: &Ssh, disk: &DataDisk) -> Result<(), JobError> {
    let (owner, group, mode) = owner_of(host, &disk.mount).await?;
    let (want_owner, want_group) = (disk.owner.unwrap_or(owner), disk.group.unwrap_or(group));
    if (want_owner, want_group) != (owner, group) {
        host.run_ok(&["chown", &format!("{want_owner}:{want_group}"), &disk.mount])
            .await?;
    }
    if let Some(want) = &disk.mode
        && octal(want) != Some(mode)
    {
        host.run_ok(&["chmod", want, &disk.mount]).await?;
    }
    Ok(())
}

async fn owner_of(host: &Ssh, path: &str) -> Result<(u32, u32, u32), JobError> {
    let text = host.run_ok(&["stat", "-c", "%u %g %a", path]).await?.text();
    let mut words = text.split_whitespace();
    let mut number = |radix: u32| {
        words
            .next()
            .and_then(|w| u32::from_str_radix(w, radix).ok())
    };
    match (number(10), number(10), number(8)) {
        (Some(owner), Some(group), Some(mode)) => Ok((owner, group, mode)),
        _ => Err(JobError::retry(format!(
            "`stat {path}` answered `{}`",
            text.trim()
        ))),
    }
}

fn octal(mode: &str) -> Option<u32> {
    u32::from_str_radix(mode, 8).ok()
}

/// Reads everything back: mount table, UUID on the device, fstab, owner and mode.
async fn prove(
    host: &Ssh,
    mounted: &[(&DataDisk, VolumeRecord, String)],
) -> Result<Proof, JobError> {
    let fstab = host.run_ok(&["cat", "/etc/fstab"]).await?.text();
    let (mut expected, mut observed, mut holds) = (Vec::<Value>::new(), Vec::<Value>::new(), true);
    for (disk, volume, uuid) in mounted {
        let there = mounted_at(host, &disk.mount).await?;
        let entered = fstab::has_entry(&fstab, uuid, &disk.mount);
        let (owner, group, mode) = owner_of(host, &disk.mount).await?;
        let owned = disk.owner.is_none_or(|want| want == owner)
            && disk.group.is_none_or(|want| want == group);
        let moded = disk
            .mode
            .as_ref()
            .is_none_or(|want| octal(want) == Some(mode));
        holds &= there.as_ref() == Some(uuid) && entered && owned && moded;
        expected.push(json!({"volume": volume.id, "mount": disk.mount, "uuid": uuid, "fstab": true, "owner": disk.owner, "group": disk.group, "mode": disk.mode}));
        observed.push(json!({"mount": disk.mount, "uuid": there, "fstab": entered, "owner": owner, "group": group, "mode": format!("{mode:04o}")}));
    }
    Ok(Proof {
        expected: expected.into(),
        observed: observed.into(),
        holds,
    })
}
