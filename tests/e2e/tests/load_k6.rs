//! The load test with k6 on a given cluster: a small Kubernetes API, a small k6-operator on it, and real load from
//! real processes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::lab::{LONG, Lab, Worker, quick, small, until};
use e2e::load::{self, Counter};
use e2e::processes::program;
use e2e::recovery::{Begun, begin};
use jobs::keys;
use jobs::message::LoadTest;
use jobs::record::{JobRecord, LoadResult, Status};
use jobs::secrets::Identity;
use sandbox::kube_sim::KubeSim;
use sandbox::operators::Operators;
use sandbox::operators::k6::{Fault, K6, K6Settings};
use serde_json::{Value, json};
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;

const DOMAIN: &str = "secret-domain.example.org";
const BUNDLE: &str = "artifacts/k6-operator/1.6.0/bundle.yaml";

/// The world of a test.
struct Scene {
    lab: Lab,
    sim: Arc<KubeSim>,
    settings: K6Settings,
    _operators: Operators,
    app: Arc<Counter>,
    port: u16,
    identity: Arc<Identity>,
}

impl Scene {
    async fn new() -> anyhow::Result<Self> {
        let lab = Lab::start().await?;
        let sim = KubeSim::start().await?;
        for number in 1..=2 {
            sim.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("load-{number}")}}))?;
        }
        let s3 = &lab.sandbox.s3;
        s3.put_object(BUNDLE, K6::bundle("1.6.0")?);
        let mut settings = K6Settings::new(program("k6-stand-in")?, Arc::clone(&sim));
        settings.pace.every = Duration::from_millis(30);
        let host = format!("shop.{DOMAIN}");
        settings.network.hosts.insert(host, "127.0.0.1".to_owned());
        let config = Kubeconfig::parse(&sim.direct_conf()?, "the sandbox")?;
        let client = direct(&config, Dialer::direct())?;
        let app = Arc::new(Counter::default());
        Ok(Self {
            _operators: K6::start(client, settings.clone()),
            settings,
            port: app.start().await?,
            app,
            lab,
            sim,
            identity: Arc::new(Identity::generate()),
        })
    }

    fn spec(&self, users: u32) -> String {
        format!(
            "{}
load_test:
  target: \"http://shop.${{DOMAIN}}:{}/\"
  driver: kubeconfig
  virtual_users: {users}
  iterations: 3
  parallelism: 2
  max_duration: 1m
  thresholds: {{ p95_ms: 5000, error_rate: 0.01 }}
  k6: {{ operator: \"1.6.0\", image: docker.io/grafana/k6:2.2.0 }}
",
            small("test"),
            self.port
        )
    }

    /// Begins the test and what cleans up after it, with a script of its own if given.
    async fn begin(&self, script: Option<&'static str>) -> anyhow::Result<Begun> {
        let script = match script {
            Some(text) => Some(self.lab.store.put_input(text.into()).await?),
            None => None,
        };
        let test = LoadTest {
            script,
            ..LoadTest::default()
        };
        let (store, queue) = (&self.lab.store, &self.lab.queue);
        let begun = begin(store, queue, &self.spec(10), Some(load::jobs(test))).await?;
        let given = [
            ("LOAD_KUBECONFIG", self.sim.direct_conf()?),
            ("DOMAIN", format!("{DOMAIN}\n")),
        ];
        begun.give(&self.identity, &given, None).await?;
        Ok(begun)
    }

    async fn worker(&self) -> anyhow::Result<Worker> {
        let mut world = self.lab.world()?;
        world.identity = Some(Arc::clone(&self.identity));
        let store = self.lab.sandbox.store().await?;
        Worker::start(store, self.lab.queue.clone(), world, quick())
    }

    /// Waits until both have ended; how they did.
    async fn ended(&self, begun: &Begun) -> anyhow::Result<(JobRecord, JobRecord)> {
        let over = [Status::Succeeded, Status::Failed, Status::NeedsApproval];
        let tested = begun.reaches("load-test", &over, LONG).await?;
        let cleaned = begun.reaches("load-test-clean-up", &over, LONG).await?;
        Ok((tested, cleaned))
    }

    /// Runs the test and what cleans up after it; how both ended.
    async fn run(&self) -> anyhow::Result<(JobRecord, JobRecord, Begun)> {
        let begun = self.begin(None).await?;
        let worker = self.worker().await?;
        let (tested, cleaned) = self.ended(&begun).await?;
        worker.stop().await?;
        Ok((tested, cleaned, begun))
    }

    /// Everything that the cluster has beside what it had before.
    fn objects(&self) -> Vec<String> {
        let of = |it: &Value| {
            let text = |at: &str| {
                it.pointer(at)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            format!("{} {}", text("/kind"), text("/metadata/name"))
        };
        self.sim.objects().iter().map(of).collect()
    }
}

fn result(record: &JobRecord) -> anyhow::Result<LoadResult> {
    let step = record
        .steps
        .iter()
        .find(|(key, _)| key.as_str().starts_with("result/"));
    let (_, step) = step.context("it has a result")?;
    Ok(serde_json::from_value(step.output.clone())?)
}

fn failure(record: &JobRecord) -> String {
    let failure = record.failure.as_ref();
    failure.map_or_else(String::new, ToString::to_string)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_loaded_from_a_given_cluster_and_nothing_is_left_there()
-> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let before = scene.objects();
    let (tested, cleaned, begun) = scene.run().await?;
    ensure!(tested.status == Status::Succeeded, "{}", failure(&tested));
    ensure!(cleaned.status == Status::Succeeded, "{}", failure(&cleaned));
    let result = result(&tested)?;
    assert_eq!(result.runners.len(), 2);
    let total = result.total.context("it has a total")?;
    assert_eq!(
        (total.requests, total.iterations, total.failed),
        (30, 30, 0)
    );
    assert_eq!(scene.app.asked(), 30);
    for runner in &result.runners {
        let raw = runner.raw.as_ref().context("it has a raw summary")?;
        let ours = keys::load_summary(&begun.cluster, &begun.id, &result.run, &runner.name);
        assert_eq!(*raw, ours);
        let text = scene.lab.store.get(raw).await?.context("it is kept")?;
        ensure!(!String::from_utf8_lossy(&text).contains(DOMAIN));
    }
    let text = serde_json::to_string(&tested)?;
    ensure!(
        !text.contains(DOMAIN) && !text.contains("client-key-data"),
        "a secret is on record"
    );
    let clean = serde_json::to_string(&cleaned.steps)?;
    ensure!(
        clean.contains(&result.run) && clean.contains("testruns.k6.io"),
        "{clean}"
    );
    assert_eq!(scene.objects(), before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_does_not_answer_fails_the_test() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.app.breaks();
    let (tested, cleaned, _) = scene.run().await?;
    assert_eq!(tested.status, Status::Failed);
    ensure!(
        failure(&tested).contains("error_rate"),
        "{}",
        failure(&tested)
    );
    let result = result(&tested)?;
    ensure!(result.invalid.is_empty(), "{:?}", result.invalid);
    assert!(
        result
            .runners
            .iter()
            .all(|runner| runner.exit_code == Some(99))
    );
    ensure!(cleaned.status == Status::Succeeded, "{}", failure(&cleaned));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_breaks_is_no_result_and_says_why() -> anyhow::Result<()> {
    for (fault, expected) in [
        (Fault::OutOfMemory(2), "OOMKilled"),
        (Fault::DiesAtOnce(1), "before the load began"),
        (Fault::StarterFails, "the starter failed"),
        (Fault::InitializerFails, "the initializer failed"),
        (Fault::NoSummary(1), "no summary in its log"),
    ] {
        let scene = Scene::new().await?;
        let before = scene.objects();
        scene.settings.faults.set(fault.clone());
        let (tested, cleaned, _) = scene.run().await?;
        let why = failure(&tested);
        eprintln!("{fault:?}: {why}");
        assert_eq!(tested.status, Status::Failed, "{fault:?}");
        ensure!(
            why.contains(expected) && !why.contains(DOMAIN),
            "{fault:?}: {why}"
        );
        ensure!(!result(&tested)?.invalid.is_empty());
        ensure!(cleaned.status == Status::Succeeded, "{}", failure(&cleaned));
        assert_eq!(scene.objects(), before);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_somebody_else_is_used_and_left_as_it_is() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    for document in worker::kube::Manifest::parse(&K6::bundle("1.6.0")?, "bundle")
        .map(|manifest| [manifest.foundation, manifest.rest].concat())?
    {
        scene.sim.put(document.body)?;
    }
    let operator = || -> Vec<Value> {
        let of = |it: &Value| {
            it["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .contains("k6")
        };
        let mut all: Vec<Value> = scene.sim.objects().into_iter().filter(of).collect();
        for it in &mut all {
            it["status"] = Value::Null;
            it["metadata"]["managedFields"] = Value::Null;
            it["metadata"]["resourceVersion"] = Value::Null;
        }
        all.retain(|it| it["kind"] != "Pod");
        all
    };
    let before = operator();
    let (tested, cleaned, _) = scene.run().await?;
    ensure!(tested.status == Status::Succeeded, "{}", failure(&tested));
    ensure!(cleaned.status == Status::Succeeded, "{}", failure(&cleaned));
    assert_eq!(operator(), before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_in_the_middle_does_not_repeat_the_load() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene
        .settings
        .faults
        .set(Fault::Slow(1, Duration::from_secs(2)));
    let begun = scene.begin(None).await?;
    let worker = scene.worker().await?;
    until("load", async || Ok(scene.app.asked() > 0)).await?;
    worker.kill();
    let worker = scene.worker().await?;
    let (tested, cleaned) = scene.ended(&begun).await?;
    worker.stop().await?;
    ensure!(tested.status == Status::Succeeded, "{}", failure(&tested));
    ensure!(cleaned.status == Status::Succeeded, "{}", failure(&cleaned));
    assert_eq!(scene.app.asked(), 30);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_is_tried_again_begins_anew() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let before = scene.objects();
    scene.settings.faults.set(Fault::StarterFails);
    let (tested, cleaned, begun) = scene.run().await?;
    assert_eq!(
        (tested.status, cleaned.status),
        (Status::Failed, Status::Succeeded)
    );
    scene.settings.faults.clear();
    let worker = scene.worker().await?;
    let over = [Status::Succeeded, Status::Failed, Status::NeedsApproval];
    // `rekindle retry` puts back what always runs, too.
    for (job, from) in [
        ("load-test", None),
        ("load-test-clean-up", Some("touched/0")),
    ] {
        scene.lab.retry(&begun, job, from).await?;
        let record = begun.reaches(job, &over, LONG).await?;
        ensure!(record.status == Status::Succeeded, "{}", failure(&record));
        assert_eq!(record.generation, 1);
    }
    worker.stop().await?;
    assert_eq!(scene.objects(), before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_of_ones_own_runs_instead_of_ours() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let begun = scene.begin(Some("throw new Error(\"mine\");\n")).await?;
    let worker = scene.worker().await?;
    let (tested, cleaned) = scene.ended(&begun).await?;
    worker.stop().await?;
    ensure!(cleaned.status == Status::Succeeded, "{}", failure(&cleaned));
    ensure!(failure(&tested).contains("mine"), "{}", failure(&tested));
    Ok(())
}
