//! A recovery of many nodes against the critical path that the cloud's limits allow.
//!
//! The cloud builds `limit` servers at a time and each takes `boot`: however clever the engine, the
//! last server is up after `ceil(nodes / limit) × boot`. That, and nothing of ours, is the bound.

use std::time::{Duration, Instant};

use e2e::recovery::{InProcessWorker, begin};
use jobs::spec::ClusterSpec;
use sandbox::clo::CloOptions;
use sandbox::world::{Options, Sandbox};
use worker::engine::Options as EngineOptions;

use crate::figures::Figures;
use crate::setup::Broker;

pub(crate) async fn run(
    nodes: u32,
    boot: Duration,
    limit: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let broker = Broker::start(false)?;
    let clo = CloOptions {
        boot_time: boot,
        latency: Duration::from_millis(20),
        max_building: limit,
        ..CloOptions::default()
    };
    let sandbox = Sandbox::start(Options {
        clo,
        ..Options::default()
    })
    .await?;
    let store = sandbox.store().await?;
    // All jobs may wait side by side: the limit is the cloud's.
    let options = EngineOptions {
        concurrency: u16::try_from(nodes).unwrap_or(u16::MAX).max(16),
        turn: Duration::from_secs(60),
        ..EngineOptions::default()
    };
    let worker = InProcessWorker::start(&store, broker.queue.clone(), sandbox.world()?, options);
    let spec = spec(nodes);
    ClusterSpec::parse(&spec).map_err(|p| anyhow::anyhow!("{p:?}"))?;
    let began = Instant::now();
    let begun = begin(&store, broker.queue.as_ref(), &spec, None).await?;
    begun
        .finished(boot * nodes + Duration::from_secs(600))
        .await?;
    let took = began.elapsed();
    worker.stop_keeping_queue();
    broker.queue.close().await;
    sandbox.stop().await?;
    let bound = boot * u32::try_from((nodes as usize).div_ceil(limit))?;
    let what = format!(
        "makespan of {nodes} nodes, {limit} built at a time, {:.0} s each, against the {:.0} s that this allows",
        boot.as_secs_f64(),
        bound.as_secs_f64()
    );
    figures.add(&what, "×", took.as_secs_f64() / bound.as_secs_f64());
    figures.against(&what, "≤ 1.03 ×", "the limit itself");
    Ok(())
}

/// A bastion behind the load balancer and workers without data disks.
fn spec(nodes: u32) -> String {
    let instances: Vec<String> = (1..nodes).map(|n| format!("{n}: true")).collect();
    format!(
        "version: 1\ncluster: bench\nservers:\n  image: {{ distribution: ubuntu, version: \"22.04\" }}\n  keypair: bench\n\
         load_balancer: {{}}\ngroups:\n\
         - {{ prefix: bastion, role: bastion, instances: {{ 1: true }}, vcpus: 2, ram_gb: 2, boot_disk: {{ size_gb: 20 }}, forward: [{{ port: 2205, to: 22 }}] }}\n\
         - {{ prefix: node, role: worker, instances: {{ {} }}, vcpus: 2, ram_gb: 2, boot_disk: {{ size_gb: 20 }} }}\n",
        instances.join(", ")
    )
}
