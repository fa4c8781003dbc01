//! A cluster with Kubernetes and nothing else, Flux' controllers and the kubelet as operators on it, and the tree of
//! this very repository for them to apply.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use e2e::lab::{LONG, Lab, Worker, quick, small, until};
use e2e::recovery::{Begun, begin_one};
use jobs::keys;
use jobs::message::Job;
use jobs::record::{JobRecord, ReleaseRecord, Status};
use jobs::secrets::Identity;
use sandbox::hosts::simulated::Service;
use sandbox::kube_sim::KubeSim;
use sandbox::operators::app::{App, AppSettings};
use sandbox::operators::flux::{self, Files, Login, install_yaml, sealed};
use sandbox::operators::kubelet::Kubelet;
use sandbox::operators::{Controller, Operators, Pace, Tick};
use serde_json::{Value, json};
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;
use worker::world::World;

pub(crate) const VERSION: &str = "2.9.4";
pub(crate) const TOKEN: &str = "token-of-the-repository";
pub(crate) const DOMAIN: &str = "secret-domain.example.org";
/// Where the manifest of Flux is kept.
pub(crate) const MANIFEST: &str = "artifacts/flux/2.9.4/install.yaml";
/// The file that must open.
pub(crate) const CANARY: &str = "test/pg/clo-s3-secret.yaml";
/// The files that bootstrap Flux.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../flux/test");

/// The world of a test.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) sim: Arc<KubeSim>,
    pub(crate) operators: Operators,
    /// The key that the bucket's files are encrypted to.
    pub(crate) age: String,
    identity: Arc<Identity>,
    _app: App,
}

impl Scene {
    /// Kubernetes, and Flux' controllers that wait for their kinds.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let lab = Lab::start().await?;
        let worker = lab.worker().await?;
        let begun = lab.recover(&machines()).await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        let masters = ["test-master-1"];
        let sim = lab
            .hosts()
            .install_kubernetes(&masters, &["test-cache-1"], "1.33.7")?;
        sim.listen()?;

