//! Permissions: owner, group and mode of one node's mount points, as the spec has them.
//!
//! By volume identity, and of the mount point only: what lies below is live data, where one mode
//! for files and folders would do harm. What the spec does not name is left as it is.

use jobs::message::OnNode;
use serde_json::json;

use super::mount::{mounted_at, set_owner, volume_of};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Proof, Proven};
use crate::ssh::HostExt;

/// The step names.
pub const STEPS: &[&str] = &["mounted", "owner", "prove"];

/// Sets what the spec names, and proves it.
pub async fn run(ctx: &Ctx, job: &OnNode) -> Result<Proven, JobError> {
    let node = ctx
        .spec()
        .node(&job.node)
        .ok_or_else(|| JobError::fatal(format!("the spec has no node `{}`", job.node)))?;
    let cluster = Cluster::of(ctx);
    let record = cluster.provisioned(&job.node).await?;
    let host = ctx.world().ssh(ctx, &record).await?;
    for disk in &node.data_disks {
        let volume = volume_of(&cluster, &record, disk).await?;
        ctx.step(("mounted", &disk.name), || async {
            match (mounted_at(&host, &disk.mount).await?, &volume.fs_uuid) {
                (Some(there), Some(ours)) if there == *ours => Ok(()),
                (there, _) => Err(JobError::fatal(format!(
                    "`{}` shows {there:?} and not volume {}: mount it first (`rekindle mount --node {}`)",
                    disk.mount, volume.id, node.name
                ))),
            }
        })
        .await?;
        ctx.step(("owner", &disk.name), || set_owner(&host, disk))
            .await?;
    }
    ctx.prove("owners", || async {
        let (mut expected, mut observed, mut holds) = (Vec::new(), Vec::new(), true);
        for disk in &node.data_disks {
            let seen = host.run_ok(&["stat", "-c", "%u %g %a", &disk.mount]).await?.text();
            let words: Vec<&str> = seen.split_whitespace().collect();
            let same = |n: usize, want: Option<String>| want.is_none_or(|want| words.get(n).is_some_and(|w| w.trim_start_matches('0') == want.trim_start_matches('0')));
            holds &= same(0, disk.owner.map(|o| o.to_string())) && same(1, disk.group.map(|g| g.to_string())) && same(2, disk.mode.clone());
            expected.push(json!({"mount": disk.mount, "owner": disk.owner, "group": disk.group, "mode": disk.mode}));
            observed.push(json!({"mount": disk.mount, "stat": seen.trim()}));
        }
        Ok::<_, JobError>(Proof { expected: expected.into(), observed: observed.into(), holds })
    })
    .await
}
