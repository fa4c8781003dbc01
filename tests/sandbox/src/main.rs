//! `sandbox`: the world of Rekindle on one machine. Alone it runs a whole recovery; `sandbox up`
//! keeps the world running for work by hand.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sandbox::clo::CloOptions;
use sandbox::world::{HostKind, Options};

mod demo;
mod up;

/// The world of Rekindle on one machine: S3, a cloud, a network, hosts, and what runs on a cluster. Without a command
/// it runs a whole recovery of the reference cluster (17 nodes) in it and checks the result.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    world: WorldArgs,
    /// After the recovery: write a file on every data disk, destroy all servers, recover again, and
    /// look for the files
    #[arg(long)]
    disaster: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the world running until Ctrl-C, and print the environment for `rekindle` and `rekindle-worker`
    Up {
        #[command(flatten)]
        world: WorldArgs,
        /// Start a RabbitMQ node of its own too (Debian package rabbitmq-server)
        #[arg(long)]
        rabbitmq: bool,
    },
}

#[derive(Debug, Clone, Args)]
struct WorldArgs {
    /// The hosts: in this process, where a recovery goes to the thawed application; or Linux namespaces (root,
    /// debootstrap), where it ends with the machines; `best` takes namespaces where this machine can have them
    #[arg(long, value_enum, default_value_t = Hosts::InProcess)]
    hosts: Hosts,
    /// Milliseconds that the cloud takes to build a server, beside the host's own boot
    #[arg(long, default_value_t = 2000)]
    boot_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hosts {
    Best,
    Namespaces,
    InProcess,
}

impl WorldArgs {
    fn options(&self) -> Options {
        Options {
            hosts: match self.hosts {
                Hosts::Best => HostKind::Best,
                Hosts::Namespaces => HostKind::Namespaces,
                Hosts::InProcess => HostKind::InProcess,
            },
            clo: CloOptions {
                boot_time: Duration::from_millis(self.boot_ms),
                ..CloOptions::default()
            },
            ..Options::default()
        }
    }
}

fn main() -> ExitCode {
    worker::install_crypto();
    sandbox::say::logs();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            sandbox::say::line(&format!("error: start the runtime: {e}"));
            return ExitCode::from(1);
        }
    };
    let ended = match cli.command {
        None => runtime.block_on(demo::run(cli.world.options(), cli.disaster)),
        Some(Command::Up { world, rabbitmq }) => {
            runtime.block_on(up::run(world.options(), rabbitmq))
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            sandbox::say::line(&format!("error: {e:#}"));
            ExitCode::from(1)
        }
    }
}
