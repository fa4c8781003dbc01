//! `rekindle completions`: a completion script.

use clap::CommandFactory;

use crate::cli::{Cli, Completions};
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) fn run(args: &Completions, out: &mut Out) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rekindle", &mut script);
    out.raw(&String::from_utf8_lossy(&script));
    ExitCode::Done
}
