//! A small world with workers that can die: what the fault tests stand on.
//!
//! Each worker has a runtime of its own, with its own connections. Taking the runtime away is as
//! near to `kill -9` as one process comes: no destructor of ours writes a last word, and the
//! record keeps its owner. (The owner's process is this one and lives, so such a job is taken
//! over by lease and never by pid; the tests with processes of their own cover that.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use jiff::Timestamp;
use jobs::ids::{ClusterName, JobName, StepKey};
use jobs::keys::{self, Series};
use jobs::message::{Demo, Job};
use jobs::plan::PlannedJob;
use jobs::queue::{Consumer, Dead, Depth, InProcess, Outgoing, Pile, Queue, QueueError};
use jobs::record::{Flags, JobRecord, JobVersion, RecoveryRecord, Retry, Versioned};
use jobs::store::{Appended, Store, StoreError};
use sandbox::clo::{Operation, VolumeView};
use sandbox::hosts::simulated::SimulatedHosts;
use sandbox::world::{Options, Sandbox};
use tokio_util::sync::CancellationToken;
use worker::cloud::clo::{Clo, CloConfig, Patience, Token};
use worker::cluster::Cluster;
use worker::engine::Options as EngineOptions;
use worker::world::World;

use crate::recovery::{Begun, begin};

/// How long a test waits for what must come. Far above what it takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(180);

/// Short times, so that a takeover, a backoff and a sweep happen within a test.
pub fn quick() -> EngineOptions {
    EngineOptions {
        turn: Duration::from_secs(20),
        lease: Duration::from_secs(2),
        backoff: Duration::from_millis(50),
        backoff_cap: Duration::from_millis(500),
        sweep: Some(Duration::from_secs(1)),
        grace: Duration::from_secs(10),
        ..EngineOptions::default()
    }
}

