//! A folder at the simulated Yandex Cloud, full of strangers' things; clusters in it run the small k6-operator, whose
//! runners load an application with real requests.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::lab::{LONG, Lab, Worker, quick, small, until};
use e2e::load::{Counter, jobs};
use e2e::processes::program;
use e2e::recovery::{Begun, begin};
use jobs::message::LoadTest;
use jobs::record::{JobRecord, LoadResult, Status};
use jobs::secrets::Identity;
use sandbox::operators::k6::{Faults, K6, K6Settings};
use sandbox::yandex::{YandexOptions, YandexSim};
use worker::cloud::yandex::{AuthorizedKey, Credentials, Endpoints, Yandex, YandexConfig};
use worker::world::World;

/// A domain that nothing may show.
pub(crate) const DOMAIN: &str = "hidden-domain.example.org";
const BUNDLE: &str = "artifacts/k6-operator/1.6.0/bundle.yaml";
/// Every state that a job does not leave by itself.
pub(crate) const OVER: [Status; 6] = [
    Status::Succeeded,
    Status::Failed,
    Status::NeedsApproval,
    Status::Quarantined,
    Status::Parked,
    Status::Cancelled,
];

/// The world of a test.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) yandex: YandexSim,
    pub(crate) app: Arc<Counter>,
    pub(crate) faults: Faults,
    port: u16,
    identity: Arc<Identity>,
}

impl Scene {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        Self::with(YandexOptions::default()).await
    }

    pub(crate) async fn with(options: YandexOptions) -> anyhow::Result<Self> {
        let lab = Lab::start().await?;
        lab.sandbox.s3.put_object(BUNDLE, K6::bundle("1.6.0")?);
        let (program, faults) = (program("k6-stand-in")?, Faults::default());
        let clusters = faults.clone();
        let yandex = YandexSim::start(YandexOptions {
            on_running: Some(Arc::new(move |client, api| {
                let mut settings = K6Settings::new(&program, api);
                settings.pace.every = Duration::from_millis(30);
                settings.faults = clusters.clone();
                let host = format!("shop.{DOMAIN}");
                settings.network.hosts.insert(host, "127.0.0.1".into());
                Box::new(K6::start(client, settings))
            })),
            ..options
        })
        .await?;
        let app = Arc::new(Counter::default());
        Ok(Self {
            port: app.start().await?,
            lab,
            yandex,
            app,
            faults,
            identity: Arc::new(Identity::generate()),
        })
    }

    fn spec(&self) -> String {
        format!(
            "{}load_test:
  target: \"http://shop.${{DOMAIN}}:{}/\"
  driver: yandex
  virtual_users: 10
  iterations: 3
  parallelism: 2
  max_duration: 2m
  thresholds: {{ p95_ms: 20000, error_rate: 0.01 }}
  k6: {{ operator: \"1.6.0\", image: \"docker.io/grafana/k6:2.2.0\" }}
  yandex:
    zone: ru-central1-d
    version: \"1.33\"
    service_account: {}
    subnet: 192.168.0.0/16
    pods: 172.16.0.0/16
    services: 10.96.0.0/16
    system: {{ nodes: 1, cores: 2, ram_gb: 4, disk_gb: 32 }}
    runners: {{ nodes: 2, cores: 2, ram_gb: 4, disk_gb: 64 }}
",
            small("test"),
            self.port,
            self.yandex.service_account(),
        )
    }

    /// A worker's world, with our service account's key.
    pub(crate) fn world(&self) -> anyhow::Result<World> {
        let mut world = self.lab.world()?;
        let key = AuthorizedKey::parse(&self.yandex.service_account_key())?;
        let mut config = YandexConfig::new(self.yandex.folder(), Credentials::Key(key));
        config.endpoints = Endpoints::at(&self.yandex.base_url());
        config.patience.timeout = Duration::from_secs(2);
        config.patience.first_pause = Duration::from_millis(50);
        world.yandex = Some(Yandex::new(config)?);
        world.identity = Some(Arc::clone(&self.identity));
        Ok(world)
    }

    pub(crate) async fn worker(&self) -> anyhow::Result<Worker> {
        let store = self.lab.sandbox.store().await?;
        Worker::start(store, self.lab.queue.clone(), self.world()?, quick())
    }

    pub(crate) async fn begin(&self) -> anyhow::Result<Begun> {
        let (store, queue) = (&self.lab.store, &self.lab.queue);
        let begun = begin(store, queue, &self.spec(), Some(jobs(LoadTest::default()))).await?;
        let given = [("DOMAIN", DOMAIN.to_owned())];
        begun.give(&self.identity, &given, None).await?;
        Ok(begun)
    }

    /// How the test and its clean-up end.
    pub(crate) async fn ended(&self, begun: &Begun) -> anyhow::Result<(JobRecord, JobRecord)> {
        let cleaned = begun.reaches("load-test-clean-up", &OVER, LONG).await?;
        Ok((begun.reaches("load-test", &OVER, LONG).await?, cleaned))
    }

    /// Waits until the recovery has ended and its cluster is free.
    pub(crate) async fn is_over(&self, begun: &Begun) -> anyhow::Result<()> {
        let store = &self.lab.store;
        until("the end of the recovery", async || {
            let record = store.recovery_record(&begun.cluster, &begun.id).await?;
            let ended = record.is_some_and(|record| record.finished.is_some());
            Ok(ended && store.active(&begun.cluster).await?.is_none())
        })
        .await
    }

    /// Nothing of ours is left, nothing of anybody else was touched, and no secret is in the bucket.
    pub(crate) fn is_clean(&self) -> anyhow::Result<()> {
        let (ours, touched) = (self.yandex.ours(), self.yandex.strangers_touched());
        ensure!(ours.is_empty(), "left: {ours:?}");
        ensure!(touched == 0, "touched: {:?}", self.yandex.touches());
        let troubles = self.yandex.troubles();
        ensure!(troubles.is_empty(), "{troubles:?}");
        for (key, body) in self.lab.sandbox.s3.objects("") {
            let text = String::from_utf8_lossy(&body);
            ensure!(!text.contains(DOMAIN), "{key} shows the domain");
            ensure!(!text.contains(&self.yandex.token()), "{key} shows a token");
            ensure!(!text.contains("PRIVATE KEY"), "{key} shows a key");
        }
        Ok(())
    }
}

/// Waits until so many steps of the test are on record; `false` if it ended before.
pub(crate) async fn reaches_step(begun: &Begun, steps: usize) -> anyhow::Result<bool> {
    let look = async || {
        let record = begun.record("load-test").await?;
        anyhow::Ok(record.map_or((0, false), |record| {
            (record.steps.len(), OVER.contains(&record.status))
        }))
    };
    until(&format!("{steps} steps"), async || {
        let (done, over) = look().await?;
        Ok(over || done >= steps)
    })
    .await?;
    Ok(look().await?.0 >= steps)
}

pub(crate) fn result(record: &JobRecord) -> anyhow::Result<LoadResult> {
    LoadResult::of(record).with_context(|| format!("it has no result: {:?}", record.failure))
}

pub(crate) fn failure(record: &JobRecord) -> String {
    let failure = record.failure.as_ref();
    failure.map_or_else(String::new, ToString::to_string)
}
