//! What a recovery costs at the store: requests by kind, and bytes. Counts, not seconds: they are
//! the same on every machine.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use jobs::ids::JobName;
use jobs::keys;
use jobs::plan::PlannedJob;
use jobs::queue::{InProcess, Queue};
use sandbox::s3::S3Stats;
use sandbox::world::{Options, Sandbox};
use serde::Serialize;
use worker::engine::Options as EngineOptions;
use worker::world::World;

use crate::lab::{LONG, demo, report};
use crate::recovery::{Begun, InProcessWorker, SPEC, begin};

/// Requests and bytes, of a whole recovery or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// Objects written, conditional writes that lost among them.
    pub puts: f64,
    /// Objects read, absent ones among them.
    pub gets: f64,
    /// Pages of listings.
    pub lists: f64,
    /// Bytes of the bodies sent.
    pub written: f64,
    /// Bytes of the bodies received.
    pub read: f64,
}

impl Cost {
    fn between(before: &S3Stats, after: &S3Stats) -> Self {
        let since = |counter: fn(&S3Stats) -> u64| (counter(after) - counter(before)) as f64;
        Self {
            puts: since(|s| s.put),
            gets: since(|s| s.get),
            lists: since(|s| s.list),
            written: since(|s| s.bytes_in),
            read: since(|s| s.bytes_out),
        }
    }

    /// The share of each of `n`.
    #[must_use]
    pub fn per(&self, n: u32) -> Self {
        self.map(|_, total| total / f64::from(n))
    }

    /// What each one more costs, when `smaller` was for `fewer` of them and this for `n`: what a
    /// recovery costs whatever its size has no part in it.
    #[must_use]
    pub fn each_more(&self, n: u32, smaller: &Self, fewer: u32) -> Self {
        let smaller = smaller.parts();
        self.map(|i, total| (total - smaller[i].1) / f64::from(n - fewer))
    }

    /// The parts by name.
    pub fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("PUTs", self.puts),
            ("GETs", self.gets),
            ("LISTs", self.lists),
            ("bytes written", self.written),
            ("bytes read", self.read),
        ]
    }

    fn map(&self, change: impl Fn(usize, f64) -> f64) -> Self {
        Self {
            puts: change(0, self.puts),
            gets: change(1, self.gets),
            lists: change(2, self.lists),
            written: change(3, self.written),
            read: change(4, self.read),
        }
    }
}

/// The cost of a recovery of one job with so many steps.
pub async fn of_steps(steps: u32) -> anyhow::Result<Cost> {
    of_plan(vec![demo("a", steps, 0, None, &[])?]).await
}

/// Jobs of each node in [`of_nodes`].
pub const JOBS_A_NODE: u32 = 2;

/// The cost of a recovery of so many nodes: on each one two jobs of a few steps, one after the
/// other, as `provision` and `mount` are, and in the end a report on all of them.
pub async fn of_nodes(nodes: u32) -> anyhow::Result<Cost> {
    let mut plan = Vec::new();
    for node in 1..=nodes {
        let name = |what: &str| format!("n{node}-{what}");
        let need = |what: &str| format!("demo/n{node}-{what}");
        plan.push(demo(&name("provision"), 3, 0, None, &[])?);
        plan.push(demo(&name("mount"), 2, 0, None, &[&need("provision")])?);
    }
    let all: Vec<String> = plan.iter().map(|job| job.name.to_string()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    plan.push(report(&all)?);
    of_plan(plan).await
}

async fn of_plan(plan: Vec<PlannedJob>) -> anyhow::Result<Cost> {
    let sandbox = Sandbox::start(Options::default()).await?;
    let store = sandbox.store().await?;
    let queue = Arc::new(InProcess::new());
    let first = plan[0].name.clone();
    let before = sandbox.s3.stats();
    let begun = begin(&store, queue.as_ref(), SPEC, Some(plan)).await?;
    // As after a retry: in a large recovery something has failed once.
    let old = 1_000;
    store
        .mark_failed(&begun.cluster, &begun.id, &first, old)
        .await?;
    // The sweep and the look at the flags go by time and not by size; the lease is long so that a
    // slow machine's heartbeats do not count.
    let options = EngineOptions {
        sweep: None,
        turn: Duration::from_secs(600),
        lease: Duration::from_secs(600),
        ..EngineOptions::default()
    };
    let worker = InProcessWorker::start(&store, queue.clone(), World::default(), options);
    ended(&sandbox, &begun).await?;
    worker.stop().await?;
    let cost = Cost::between(&before, &sandbox.s3.stats());
    queue.close().await;
    succeeded(&sandbox, &begun)?;
    sandbox.stop().await?;
    Ok(cost)
}

/// Waits for the recovery's end, looking past the counters.
async fn ended(sandbox: &Sandbox, begun: &Begun) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + 4 * LONG;
    let end = keys::recovery(&begun.cluster, &begun.id).version(2);
    while sandbox.s3.object(&end).is_none() {
        ensure!(tokio::time::Instant::now() < until, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// What was counted was the whole work.
fn succeeded(sandbox: &Sandbox, begun: &Begun) -> anyhow::Result<()> {
    let done = keys::done(&begun.cluster, &begun.id);
    let markers = sandbox.s3.objects(&done);
    let names = markers.iter().filter_map(|(key, _)| {
        let name = key.strip_prefix(&done)?;
        JobName::new(name).ok()
    });
    ensure!(
        names.count() == begun.plan.jobs().len(),
        "not every job is done"
    );
    Ok(())
}
