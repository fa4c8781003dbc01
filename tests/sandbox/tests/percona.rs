//! The Percona operator of the sandbox on a real API server, and what Rekindle makes of its objects.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use jobs::store::{Credentials, Secret, StoreConfig};
use sandbox::ca::Ca;
use sandbox::kube_api::KubeApi;
use sandbox::operators::percona::{Archives, Fault, Faults, LOG, Percona, Settings, definitions};
use sandbox::operators::{Cluster, Operators, Pace};
use sandbox::postgres::{Content, Data, Disks, Server, Tls};
use sandbox::s3::{S3Options, S3Server};
use serde_json::{Value, json};
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;
use worker::pgbackrest::finished::{Objects, Restoring, judge};
use worker::pgbackrest::{
    Danger, Location, Repository, Source, Stanza, Target, Toleration, Values, Wish,
};

const DEADLINE: Duration = Duration::from_secs(60);
const PERCONA: &str = "pgv2.percona.com/v2";
const CRUNCHY: &str = "postgres-operator.crunchydata.com/v1beta1";
const OLD: &str = "/pgbackrest/repo1";

struct Lab {
    api: KubeApi,
    cluster: Cluster,
    bucket: Arc<S3Server>,
    disks: Disks,
    faults: Faults,
    operators: Operators,
    ca: String,
    tls: Tls,
}

