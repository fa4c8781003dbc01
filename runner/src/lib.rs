//! The container engine, `rekindle-runner`: one binary that needs nothing of its host but a Linux
//! kernel.
//!
//! `image` fetches, checks and keeps images, `oci` those of registries; `unpack` turns an archive that nobody trusts into a tree;
//! `container` runs a program in one; `run` keeps it going when everybody has left. There is no async,
//! and what enters namespaces does so from a single-threaded process. `fetch` brings files that a container is given.

mod chain;
mod cli;
mod commands;
pub mod container;
mod digest;
mod disk;
mod exit;
pub mod fetch;
pub mod image;
mod lock;
pub mod oci;
mod out;
pub mod run;
mod sys;
pub mod unpack;

pub use digest::{Digest, NoDigest};
pub use exit::ExitCode;

use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use crate::cli::Cli;
use crate::out::Out;

/// Runs one command line, the program's name first. Prints, and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, for stdout and with exit code 0. When printing
            // fails there is nobody left to tell.
            let _ = error.print();
            return match error.use_stderr() {
                false => ExitCode::Done,
                true if follows(&args) => ExitCode::NotRun,
                true => ExitCode::Usage,
            };
        }
    };
    let mut out = Out::new(cli.output);
    match commands::run(cli.command, &mut out) {
        Ok(code) => code,
        Err(error) => {
            out.error(&error);
            error.exit_code()
        }
    }
}

/// Whether a command line, right or wrong, asks to exit as a program does: 2 would be taken for the
/// program's.
fn follows(args: &[OsString]) -> bool {
    let ours = || {
        let args = args.iter().skip(1).filter_map(|arg| arg.to_str());
        args.take_while(|&arg| arg != "--")
    };
    let commands = Cli::command();
    let command = ours().find(|arg| commands.find_subcommand(arg).is_some());
    let detached = ours().any(|arg| matches!(arg, "--detach" | "-d"));
    matches!(command, Some("run" | "attach")) && !detached
}
