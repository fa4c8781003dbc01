//! A database that is lost with its cluster, and a new cluster that waits for it.
//!
//! The first life is a real one of the sandbox's operator: rows, backups and WAL that it archived itself. Then all of
//! it is gone but the bucket. The second cluster has Kubernetes on simulated machines, the operator, and a small stand-in
//! for helm-controller that turns values and switch into the database's object.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::lab::{LONG, Lab, Worker, quick, small, until};
use e2e::recovery::{Begun, begin_one};
use jiff::{SignedDuration, Timestamp};
use jobs::message::Job;
use jobs::record::{DatabaseRecord, JobRecord, Status};
use jobs::secrets::Identity;
use sandbox::ca::{Ca, Signed};
use sandbox::kube_sim::KubeSim;
use sandbox::operators::percona::{Archives, Faults, Percona, Settings, definitions};
use sandbox::operators::{Controller, Operators, Pace};
use sandbox::payload::OverHttp;
use sandbox::postgres::{Disks, Server, Tls};
use serde_json::{Value, json};
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;

use crate::cluster::{Releases, shop};

pub(crate) const SOURCE: &str = "/pgbackrest/repo1";
pub(crate) const DISK: &str = "pg/pg-db";
pub(crate) const SERVICE: &str = "10.96.0.50";
pub(crate) const SWITCH: &str = "values-switch.yaml";
pub(crate) const ROWS: usize = 12;
/// The rows that a backup has.
pub(crate) const SAVED: usize = 6;
/// The rows that were there at a moment which only the WAL knows.
pub(crate) const EARLY: usize = 9;

/// The world of a test.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) sim: Arc<KubeSim>,
    pub(crate) disks: Disks,
    pub(crate) faults: Faults,
    pub(crate) system_id: u64,
    /// When the newest row was written.
    pub(crate) newest: Timestamp,
    /// A moment between two rows that only the WAL has, and the row before it: the last one of [`EARLY`].
    pub(crate) between: (Timestamp, Timestamp),
    /// What the database shows.
    pub(crate) certificate: Signed,
    identity: Arc<Identity>,
    operators: Option<Operators>,
    _server: Server,
    _shop: tokio::task::JoinHandle<()>,
}

