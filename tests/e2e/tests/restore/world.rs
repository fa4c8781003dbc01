//! A database that is lost with its cluster, and a new cluster that waits for it.
//!
//! The first life is a real one of the sandbox's operator: rows, backups and WAL that it archived itself. Then all of
//! it is gone but the bucket. The second cluster has Kubernetes on simulated machines, the operator, and a small stand-in
//! for helm-controller that turns values and switch into the database's object.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use e2e::lab::{LONG, Lab, Worker, quick, small, until};
use e2e::recovery::{Begun, begin};
use jiff::{SignedDuration, Timestamp};
use jobs::keys;
use jobs::message::Job;
use jobs::plan::PlannedJob;
use jobs::record::{DatabaseRecord, JobRecord, RecoveryRecord, Sealed, Status};
use jobs::secrets::{Identity, Secrets};
use jobs::store::{Credentials, Secret, Store, StoreConfig};
use sandbox::ca::Ca;
use sandbox::hosts::simulated::Service;
use sandbox::kube_sim::KubeSim;
use sandbox::operators::percona::{Archives, Bucket, Faults, Keys, Percona, Settings, definitions};
use sandbox::operators::{Controller, Operators, Pace, Tick};
use sandbox::postgres::{Disks, Server, Tls};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;

pub(crate) const SOURCE: &str = "/pgbackrest/repo1";
const DISK: &str = "pg/pg-db";
const SERVICE: &str = "10.96.0.50";
const SWITCH: &str = "values-switch.yaml";
pub(crate) const ROWS: usize = 12;