impl Lab {
    async fn start(taints: &[(&str, &str, &str)]) -> Self {
        worker::install_crypto();
        let api = KubeApi::start().await.unwrap();
        let config = Kubeconfig::parse(&api.admin_conf().unwrap(), "test").unwrap();
        let client = direct(&config, Dialer::direct()).unwrap();
        let cluster = Cluster::new(client.clone());
        let bucket = Arc::new(S3Server::start(S3Options::default()).await.unwrap());
        let (disks, faults) = (Disks::default(), Faults::default());
        let ca = Ca::new("pg-db").unwrap();
        let pem = ca.pem();
        let own = |(key, value, effect): &(&str, &str, &str)| {
            ((*key).to_owned(), (*value).to_owned(), (*effect).to_owned())
        };
        let settings = Settings {
            disks: disks.clone(),
            archives: Archives::default(),
            bucket: bucket.clone(),
            ca,
            taints: taints.iter().map(own).collect(),
            addresses: [
                ("pg/pg-db-ha", "10.96.77.1"),
                ("pg/pg-db-pgbouncer", "10.96.77.2"),
            ]
            .map(|(service, address)| (service.to_owned(), address.to_owned()))
            .into(),
        };
        let mut percona = Percona::new(settings, faults.clone());
        let tls = Tls::new(&percona.certificate_of("pg", "pg-db").unwrap()).unwrap();
        let pace = Pace {
            every: Duration::from_millis(30),
            stands_for: Duration::from_secs(10),
        };
        let operators = Operators::start(client, pace, vec![Box::new(percona)]);
        let lab = Self {
            api,
            cluster,
            bucket,
            disks,
            faults,
            operators,
            ca: pem,
            tls,
        };
        for definition in definitions() {
            lab.apply(&definition).await;
        }
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "pg" } });
        lab.apply(&namespace).await;
        lab.secret(
            "clo-s3-secret",
            lab.bucket.access_key(),
            lab.bucket.secret_key(),
        )
        .await;
        lab.until("the kinds are served", async || {
            lab.cluster
                .scope(CRUNCHY, "PostgresCluster")
                .await
                .unwrap()
                .is_some()
                && lab
                    .cluster
                    .scope(PERCONA, "PerconaPGRestore")
                    .await
                    .unwrap()
                    .is_some()
        })
        .await;
        lab
    }

    async fn secret(&self, name: &str, access: &str, secret: &str) {
        let text = format!("[global]\nrepo1-s3-key={access}\nrepo1-s3-key-secret={secret}\n");
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "pg" },
            "data": { "s3.conf": BASE64.encode(text) } });
        self.apply(&secret).await;
    }

    async fn apply(&self, object: &Value) {
        let deadline = Instant::now() + DEADLINE;
        // A kind is served some moments after it is defined.
        while let Err(error) = self.cluster.apply("test", object).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, api: &str, kind: &str, name: &str) -> Option<Value> {
        self.cluster.get(api, kind, "pg", name).await.unwrap()
    }

    async fn outer(&self, name: &str) -> Value {
        self.get(PERCONA, "PerconaPGCluster", name)
            .await
            .unwrap_or_default()
    }

    async fn until(&self, what: &str, look: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !look().await {
            assert!(
                Instant::now() < deadline,
                "never: {what}; {}",
                self.operators.errors()
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// So many ticks in which something could have happened.
    async fn ticks(&self, ticks: u64) {
        let until = self.operators.ticks() + ticks;
        self.until("ticks go by", async || self.operators.ticks() >= until)
            .await;
    }

    async fn state(&self, name: &str) -> String {
        self.outer(name).await["status"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    async fn ready(&self, name: &str) {
        self.until("the cluster is ready", async || {
            self.state(name).await == "ready"
        })
        .await;
    }

    /// All that Rekindle looks at.
    async fn objects(&self, name: &str) -> Objects {
        let of = |kind: &str| format!("{name}-{kind}");
        let mut pods = self.cluster.list("v1", "Pod").await.unwrap();
        pods.retain(|pod| {
            pod["metadata"]["labels"]["postgres-operator.crunchydata.com/cluster"] == name
        });
        Objects {
            cluster: self.get(PERCONA, "PerconaPGCluster", name).await,
            inner: self.get(CRUNCHY, "PostgresCluster", name).await,
            restore: self
                .get(PERCONA, "PerconaPGRestore", &of("bootstrap"))
                .await,
            job: self.get("batch/v1", "Job", &of("pgbackrest-restore")).await,
            pods,
        }
    }

    async fn judged(&self, name: &str) -> Restoring {
        judge(name, &self.objects(name).await).unwrap()
    }

    /// Waits for a verdict that is not "running", and never sees `Finished` before it is true.
    async fn verdict(&self, name: &str) -> Restoring {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.judged(name).await {
                Restoring::Running { progress, trouble } => {
                    assert!(
                        Instant::now() < deadline,
                        "{progress} {trouble:?} {}",
                        self.operators.errors()
                    );
                }
                verdict => return verdict,
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn trouble(&self, name: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Restoring::Running {
                trouble: Some(trouble),
                ..
            } = self.judged(name).await
            {
                return trouble;
            }
            assert!(Instant::now() < deadline, "{:?}", self.judged(name).await);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn repository(&self, path: &str) -> Repository {
        let place = StoreConfig {
            endpoint: Some(self.bucket.endpoint()),
            bucket: self.bucket.bucket().to_owned(),
            credentials: Credentials::Keys {
                access: self.bucket.access_key().to_owned(),
                secret: Secret::new(self.bucket.secret_key()),
            },
            region: "us-east-1".into(),
            prefix: path.to_owned(),
            path_style: true,
            timeout: Duration::from_secs(10),
        };
        Repository::connect(&place, "db").await.unwrap()
    }

    async fn stanza(&self, path: &str) -> Stanza {
        Stanza::read(&self.repository(path).await, None)
            .await
            .unwrap()
    }

    fn location(&self, path: &str) -> Location {
        Location {
            bucket: self.bucket.bucket().to_owned(),
            endpoint: "s3.example.org".into(),
            region: "us-east-1".into(),
            path: path.into(),
        }
    }

    /// What Rekindle would write into the switch to restore from one path, with backups in another.
    async fn values(&self, target: Target, to: &str) -> Value {
        let toleration = Toleration {
            key: Some("postgresqltaint".into()),
            operator: Some("Equal".into()),
            value: Some("yestaint".into()),
            effect: Some("NoSchedule".into()),
            ..Toleration::default()
        };
        let source = Source {
            location: self.location(OLD),
            stanza: "db".into(),
            repo: "repo1".into(),
            secret: "clo-s3-secret".into(),
            path_style: false,
            tolerations: vec![toleration],
        };
        let wish = Wish {
            target,
            ..Wish::default()
        };
        let choice = self.stanza(OLD).await.choose(&wish).unwrap();
        serde_json::to_value(Values::restoring(&source, &choice, &self.location(to)).unwrap())
            .unwrap()
    }

    /// A cluster as the chart makes it, with these values over it.
    async fn create(&self, name: &str, path: &str, values: &Value) {
        let mut object = json!({ "apiVersion": PERCONA, "kind": "PerconaPGCluster",
            "metadata": { "name": name, "namespace": "pg" },
            "spec": {
                "postgresVersion": 17,
                "instances": [{ "name": "instance1", "replicas": 3,
                    "tolerations": [{ "key": "postgresqltaint", "operator": "Exists" }] }],
                "proxy": { "pgBouncer": { "replicas": 2 } },
                "users": [{ "name": "app", "databases": ["app"] }],
                "backups": { "pgbackrest": {
                    "configuration": [{ "secret": { "name": "clo-s3-secret" } }],
                    "global": { "repo1-path": path },
                    "jobs": { "tolerations": [{ "operator": "Exists" }] },
                    "repos": [{ "name": "repo1", "s3": { "bucket": self.bucket.bucket(),
                        "endpoint": "s3.example.org", "region": "us-east-1" } }] } } } });
        merge(&mut object["spec"], values);
        self.apply(&object).await;
    }

    /// The cluster is gone with its disk, as after a disaster.
    async fn lose(&self, name: &str) {
        self.cluster.delete(&self.outer(name).await).await.unwrap();
        self.until("the cluster is gone", async || {
            self.get(CRUNCHY, "PostgresCluster", name).await.is_none()
        })
        .await;
        // It is nobody's, so it stays; a new cluster would not get one of its own.
        if let Some(restore) = self
            .get(PERCONA, "PerconaPGRestore", &format!("{name}-bootstrap"))
            .await
        {
            self.cluster.delete(&restore).await.unwrap();
        }
        self.disks
            .with(&format!("pg/{name}"), |disk| disk.content = Content::Empty);
    }

    fn data(&self, name: &str) -> Data {
        match self.disks.get(&format!("pg/{name}")).content {
            Content::Data(data) => *data,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn rows(&self, name: &str) -> Vec<Timestamp> {
        let data = self.data(name);
        let tables = data.databases.get("app").into_iter().flatten();
        tables.flat_map(|(_, table)| table.rows.clone()).collect()
    }

    /// Commits a row and waits until its WAL is in the bucket.
    async fn commit(&self, name: &str, path: &str) -> Timestamp {
        let at = Timestamp::now();
        let before = self
            .bucket
            .objects(&format!("{}/archive", path.trim_start_matches('/')))
            .len();
        assert!(
            self.disks
                .insert(&format!("pg/{name}"), "app", "heartbeat", at)
        );
        self.until("it is archived", async || {
            self.bucket
                .objects(&format!("{}/archive", path.trim_start_matches('/')))
                .len()
                > before
        })
        .await;
        at
    }

    async fn backup(&self, name: &str, cluster: &str, spec: &Value) -> Value {
        let mut object = json!({ "apiVersion": PERCONA, "kind": "PerconaPGBackup",
            "metadata": { "name": name, "namespace": "pg" }, "spec": { "pgCluster": cluster, "repoName": "repo1" } });
        merge(&mut object["spec"], spec);
        // Server-side apply refuses what a chart's client would have dropped.
        let client = self.cluster.client();
        let path = "/apis/pgv2.percona.com/v2/namespaces/pg/perconapgbackups";
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes()).unwrap();
        let _: Value = client.request(request).await.unwrap();
        let over = async |name: &str| {
            let found = self
                .get(PERCONA, "PerconaPGBackup", name)
                .await
                .unwrap_or_default();
            matches!(
                found["status"]["state"].as_str(),
                Some("Succeeded" | "Failed")
            )
        };
        self.until("the backup is over", async || over(name).await)
            .await;
        self.get(PERCONA, "PerconaPGBackup", name).await.unwrap()
    }

    async fn events(&self, reason: &str) -> Vec<String> {
        let mut events = self.cluster.list("v1", "Event").await.unwrap();
        events.retain(|event| event["reason"] == reason);
        events
            .iter()
            .map(|event| event["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    async fn stop(self) {
        self.operators.stop().await;
        self.api.stop().await.unwrap();
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => {
            for (key, value) in patch {
                merge(&mut into[key], value);
            }
        }
        other => *into = other.clone(),
    }
}

fn failure(verdict: Restoring) -> String {
    match verdict {
        Restoring::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn heavy_a_cluster_is_made_backed_up_lost_and_restored_as_planned() {
    let lab = Lab::start(&[("postgresqltaint", "yestaint", "NoSchedule")]).await;

    // A new cluster: an empty database, a stanza and a first backup that Rekindle can read.
    lab.create("pg-db", OLD, &json!({})).await;
    lab.ready("pg-db").await;
    lab.until("the first backup", async || {
        !lab.bucket
            .objects("pgbackrest/repo1/backup/db/2")
            .is_empty()
    })
    .await;
    lab.until("it is ready for backups", async || {
        let outer = lab.outer("pg-db").await;
        outer["status"]["conditions"].as_array().is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "ReadyForBackup" && c["status"] == "True")
        })
    })
    .await;
    let outer = lab.outer("pg-db").await;
    assert_eq!(outer["status"]["postgres"]["ready"], 3);
    let system_id = lab.data("pg-db").system_id;
    assert_eq!(
        outer["status"]["patroni"]["status"]["systemIdentifier"],
        system_id.to_string()
    );
    let stanza = lab.stanza(OLD).await;
    assert_eq!(
        (stanza.database.system_id, stanza.sets.len()),
        (system_id, 1)
    );
    assert!(stanza.sets[0].is_usable(), "{:?}", stanza.sets);
    // Conditions were copied before they were true, and keep: version 2.8.
    let copied = outer["status"]["conditions"].as_array().unwrap();
    let stale = copied
        .iter()
        .find(|c| c["type"] == "PGBackRestReplicaCreate")
        .unwrap();
    assert_eq!(stale["status"], "False");
    let fresh = lab.get(CRUNCHY, "PostgresCluster", "pg-db").await.unwrap();
    let fresh = fresh["status"]["conditions"].as_array().unwrap();
    assert!(
        fresh
            .iter()
            .any(|c| c["type"] == "PGBackRestReplicaCreate" && c["status"] == "True")
    );

    // Its users come in through TLS with what stands in their Secret.
    let server = Server::start(&lab.disks, "pg/pg-db", lab.tls.clone())
        .await
        .unwrap();
    lab.commit("pg-db", OLD).await;
    lab.disks.grant("pg/pg-db", "app", "heartbeat", "app");
    assert_eq!(count(&lab, &server).await, 1);
    for (service, address) in [
        ("ha", "10.96.77.1"),
        ("pgbouncer", "10.96.77.2"),
        ("primary", "None"),
    ] {
        let service = lab
            .get("v1", "Service", &format!("pg-db-{service}"))
            .await
            .unwrap();
        assert_eq!(service["spec"]["clusterIP"], address);
    }

    // The type of a backup is an option; the field that the reference writes is dropped.
    let backup = lab
        .backup("mistaken", "pg-db", &json!({ "type": "full" }))
        .await;
    assert_eq!(backup["status"]["backupType"], "incremental", "{backup}");
    let backup = lab
        .backup("full", "pg-db", &json!({ "options": ["--type=full"] }))
        .await;
    assert_eq!(backup["status"]["backupType"], "full", "{backup}");
    let label = backup["status"]["backupName"].as_str().unwrap().to_owned();
    let made = worker::pgbackrest::Backup {
        name: "full".into(),
        namespace: "pg".into(),
        cluster: "pg-db".into(),
        repo: "repo1".into(),
        kind: worker::pgbackrest::Kind::Full,
    };
    let judged = made.judge(&Some(backup)).unwrap();
    assert_eq!(
        judged,
        worker::pgbackrest::BackingUp::Succeeded {
            label: label.clone()
        }
    );
    made.confirm(&label, &lab.stanza(OLD).await.sets).unwrap();
    lab.faults.set(Fault::BackupFails(
        "ERROR: [082]: WAL segment was not archived before the 60000ms timeout".into(),
    ));
    let failed = lab
        .backup("failed", "pg-db", &json!({ "options": ["--type=full"] }))
        .await;
    assert_eq!(failed["status"]["state"], "Failed");
    lab.faults.clear();

    // More is committed; the last row is not archived when everything is lost.
    let middle = lab.commit("pg-db", OLD).await;
    let late = lab.commit("pg-db", OLD).await;
    let rows = lab.rows("pg-db");
    assert_eq!(rows.len(), 3);
    lab.lose("pg-db").await;

    // It comes back as Rekindle planned it, and nothing is written where it was read.
    let before = lab.bucket.objects("pgbackrest/repo1/");
    let values = lab.values(Target::End, "/pgbackrest/r1/repo1").await;
    lab.create("pg-db", "unused", &values).await;
    assert_eq!(lab.verdict("pg-db").await, Restoring::Finished);
    assert_eq!(
        (lab.rows("pg-db"), lab.data("pg-db").system_id),
        (rows.clone(), system_id)
    );
    assert_eq!(lab.data("pg-db").timeline, 2);
    assert_eq!(count(&lab, &server).await, 3);
    let cluster = lab.get(PERCONA, "PerconaPGCluster", "pg-db").await;
    assert_eq!(Danger::of("pg-db", &cluster).unwrap(), Danger::Nothing);
    let restored = &cluster.as_ref().unwrap()["status"]["pgbackrest"]["restore"];
    assert_eq!(
        (
            &restored["id"],
            &restored["finished"],
            &restored["succeeded"]
        ),
        (&json!("~pgo-bootstrap-pg-db"), &json!(true), &json!(1))
    );

    // The source goes away, and nothing happens; the new repository has a backup of its own.
    lab.cluster
        .patch(
            "test",
            cluster.as_ref().unwrap(),
            &json!({ "spec": { "dataSource": null } }),
        )
        .await
        .unwrap();
    lab.ticks(20).await;
    assert_eq!(
        (lab.rows("pg-db"), lab.disks.get("pg/pg-db").destroyed),
        (rows, 0)
    );
    assert_eq!(lab.state("pg-db").await, "ready");
    lab.until("a backup of the new one", async || {
        !lab.bucket
            .objects("pgbackrest/r1/repo1/backup/db/2")
            .is_empty()
    })
    .await;
    let new = lab.stanza("/pgbackrest/r1/repo1").await;
    assert!(new.choose(&Wish::default()).is_ok(), "{:?}", new.sets);
    assert_eq!(
        lab.bucket.objects("pgbackrest/repo1/"),
        before,
        "written into the source"
    );

    // Other ends of the same WAL.
    for (name, target, expected) in [
        ("pg-time", Target::Time(middle), 2),
        ("pg-now", Target::Immediate, 1),
    ] {
        let values = lab
            .values(target, &format!("/pgbackrest/{name}/repo1"))
            .await;
        lab.create(name, "unused", &values).await;
        assert_eq!(lab.verdict(name).await, Restoring::Finished);
        assert_eq!(lab.rows(name).len(), expected, "{name}, {late}");
    }
    lab.stop().await;
}

/// What a user reads through the wire.
async fn count(lab: &Lab, server: &Server) -> i64 {
    use rustls::pki_types::pem::PemObject;
    let secret = lab.get("v1", "Secret", "pg-db-pguser-app").await.unwrap();
    let of = |key: &str| {
        String::from_utf8(
            BASE64
                .decode(secret["data"][key].as_str().unwrap())
                .unwrap(),
        )
        .unwrap()
    };
    let ca = lab.get("v1", "Secret", "pg-db-cluster-cert").await.unwrap();
    let ca = BASE64
        .decode(ca["data"]["ca.crt"].as_str().unwrap())
        .unwrap();
    assert_eq!(String::from_utf8(ca.clone()).unwrap(), lab.ca);
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(&ca).unwrap())
        .unwrap();
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = tokio_postgres::Config::new();
    config
        .host(of("host"))
        .hostaddr("127.0.0.1".parse().unwrap())
        .port(server.port());
    config
        .user(of("user"))
        .password(of("password"))
        .dbname(of("dbname"));
    let connected = config
        .connect(tokio_postgres_rustls::MakeRustlsConnect::new(tls))
        .await;
    let (client, connection) = connected.unwrap();
    let task = tokio::spawn(connection);
    let row = client
        .query_one("select count(*) from heartbeat", &[])
        .await
        .unwrap();
    task.abort();
    row.get(0)
}

#[tokio::test]
async fn heavy_what_goes_wrong_with_a_restore_shows_as_it_would() {
    let lab = Lab::start(&[("postgresqltaint", "yestaint", "NoSchedule")]).await;
    lab.create("pg-db", OLD, &json!({})).await;
    lab.ready("pg-db").await;
    lab.commit("pg-db", OLD).await;
    let system_id = lab.data("pg-db").system_id;
    lab.backup("full", "pg-db", &json!({ "options": ["--type=full"] }))
        .await;
    lab.lose("pg-db").await;
    let before = lab.bucket.objects("pgbackrest/repo1/");
    let values = |name: &str| format!("/pgbackrest/{name}/repo1");

    // Signs that are not good, one way or the other.
    let taintless = {
        let mut values = lab.values(Target::End, &values("taintless")).await;
        values["dataSource"]["pgbackrest"]
            .as_object_mut()
            .unwrap()
            .remove("tolerations");
        values
    };
    lab.create("taintless", "unused", &taintless).await;
    let reason = failure(lab.verdict("taintless").await);
    assert!(reason.contains("{postgresqltaint: yestaint}"), "{reason}");

    lab.faults.set(Fault::RestoreJobFails(
        "ERROR: [082]: it is the moon".into(),
    ));
    lab.create(
        "dies",
        "unused",
        &lab.values(Target::End, &values("dies")).await,
    )
    .await;
    let reason = failure(lab.verdict("dies").await);
    assert!(
        reason.contains("pgbackrest-restore") && reason.contains("82"),
        "{reason}"
    );
    lab.faults.clear();
    lab.ticks(20).await;
    assert_eq!(lab.state("dies").await, "initializing");
    for name in ["dies", "taintless"] {
        lab.lose(name).await;
    }

    for (name, set, expected) in [
        (
            "no-set",
            "--set=20200101-000000F",
            "ERROR: [075]: backup set 20200101-000000F is not valid",
        ),
        (
            "no-word",
            "--type=time --target=2026-01-02 03:04:05+00",
            "ERROR: [030]: command does not allow parameters",
        ),
    ] {
        let mut values = lab.values(Target::End, &values(name)).await;
        values["dataSource"]["pgbackrest"]["options"] = json!([set]);
        lab.create(name, "unused", &values).await;
        let reason = failure(lab.verdict(name).await);
        let code = expected
            .split(['[', ']'])
            .nth(1)
            .unwrap()
            .trim_start_matches('0');
        assert!(
            reason.contains(&format!("ended with {code} (Error)")),
            "{reason}"
        );
        let pods = lab.objects(name).await.pods;
        assert!(
            pods.iter()
                .any(|pod| pod["metadata"]["annotations"][LOG] == expected),
            "{pods:?}"
        );
    }
    lab.secret("wrong-keys", "wrong", "keys").await;
    for (name, secret, path) in [
        ("wrong-keys", "wrong-keys", OLD),
        ("no-stanza", "clo-s3-secret", "/nothing/here"),
    ] {
        let mut values = lab.values(Target::End, &values(name)).await;
        let source = &mut values["dataSource"]["pgbackrest"];
        source["configuration"][0]["secret"]["name"] = json!(secret);
        source["global"]["repo1-path"] = json!(path);
        lab.create(name, "unused", &values).await;
        assert!(failure(lab.verdict(name).await).contains("ended with 75"));
        lab.lose(name).await;
    }

    // Silence: an event is all that there is.
    for (name, change, words) in [
        (
            "forbidden",
            json!({ "pgbackrest": { "options": ["--stanza=db"] } }),
            "Option '--stanza' is not allowed",
        ),
        (
            "stranger",
            json!({ "postgresCluster": { "clusterName": "gone", "repoName": "repo1" } }),
            "PostgresCluster \"gone\" does not exist",
        ),
        (
            "no-repo",
            json!({ "postgresCluster": { "repoName": "repo3" } }),
            "does not have a repo named \"repo3\"",
        ),
    ] {
        let mut values = lab.values(Target::End, &values(name)).await;
        merge(&mut values["dataSource"], &change);
        lab.create(name, "unused", &values).await;
        lab.until("an event", async || {
            lab.events("InvalidDataSource")
                .await
                .iter()
                .any(|e| e.contains(words))
        })
        .await;
        assert!(matches!(lab.judged(name).await, Restoring::Running { .. }));
    }
    // Both forms: the one with the cluster wins, and reads where the cluster itself writes.
    let mut both = lab
        .values(Target::End, OLD.replace("repo1", "x/repo1").as_str())
        .await;
    both["backups"]["pgbackrest"]["global"]["repo1-path"] = json!("/empty/repo1");
    merge(
        &mut both["dataSource"],
        &json!({ "postgresCluster": { "repoName": "repo1", "options": ["--type=immediate"],
        "tolerations": [{ "operator": "Exists" }] } }),
    );
    lab.create("both", "unused", &both).await;
    assert!(failure(lab.verdict("both").await).contains("ended with 75"));

    // Nothing can run.
    for (name, fault, words) in [
        ("pending", Fault::PodsPending, "Insufficient cpu"),
        ("no-image", Fault::ImagePullBackOff, "ImagePullBackOff"),
    ] {
        lab.faults.set(fault);
        lab.create(
            name,
            "unused",
            &lab.values(Target::End, &values(name)).await,
        )
        .await;
        let trouble = lab.trouble(name).await;
        assert!(trouble.contains(words), "{trouble}");
        lab.faults.clear();
        assert_eq!(lab.verdict(name).await, Restoring::Finished);
        lab.lose(name).await;
    }

    // Ready, and not what was wanted. Of the last two only the data tell.
    for (name, fault) in [
        ("empty", Fault::EmptyDatabaseThatIsReady),
        ("starting", Fault::RestoreObjectStaysStarting),
        ("bare", Fault::ReadyWithoutData),
        ("other", Fault::WrongSystemId),
    ] {
        lab.faults.set(fault);
        lab.create(
            name,
            "unused",
            &lab.values(Target::End, &values(name)).await,
        )
        .await;
        lab.ready(name).await;
        let verdict = lab.verdict(name).await;
        let (id, rows) = (lab.data(name).system_id, lab.rows(name).len());
        match name {
            "empty" => {
                assert!(
                    matches!(verdict, Restoring::Contradiction { .. }),
                    "{verdict:?}"
                );
                assert!(id != system_id && rows == 0);
            }
            "starting" => {
                assert!(
                    matches!(verdict, Restoring::Contradiction { .. }),
                    "{verdict:?}"
                );
                assert!(id == system_id && rows == 1);
            }
            "bare" => assert_eq!((verdict, id, rows), (Restoring::Finished, system_id, 0)),
            _ => assert!(verdict == Restoring::Finished && id != system_id && rows == 1),
        }
        lab.faults.clear();
        lab.lose(name).await;
    }
    lab.faults.set(Fault::StuckInitializing);
    lab.create(
        "stuck",
        "unused",
        &lab.values(Target::End, &values("stuck")).await,
    )
    .await;
    lab.until("its instances are ready", async || {
        lab.outer("stuck").await["status"]["postgres"]["ready"] == 3
    })
    .await;
    lab.ticks(20).await;
    assert_eq!(lab.state("stuck").await, "initializing");
    assert!(matches!(
        lab.judged("stuck").await,
        Restoring::Running { .. }
    ));
    lab.faults.clear();
    assert_eq!(lab.verdict("stuck").await, Restoring::Finished);
    assert_eq!(
        lab.bucket.objects("pgbackrest/repo1/"),
        before,
        "written into the source"
    );
    lab.stop().await;
}

#[tokio::test]
async fn heavy_a_source_given_to_a_living_cluster_destroys_it() {
    let lab = Lab::start(&[]).await;
    lab.create("pg-db", OLD, &json!({})).await;
    lab.ready("pg-db").await;
    lab.commit("pg-db", OLD).await;
    lab.backup("full", "pg-db", &json!({ "options": ["--type=full"] }))
        .await;
    lab.commit("pg-db", OLD).await;
    let disk = || lab.disks.get("pg/pg-db");

    // Rekindle sees it coming.
    let cluster = lab.get(PERCONA, "PerconaPGCluster", "pg-db").await;
    let danger = Danger::of("pg-db", &cluster).unwrap();
    assert!(matches!(danger, Danger::Destroys { .. }), "{danger:?}");
    assert_eq!(disk().destroyed, 0);
    let mut values = lab.values(Target::Immediate, "/pgbackrest/new/repo1").await;
    lab.create("pg-db", OLD, &values).await;
    lab.until("the data are written over", async || disk().destroyed == 1)
        .await;
    lab.until("it is up again", async || {
        disk().running && lab.state("pg-db").await == "ready"
    })
    .await;
    assert_eq!(
        (lab.rows("pg-db").len(), lab.data("pg-db").timeline),
        (1, 2)
    );
    // Once: now it counts as made from a source.
    lab.ticks(20).await;
    values["dataSource"]["pgbackrest"]["options"] = json!(["--type=immediate"]);
    lab.create("pg-db", OLD, &values).await;
    lab.ticks(20).await;
    assert_eq!(disk().destroyed, 1);

    // Other options while it runs: it begins again. The source taken away: what is there does not start.
    lab.faults.set(Fault::SlowTicks(1_000_000));
    let values = lab.values(Target::End, "/pgbackrest/slow/repo1").await;
    lab.create("slow", "unused", &values).await;
    let job = async || lab.get("batch/v1", "Job", "slow-pgbackrest-restore").await;
    let uid = async || job().await.map(|job| job["metadata"]["uid"].clone());
    lab.until("a Job", async || job().await.is_some()).await;
    let first = uid().await;
    let mut other = values.clone();
    other["dataSource"]["pgbackrest"]["options"] = json!(["--type=immediate"]);
    lab.create("slow", "unused", &other).await;
    lab.until("another Job", async || {
        job().await.is_some() && uid().await != first
    })
    .await;
    lab.faults.clear();
    lab.faults.set(Fault::SlowTicks(30));
    lab.create(
        "half",
        "unused",
        &lab.values(Target::End, "/pgbackrest/half/repo1").await,
    )
    .await;
    lab.until("files are there", async || {
        lab.disks.get("pg/half").content == Content::Half
    })
    .await;
    let half = lab.outer("half").await;
    lab.cluster
        .patch("test", &half, &json!({ "spec": { "dataSource": null } }))
        .await
        .unwrap();
    let reason = failure(lab.verdict("half").await);
    assert!(reason.contains("container database"), "{reason}");
    lab.faults.clear();

    // A place that another database has used is taken over, without a word.
    lab.create("thief", OLD, &json!({})).await;
    lab.ready("thief").await;
    lab.until("two databases in one stanza", async || {
        let info = lab.repository(OLD).await.backups().await.unwrap().info;
        info.history.len() == 2 && info.current.system_id == lab.data("thief").system_id
    })
    .await;
    // Half a stanza is not: the cluster is ready all the same, and has no backups.
    lab.bucket.put_object(
        "half/repo1/archive/db/archive.info",
        lab.bucket
            .object("pgbackrest/repo1/archive/db/archive.info")
            .unwrap(),
    );
    lab.create("unarchived", "/half/repo1", &json!({})).await;
    lab.ready("unarchived").await;
    lab.until("an event", async || {
        lab.events("UnableToCreateStanzas")
            .await
            .iter()
            .any(|words| words.contains("backup.info is missing"))
    })
    .await;
    let failed = lab.backup("never", "unarchived", &json!({})).await;
    assert_eq!(failed["status"]["state"], "Failed");
    lab.stop().await;
}
