//! What the Kubernetes API says, asked by `kubectl` over SSH on the masters.

pub(super) mod etcd;
pub(super) mod nodes;

use std::collections::BTreeMap;

use jobs::ids::NodeName;
use jobs::spec::{Node, Role};

use crate::cluster::Cluster;
use crate::engine::{Again, Ctx, JobError};
use crate::ssh::{HostExt, Ssh};
use nodes::State;

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
    let words = [&KUBECTL, question, &["--output=json"]].concat();
    let (words, read) = (&words, &read);
    on_a_master(ctx, nodes, "ask the API", |_, host| async move {
        let answer = host.run_ok(words).await?;
        read(&answer.stdout)
    })
    .await
}

/// Every node that the API knows.
pub(super) async fn states(ctx: &Ctx, nodes: &[Node]) -> Result<BTreeMap<String, State>, JobError> {
    let read = |answer: &[u8]| nodes::states(answer).map_err(JobError::retry);
    ask(ctx, nodes, &["get", "nodes"], read).await
}

/// The version of the API server, such as `v1.33.7`.
pub(super) async fn version(ctx: &Ctx, nodes: &[Node]) -> Result<String, JobError> {
    let read = |answer: &[u8]| nodes::server_version(answer).map_err(JobError::retry);
    ask(ctx, nodes, &["version"], read).await
}

/// Does something on the first of the masters on which it works.
async fn on_a_master<T, F, Fut>(
    ctx: &Ctx,
    nodes: &[Node],
    what: &str,
    act: F,
) -> Result<T, JobError>
where
    F: Fn(NodeName, Ssh) -> Fut,
    Fut: Future<Output = Result<T, JobError>>,
{
    let cluster = Cluster::of(ctx);
    let mut last = JobError::fatal("the spec has no master");
    for master in nodes.iter().filter(|node| node.role == Role::Master) {
        let done = async {
            let record = cluster.provisioned(&master.name).await?;
            let host = ctx.world().ssh(ctx, &record).await?;
            act(master.name.clone(), host).await
        };
        match done.await {
            Ok(answer) => return Ok(answer),
            // A master that may be somebody else is no reason to ask the next one.
            Err(error) if error.again == Again::NeedsApproval => return Err(error),
            Err(error) => last = error.while_doing(format!("{what} on {}", master.name)),
        }
    }
    Err(last)
}
