//! A cluster of machines behind a load balancer, and an application on one of them that can be slow or fail.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use e2e::lab::{LONG, Lab, Worker, quick, small, until};
use e2e::recovery::{Begun, begin_one};
use jobs::message::{Job, LoadTest};
use jobs::record::{JobRecord, LoadResult, Status};
use jobs::secrets::Identity;
use sandbox::hosts::simulated::Service;
use sandbox::kube_sim::KubeSim;
use sandbox::operators::app::{App, AppFaults, AppSettings};
use worker::engine::Options;
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;

/// A domain that nothing may show.
pub(crate) const DOMAIN: &str = "hidden-domain.example.org";

/// What a test asks for, in the words of the spec.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) users: u32,
    pub(crate) iterations: u32,
    pub(crate) p95_ms: u32,
    pub(crate) error_rate: f64,
    pub(crate) at_most: &'static str,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            users: 20,
            iterations: 5,
            // Only what a fault brings about is slow.
            p95_ms: 20_000,
            error_rate: 0.0,
            at_most: "10m",
        }
    }
}

/// The world of a test.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) faults: AppFaults,
    identity: Arc<Identity>,
    app: Mutex<Option<App>>,
    _kube: Arc<KubeSim>,
}

impl Scene {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let lab = Lab::start().await?;
        let worker = lab.worker().await?;
        lab.recover(&machines()).await?.finished(LONG).await?;
        worker.stop().await?;

        // The application asks nothing of it: it has no Deployment and no database.
        let kube = KubeSim::start().await?;
        kube.listen()?;
        let config = Kubeconfig::parse(&kube.direct_conf()?, "the sandbox")?;
        let settings = AppSettings {
            deployments: vec![],
            database: Arc::new(|| Some("the-data".into())),
            cluster: None,
        };
        let faults = AppFaults::default();
        let client = direct(&config, Dialer::direct())?;
        let app = App::with_faults(client, settings, faults.clone()).await?;
        let at = (Ipv4Addr::LOCALHOST, app.address().port()).into();
        lab.hosts().listen("test-cache-1", 30080, Service::At(at));
        Ok(Self {
            lab,
            faults,
            identity: Arc::new(Identity::generate()),
            app: Mutex::new(Some(app)),
            _kube: kube,
        })
    }

    /// How many requests the application has answered.
    pub(crate) fn answered(&self) -> u64 {
        let app = self.app.lock().expect("no panic while held");
        app.as_ref().map_or(0, |app| app.requests().0)
    }

    /// The application dies, with its port and all connections.
    pub(crate) fn app_dies(&self) {
        self.app.lock().expect("no panic while held").take();
    }

    pub(crate) async fn worker(&self) -> anyhow::Result<Worker> {
        self.worker_with(quick()).await
    }

    pub(crate) async fn worker_with(&self, options: Options) -> anyhow::Result<Worker> {
        let mut world = self.lab.world()?;
        world.identity = Some(Arc::clone(&self.identity));
        let store = self.lab.sandbox.store().await?;
        Worker::start(store, self.lab.queue.clone(), world, options)
    }

    /// Begins a recovery of the load test alone.
    pub(crate) async fn begin(&self, asked: Asked) -> anyhow::Result<Begun> {
        self.begin_with(asked, LoadTest::default()).await
    }

    /// The same with what the job is told.
    pub(crate) async fn begin_with(&self, asked: Asked, job: LoadTest) -> anyhow::Result<Begun> {
        let (store, queue) = (&self.lab.store, &self.lab.queue);
        let target = "http://shop.${DOMAIN}:8080/";
        let begun = begin_one(store, queue, &spec(target, asked), Job::LoadTest(job)).await?;
        begun
            .give(&self.identity, &[("DOMAIN", DOMAIN.to_owned())], None)
            .await?;
        Ok(begun)
    }

    /// Runs a load test to its good end.
    pub(crate) async fn passes(&self, asked: Asked) -> anyhow::Result<(Begun, LoadResult)> {
        let begun = self.begin(asked).await?;
        let worker = self.worker().await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        let result = result(&begun).await?;
        Ok((begun, result))
    }

    /// Runs a load test until it has failed for good; what it says.
    pub(crate) async fn fails(&self, asked: Asked) -> anyhow::Result<(Begun, String)> {
        self.fails_with(asked, LoadTest::default()).await
    }

    pub(crate) async fn fails_with(
        &self,
        asked: Asked,
        job: LoadTest,
    ) -> anyhow::Result<(Begun, String)> {
        let begun = self.begin_with(asked, job).await?;
        let worker = self.worker().await?;
        let said = failed(&begun).await?;
        worker.stop().await?;
        Ok((begun, said))
    }
}

/// Waits until a load test has failed for good; what it says.
pub(crate) async fn failed(begun: &Begun) -> anyhow::Result<String> {
    let record = begun.reaches("load-test", &[Status::Failed], LONG).await?;
    Ok(record.failure.context("it failed")?.to_string())
}

/// Waits until `rekindle status` would show this of a load test.
pub(crate) async fn shows(begun: &Begun, what: &str) -> anyhow::Result<JobRecord> {
    until(what, async || {
        let record = begun.record("load-test").await?;
        Ok(record.is_some_and(|record| {
            let mut waits = record.waits.values();
            waits.any(|wait| wait.seen.contains(what))
        }))
    })
    .await?;
    begun.record("load-test").await?.context("it has a record")
}

/// What a load test came to.
pub(crate) async fn result(begun: &Begun) -> anyhow::Result<LoadResult> {
    let record = begun
        .record("load-test")
        .await?
        .context("it has a record")?;
    let mut steps = record.steps.iter();
    let (_, step) = steps
        .find(|(key, _)| key.as_str().starts_with("result"))
        .context("it has a result")?;
    Ok(serde_json::from_value(step.output.clone())?)
}

/// Nothing in the bucket shows the domain.
pub(crate) fn is_hidden(lab: &Lab) -> bool {
    let all = lab.sandbox.s3.objects("");
    !all.iter()
        .any(|(_, body)| String::from_utf8_lossy(body).contains(DOMAIN))
}

/// The spec with a load test of this target.
pub(crate) fn spec(target: &str, asked: Asked) -> String {
    let Asked {
        users,
        iterations,
        p95_ms,
        error_rate,
        at_most,
    } = asked;
    format!(
        "{machines}load_test:
  target: \"{target}\"
  virtual_users: {users}
  iterations: {iterations}
  max_duration: {at_most}
  thresholds: {{ p95_ms: {p95_ms}, error_rate: {error_rate}, checks: {checks} }}
",
        machines = machines(),
        checks = 1.0 - error_rate,
    )
}

/// The machines, and a port that leads to the application.
fn machines() -> String {
    small("test").replace(
        "    data_disks:",
        "    forward: [{ port: 8080, to: 30080 }]\n    data_disks:",
    )
}

/// So slow that a load of any size takes hours, and faster than the driver gives up.
pub(crate) const FOREVER: Duration = Duration::from_secs(25);
