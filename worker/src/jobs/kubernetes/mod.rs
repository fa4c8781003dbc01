//! What the Kubernetes API says, asked by `kubectl` over SSH on the masters.

pub(super) mod nodes;

use jobs::spec::{Node, Role};

use crate::cluster::Cluster;
use crate::engine::{Again, Ctx, JobError};
use crate::ssh::HostExt;

/// `kubectl` on a master, as its admin.
const KUBECTL: [&str; 3] = [
    "kubectl",
    "--kubeconfig=/etc/kubernetes/admin.conf",
    "--request-timeout=20s",
];

/// Asks the API through the first of the masters that answers: `question` are words of kubectl, `read` reads
/// the JSON.
///
/// # Errors
/// When no master gave an answer that can be read: then nothing is known.
pub(super) async fn ask<T>(
    ctx: &Ctx,
    nodes: &[Node],
    question: &[&str],
    read: impl Fn(&[u8]) -> Result<T, JobError>,
) -> Result<T, JobError> {
    let cluster = Cluster::of(ctx);
    let words = [&KUBECTL, question, &["--output=json"]].concat();
    let mut last = JobError::fatal("the spec has no master");
    for master in nodes.iter().filter(|node| node.role == Role::Master) {
        let asked = async {
            let record = cluster.provisioned(&master.name).await?;
            let host = ctx.world().ssh(ctx, &record).await?;
            let answer = host.run_ok(&words).await?;
            read(&answer.stdout)
        };
        match asked.await {
            Ok(answer) => return Ok(answer),
            // A master that may be somebody else is no reason to ask the next one.
            Err(error) if error.again == Again::NeedsApproval => return Err(error),
            Err(error) => last = error.while_doing(format!("ask the API on {}", master.name)),
        }
    }
    Err(last)
}
