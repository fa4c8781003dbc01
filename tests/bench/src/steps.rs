//! Durable no-op steps per second: each step is a checkpoint in S3 before the next one begins.

use std::time::{Duration, Instant};

use comfy_table::Table;
use e2e::recovery::{InProcessWorker, SPEC, begin};
use jobs::ids::NodeName;
use jobs::message::{Demo, Job};
use jobs::plan::PlannedJob;
use sandbox::world::{Options, Sandbox};
use worker::engine::Options as EngineOptions;
use worker::world::World;

use crate::setup::Broker;
use crate::{Cli, median};

pub(crate) async fn run(cli: &Cli, steps: u32, table: &mut Table) -> anyhow::Result<()> {
    let broker = if cli.rabbitmq {
        Broker::rabbitmq()?
    } else {
        Broker::in_process()
    };
    for (jobs, aim, peers) in [
        (
            1,
            "> 1,000",
            "Restate 492–652, DBOS (Rust) 970–1,689, Celery 551",
        ),
        (
            16,
            "> 3,000",
            "Restate 2,990, DBOS (Rust) 2,634, Celery 714",
        ),
    ] {
        let mut figures = Vec::new();
        let mut requests = 0.0;
        for _ in 0..cli.rounds {
            let (rate, per_step) = once(&broker, jobs, steps).await?;
            figures.push(rate);
            requests = per_step;
        }
        table.add_row([
            format!("durable steps/s, {jobs} job(s) of {steps}, {} + embedded S3 ({requests:.2} PUTs a step)", broker.name()),
            format!("{:.0}", median(figures)),
            aim.into(),
            peers.into(),
        ]);
    }
    broker.queue.close().await;
    Ok(())
}

/// Steps per second from the first claim to the last record, and PUTs per step.
async fn once(broker: &Broker, jobs: u32, steps: u32) -> anyhow::Result<(f64, f64)> {
    let sandbox = Sandbox::start(Options::default()).await?;
    let store = sandbox.store().await?;
    let options = EngineOptions {
        sweep: None,
        turn: Duration::from_secs(60),
        ..EngineOptions::default()
    };
    let plan = (0..jobs)
        .map(|n| demo(n, steps))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let worker = InProcessWorker::start(&store, broker.queue.clone(), World::default(), options);
    let before = sandbox.s3.stats().put;
    let began = Instant::now();
    let begun = begin(&store, broker.queue.as_ref(), SPEC, Some(plan)).await?;
    begun.ended(Duration::from_secs(300)).await?;
    let took = began.elapsed();
    let puts = sandbox.s3.stats().put - before;
    worker.stop_keeping_queue();
    sandbox.stop().await?;
    let total = f64::from(jobs * steps);
    Ok((total / took.as_secs_f64(), puts as f64 / total))
}

fn demo(n: u32, steps: u32) -> anyhow::Result<PlannedJob> {
    let node = NodeName::new(format!("bench-{n}"))?;
    let payload = Job::Demo(Demo {
        steps,
        step_ms: 0,
        abort_at: None,
        fail_at: None,
        child: false,
        node: Some(node),
    });
    Ok(PlannedJob {
        name: payload.name(),
        payload,
        needs: vec![],
        always: false,
    })
}
