//! Weak spots that the job harness or a reader found, each nailed down.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use e2e::lab::{LONG, Lab, Worker, quick};
use jobs::ids::NodeName;
use jobs::message::{Job, OnNode};
use jobs::plan::PlannedJob;
use jobs::record::Status;
use sandbox::clo::{Fault, Operation};
use worker::engine::Options as EngineOptions;

fn provision(node: &str) -> PlannedJob {
    let payload = Job::Provision(OnNode {
        node: NodeName::new(node).unwrap(),
    });
    PlannedJob {
        name: payload.name(),
        payload,
        needs: Vec::new(),
        always: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_refuses_servers_for_a_while_costs_host_keys_but_not_the_node()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let refused = Fault::on(Operation::CreateServer).answer(400).times(8);
    lab.sandbox.clo.faults().add(refused);
    let mut world = lab.world()?;
    // The pauses double from here.
    world.settle.every = Duration::from_millis(10);
    let store = lab.sandbox.store().await?;
    let worker = Worker::start(store, lab.queue.clone(), world, quick())?;
    let begun = lab.run(vec![provision("demo-master-1")]).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    assert_eq!(lab.created()[0], 1, "one server");
    let record = begun.record("provision/demo-master-1").await?.unwrap();
    let unmade = record.steps.iter();
    let unmade =
        unmade.filter(|(key, step)| key.as_str().starts_with("server/") && step.output.is_null());
    assert_eq!(unmade.count(), 8, "more than servers that may fail");
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_key_pair_learns_that_its_maker_has_failed() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let refused = Fault::on(Operation::CreateKeypair).answer(400).always();
    lab.sandbox.clo.faults().add(refused);
    let options = EngineOptions {
        attempts: 2,
        ..quick()
    };
    let worker = lab.worker_with(options).await?;
    let jobs = vec![provision("demo-master-1"), provision("demo-cache-1")];
    let begun = lab.run(jobs).await?;
    let maker = begun.reaches("provision/demo-master-1", &[Status::Failed], LONG);
    assert!(maker.await?.failure.is_some());
    // Its patience is half an hour; the test's is a tenth of that.
    let waiting = begun.reaches("provision/demo-cache-1", &[Status::Failed], LONG);
    let failure = waiting.await?.failure.unwrap().to_string();
    assert!(
        failure.contains("`provision/demo-master-1`, which makes it, has failed"),
        "{failure}"
    );
    // Both are put back, as the message says.
    lab.sandbox.clo.faults().clear();
    for job in ["provision/demo-master-1", "provision/demo-cache-1"] {
        lab.retry(&begun, job, None).await?;
    }
    begun.finished(LONG).await?;
    worker.stop().await?;
    assert_eq!(lab.created()[3], 1, "one key pair");
    lab.sandbox.stop().await
}
