//! The command line, `rekindle`: posts jobs, controls recoveries, reads state.
//!
//! It works on S3 alone wherever it can: only posting needs the broker, and nothing needs a worker.
//! Settings come from flags, then the environment, then defaults (`cli.rs` lists them); there is no
//! file. Each command is one file in `commands`, named like it.
//!
//! Order within a run: parse, validate, read S3, write S3, post, print.

mod changes;
mod cli;
mod commands;
mod error;
mod exit;
mod files;
mod finish;
mod flux;
mod here;
mod out;
mod post;
mod poster;
mod render;
mod render_load;
mod requester;
mod secrets;
mod start;
mod view;
mod wait;

pub use exit::ExitCode;

use std::ffi::OsString;

use clap::Parser;

use crate::cli::Cli;
use crate::error::CliError;
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
    log_to_stderr();
    worker::install_crypto();
    let mut out = Out::new(cli.output);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(&cli.command, &mut out)),
        Err(error) => Err(CliError::failed(format!("start the runtime: {error}"))),
    };
    ended.unwrap_or_else(|error| {
        out.error(&error);
        error.exit_code()
    })
}

/// The AMQP client logs as errors what we handle: a queue that is not there yet, a broker that is away.
const LOGS: &str = "warn,lapin=off,amq_protocol=off";

/// Warnings go to stderr, so that stdout stays one document; `REKINDLE_LOG=debug` shows more.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("REKINDLE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOGS));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call (tests) keeps the first one's settings.
    let _ = logs.with_target(false).try_init();
}
