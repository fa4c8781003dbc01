//! The commands, one file each.

mod add_user;
mod begin;
mod cancel;
mod completions;
mod doctor;
mod flags;
mod flux_bootstrap;
mod keygen;
mod kubeconfig;
mod list;
mod load_test;
mod mirror_images;
mod os_update;
mod pause;
mod plan;
mod preview;
mod purge;
mod put_secret;
mod recover;
mod release;
mod remove_node;
mod restore;
mod resume;
mod retry;
mod schema;
mod single;
mod status;
mod switch;
mod validate;
mod watch;

use jobs::message::Job;

use crate::cli::Command;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

/// Runs one command.
pub(crate) async fn run(command: &Command, out: &mut Out) -> Result<ExitCode, CliError> {
    match command {
        Command::Recover(args) => recover::run(args, out).await,
        Command::Provision(args) => single::on_nodes("provision", args, out).await,
        Command::LoadBalancer(args) => single::of_cluster("load-balancer", args, out).await,
        Command::Reachability(args) => single::on_nodes("reachability", args, out).await,
        Command::Mount(args) => single::on_nodes("mount", args, out).await,
        Command::Permissions(args) => single::on_nodes("permissions", args, out).await,
        Command::MirrorImages(args) => mirror_images::run(args, out).await,
        Command::Kubespray(args) => single::of_cluster("kubespray", args, out).await,
        Command::RemoveNode(args) => remove_node::run(args, out).await,
        Command::OsUpdate(args) => os_update::run(args, out).await,
        Command::AddUser(args) => add_user::run(args, out).await,
        Command::FluxBootstrap(args) => flux_bootstrap::run(args, out).await,
        Command::Switch(args) => switch::run(args, out).await,
        Command::Restore(args) => restore::run(args, out).await,
        Command::Promote(args) => {
            single::of_payload(args, out, |spec| restore::with_database(spec, Job::Promote)).await
        }
        Command::Backup(args) => restore::backup(args, out).await,
        Command::WaitCertificates(args) => {
            let payload = |spec: &_| flux_bootstrap::certificates(args, spec);
            single::of_payload(&args.single, out, payload).await
        }
        Command::Secret(args) => put_secret::run(args, out).await,
        Command::Release(args) => release::run(args, out).await,
        Command::LoadTest(args) => load_test::run(args, out).await,
        Command::Reap(args) => single::of_cluster("reap", args, out).await,
        Command::Report(args) => single::of_cluster("report", args, out).await,
        Command::Demo(args) => single::demo(args, out).await,
        Command::Plan(args) => plan::run(args, out).await,
        Command::Validate(args) => validate::run(args, out),
        Command::Status(args) => status::run(args, out).await,
        Command::Watch(args) => watch::run(args, out).await,
        Command::Retry(args) => retry::run(args, out).await,
        Command::Cancel(args) => cancel::run(args, out).await,
        Command::Pause(args) => pause::run(args, out).await,
        Command::Resume(args) => resume::run(args, out).await,
        Command::List(args) => list::run(args, out).await,
        Command::Doctor(args) => doctor::run(args, out).await,
        Command::Purge(args) => purge::run(args, out).await,
        Command::Keygen(args) => keygen::run(args, out),
        Command::Kubeconfig(args) => kubeconfig::run(args, out).await,
        Command::Completions(args) => Ok(completions::run(args, out)),
        Command::Schema => Ok(schema::run(out)),
    }
}
