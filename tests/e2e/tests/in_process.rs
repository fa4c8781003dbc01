//! The whole recovery in one process: engine, in-process queue, embedded S3, simulated cloud and
//! hosts that speak real SSH.

use std::sync::Arc;
use std::time::Duration;

use e2e::recovery::{InProcessWorker, SPEC, begin};
use jobs::queue::InProcess;
use sandbox::world::{Options, Sandbox};
use worker::engine::Options as EngineOptions;

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_cluster_is_recovered() -> anyhow::Result<()> {
    worker::telemetry::init("e2e");
    let sandbox = Sandbox::start(Options::default()).await?;
    let store = sandbox.store().await?;
    let queue = Arc::new(InProcess::new());
    let worker = InProcessWorker::start(
        &store,
        queue.clone(),
        sandbox.world()?,
        EngineOptions::default(),
    );
    let begun = begin(&store, queue.as_ref(), SPEC, None).await?;
    begun.finished(Duration::from_secs(120)).await?;
    worker.stop().await?;
    let snapshot = sandbox.clo.snapshot();
    assert_eq!(snapshot.servers.len(), 17);
    sandbox.stop().await
}
