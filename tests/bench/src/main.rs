//! Speed and cost of the engine, measured on this machine. docs/benchmarks.md says how to read the
//! figures and names the peers; `bench all --output markdown` prints its table.

mod cost;
mod figures;
mod load;
mod makespan;
mod resume;
mod setup;
mod steps;
mod workers;

use std::time::Duration;

use clap::{Parser, Subcommand};

use figures::{Figures, Output};

/// Measures the engine on this machine: what a step and a node cost, how fast steps are, how soon
/// another worker goes on after a crash, how many workers help, how near a recovery comes to what
/// the cloud allows.
///
/// Everything runs here: the sandbox's S3 in this process and in memory, RabbitMQ as a node of its
/// own (tests/rabbitmq), workers as tasks or as processes. Build all binaries in the release profile
/// first: cargo build --release --workspace --bins. Counts (cost) are the same on every machine and
/// under every load; times want a quiet one, and say nothing about the network of a real store.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// How often each time is taken; the series are taken in turn, and the median is printed
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Use the in-process queue where RabbitMQ would be used and is not needed
    #[arg(long, global = true)]
    no_rabbitmq: bool,
    /// How the figures are printed
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Everything, with the defaults; less than ten minutes on two cores
    All,
    /// Requests by kind and bytes at the store: a step of jobs of 10, 100 and 1,000 steps, a node of
    /// recoveries of 10, 100 and 1,000 nodes (three demo jobs a node and a report on all)
    Cost {
        /// The largest recovery, in nodes
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(11..))]
        nodes: u32,
        /// The longest job, in steps
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(11..))]
        steps: u32,
    },
    /// Durable no-op steps per second and the latency of a checkpoint, for 1 job and for 16 at once
    Steps {
        /// Steps of each job
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
    },
    /// From `kill -9` of a worker process to the next recorded step on another one
    Resume,
    /// Steps per second with 1, 2 and 4 worker processes over RabbitMQ, with a store next door and
    /// with one that takes a while to answer
    Workers {
        /// Jobs at once
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..))]
        jobs: u32,
        /// Steps of each job
        #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        /// How long the slow store takes for each request, in milliseconds
        #[arg(long, default_value_t = 20)]
        latency: u64,
    },
    /// A recovery of many nodes in the simulated cloud, against the time that its limits allow
    Makespan {
        /// Nodes
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
        nodes: u32,
        /// Boot time of a server, in seconds
        #[arg(long, default_value_t = 20.0)]
        boot: f64,
        /// Servers that the cloud builds at a time
        #[arg(long, default_value_t = 10)]
        limit: usize,
    },
    /// Requests per second of the load test's driver `local`, 64 virtual users
    Load {
        /// Requests of a round
        #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(64..))]
        requests: u32,
        /// What is asked; a server of its own in this process when absent
        #[arg(long)]
        url: Option<String>,
    },
    /// Serve `hello` on the loopback until it is ended, for tests/bench/peers/load
    Hello,
}

fn main() -> anyhow::Result<()> {
    worker::install_crypto();
    worker::telemetry::init_quiet();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut figures = Figures::default();
    runtime.block_on(measure(&cli, &mut figures))?;
    sandbox::say::line(&figures.print(cli.output)?);
    Ok(())
}

async fn measure(cli: &Cli, figures: &mut Figures) -> anyhow::Result<()> {
    let broker = || setup::Broker::start(!cli.no_rabbitmq);
    match cli.what {
        What::All => {
            cost::run(1000, 1000, figures).await?;
            let broker = broker()?;
            steps::run(&broker, cli.rounds, 2000, figures).await?;
            broker.queue.close().await;
            resume::run(cli.rounds, figures).await?;
            workers::run(
                3.min(cli.rounds),
                64,
                150,
                Duration::from_millis(20),
                figures,
            )
            .await?;
            makespan::run(100, Duration::from_secs(20), 10, figures).await?;
            load::run(cli.rounds, 200_000, None, figures).await
        }
        What::Cost { nodes, steps } => cost::run(nodes, steps, figures).await,
        What::Steps { steps } => {
            let broker = broker()?;
            steps::run(&broker, cli.rounds, steps, figures).await?;
            broker.queue.close().await;
            Ok(())
        }
        What::Resume => resume::run(cli.rounds, figures).await,
        What::Workers {
            jobs,
            steps,
            latency,
        } => {
            let latency = Duration::from_millis(latency);
            workers::run(cli.rounds, jobs, steps, latency, figures).await
        }
        What::Makespan { nodes, boot, limit } => {
            makespan::run(nodes, Duration::from_secs_f64(boot), limit, figures).await
        }
        What::Load { requests, ref url } => {
            load::run(cli.rounds, requests, url.as_deref(), figures).await
        }
        What::Hello => load::serve().await,
    }
}
