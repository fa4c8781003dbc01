//! Speed of the engine, measured on this machine: durable steps, resume after a crash, makespan.
//! docs/benchmarks.md says how to read the figures and names the peers.

mod makespan;
mod resume;
mod setup;
mod steps;

use std::time::Duration;

use clap::{Parser, Subcommand};
use comfy_table::{Table, presets};

/// Measures the engine. Without a command: everything.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    /// How often each figure is taken; the median is printed
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
    /// Use RabbitMQ (tests/rabbitmq) instead of the in-process queue
    #[arg(long, global = true)]
    rabbitmq: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Durable no-op steps per second, for 1 job and for 16 at once
    Steps {
        /// Steps of each job
        #[arg(long, default_value_t = 2000)]
        steps: u32,
    },
    /// From `kill -9` of a worker to the next recorded step on another one of the same host
    Resume,
    /// A recovery of many nodes in the simulator, divided by the critical path that the limits allow
    Makespan {
        /// Nodes
        #[arg(long, default_value_t = 100)]
        nodes: u32,
        /// Boot time of a server, in seconds
        #[arg(long, default_value_t = 30.0)]
        boot: f64,
        /// Servers that the cloud builds at a time
        #[arg(long, default_value_t = 10)]
        limit: usize,
    },
}

fn main() -> anyhow::Result<()> {
    worker::install_crypto();
    worker::telemetry::init_quiet();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header([
        "what",
        "figure",
        "aim",
        "peers on a like machine",
    ]);
    match &cli.what {
        Some(What::Steps { steps }) => runtime.block_on(steps::run(&cli, *steps, &mut table))?,
        Some(What::Resume) => runtime.block_on(resume::run(&cli, &mut table))?,
        Some(What::Makespan { nodes, boot, limit }) => {
            runtime.block_on(makespan::run(
                &cli,
                *nodes,
                Duration::from_secs_f64(*boot),
                *limit,
                &mut table,
            ))?;
        }
        None => {
            runtime.block_on(steps::run(&cli, 2000, &mut table))?;
            runtime.block_on(resume::run(&cli, &mut table))?;
            runtime.block_on(makespan::run(
                &cli,
                100,
                Duration::from_secs(30),
                10,
                &mut table,
            ))?;
        }
    }
    sandbox::say::line(&format!("{table}"));
    Ok(())
}

/// The middle of what was measured.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
