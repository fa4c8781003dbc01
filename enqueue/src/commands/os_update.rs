//! `rekindle os-update`: the nodes' operating systems, one after the other.

use jobs::message::{Job, OsUpdate as Payload};
use jobs::spec::{ClusterSpec, Role};

use super::single;
use crate::cli::OsUpdate;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) async fn run(args: &OsUpdate, out: &mut Out) -> Result<ExitCode, CliError> {
    single::on_the_bastion(&args.single, out, |spec| payload(args, spec)).await
}

fn payload(args: &OsUpdate, spec: &ClusterSpec) -> Result<Job, CliError> {
    let bastion =
        || CliError::usage("the bastion is not updated this way: the run itself lives there");
    let mut nodes = single::choose(&args.select, spec)?;
    let chosen = !nodes.is_empty();
    let is_bastion = |name: &_| spec.node(name).is_some_and(|n| n.role == Role::Bastion);
    if args.select.node.iter().any(is_bastion) {
        return Err(bastion());
    }
    nodes.retain(|name| !is_bastion(name));
    // None would mean all.
    if chosen && nodes.is_empty() {
        return Err(bastion());
    }
    Ok(Job::OsUpdate(Payload {
        nodes,
        reboot: args.reboot,
    }))
}
