//! Reachability: SSH answers on the node with the host key that we gave it. An answer with
//! another key stops the job: it may be somebody else.

use std::time::Duration;

use jobs::message::OnNode;
use serde_json::json;

use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Patience, Poll, Proof, Proven};
use crate::ssh::HostExt;

/// The step names.
pub const STEPS: &[&str] = &["ssh", "prove"];

/// Proves that the node answers.
pub async fn run(ctx: &Ctx, job: &OnNode) -> Result<Proven, JobError> {
    let node = Cluster::of(ctx).provisioned(&job.node).await?;
    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(10)),
        deadline: Duration::from_secs(15 * 60),
    };
    // Active does not mean that sshd listens: cloud-init and sshd take their time.
    ctx.wait("ssh", patience, || async {
        match ctx.world().ssh(ctx, &node).await {
            Ok(ssh) => Ok(match ssh.run(&["true"]).await {
                Ok(done) if done.success() => Poll::Ready(()),
                Ok(done) => Poll::Pending(format!("`true` exits with {}", done.status)),
                Err(e) => Poll::Pending(JobError::from(e).to_string()),
            }),
            Err(e) => Err(e),
        }
    })
    .await?;
    ctx.prove("login", || async {
        let ssh = ctx.world().ssh(ctx, &node).await?;
        let name = ssh.run_ok(&["hostname"]).await?.text().trim().to_owned();
        let boot = ssh
            .run_ok(&["cat", "/proc/sys/kernel/random/boot_id"])
            .await?
            .text()
            .trim()
            .to_owned();
        // The login itself proves the key: every other one is refused.
        Ok::<_, JobError>(Proof {
            expected: json!({"hostname": node.node, "host_keys": node.host_keys}),
            observed: json!({"hostname": name, "boot_id": boot}),
            holds: name == node.node.as_str() && !boot.is_empty(),
        })
    })
    .await
}
