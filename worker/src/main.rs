//! `rekindle-worker`: takes jobs from the queue and runs them.

use std::process::ExitCode;

use clap::Parser;
use worker::args::WorkerArgs;

fn main() -> ExitCode {
    if let Some(ended) = worker::child::supervise_if_asked() {
        return ended;
    }
    worker::telemetry::init("rekindle_worker");
    worker::install_crypto();
    let args = WorkerArgs::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            tracing::error!(error = %e, "could not start the runtime");
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(worker::run(args, worker::shutdown_signal())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{}", e.chain());
            e.exit_code()
        }
    }
}
