//! `rekindle remove-node`: one node leaves Kubernetes.

use jobs::message::{Job, RemoveNode as Payload};

use super::single;
use crate::cli::RemoveNode;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) async fn run(args: &RemoveNode, out: &mut Out) -> Result<ExitCode, CliError> {
    let node = args.node.clone();
    // Whether it may go is for the worker to say, which sees the cluster. A node that is no more in the
    // spec may still be in Kubernetes.
    let payload = |_: &_| {
        Ok(Job::RemoveNode(Payload {
            node: node.clone(),
            dead: args.dead,
        }))
    };
    let code = single::on_the_bastion(&args.single, out, payload).await?;
    if !out.is_json() {
        eprintln!(
            "note: when it has succeeded, switch {node} off in the spec, so that no recovery brings it back; its machine and disks stay until you remove them in the cloud"
        );
    }
    Ok(code)
}
