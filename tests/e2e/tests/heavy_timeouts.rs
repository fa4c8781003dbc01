//! Brokers take a delivery back that a consumer keeps too long. No job is slow enough to suffer it.

use std::time::Duration;

use e2e::history;
use e2e::site::{Site, demo};
use jobs::record::Status;
use tokio::time::Instant;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(120);

/// The broker's patience. A turn is shorter, the steps are longer.
const PATIENCE: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread")]
async fn heavy_step_longer_than_the_brokers_patience_runs_once() -> anyhow::Result<()> {
    let site = Site::impatient(PATIENCE).await?;
    // No sweep: nobody helps.
    let mut workers = site.workers(&["--turn", "5", "--lease", "3", "--sweep", "0"])?;
    workers.spawn()?;
    workers.spawn()?;
    let began = Instant::now();
    let begun = site.begin(Some(vec![demo("a", 2, 17_000, None)])).await?;
    let record = begun.reaches("demo/a", &[Status::Succeeded], LONG).await?;
    eprintln!("{:?}", began.elapsed());
    // Two steps and the proof: a turn ends after each of the long ones.
    assert_eq!((record.attempts, record.crashes.in_a_row), (0, 0));
    let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    assert_eq!((history.steps, history.takeovers, history.turns), (3, 0, 3));
    begun.finished(LONG).await?;
    workers.stop().await?;
    site.stop().await
}
