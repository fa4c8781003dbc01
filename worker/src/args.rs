//! The command line of `rekindle-worker`.

use std::time::Duration;

use clap::Parser;

use crate::config::{QueueArgs, StoreArgs, WorldArgs};
use crate::engine::Options;

/// Takes recovery jobs from the queue and runs them; any number of workers may run anywhere.
///
/// State is in S3 alone: a worker may be killed at any moment, and the next one goes on. SIGTERM lets
/// running steps finish, gives the leases back and ends with 0.
#[derive(Debug, Parser)]
#[command(
    name = "rekindle-worker",
    version,
    after_help = "Exit codes: 0 ended by a signal, 1 failed, 2 usage, 5 the store is not safe to work on.\nSee -h for the most used options and --help for all of them."
)]
pub struct WorkerArgs {
    /// The bucket.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The broker.
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Cloud and hosts.
    #[command(flatten)]
    pub world: WorldArgs,
    /// Jobs to run at a time
    #[arg(long, help_heading = "Engine", env = "REKINDLE_CONCURRENCY", value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrency: u16,
    /// Seconds a turn may take before it gives the job back at the next step (5 to 60)
    #[arg(long, help_heading = "Engine", value_name = "SECONDS", default_value_t = 45, value_parser = clap::value_parser!(u64).range(5..=60))]
    pub turn: u64,
    /// Seconds without a sign of life after which another worker takes a job over (3 to 60)
    #[arg(long, help_heading = "Engine", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(3..=60))]
    pub lease: u64,
    /// Failed attempts in a row until a job counts as failed
    #[arg(long, help_heading = "Engine", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
    /// Seconds between two sweeps for jobs that fell through; 0 for none
    #[arg(
        long,
        help_heading = "Engine",
        value_name = "SECONDS",
        default_value_t = 15
    )]
    pub sweep: u64,
}

impl WorkerArgs {
    /// The engine's settings.
    pub fn options(&self) -> Options {
        Options {
            concurrency: self.concurrency,
            turn: Duration::from_secs(self.turn),
            lease: Duration::from_secs(self.lease),
            attempts: self.attempts,
            sweep: (self.sweep > 0).then(|| Duration::from_secs(self.sweep)),
            ..Options::default()
        }
    }
}
