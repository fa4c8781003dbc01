//! Durable no-op steps per second: each step is a checkpoint in S3 before the next one begins.

use std::time::{Duration, Instant};

use anyhow::Context;
use e2e::recovery::{InProcessWorker, SPEC, begin};
use jobs::record::JobRecord;
use sandbox::world::{Options, Sandbox};
use worker::engine::Options as EngineOptions;
use worker::world::World;

use crate::figures::{Figures, percentile};
use crate::setup::{Broker, demos};

pub(crate) async fn run(
    broker: &Broker,
    rounds: u32,
    steps: u32,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    for _ in 0..rounds {
        for (jobs, aim, peers) in [
            (
                1,
                "> 1,000",
                "Restate 492–652, DBOS for Rust 970–1,689, Celery 551",
            ),
            (
                16,
                "> 3,000",
                "Restate 2,990, DBOS for Rust 2,634, Celery 714",
            ),
        ] {
            let round = once(broker, jobs, steps).await?;
            let at = format!("{jobs} job(s) of {steps} steps, {}", broker.name());
            let rate = format!("durable steps a second: {at}");
            figures.add(&rate, "", round.rate);
            figures.against(&rate, aim, peers);
            figures.add(&format!("from step to step, p50: {at}"), "ms", round.p50);
            let tail = format!("from step to step, p99: {at}");
            figures.add(&tail, "ms", round.p99);
            figures.against(&tail, "≤ 20 ms", "");
        }
    }
    Ok(())
}

struct Round {
    rate: f64,
    p50: f64,
    p99: f64,
}

async fn once(broker: &Broker, jobs: u32, steps: u32) -> anyhow::Result<Round> {
    let sandbox = Sandbox::start(Options::default()).await?;
    let store = sandbox.store().await?;
    let options = EngineOptions {
        sweep: None,
        turn: Duration::from_secs(60),
        ..EngineOptions::default()
    };
    let worker = InProcessWorker::start(&store, broker.queue.clone(), World::default(), options);
    let began = Instant::now();
    let plan = demos(jobs, steps, 0)?;
    let begun = begin(&store, broker.queue.as_ref(), SPEC, Some(plan)).await?;
    begun.ended(Duration::from_secs(300)).await?;
    let took = began.elapsed();
    let mut pauses = Vec::new();
    for (name, record) in begun.records().await? {
        pauses.extend(between_steps(
            &record.with_context(|| format!("{name} ran"))?,
        ));
    }
    worker.stop_keeping_queue();
    sandbox.stop().await?;
    Ok(Round {
        rate: f64::from(jobs * steps) / took.as_secs_f64(),
        p50: percentile(&pauses, 0.50).context("it has steps")?,
        p99: percentile(&pauses, 0.99).context("it has steps")?,
    })
}

/// Milliseconds from the end of each step to the end of the next one. The steps do nothing, so this
/// is what a checkpoint takes, from its request to the moment when the next one can be asked for.
fn between_steps(record: &JobRecord) -> Vec<f64> {
    let mut ends: Vec<_> = record
        .steps
        .values()
        .map(|step| (step.n, step.at))
        .collect();
    ends.sort_unstable_by_key(|(n, _)| *n);
    ends.windows(2)
        .map(|two| two[1].1.duration_since(two[0].1).as_secs_f64() * 1000.0)
        .collect()
}
