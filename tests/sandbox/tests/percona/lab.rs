//! A real API server with the operator, a bucket and disks; and Rekindle's own eyes on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use jobs::store::{Credentials, Secret, StoreConfig};
use sandbox::ca::Ca;
use sandbox::kube_api::KubeApi;
use sandbox::operators::percona::{Archives, Faults, Percona, Settings, definitions};
use sandbox::operators::{Cluster, Operators, Pace};
use sandbox::postgres::{Content, Data, Disks, Tls};
use sandbox::s3::{S3Options, S3Server};
use serde_json::{Value, json};
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;
use worker::pgbackrest::finished::{Objects, Restoring, judge};
use worker::pgbackrest::{Location, Repository, Source, Stanza, Target, Toleration, Values, Wish};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const PERCONA: &str = "pgv2.percona.com/v2";
pub(crate) const CRUNCHY: &str = "postgres-operator.crunchydata.com/v1beta1";
pub(crate) const OLD: &str = "/pgbackrest/repo1";

pub(crate) struct Lab {
    pub(crate) api: KubeApi,
    pub(crate) cluster: Cluster,
    pub(crate) bucket: Arc<S3Server>,
    pub(crate) disks: Disks,
    pub(crate) faults: Faults,
    pub(crate) operators: Operators,
    pub(crate) ca: String,
    pub(crate) tls: Tls,
}

impl Lab {
    pub(crate) async fn start(taints: &[(&str, &str, &str)]) -> Self {
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

    pub(crate) async fn secret(&self, name: &str, access: &str, secret: &str) {
        let text = format!("[global]\nrepo1-s3-key={access}\nrepo1-s3-key-secret={secret}\n");
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "pg" },
            "data": { "s3.conf": BASE64.encode(text) } });
        self.apply(&secret).await;
    }

    pub(crate) async fn apply(&self, object: &Value) {
        let deadline = Instant::now() + DEADLINE;
        // A kind is served some moments after it is defined.
        while let Err(error) = self.cluster.apply("test", object).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn get(&self, api: &str, kind: &str, name: &str) -> Option<Value> {
        self.cluster.get(api, kind, "pg", name).await.unwrap()
    }

    pub(crate) async fn outer(&self, name: &str) -> Value {
        self.get(PERCONA, "PerconaPGCluster", name)
            .await
            .unwrap_or_default()
    }

    pub(crate) async fn until(&self, what: &str, look: impl AsyncFn() -> bool) {
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
    pub(crate) async fn ticks(&self, ticks: u64) {
        let until = self.operators.ticks() + ticks;
        self.until("ticks go by", async || self.operators.ticks() >= until)
            .await;
    }

    pub(crate) async fn state(&self, name: &str) -> String {
        self.outer(name).await["status"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) async fn ready(&self, name: &str) {
        self.until("the cluster is ready", async || {
            self.state(name).await == "ready"
        })
        .await;
    }

    /// All that Rekindle looks at.
    pub(crate) async fn objects(&self, name: &str) -> Objects {
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

    pub(crate) async fn judged(&self, name: &str) -> Restoring {
        judge(name, &self.objects(name).await).unwrap()
    }

    /// Waits for a verdict that is not "running", and never sees `Finished` before it is true.
    pub(crate) async fn verdict(&self, name: &str) -> Restoring {
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

    pub(crate) async fn trouble(&self, name: &str) -> String {
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

    pub(crate) async fn repository(&self, path: &str) -> Repository {
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

    pub(crate) async fn stanza(&self, path: &str) -> Stanza {
        Stanza::read(&self.repository(path).await, None)
            .await
            .unwrap()
    }

    pub(crate) fn location(&self, path: &str) -> Location {
        Location {
            bucket: self.bucket.bucket().to_owned(),
            endpoint: "s3.example.org".into(),
            region: "us-east-1".into(),
            path: path.into(),
        }
    }

    /// What Rekindle would write into the switch to restore from one path, with backups in another.
    pub(crate) async fn values(&self, target: Target, to: &str) -> Value {
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
        serde_json::to_value(
            Values::restoring(
                &source,
                &choice.set.label,
                choice.target,
                &self.location(to),
            )
            .unwrap(),
        )
        .unwrap()
    }

    /// A cluster as the chart makes it, with these values over it.
    pub(crate) async fn create(&self, name: &str, path: &str, values: &Value) {
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
    pub(crate) async fn lose(&self, name: &str) {
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

    pub(crate) fn data(&self, name: &str) -> Data {
        match self.disks.get(&format!("pg/{name}")).content {
            Content::Data(data) => *data,
            other => panic!("{name}: {other:?}"),
        }
    }

    pub(crate) fn rows(&self, name: &str) -> Vec<Timestamp> {
        let data = self.data(name);
        let tables = data.databases.get("app").into_iter().flatten();
        tables.flat_map(|(_, table)| table.rows.clone()).collect()
    }

    /// Commits a row and waits until its WAL is in the bucket.
    pub(crate) async fn commit(&self, name: &str, path: &str) -> Timestamp {
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

    pub(crate) async fn backup(&self, name: &str, cluster: &str, spec: &Value) -> Value {
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

    pub(crate) async fn events(&self, reason: &str) -> Vec<String> {
        let mut events = self.cluster.list("v1", "Event").await.unwrap();
        events.retain(|event| event["reason"] == reason);
        events
            .iter()
            .map(|event| event["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    pub(crate) async fn stop(self) {
        self.operators.stop().await;
        self.api.stop().await.unwrap();
    }
}

pub(crate) fn merge(into: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => {
            for (key, value) in patch {
                merge(&mut into[key], value);
            }
        }
        other => *into = other.clone(),
    }
}