impl Scene {
    /// All of it, with the first database lost.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let lab = Lab::start().await?;
        let archives = Archives::default();
        let life = first_life(&lab, &archives).await?;
        Self::after(lab, archives, life).await
    }

    /// The same after another life, of which nothing but the bucket is left.
    pub(crate) async fn after(lab: Lab, archives: Archives, life: Life) -> anyhow::Result<Self> {
        let Life {
            system_id,
            newest,
            between,
        } = life;
        let worker = lab.worker().await?;
        let begun = lab.recover(&machines()).await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        let sim =
            lab.hosts()
                .install_kubernetes(&["test-master-1"], &["test-cache-1"], "1.33.7")?;
        let (disks, faults) = (Disks::default(), Faults::default());
        let mut percona = operator(&lab, &archives, &disks, &faults)?;
        let certificate = percona.certificate_of("pg", "pg-db")?;
        let server = Server::start(&disks, DISK, Tls::new(&certificate)?).await?;
        let postgres = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
        lab.hosts()
            .route(format!("{SERVICE}:5432").parse()?, postgres);
        let shop = shop(&lab, &sim, &disks).await?;
        prepare(&lab, &sim)?;
        let releases = Releases::new(base(&lab));
        let operators = operate(&sim, vec![Box::new(releases), Box::new(percona)])?;
        Ok(Self {
            lab,
            sim,
            disks,
            faults,
            system_id,
            newest,
            between,
            certificate,
            identity: Arc::new(Identity::generate()),
            operators: Some(operators),
            _server: server,
            _shop: shop,
        })
    }

    pub(crate) async fn worker(&self) -> anyhow::Result<Worker> {
        let mut world = self.lab.world()?;
        world.identity = Some(Arc::clone(&self.identity));
        let store = self.lab.sandbox.store().await?;
        Worker::start(store, self.lab.queue.clone(), world, quick())
    }

    /// Begins a recovery of one job. Its secrets are given before a worker sees it.
    pub(crate) async fn begin(&self, spec: &str, job: Job) -> anyhow::Result<Begun> {
        let begun = begin_one(&self.lab.store, &self.lab.queue, spec, job).await?;
        let s3 = &self.lab.sandbox.s3;
        let secrets = [
            ("CLUSTER_S3_ACCESS_KEY", s3.access_key().to_owned()),
            ("CLUSTER_S3_SECRET_KEY", s3.secret_key().to_owned()),
        ];
        begun.give(&self.identity, &secrets, None).await?;
        Ok(begun)
    }

    /// Runs one job to its end.
    pub(crate) async fn done(&self, job: Job) -> anyhow::Result<Begun> {
        let begun = self.begin(&self.spec(), job).await?;
        let worker = self.worker().await?;
        let finished = begun.finished(LONG).await;
        if finished.is_err() {
            eprintln!("{}", self.errors());
        }
        finished?;
        worker.stop().await?;
        Ok(begun)
    }

    /// Runs one job until it has failed for good; what it says.
    pub(crate) async fn fails(&self, spec: &str, job: Job) -> anyhow::Result<(Begun, String)> {
        let name = job.name().to_string();
        let begun = self.begin(spec, job).await?;
        let worker = self.worker().await?;
        let stuck = [Status::Failed, Status::NeedsApproval];
        let record = begun.reaches(&name, &stuck, LONG).await;
        let record = record.with_context(|| self.errors())?;
        worker.stop().await?;
        let why = record.failure.as_ref().context("it failed")?.to_string();
        Ok((begun, why))
    }

    /// Waits until a job says what it waits for.
    pub(crate) async fn says(&self, begun: &Begun, job: &str, what: &str) -> anyhow::Result<()> {
        until(what, async || {
            let record = begun.record(job).await?;
            let waits = record.map(|r| r.waits).unwrap_or_default();
            Ok(waits.values().any(|wait| wait.seen.contains(what)))
        })
        .await
    }

    pub(crate) async fn record(&self, begun: &Begun, job: &str) -> anyhow::Result<JobRecord> {
        begun.record(job).await?.context("it has a record")
    }

    pub(crate) async fn database(&self) -> anyhow::Result<Option<DatabaseRecord>> {
        let cluster = "test".parse()?;
        Ok(self.lab.cluster(&cluster).database().await?)
    }

    pub(crate) fn errors(&self) -> String {
        self.operators
            .as_ref()
            .map_or_else(String::new, Operators::errors)
    }

    /// What a switch holds, if it is there.
    pub(crate) fn switch(&self, namespace: &str, name: &str) -> Option<Value> {
        let object = self.sim.get("ConfigMap", namespace, name)?;
        serde_json::from_str(object["data"][SWITCH].as_str()?).ok()
    }

    /// Whether the application's switch stops it.
    pub(crate) fn is_frozen(&self) -> bool {
        let switch = self.switch("slr", "slr-values-switch");
        switch.is_some_and(|values| values["api"]["enabled"] == false)
    }

    /// The repository that is restored from, byte by byte.
    pub(crate) fn source(&self) -> Vec<(String, Vec<u8>)> {
        let all = self.lab.sandbox.s3.objects("pgbackrest/repo1/");
        all.into_iter()
            .map(|(key, body)| (key, body.to_vec()))
            .collect()
    }

    /// The rows that the new database has.
    pub(crate) fn rows(&self) -> usize {
        self.disks
            .get(DISK)
            .data()
            .map_or(0, sandbox::postgres::Data::rows)
    }

    /// Makes the database as Flux does when nobody restores: new and empty. Somebody writes a row into it.
    pub(crate) async fn make_a_new_database(&self) -> anyhow::Result<()> {
        let values =
            json!({"backups": {"pgbackrest": {"global": {"repo1-path": "/pgbackrest/new"}}}});
        self.sim
            .put(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": "pg", "name": "pg-db-values-switch"},
            "data": {SWITCH: values.to_string()}}))?;
        until("it runs", async || Ok(self.disks.get(DISK).running)).await?;
        ensure!(
            self.disks.insert(DISK, "slr", "orders", Timestamp::now()),
            "the row was taken"
        );
        until("it is ready", async || {
            let object = self.sim.get("PerconaPGCluster", "pg", "pg-db");
            Ok(object.is_some_and(|object| object["status"]["state"] == "ready"))
        })
        .await
    }

    /// The authority that the cluster names is not the one that the database's certificate is of.
    pub(crate) fn expect_another_authority(&self) -> anyhow::Result<()> {
        let data = json!({"ca.crt": BASE64.encode(Ca::new("somebody else")?.pem())});
        self.sim
            .put(json!({"apiVersion": "v1", "kind": "Secret", "data": data,
            "metadata": {"namespace": "pg", "name": "pg-db-cluster-cert"}}))
    }

    pub(crate) fn destroyed(&self) -> u32 {
        self.disks.get(DISK).destroyed
    }

    /// The spec of the cluster with everything in it.
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
  version: \"2.8.8\"
  secrets: {store}
  canary: test/canary.yaml