        let (age, recipient) = sealed::age_key();
        let files: Files = sealed::payload(&recipient)?;
        let s3 = &lab.sandbox.s3;
        s3.put_object(MANIFEST, install_yaml(VERSION));
        s3.put_object(CANARY, files[CANARY].clone());
        let settings = flux::Settings::new(
            Login::new("git", TOKEN),
            Login::new(s3.access_key(), s3.secret_key()),
            Arc::new(move |bucket: &str| (bucket == "rekindle-secrets").then(|| files.clone())),
        );
        let config = Kubeconfig::parse(&sim.direct_conf()?, "the sandbox")?;
        let client = direct(&config, Dialer::direct())?;
        let mut controllers = flux::controllers(&settings);
        controllers.push(Box::<Kubelet>::default());
        controllers.push(Box::new(Database));
        let pace = Pace {
            every: Duration::from_millis(30),
            stands_for: Duration::from_secs(30),
        };
        let shop = AppSettings {
            deployments: vec![("dsf".into(), "dsf".into())],
            database: Arc::new(|| Some("the-data".into())),
            cluster: None,
        };
        let app = App::start(client.clone(), shop).await?;
        let (port, at) = (app.address().port(), Ipv4Addr::LOCALHOST);
        lab.hosts()
            .listen("test-cache-1", 30080, Service::At((at, port).into()));
        Ok(Self {
            operators: Operators::start(client, pace, controllers),
            lab,
            sim,
            age,
            identity: Arc::new(Identity::generate()),
            _app: app,
        })
    }

    /// The same with Flux on it.
    pub(crate) async fn bootstrapped() -> anyhow::Result<Self> {
        let scene = Self::new().await?;
        scene.done(Job::FluxBootstrap).await?;
        Ok(scene)
    }

    /// The same with a namespace, and nothing else.
    pub(crate) async fn with_namespace(name: &str) -> anyhow::Result<Self> {
        let scene = Self::new().await?;
        let metadata = json!({ "name": name });
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        scene.sim.put(namespace)?;
        Ok(scene)
    }

    /// Defines a kind, and waits until it is served.
    pub(crate) async fn define(&self, group: &str, kind: &str) -> anyhow::Result<()> {
        let plural = format!("{}s", kind.to_lowercase());
        let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let schema = json!({"type": "object", "properties": {"spec": any, "status": any}});
        self.sim.put(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                    "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}}],
            },
        }))?;
        let metadata = json!({"namespace": "default", "name": "probe"});
        let probe =
            json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": metadata});
        until("the kind is served", async || {
            Ok(self.sim.put(probe.clone()).is_ok())
        })
        .await?;
        self.sim.remove(kind, "default", "probe");
        Ok(())
    }

    /// The secrets that a recovery is given.
    pub(crate) fn secrets(&self) -> Vec<(&'static str, String)> {
        let s3 = &self.lab.sandbox.s3;
        vec![
            ("SOPS_AGE_KEY", self.age.clone()),
            ("CLUSTER_S3_ACCESS_KEY", s3.access_key().to_owned()),
            ("CLUSTER_S3_SECRET_KEY", s3.secret_key().to_owned()),
            ("GITHUB_TOKEN", format!("{TOKEN}\n")),
            ("ACME_EMAIL", "ops@example.org".to_owned()),
            ("DOMAIN", DOMAIN.to_owned()),
            ("BACKUP_KEY", "hunter2".to_owned()),
        ]
    }

    /// What a worker works on.
    pub(crate) fn world(&self) -> anyhow::Result<World> {
        let mut world = self.lab.world()?;
        world.identity = Some(Arc::clone(&self.identity));
        Ok(world)
    }

    async fn worker(&self, world: World) -> anyhow::Result<Worker> {
        let store = self.lab.sandbox.store().await?;
        Worker::start(store, self.lab.queue.clone(), world, quick())
    }

    /// Runs one job by a worker with a world of its own, until it ends in one way or the other.
    pub(crate) async fn ends(&self, job: Job, world: World) -> anyhow::Result<JobRecord> {
        let name = job.name().to_string();
        let begun = self.begin(&self.spec(), job, &self.secrets()).await?;
        let worker = self.worker(world).await?;
        let ends = [Status::Succeeded, Status::Failed, Status::NeedsApproval];
        let record = begun.reaches(&name, &ends, LONG).await;
        let record = record.with_context(|| self.operators.errors())?;
        if record.status == Status::Succeeded {
            begun.finished(LONG).await?;
        }
        worker.stop().await?;
        Ok(record)
    }

    /// Begins a recovery of one job. Its inputs are there before a worker sees it.
    async fn begin(&self, spec: &str, job: Job, given: &[(&str, String)]) -> anyhow::Result<Begun> {
        let begun = begin_one(&self.lab.store, &self.lab.queue, spec, job).await?;
        begun
            .give(&self.identity, given, Some(bootstrap()?))
            .await?;
        Ok(begun)
    }

    /// Runs one job to its end.
    pub(crate) async fn done(&self, job: Job) -> anyhow::Result<JobRecord> {
        let name = job.name().to_string();
        let begun = self.begin(&self.spec(), job, &self.secrets()).await?;
        let worker = self.worker(self.world()?).await?;
        let finished = begun.finished(LONG).await;
        finished.with_context(|| self.operators.errors())?;
        worker.stop().await?;
        begun.record(&name).await?.context("it has a record")
    }

    /// Runs one job until it has failed for good, or wants a person; what it says.
    pub(crate) async fn fails(&self, job: Job) -> anyhow::Result<String> {
        self.fails_with(&self.spec(), job, &self.secrets()).await
    }

    /// The same with a spec and secrets of its own.
    pub(crate) async fn fails_with(
        &self,
        spec: &str,
        job: Job,
        given: &[(&str, String)],
    ) -> anyhow::Result<String> {
        let name = job.name().to_string();
        let begun = self.begin(spec, job, given).await?;
        let worker = self.worker(self.world()?).await?;
        let stuck = [Status::Failed, Status::NeedsApproval];
        let record = begun.reaches(&name, &stuck, LONG).await;
        let record = record.with_context(|| self.operators.errors())?;
        worker.stop().await?;
        Ok(record.failure.context("it failed")?.to_string())
    }

    /// Runs one job until it says what it waits for.
    pub(crate) async fn waits(&self, job: Job, what: &str) -> anyhow::Result<()> {
        let name = job.name().to_string();
        let begun = self.begin(&self.spec(), job, &self.secrets()).await?;
        let worker = self.worker(self.world()?).await?;
        until(what, async || {
            let waits = begun.record(&name).await?.map(|record| record.waits);
            let waits = waits.unwrap_or_default();
            Ok(waits.values().any(|wait| wait.seen.contains(what)))
        })
        .await?;
        self.lab.cancel(&begun).await?;
        worker.stop().await
    }

    /// The record of an application's releases.
    pub(crate) async fn released(
        &self,
    ) -> anyhow::Result<Option<(Option<String>, Option<String>)>> {
        let series = keys::release(&"test".parse()?, &"dsf".parse()?);
        let stored = self.lab.store.read::<ReleaseRecord>(&series).await?;
        Ok(stored.map(|stored| (stored.body.tag, stored.body.former)))
    }

    /// What a switch holds, if it is there.
    pub(crate) fn switch(&self, namespace: &str, name: &str) -> Option<Value> {
        let object = self.sim.get("ConfigMap", namespace, name)?;
        serde_json::from_str(object["data"]["values-switch.yaml"].as_str()?).ok()
    }

    /// Waits until an object looks as it should.
    pub(crate) async fn until(
        &self,
        [kind, namespace, name]: [&str; 3],
        looks: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let what = format!("{kind} {namespace}/{name}");
        let found = until(&what, async || {
            Ok(self
                .sim
                .get(kind, namespace, name)
                .is_some_and(|it| looks(&it)))
        });
        found.await.with_context(|| {
            let status = self
                .sim
                .get(kind, namespace, name)
                .map(|it| it["status"].clone());
            format!("{status:?}; {}", self.operators.errors())
        })
    }

    /// Sets the status of an object, as its controller would.
    pub(crate) fn set_status(&self, [kind, namespace, name]: [&str; 3], status: Value) {
        let mut object = self.sim.get(kind, namespace, name).expect("it is there");
        object["status"] = status;
        self.sim.put(object).expect("it can be put");
    }

    /// The spec of the cluster with everything that these jobs look at.
    pub(crate) fn spec(&self) -> String {
        let s3 = &self.lab.sandbox.s3;
        let endpoint = s3.endpoint();
        let endpoint = endpoint.trim_start_matches("http://");
        let store = format!(
            "{{ bucket: {}, endpoint: \"{endpoint}\", path_style: true, insecure: true }}",
            s3.bucket()
        );
        format!(
            "{machines}
kubernetes:
  version: \"1.33.7\"
  kubespray: \"2.29.1\"
  image: {{ digest: \"sha256:9c6976b9a9563ca14b8dfbd253b6d6d15c7264c6ad0bdb670407cd651e2ebb4d\", key: kubespray }}
flux:
  version: \"{VERSION}\"
  secrets: {store}
  canary: {CANARY}
database:
  namespace: pg
  cluster: pg-db
  release: pg-db
  switch: pg-db-values-switch
  backups: {{ store: {store}, path: /pgbackrest/repo1, secret: clo-s3-secret }}
applications:
  - name: slr
    namespace: slr
    release: slr
    switch: slr-values-switch
    frozen: {{ migrationjob: {{ enabled: false }}, api: {{ enabled: false }}, beat: {{ enabled: false }}, worker: {{ enabled: false }} }}
  - name: dsf
    namespace: dsf
    release: dsf
    switch: dsf-values-switch
    frozen: {{ storefront: {{ enabled: false }} }}
    running: {{ storefront: {{ enabled: true }} }}
    url: \"http://shop.${{DOMAIN}}:8080/\"
    expect: the-data
certificates: [istio-system/tls-slr]
",
            machines = machines(),
        )
    }
}

/// The machines, and a port that leads to the application.
fn machines() -> String {
    small("test").replace(
        "    data_disks:",
        "    forward: [{ port: 8080, to: 30080 }]\n    data_disks:",
    )
}

/// What `rekindle` packs of `flux/test`.
fn bootstrap() -> anyhow::Result<String> {
    let mut text = String::new();
    for file in ["settings", "source", "root", "infra"] {
        let part = std::fs::read_to_string(format!("{FOLDER}/{file}.yaml"))?;
        text = format!("{text}---\n{part}\n");
    }
    Ok(text)
}

/// The database's operator, as far as Flux looks at it: what is there is ready.
#[derive(Debug)]
struct Database;

#[async_trait]
impl Controller for Database {
    fn name(&self) -> &'static str {
        "database"
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        let all = tick.cluster.list("pgv2.percona.com/v2", "PerconaPGCluster");
        for database in all.await.unwrap_or_default() {
            let ready = json!({"state": "ready"});
            if database["status"] != ready {
                tick.cluster
                    .set_status("percona", &database, &ready)
                    .await?;
            }
        }
        Ok(())
    }
}
