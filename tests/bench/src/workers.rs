//! Throughput with more and more worker processes. They share no lock and no record, so it should
//! grow with their number until the machine's cores are used up. With a store that takes a while to
//! answer, as those on a network do, that is late; with one next door two cores are full at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::recovery::{SPEC, begin};
use jobs::record::Versioned;
use sandbox::world::{Options, Sandbox};

use crate::figures::Figures;
use crate::setup::{Broker, WorkerProcess, demos};

const WORKERS: [u32; 3] = [1, 2, 4];

pub(crate) async fn run(
    rounds: u32,
    jobs: u32,
    steps: u32,
    latency: Duration,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let broker = Broker::start(true)?;
    let stores = [latency, Duration::ZERO];
    let name = |workers: u32, latency: Duration| {
        let store = match latency.as_millis() {
            0 => "a store next door".to_owned(),
            ms => format!("a store that takes {ms} ms"),
        };
        format!(
            "steps a second of {workers} worker process(es), {jobs} jobs of {steps} over RabbitMQ, {store}"
        )
    };
    for _ in 0..rounds {
        for latency in stores {
            for workers in WORKERS {
                let rate = once(&broker, workers, jobs, steps, latency).await?;
                figures.add(&name(workers, latency), "", rate);
            }
        }
    }
    broker.queue.close().await;
    for latency in stores {
        let one = figures.median(&name(1, latency)).context("measured")?;
        for workers in &WORKERS[1..] {
            let many = figures
                .median(&name(*workers, latency))
                .context("measured")?;
            let what = format!(
                "{workers} workers against 1, {} ms store",
                latency.as_millis()
            );
            figures.add(&what, "×", many / one);
            let aim = match latency.is_zero() {
                true => "no less than 1",
                false => "the number of workers",
            };
            figures.against(&what, aim, "");
        }
    }
    Ok(())
}

/// Steps per second from the post to the end of the recovery.
async fn once(
    broker: &Broker,
    workers: u32,
    jobs: u32,
    steps: u32,
    latency: Duration,
) -> anyhow::Result<f64> {
    let sandbox = Sandbox::start(Options::default()).await?;
    let store = sandbox.store().await?;
    let url = broker.url.as_deref().context("RabbitMQ has a URL")?;
    let environment = sandbox.environment();
    let processes = (0..workers)
        .map(|_| WorkerProcess::start(&environment, url))
        .collect::<anyhow::Result<Vec<_>>>()?;
    all_take_part(&sandbox, broker, workers).await?;
    sandbox.s3.faults().set_latency(latency);
    let began = Instant::now();
    let plan = demos(jobs, steps, 0)?;
    let begun = begin(&store, broker.queue.as_ref(), SPEC, Some(plan)).await?;
    begun.ended(Duration::from_secs(300)).await?;
    let took = began.elapsed();
    drop(processes);
    sandbox.stop().await?;
    Ok(f64::from(jobs * steps) / took.as_secs_f64())
}

/// Waits until each of the workers has had jobs.
async fn all_take_part(sandbox: &Sandbox, broker: &Broker, workers: u32) -> anyhow::Result<()> {
    let store = sandbox.store().await?;
    let began = Instant::now();
    loop {
        let plan = demos(8 * workers, 2, 5)?;
        let begun = begin(&store, broker.queue.as_ref(), SPEC, Some(plan)).await?;
        begun.ended(Duration::from_secs(60)).await?;
        let prefix = format!("clusters/{}/recoveries/{}/jobs/", begun.cluster, begun.id);
        let mut writers = BTreeSet::new();
        for (_, body) in sandbox.s3.objects(&prefix) {
            let version: Versioned<serde_json::Value> = serde_json::from_slice(&body)?;
            writers.insert(version.writer);
        }
        if writers.len() == workers as usize {
            return Ok(());
        }
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "only {} of {workers} workers take jobs",
            writers.len()
        );
    }
}