database:
  namespace: pg
  cluster: pg-db
  release: pg-db
  switch: pg-db-values-switch
  backups:
    store: {store}
    path: {SOURCE}
    secret: clo-s3-secret
  proofs:
    - {{ name: orders, database: slr, sql: \"select count(*) from orders\", at_least: {ROWS} }}
    - {{ name: never-empty, database: slr, sql: \"select count(*) from orders\", equals: \"{ROWS}\" }}
  newest: {{ database: slr, sql: \"select max(ts) from orders\" }}
applications:
  - name: slr
    namespace: slr
    release: slr
    switch: slr-values-switch
    frozen: {{ api: {{ enabled: false }} }}
    url: http://shop.example.org:8080/
    expect: \"{ROWS} orders\"
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

/// What is known of a database that is gone.
pub(crate) struct Life {
    pub(crate) system_id: u64,
    pub(crate) newest: Timestamp,
    pub(crate) between: (Timestamp, Timestamp),
}

/// A database that is used, backed up, used on, and then gone.
async fn first_life(lab: &Lab, archives: &Archives) -> anyhow::Result<Life> {
    let sim = KubeSim::start().await?;
    let disks = Disks::default();
    let percona = operator(lab, archives, &disks, &Faults::default())?;
    prepare(lab, &sim)?;
    let mut values = base(lab);
    values["backups"]["pgbackrest"]["global"]["repo1-path"] = SOURCE.into();
    let operators = operate(&sim, vec![Box::new(percona)])?;
    put(&sim, cluster_object(values))?;

    until("the first database runs", async || {
        Ok(disks.get(DISK).running)
    })
    .await?;
    let system_id = disks.get(DISK).data().context("it runs")?.system_id;
    // Rows before its first backup, and rows that only the WAL has.
    let mut newest = Timestamp::now() - SignedDuration::from_secs(60);
    let mut between = (newest, newest);
    for row in 0..ROWS {
        newest = match row {
            0..SAVED => newest + SignedDuration::from_secs(1),
            SAVED => {
                let info = "pgbackrest/repo1/backup/db/backup.info";
                until("the first backup is there", async || {
                    let info = lab.sandbox.s3.object(info);
                    Ok(info
                        .is_some_and(|info| String::from_utf8_lossy(&info).contains("backup-type")))
                })
                .await?;
                next_second().await
            }
            EARLY => {
                between = (next_second().await, newest);
                next_second().await
            }
            _ => Timestamp::now(),
        };
        // PostgreSQL keeps no nanoseconds.
        newest = Timestamp::from_microsecond(newest.as_microsecond())?;
        ensure!(
            disks.insert(DISK, "slr", "orders", newest),
            "the row was taken"
        );
    }
    // What was committed is archived in the next tick.
    let seen = operators.ticks() + 3;
    until("the WAL is archived", async || Ok(operators.ticks() > seen)).await?;
    operators.stop().await;
    Ok(Life {
        system_id,
        newest,
        between,
    })
}

/// The moment when the next second has begun: backups and objects of the bucket know no less.
async fn next_second() -> Timestamp {
    let now = Timestamp::now().as_second();
    while Timestamp::now().as_second() == now {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Timestamp::now()
}

fn operator(
    lab: &Lab,
    archives: &Archives,
    disks: &Disks,
    faults: &Faults,
) -> anyhow::Result<Percona> {
    let settings = Settings {
        disks: disks.clone(),
        archives: archives.clone(),
        bucket: Arc::new(OverHttp::of(&lab.sandbox)),
        ca: Ca::new("postgres-operator-ca")?,
        taints: vec![],
        addresses: [("pg/pg-db-ha".to_owned(), SERVICE.to_owned())].into(),
    };
    Ok(Percona::new(settings, faults.clone()))
}

fn operate(sim: &Arc<KubeSim>, all: Vec<Box<dyn Controller>>) -> anyhow::Result<Operators> {
    sim.listen()?;
    let config = Kubeconfig::parse(&sim.direct_conf()?, "the sandbox")?;
    let client = direct(&config, Dialer::direct())?;
    let pace = Pace {
        every: Duration::from_millis(30),
        ..Pace::default()
    };
    Ok(Operators::start(client, pace, all))
}

/// What Flux would have made: kinds, namespaces, Secrets, releases that wait for their switches.
fn prepare(lab: &Lab, sim: &KubeSim) -> anyhow::Result<()> {
    for definition in definitions() {
        put(sim, definition)?;
    }
    put(sim, release_kind())?;
    for name in ["pg", "slr"] {
        let metadata = json!({"name": name});
        put(
            sim,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
        )?;
    }
    let s3 = &lab.sandbox.s3;
    let conf = format!(
        "[global]\nrepo1-s3-key={}\nrepo1-s3-key-secret={}\n",
        s3.access_key(),
        s3.secret_key()
    );
    let data = json!({"s3.conf": BASE64.encode(conf)});
    put(
        sim,
        json!({"apiVersion": "v1", "kind": "Secret", "data": data,
            "metadata": {"namespace": "pg", "name": "clo-s3-secret"}}),
    )?;
    for (namespace, name) in [("pg", "pg-db"), ("slr", "slr")] {
        let metadata = json!({"namespace": namespace, "name": name});
        put(
            sim,
            json!({"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
                "metadata": metadata, "spec": {"interval": "10m"}}),
        )?;
    }
    Ok(())
}

/// Puts an object in once its kind is served.
fn put(sim: &KubeSim, object: Value) -> anyhow::Result<()> {
    let mut last = Ok(());
    for _ in 0..200 {
        last = sim.put(object.clone());
        if last.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    last
}

fn release_kind() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "helmreleases.helm.toolkit.fluxcd.io"},
        "spec": {
            "group": "helm.toolkit.fluxcd.io", "scope": "Namespaced",
            "names": {"kind": "HelmRelease", "listKind": "HelmReleaseList",
                "plural": "helmreleases", "singular": "helmrelease"},
            "versions": [{"name": "v2", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": any, "status": any}}}}],
        },
    })
}

/// Git's values of the database.
fn base(lab: &Lab) -> Value {
    let s3 = &lab.sandbox.s3;
    let place = json!({"bucket": s3.bucket(), "endpoint": "s3.example.org", "region": "us-east-1"});
    json!({
        "postgresVersion": 17,
        "instances": [{"name": "instance1", "replicas": 2}],
        "proxy": {"pgBouncer": {"replicas": 1}},
        "users": [{"name": "postgres"}, {"name": "slrpguser", "databases": ["slr"]}],
        "backups": {"pgbackrest": {
            "configuration": [{"secret": {"name": "clo-s3-secret"}}],
            "global": {"repo1-path": "/pgbackrest/no-generation"},
            "repos": [{"name": "repo1", "s3": place}],
        }},
    })
}

pub(crate) fn cluster_object(spec: Value) -> Value {
    json!({"apiVersion": "pgv2.percona.com/v2", "kind": "PerconaPGCluster",
        "metadata": {"namespace": "pg", "name": "pg-db"}, "spec": spec})
}
