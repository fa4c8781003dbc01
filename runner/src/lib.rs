//! The container engine, `rekindle-runner`: one binary that needs nothing of its host but a Linux
//! kernel.
//!
//! `image` fetches, checks and keeps images; `unpack` turns an archive that nobody trusts into a tree.
//! There is no async and there are no threads that outlive a command, so that what enters namespaces
//! later can do so from a single-threaded process.

mod cli;
mod commands;
pub mod container;
mod digest;
mod exit;
pub mod image;
mod out;
mod sys;
pub mod unpack;

pub use digest::{Digest, NoDigest};
pub use exit::ExitCode;

use std::ffi::OsString;

use clap::Parser;

use crate::cli::Cli;
use crate::out::Out;

/// Runs one command line, the program's name first. Prints, and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, for stdout and with exit code 0. When printing
            // fails there is nobody left to tell.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::Usage
            } else {
                ExitCode::Done
            };
        }
    };
    let mut out = Out::new(cli.output);
    match commands::run(cli.command, &mut out) {
        Ok(()) => ExitCode::Done,
        Err(error) => {
            out.error(&error);
            error.exit_code
        }
    }
}