/// Three nodes, one of them with a data volume, and a load balancer with one rule.
pub fn small(cluster: &str) -> String {
    format!(
        "version: 1
cluster: {cluster}
servers:
  image: {{ distribution: ubuntu, version: \"22.04\" }}
  keypair: rekindle-{cluster}
load_balancer: {{}}
groups:
  - prefix: master
    role: master
    instances: {{ 1: true }}
    vcpus: 2
    ram_gb: 4
    boot_disk: {{ size_gb: 20 }}
  - prefix: cache
    role: worker
    instances: {{ 1: true }}
    vcpus: 2
    ram_gb: 2
    boot_disk: {{ size_gb: 20 }}
    data_disks:
      - {{ name: data, size_gb: 10, mount: /mnt/disks/data, owner: 1000, group: 1000, mode: \"0750\" }}
  - prefix: bastion
    role: bastion
    instances: {{ 1: true }}
    vcpus: 2
    ram_gb: 2
    boot_disk: {{ size_gb: 20 }}
    forward: [{{ port: 2205, to: 22 }}]
"
    )
}

/// A sandbox, its store, and a queue that outlives every worker.
#[derive(Debug)]
pub struct Lab {
    /// The world.
    pub sandbox: Sandbox,
    /// The test's own view of the store; its faults strike it too.
    pub store: Store,
    /// The queue, with its switches.
    pub queue: InProcess,
}

impl Lab {
    /// A world that behaves.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(Options::default()).await
    }

    /// A world made to measure.
    pub async fn with(options: Options) -> anyhow::Result<Self> {
        worker::telemetry::init("e2e");
        let sandbox = Sandbox::start(options).await?;
        let store = sandbox.store().await?;
        Ok(Self {
            sandbox,
            store,
            queue: InProcess::new(),
        })
    }

    /// Starts a worker with short times.
    pub async fn worker(&self) -> anyhow::Result<Worker> {
        self.worker_with(quick()).await
    }

    /// Starts a worker.
    pub async fn worker_with(&self, options: EngineOptions) -> anyhow::Result<Worker> {
        let store = self.sandbox.store().await?;
        Worker::start(store, self.queue.clone(), self.world()?, options)
    }

    /// A worker's clients, with a cloud client that loses patience soon.
    pub fn world(&self) -> anyhow::Result<World> {
        let clo = &self.sandbox.clo;
        let mut config = CloConfig::new(Token::new(clo.token()), clo.project());
        config.url = clo.base_url();
        config.patience = Patience {
            timeout: Duration::from_secs(1),
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_millis(200),
            ..Patience::default()
        };
        let mut world = self.sandbox.world()?;
        world.clo = Some(Clo::new(config)?);
        world.poll = Some(Duration::from_millis(100));
        world.settle.every = Duration::from_millis(100);
        Ok(world)
    }

    /// Begins a recovery of a spec with the default plan.
    pub async fn recover(&self, spec: &str) -> anyhow::Result<Begun> {
        begin(&self.store, &self.queue, spec, None).await
    }

    /// Begins a recovery with these jobs, on the small cluster `demo`.
    pub async fn run(&self, jobs: Vec<PlannedJob>) -> anyhow::Result<Begun> {
        begin(&self.store, &self.queue, &small("demo"), Some(jobs)).await
    }

    /// The simulated hosts.
    pub fn hosts(&self) -> &SimulatedHosts {
        self.sandbox
            .simulated
            .as_ref()
            .expect("the lab's hosts are in-process ones")
    }

    /// Our data volumes: not the strangers', no boot disks.
    pub fn data_volumes(&self) -> Vec<VolumeView> {
        let ours = |v: &VolumeView| !v.foreign && !v.bootable;
        self.sandbox
            .clo
            .snapshot()
            .volumes
            .into_iter()
            .filter(ours)
            .collect()
    }

    /// How often each of the creates had an effect: servers, volumes, load balancers, key pairs.
    pub fn created(&self) -> [usize; 4] {
        [
            Operation::CreateServer,
            Operation::CreateVolume,
            Operation::CreateBalancer,
            Operation::CreateKeypair,
        ]
        .map(|operation| self.sandbox.clo.effects(operation))
    }

    /// What must hold after every recovery of `nodes` nodes with `volumes` data volumes and one
    /// load balancer with `rules` rules, whatever happened on the way, when nothing was there before.
    pub fn is_whole(&self, nodes: usize, volumes: usize, rules: usize) -> anyhow::Result<()> {
        let snapshot = self.sandbox.clo.snapshot();
        let names: BTreeSet<&str> = snapshot.servers.iter().map(|s| s.name.as_str()).collect();
        ensure!(
            snapshot.servers.len() == nodes && names.len() == nodes,
            "servers: {:?}",
            snapshot.servers
        );
        let data = self.data_volumes();
        let names: BTreeSet<&str> = data.iter().map(|v| v.name.as_str()).collect();
        ensure!(
            data.len() == volumes && names.len() == volumes,
            "volumes: {data:?}"
        );
        for volume in &data {
            let disk = self.hosts().disk(&volume.id).context("it has a disk")?;
            ensure!(
                disk.formatted == 1 && disk.overwritten == 0,
                "{}: {disk:?}",
                volume.name
            );
            ensure!(volume.attached_to.is_some(), "{volume:?} is not plugged in");
        }
        ensure!(
            snapshot.balancers.len() == 1 && snapshot.balancers[0].rules.len() == rules,
            "balancers: {:?}",
            snapshot.balancers
        );
        let created = self.created();
        ensure!(
            created == [nodes, volumes, 1, 1],
            "created servers, volumes, balancers, key pairs: {created:?}"
        );
        ensure!(
            self.sandbox.clo.effects(Operation::DeleteVolume) == 0,
            "a volume was deleted"
        );
        ensure!(
            self.sandbox.clo.troubles().is_empty(),
            "{:?}",
            self.sandbox.clo.troubles()
        );
        Ok(())
    }

    /// The cluster's own records.
    pub fn cluster<'a>(&'a self, name: &'a ClusterName) -> Cluster<'a> {
        Cluster::new(name, &self.store)
    }

    /// Every version of a job's record, oldest first, read behind the store's faults.
    pub fn history(
        &self,
        begun: &Begun,
        job: &str,
    ) -> anyhow::Result<Vec<(u64, Versioned<JobVersion>)>> {
        let series = series_of(begun, job)?;
        let objects = self.sandbox.s3.objects(series.prefix());
        let mut versions = Vec::new();
        for (key, bytes) in objects {
            let n = series.number(&key).context("a version's key")?;
            versions.push((n, serde_json::from_slice(&bytes)?));
        }
        versions.sort_by_key(|(n, _)| *n);
        Ok(versions)
    }

    /// Writes the next version of a job's record by hand.
    pub async fn rewrite(
        &self,
        begun: &Begun,
        job: &str,
        change: impl FnOnce(&mut JobRecord),
    ) -> anyhow::Result<()> {
        let series = series_of(begun, job)?;
        let stored = self.store.read_job(&series).await?;
        let name = JobName::new(job)?;
        let planned = begun.plan.job(&name).context("the plan has it")?;
        let version = stored.as_ref().map_or(0, |s| s.version) + 1;
        let mut record = stored.map_or_else(
            || JobRecord::new(name, planned.payload.clone()),
            |s| s.record,
        );
        change(&mut record);
        let body = JobVersion::Full(Box::new(record));
        ensure!(
            self.store.append(&series, version, &body).await? == Appended::Won,
            "somebody else wrote version {version} of {job}"
        );
        Ok(())
    }

    /// Puts a job back as `rekindle retry` does, and posts it.
    pub async fn retry(&self, begun: &Begun, job: &str, from: Option<&str>) -> anyhow::Result<()> {
        self.reopen(begun, job, from).await?;
        let planned = begun
            .plan
            .job(&JobName::new(job)?)
            .context("the plan has it")?;
        begun.post(&self.queue, planned, "retry").await
    }

    /// Puts a job back without posting it.
    pub async fn reopen(&self, begun: &Begun, job: &str, from: Option<&str>) -> anyhow::Result<()> {
        let from = from.map(StepKey::new).transpose()?;
        let mut illegal = None;
        self.rewrite(begun, job, |record| {
            illegal = record
                .reopen(Retry {
                    by: "test".into(),
                    reason: "mended".into(),
                    at: Timestamp::now(),
                    from,
                    failure: None,
                })
                .err();
        })
        .await?;
        illegal.map_or(Ok(()), |e| Err(e.into()))
    }

    /// Sets the operator's flags.
    pub async fn flags(&self, begun: &Begun, flags: &Flags) -> anyhow::Result<()> {
        let series = keys::recovery(&begun.cluster, &begun.id);
        self.store
            .update(&series, |record: Option<RecoveryRecord>| {
                Ok::<_, StoreError>(record.map(|r| RecoveryRecord {
                    flags: flags.clone(),
                    ..r
                }))
            })
            .await?;
        Ok(())
    }

    /// Cancels it, as an operator does.
    pub async fn cancel(&self, begun: &Begun) -> anyhow::Result<()> {
        let flags = Flags {
            cancelled: Some("enough".into()),
            ..Flags::default()
        };
        self.flags(begun, &flags).await
    }

    /// The recovery's report.
    pub fn report(&self, begun: &Begun) -> Option<serde_json::Value> {
        let bytes = self
            .sandbox
            .s3
            .object(&keys::report(&begun.cluster, &begun.id))?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Waits until no message is ready, on its way or late.
    pub async fn idle(&self) -> anyhow::Result<()> {
        self.idle_but(0).await
    }

    /// Waits until all but so many late messages have been dealt with.
    pub async fn idle_but(&self, late: u64) -> anyhow::Result<()> {
        until("the queue is empty", || async {
            let depth = self.queue.depth().await?;
            // What is delivered and not acknowledged shows only here.
            let in_flight = !format!("{:?}", self.queue).contains("unacked: 0");
            Ok(depth.ready == 0 && depth.delayed == late && !in_flight)
        })
        .await
    }

    /// Everything that was dead-lettered.
    pub async fn dead(&self) -> anyhow::Result<Vec<Dead>> {
        Ok(self.queue.dead(1000).await?)
    }
}

fn series_of(begun: &Begun, job: &str) -> anyhow::Result<Series> {
    Ok(keys::job(&begun.cluster, &begun.id, &JobName::new(job)?))
}

/// Each step of each job was recorded once, and the numbers tell their order without a gap.
pub async fn steps_are_recorded_once(lab: &Lab, begun: &Begun) -> anyhow::Result<()> {
    for (name, record) in begun.records().await? {
        let record = record.with_context(|| format!("{name} has a record"))?;
        let mut numbers: Vec<u64> = record.steps.values().map(|step| step.n).collect();
        numbers.sort_unstable();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        ensure!(numbers == expected, "{name}: step numbers {numbers:?}");
        let mut recorded: BTreeMap<StepKey, usize> = BTreeMap::new();
        let mut last = 0;
        for (n, version) in lab.history(begun, name.as_str())? {
            ensure!(n == last + 1, "{name}: version {n} follows {last}");
            last = n;
            let JobVersion::Delta { changes, .. } = version.body else {
                continue;
            };
            for change in changes {
                if let jobs::record::Change::Step { key, .. } = change {
                    *recorded.entry(key).or_default() += 1;
                }
            }
        }
        let twice: Vec<_> = recorded.iter().filter(|(_, times)| **times > 1).collect();
        ensure!(twice.is_empty(), "{name}: recorded twice: {twice:?}");
    }
    Ok(())
}

/// Waits for a condition.
pub async fn until<F, Fut>(what: &str, mut holds: F) -> anyhow::Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<bool>>,
{
    let deadline = tokio::time::Instant::now() + LONG;
    while !holds().await? {
        if tokio::time::Instant::now() > deadline {
            bail!("{what} did not come about within {LONG:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A demo job for a plan; `name` tells several apart.
pub fn demo(
    name: &str,
    steps: u32,
    step_ms: u64,
    fail_at: Option<u32>,
    needs: &[&str],
) -> anyhow::Result<PlannedJob> {
    let payload = Job::Demo(Demo {
        steps,
        step_ms,
        abort_at: None,
        fail_at,
        child: false,
        node: Some(name.parse()?),
    });
    let needs = needs
        .iter()
        .map(|need| JobName::new(*need))
        .collect::<Result<_, _>>()?;
    Ok(PlannedJob {
        name: payload.name(),
        payload,
        needs,
        always: false,
    })
}

/// A report job that runs whatever became of what it needs.
pub fn report(needs: &[&str]) -> anyhow::Result<PlannedJob> {
    let needs = needs
        .iter()
        .map(|need| JobName::new(*need))
        .collect::<Result<_, _>>()?;
    Ok(PlannedJob {
        name: Job::Report.name(),
        payload: Job::Report,
        needs,
        always: true,
    })
}

/// A worker in a runtime of its own.
#[derive(Debug)]
pub struct Worker {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
    running: Option<tokio::task::JoinHandle<Result<(), QueueError>>>,
}

impl Worker {
    /// Starts one. Store and world must be its own: connections die with their runtime.
    pub fn start(
        store: Store,
        queue: InProcess,
        world: World,
        options: EngineOptions,
    ) -> anyhow::Result<Self> {
        Self::start_on(store, Arc::new(KeptOpen(queue)), world, options)
    }

    /// Starts one on a queue that does not close when it ends.
    pub fn start_on(
        store: Store,
        queue: Arc<dyn Queue>,
        world: World,
        options: EngineOptions,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("worker")
            .enable_all()
            .build()?;
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let running = runtime.spawn(async move {
            worker::engine::Engine::new(store, queue, world, options, token)
                .run()
                .await
        });
        Ok(Self {
            runtime: Some(runtime),
            shutdown,
            running: Some(running),
        })
    }

    /// Kills it without a word. What it holds comes back to the queue, as from a broken connection.
    pub fn kill(mut self) {
        self.end();
    }

    /// Ends it as SIGTERM does.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        let running = self.running.take().context("it runs until it is stopped")?;
        Ok(running.await??)
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// A queue that does not close when one of its workers ends: a broker serves the others on.
#[derive(Debug)]
struct KeptOpen(InProcess);

#[async_trait]
impl Queue for KeptOpen {
    async fn publish(&self, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.0.publish(message, delay).await
    }

    async fn consume(&self, prefetch: u16) -> Result<Box<dyn Consumer>, QueueError> {
        self.0.consume(prefetch).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        self.0.depth().await
    }

    async fn dead(&self, most: usize) -> Result<Vec<Dead>, QueueError> {
        self.0.dead(most).await
    }

    async fn purge(&self, pile: Pile) -> Result<(), QueueError> {
        self.0.purge(pile).await
    }

    fn name(&self, pile: Pile) -> String {
        self.0.name(pile)
    }

    async fn close(&self) {}
}
