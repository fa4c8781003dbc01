//! Starting recoveries and judging how they ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys;
use jobs::message::{Job, JobMessage};
use jobs::plan::{DEFAULT_PLAN, Plan, PlanFile, PlannedJob};
use jobs::queue::{Outgoing, Queue};
use jobs::record::{ActiveRecord, Inputs, JobRecord, RecoveryRecord, Requester, Sealed, Status};
use jobs::secrets::{Identity, Secrets};
use jobs::spec::ClusterSpec;
use jobs::store::{Secret, Store, StoreError};

/// The reference cluster.
pub const SPEC: &str = include_str!("../../../deploy/examples/cluster.yaml");

/// A recovery that was begun.
#[derive(Debug, Clone)]
pub struct Begun {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: RecoveryId,
    /// Its plan.
    pub plan: Plan,
    store: Store,
}

/// Begins a recovery as `rekindle recover` does, with a plan of its own if given.
pub async fn begin(
    store: &Store,
    queue: &dyn Queue,
    spec: &str,
    plan: Option<Vec<PlannedJob>>,
) -> anyhow::Result<Begun> {
    let parsed = ClusterSpec::parse(spec).map_err(|p| anyhow::anyhow!("{p:?}"))?;
    let plan = match plan {
        Some(jobs) => Plan::new(jobs)?,
        None => PlanFile::parse(DEFAULT_PLAN)
            .and_then(|file| file.expand(&parsed))
            .map_err(|p| anyhow::anyhow!("{p:?}"))?,
    };
    let inputs = Inputs {
        spec: store
            .put_input(Bytes::copy_from_slice(spec.as_bytes()))
            .await?,
        plan: store.put_input(serde_json::to_vec(&plan)?.into()).await?,
        secrets: None,
        flux: None,
    };
    let (cluster, id, now) = (
        parsed.cluster.clone(),
        RecoveryId::random(),
        Timestamp::now(),
    );
    let record = RecoveryRecord {
        id: id.clone(),
        cluster: cluster.clone(),
        purpose: "recover".into(),
        key: None,
        inputs,
        requester: Requester::default(),
        created: now,
        flags: jobs::record::Flags::default(),
        finished: None,
    };
    store
        .append(&keys::recovery(&cluster, &id), 1, &record)
        .await?;
    let active = ActiveRecord {
        recovery: Some(id.clone()),
        since: now,
    };
    store
        .update(&keys::active(&cluster), |_: Option<ActiveRecord>| {
            Ok::<_, jobs::store::StoreError>(Some(active.clone()))
        })
        .await?;
    let begun = Begun {
        cluster,
        id,
        plan,
        store: store.clone(),
    };
    begun.post_ready(queue).await?;
    Ok(begun)
}

/// Begins a recovery of one job.
pub async fn begin_one(
    store: &Store,
    queue: &dyn Queue,
    spec: &str,
    job: Job,
) -> anyhow::Result<Begun> {
    let planned = PlannedJob {
        name: job.name(),
        payload: job,
        needs: vec![],
        always: false,
    };
    begin(store, queue, spec, Some(vec![planned])).await
}

impl Begun {
    /// Gives it what `rekindle` does: secrets, sealed, and what bootstraps Flux. No worker may have seen it.
    pub async fn give(
        &self,
        to: &Identity,
        given: &[(&str, String)],
        flux: Option<String>,
    ) -> anyhow::Result<()> {
        let mut secrets = Secrets::default();
        for (name, value) in given {
            secrets.add(name, Secret::new(value.clone()))?;
        }
        let recipient = to.recipient();
        let ciphertext = secrets.seal(&self.cluster, &recipient)?;
        let sealed = Sealed {
            input: self.store.put_input(ciphertext.into()).await?,
            names: secrets.names(),
            recipient: recipient.to_string(),
        };
        let flux = match flux {
            Some(objects) => Some(self.store.put_input(objects.into()).await?),
            None => None,
        };
        let series = keys::recovery(&self.cluster, &self.id);
        let change = |record: Option<RecoveryRecord>| {
            Ok::<_, StoreError>(record.map(|mut record| {
                record.inputs.secrets = Some(sealed.clone());
                record.inputs.flux.clone_from(&flux);
                record
            }))
        };
        self.store.update(&series, change).await?;
        Ok(())
    }

    /// Posts every job without needs.
    pub async fn post_ready(&self, queue: &dyn Queue) -> anyhow::Result<()> {
        for job in self.plan.jobs().iter().filter(|job| job.needs.is_empty()) {
            self.post(queue, job, "0").await?;
        }
        Ok(())
    }