/// The world of a test.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) sim: Arc<KubeSim>,
    pub(crate) disks: Disks,
    pub(crate) faults: Faults,
    pub(crate) system_id: u64,
    /// When the newest row was written.
    pub(crate) newest: Timestamp,
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
        let (system_id, newest) = first_life(&lab, &archives).await?;

        let worker = lab.worker().await?;
        let begun = lab.recover(&machines()).await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        let sim =
            lab.hosts()
                .install_kubernetes(&["test-master-1"], &["test-cache-1"], "1.33.7")?;
        let (disks, faults) = (Disks::default(), Faults::default());
        let mut percona = operator(&lab, &archives, &disks, &faults)?;
        let tls = Tls::new(&percona.certificate_of("pg", "pg-db")?)?;
        let server = Server::start(&disks, DISK, tls).await?;
        let postgres = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
        lab.hosts()
            .route(format!("{SERVICE}:5432").parse()?, postgres);
        let shop = shop(&lab, &sim, &disks).await?;
        prepare(&lab, &sim)?;
        let releases = Releases { base: base(&lab) };
        let operators = operate(&sim, vec![Box::new(releases), Box::new(percona)])?;
        Ok(Self {
            lab,
            sim,
            disks,
            faults,
            system_id,
            newest,
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
        let planned = PlannedJob {
            name: job.name(),
            payload: job,
            needs: vec![],
            always: false,
        };
        let (store, queue) = (&self.lab.store, &self.lab.queue);
        let begun = begin(store, queue, spec, Some(vec![planned])).await?;
        let s3 = &self.lab.sandbox.s3;
        let mut secrets = Secrets::default();
        secrets.add("CLUSTER_S3_ACCESS_KEY", Secret::new(s3.access_key()))?;
        secrets.add("CLUSTER_S3_SECRET_KEY", Secret::new(s3.secret_key()))?;
        let recipient = self.identity.recipient();
        let sealed = Sealed {
            input: store
                .put_input(secrets.seal(&begun.cluster, &recipient)?.into())
                .await?,
            names: secrets.names(),
            recipient: recipient.to_string(),
        };
        let series = keys::recovery(&begun.cluster, &begun.id);
        store
            .update(&series, |record: Option<RecoveryRecord>| {
                Ok::<_, jobs::store::StoreError>(record.map(|mut record| {
                    record.inputs.secrets = Some(sealed.clone());
                    record
                }))
            })
            .await?;
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

/// A database that is used, backed up, used on, and then gone; its system id and newest row.
async fn first_life(lab: &Lab, archives: &Archives) -> anyhow::Result<(u64, Timestamp)> {
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
    let (system_id, half) = {
        let disk = disks.get(DISK);
        (disk.data().context("it runs")?.system_id, ROWS / 2)
    };
    // Rows before its first backup, and rows that only the WAL has.
    // PostgreSQL keeps no nanoseconds.
    let begin = Timestamp::from_second(Timestamp::now().as_second())?;
    let begin = begin - SignedDuration::from_secs(60);
    let mut newest = begin;
    for row in 0..ROWS {
        if row == half {
            let info = "pgbackrest/repo1/backup/db/backup.info";
            until("the first backup is there", async || {
                let info = lab.sandbox.s3.object(info);
                Ok(info.is_some_and(|info| String::from_utf8_lossy(&info).contains("backup-type")))
            })
            .await?;
        }
        newest = begin + SignedDuration::from_secs(i64::try_from(row)?);
        ensure!(
            disks.insert(DISK, "slr", "orders", newest),
            "the row was taken"
        );
    }
    // What was committed is archived in the next tick.
    let seen = operators.ticks() + 3;
    until("the WAL is archived", async || Ok(operators.ticks() > seen)).await?;
    operators.stop().await;
    Ok((system_id, newest))
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
        bucket: Arc::new(OverHttp(lab.sandbox.s3.endpoint())),
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

fn cluster_object(spec: Value) -> Value {
    json!({"apiVersion": "pgv2.percona.com/v2", "kind": "PerconaPGCluster",
        "metadata": {"namespace": "pg", "name": "pg-db"}, "spec": spec})
}

/// The bucket as pgBackRest comes to it.
#[derive(Debug)]
struct OverHttp(String);

impl OverHttp {
    async fn store(&self, keys: &Keys, bucket: &str) -> Result<Store, String> {
        let config = StoreConfig {
            endpoint: Some(self.0.clone()),
            bucket: bucket.to_owned(),
            credentials: Credentials::Keys {
                access: keys.access.clone(),
                secret: Secret::new(keys.secret.clone()),
            },
            region: "us-east-1".into(),
            prefix: String::new(),
            path_style: true,
            timeout: Duration::from_secs(10),
        };
        Store::connect(&config).await.map_err(words)
    }
}

#[async_trait]
impl Bucket for OverHttp {
    async fn get(&self, keys: &Keys, bucket: &str, key: &str) -> Result<Option<Bytes>, String> {
        self.store(keys, bucket)
            .await?
            .get(key)
            .await
            .map_err(words)
    }

    async fn put(&self, keys: &Keys, bucket: &str, key: &str, body: Bytes) -> Result<(), String> {
        self.store(keys, bucket)
            .await?
            .put(key, body)
            .await
            .map_err(words)
    }
}

fn words(error: jobs::store::StoreError) -> String {
    format!("HTTP request failed: {error}")
}

/// helm-controller, as far as switches go: without its switch a release says so and makes nothing.
#[derive(Debug)]
struct Releases {
    base: Value,
}

#[async_trait]
impl Controller for Releases {
    fn name(&self) -> &'static str {
        "releases"
    }

    async fn reconcile(&mut self, tick: &Tick) -> anyhow::Result<()> {
        for release in tick
            .cluster
            .list("helm.toolkit.fluxcd.io/v2", "HelmRelease")
            .await?
        {
            self.release(tick, &release).await?;
        }
        Ok(())
    }
}

impl Releases {
    async fn release(&self, tick: &Tick, release: &Value) -> anyhow::Result<()> {
        let text = |at: &str| {
            let found = release.pointer(at).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let switch = format!("{name}-values-switch");
        let found = tick
            .cluster
            .get("v1", "ConfigMap", &namespace, &switch)
            .await?;
        let asked = text("/metadata/annotations/reconcile.fluxcd.io~1requestedAt");
        let ready = match found
            .as_ref()
            .and_then(|found| found["data"][SWITCH].as_str())
        {
            None => json!({"type": "Ready", "status": "False", "reason": "ValuesError",
                "message": format!("could not find ConfigMap '{namespace}/{switch}'")}),
            Some(values) => {
                if name == "pg-db" {
                    let mut spec = self.base.as_object().cloned().unwrap_or_default();
                    let values: Value = serde_json::from_str(values)?;
                    let values = values.as_object().cloned().unwrap_or_default();
                    worker::switch::values::merge(&mut spec, &values);
                    spec.remove("pmm");
                    tick.cluster
                        .apply("helm", &cluster_object(spec.into()))
                        .await?;
                }
                json!({"type": "Ready", "status": "True", "reason": "UpgradeSucceeded", "message": "done"})
            }
        };
        let status = json!({"observedGeneration": release["metadata"]["generation"],
            "lastHandledReconcileAt": asked, "conditions": [ready]});
        if release["status"] != status {
            tick.cluster
                .set_status("helm-controller", release, &status)
                .await?;
        }
        Ok(())
    }
}

/// The application behind the load balancer: it counts its orders while it runs and its database answers.
async fn shop(
    lab: &Lab,
    sim: &Arc<KubeSim>,
    disks: &Disks,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = Service::At(listener.local_addr()?);
    lab.hosts().listen("test-cache-1", 30080, at);
    let (sim, disks) = (Arc::clone(sim), disks.clone());
    Ok(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0_u8; 4096];
            let _ = stream.read(&mut request).await;
            let switch = sim.get("ConfigMap", "slr", "slr-values-switch");
            let text = switch.and_then(|s| s["data"][SWITCH].as_str().map(str::to_owned));
            let runs = text.is_some_and(|text| !text.contains("false"));
            let rows = disks.get(DISK).data().map(sandbox::postgres::Data::rows);
            let (status, body) = match rows.filter(|_| runs) {
                Some(rows) => ("200 OK", format!("{rows} orders")),
                None => ("503 Service Unavailable", "no".to_owned()),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }))
}
