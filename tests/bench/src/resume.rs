//! From `kill -9` of a worker to the next recorded step on another worker of the same host.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::recovery::{Begun, SPEC, begin};
use jobs::message::{Demo, Job};
use jobs::plan::PlannedJob;
use sandbox::world::{Options, Sandbox};

use crate::figures::Figures;
use crate::setup::{Broker, WorkerProcess};

const WHAT: &str = "kill -9 to the next step on another worker process (RabbitMQ; steps of 10 ms)";

pub(crate) async fn run(rounds: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let broker = Broker::start(true)?;
    for _ in 0..rounds {
        figures.add(WHAT, "ms", once(&broker).await?);
    }
    broker.queue.close().await;
    figures.against(
        WHAT,
        "< 1,000 ms",
        "Restate 626–676 ms, Celery 465–518 ms, DBOS never (another executor)",
    );
    Ok(())
}

async fn once(broker: &Broker) -> anyhow::Result<f64> {
    let sandbox = Sandbox::start(Options::default()).await?;
    let store = sandbox.store().await?;
    let url = broker.url.as_deref().context("RabbitMQ has a URL")?;
    let environment = sandbox.environment();
    let mut workers = vec![
        WorkerProcess::start(&environment, url)?,
        WorkerProcess::start(&environment, url)?,
    ];
    let payload = Job::Demo(Demo {
        steps: 100_000,
        step_ms: 10,
        abort_at: None,
        fail_at: None,
        child: false,
        node: None,
    });
    let job = PlannedJob {
        name: payload.name(),
        payload,
        needs: vec![],
        always: false,
    };
    let begun = begin(&store, broker.queue.as_ref(), SPEC, Some(vec![job])).await?;
    let (pid, epoch) = owner(&begun, 0).await?;
    steps(&begun, 50).await?;
    let at = workers
        .iter()
        .position(|w| w.0.id() == pid)
        .context("one of ours holds the job")?;
    let mut dying = workers.remove(at);
    let killed = Instant::now();
    dying.kill()?;
    let steps = begun.record("demo").await?.map_or(0, |r| r.steps.len());
    owner(&begun, epoch).await?;
    loop {
        let record = begun.record("demo").await?.context("it has a record")?;
        if record.epoch > epoch && record.steps.len() > steps {
            break;
        }
        ensure!(
            killed.elapsed() < Duration::from_secs(60),
            "no step within a minute"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = killed.elapsed().as_secs_f64() * 1000.0;
    drop(workers);
    sandbox.stop().await?;
    Ok(took)
}

/// Waits until so many steps are recorded: the worker runs at its usual speed.
async fn steps(begun: &Begun, wanted: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    while begun
        .record("demo")
        .await?
        .is_none_or(|r| r.steps.len() < wanted)
    {
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "no {wanted} steps within a minute"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The process that holds the job in an epoch after `epoch`.
async fn owner(begun: &Begun, epoch: u64) -> anyhow::Result<(u32, u64)> {
    let began = Instant::now();
    loop {
        if let Some(record) = begun.record("demo").await?
            && let Some(owner) = record.owner.filter(|_| record.epoch > epoch)
        {
            return Ok((owner.pid, record.epoch));
        }
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "nobody took the job within a minute"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