    /// Posts one job.
    pub async fn post(
        &self,
        queue: &dyn Queue,
        job: &PlannedJob,
        turn: &str,
    ) -> anyhow::Result<()> {
        let message = JobMessage::new(
            &self.cluster,
            &self.id,
            job.name.clone(),
            job.payload.clone(),
            turn,
        );
        Ok(queue
            .publish(
                &Outgoing {
                    id: message.id.clone(),
                    body: message.encode().into(),
                },
                Duration::ZERO,
            )
            .await?)
    }

    /// Every job's record.
    pub async fn records(&self) -> anyhow::Result<BTreeMap<JobName, Option<JobRecord>>> {
        let mut records = BTreeMap::new();
        for job in self.plan.jobs() {
            let stored = self
                .store
                .read_job(&keys::job(&self.cluster, &self.id, &job.name))
                .await?;
            records.insert(job.name.clone(), stored.map(|s| s.record));
        }
        Ok(records)
    }

    /// One job's record.
    pub async fn record(&self, job: &str) -> anyhow::Result<Option<JobRecord>> {
        let series = keys::job(&self.cluster, &self.id, &JobName::new(job)?);
        Ok(self.store.read_job(&series).await?.map(|s| s.record))
    }

    /// Waits until the recovery has finished well. Ends early when a job is stuck.
    pub async fn finished(&self, within: Duration) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + within;
        loop {
            let record = self
                .store
                .recovery_record(&self.cluster, &self.id)
                .await?
                .context("it has a record")?;
            if let Some(finished) = record.finished {
                ensure!(
                    finished.outcome == jobs::record::Outcome::Succeeded,
                    "it ended as {:?}",
                    finished.outcome
                );
                return Ok(());
            }
            let stuck: Vec<String> = self
                .records()
                .await?
                .into_iter()
                .filter_map(|(name, r)| {
                    r.filter(|r| r.status.is_stuck())
                        .map(|r| format!("{name} is {}: {:?}", r.status, r.failure))
                })
                .collect();
            ensure!(stuck.is_empty(), "stuck: {}", stuck.join("; "));
            if tokio::time::Instant::now() > until {
                bail!("not finished within {within:?}: {}", self.open().await?);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the recovery has ended, by its record alone: looks seldom, for benchmarks.
    pub async fn ended(&self, within: Duration) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + within;
        let series = keys::recovery(&self.cluster, &self.id);
        while self.store.last_version(&series).await? < Some(2) {
            ensure!(
                tokio::time::Instant::now() < until,
                "not ended within {within:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until one job is in one of these states.
    pub async fn reaches(
        &self,
        job: &str,
        wanted: &[Status],
        within: Duration,
    ) -> anyhow::Result<JobRecord> {
        let until = tokio::time::Instant::now() + within;
        loop {
            let record = self.record(job).await?;
            if let Some(record) = record.as_ref().filter(|r| wanted.contains(&r.status)) {
                return Ok(record.clone());
            }
            if tokio::time::Instant::now() > until {
                bail!(
                    "{job} is not {wanted:?} within {within:?} but {:?}",
                    record.map(|r| (r.status, r.failure))
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn open(&self) -> anyhow::Result<String> {
        let open = self
            .records()
            .await?
            .into_iter()
            .filter(|(_, r)| !r.as_ref().is_some_and(|r| r.status == Status::Succeeded));
        Ok(open
            .map(|(name, r)| format!("{name}: {:?}", r.map(|r| (r.status, r.waits, r.failure))))
            .collect::<Vec<_>>()
            .join("\n"))
    }
}

/// A worker's engine in this process. Dropping the guard kills it without a word.
#[derive(Debug)]
pub struct InProcessWorker {
    shutdown: tokio_util::sync::CancellationToken,
    running: tokio::task::JoinHandle<Result<(), jobs::queue::QueueError>>,
}

impl InProcessWorker {
    /// Starts one.
    pub fn start(
        store: &Store,
        queue: Arc<dyn Queue>,
        world: worker::world::World,
        options: worker::engine::Options,
    ) -> Self {
        let shutdown = tokio_util::sync::CancellationToken::new();
        let engine = worker::engine::Engine::new(
            store.as_another_writer(),
            queue,
            world,
            options,
            shutdown.clone(),
        );
        let running = tokio::spawn(async move { engine.run().await });
        Self { shutdown, running }
    }

    /// Ends it at once and leaves the queue as it is, for the next one.
    pub fn stop_keeping_queue(self) {
        self.running.abort();
    }

    /// Ends it as SIGTERM does.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        Ok(self.running.await??)
    }
}
