//! What is in the bucket when the disaster comes: the image with Kubespray, Flux' manifest, sealed secrets, and
//! the backups of a database that really lived, with rows that only its WAL has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::bucket::OverHttp;
use crate::ca::Ca;
use crate::kube_sim::KubeSim;
use crate::operators::flux::{install_yaml, sealed};
use crate::operators::percona::{Archives, Faults, Percona, Settings, definitions};
use crate::operators::{Controller, Operators};
use crate::postgres::Disks;
use crate::world::Sandbox;

/// The spec with everything in it.
const SPEC: &str = include_str!("../../../../deploy/examples/cluster-complete.yaml");
/// Stands for the image: simulated hosts run nothing of it.
const IMAGE: &[u8] = b"an image with Kubespray\n";
/// The namespace and name of the database.
pub(super) const DISK: &str = "pg/pg-db";
/// Rows of each table; half of them are younger than the backup.
pub const ROWS: usize = 12;
/// The tables that the spec's proofs ask.
const TABLES: [&str; 2] = ["order_order", "product_product"];
/// Where the first database archived, as the spec says.
const SOURCE: &str = "/pgbackrest/test/1";
const DOMAIN: &str = "example.org";
/// The load test of most runs: enough to see that it works.
const FEW: &str = "virtual_users: 10\n";

/// What outlives the cluster.
#[derive(Debug)]
pub struct Estate {
    pub(super) archives: Archives,
    pub(super) sealed: crate::operators::flux::Files,
    pub(super) token: String,
    age_key: String,
    spec: String,
    access: (String, String),
    /// When the newest row was written.
    pub newest: Timestamp,
}

impl Estate {
    /// Lets a database live, backs it up, and fills the bucket.
    ///
    /// # Errors
    /// When the first life does not come to its end within a minute.
    pub async fn leave(sandbox: &Sandbox) -> anyhow::Result<Self> {
        let archives = Archives::default();
        let newest = first_life(sandbox, &archives).await?;
        let (age_key, recipient) = sealed::age_key();
        let mut sealed = sealed::payload(&recipient)?;
        let keys = sealed::secret("clo-s3-secret", &[("s3.conf", &conf(sandbox))], &recipient)?;
        sealed.insert("test/pg/clo-s3-secret.yaml".into(), keys.into_bytes());
        for (key, body) in &sealed {
            sandbox.s3.put_object(key, body.clone());
        }
        let artifact = |key: &str| format!("artifacts/{key}");
        sandbox
            .s3
            .put_object(&artifact("images/kubespray-2.29.1.tar.zst"), IMAGE);
        sandbox
            .s3
            .put_object(&artifact("flux/2.8.8/install.yaml"), install_yaml("2.8.8"));
        Ok(Self {
            archives,
            sealed,
            token: "a-token-for-git".into(),
            age_key,
            spec: spec(sandbox)?,
            access: (
                sandbox.s3.access_key().into(),
                sandbox.s3.secret_key().into(),
            ),
            newest,
        })
    }

    /// The spec of the cluster, with the places of this world.
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// The same with so many virtual users in the load test, instead of a few.
    #[must_use]
    pub fn with_virtual_users(mut self, users: u32) -> Self {
        self.spec = self.spec.replace(FEW, &virtual_users(users));
        self
    }

    /// The folder that bootstraps Flux.
    pub fn flux_folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../flux/test")
    }

    /// What a recovery has to be given, by name.
    pub fn secrets(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SOPS_AGE_KEY", self.age_key.clone()),
            ("CLUSTER_S3_ACCESS_KEY", self.access.0.clone()),
            ("CLUSTER_S3_SECRET_KEY", self.access.1.clone()),
            ("GITHUB_TOKEN", self.token.clone()),
            ("ACME_EMAIL", format!("admin@{DOMAIN}")),
            ("DOMAIN", DOMAIN.into()),
        ]
    }
}

/// The example with the places of this world, HTTP (its certificates are nobody's), and load from the worker itself.
fn spec(sandbox: &Sandbox) -> anyhow::Result<String> {
    let endpoint = sandbox.s3.endpoint();
    let endpoint = endpoint.trim_start_matches("http://");
    let bucket = sandbox.s3.bucket();
    let place = format!(
        "{{ bucket: {bucket}, endpoint: \"{endpoint}\", path_style: true, insecure: true }}"
    );
    let zeros = format!("sha256:{}", "0".repeat(64));
    let mut spec = SPEC.to_owned();
    for (from, to) in [
        (
            "{ bucket: rekindle-secrets, endpoint: storage.clo.ru }",
            place.as_str(),
        ),
        (
            "{ bucket: rekindle-backups, endpoint: storage.clo.ru }",
            place.as_str(),
        ),
        (&zeros, &format!("sha256:{}", jobs::digest(IMAGE))),
        ("\"https://", "\"http://"),
        ("max(updated_at)", "max(ts)"),
        ("driver: yandex ", "driver: local "),
        (&virtual_users(1000), FEW),
        // Stand-ins without optimisation on a busy machine: what is looked for is an application that does not bear it.
        ("p95_ms: 2000", "p95_ms: 15000"),
    ] {
        ensure!(spec.contains(from), "the example has no {from}");
        spec = spec.replace(from, to);
    }
    Ok(spec)
}

fn virtual_users(users: u32) -> String {
    format!("virtual_users: {users}\n")
}

/// pgBackRest's configuration with the keys of the store.
fn conf(sandbox: &Sandbox) -> String {
    let (access, secret) = (sandbox.s3.access_key(), sandbox.s3.secret_key());
    format!("[global]\nrepo1-s3-key={access}\nrepo1-s3-key-secret={secret}\n")
}

/// A database that is used, backed up, used on, and then gone; when its newest row was written.
async fn first_life(sandbox: &Sandbox, archives: &Archives) -> anyhow::Result<Timestamp> {
    let sim = KubeSim::start().await?;
    let disks = Disks::default();
    let settings = Settings {
        disks: disks.clone(),
        archives: archives.clone(),
        bucket: std::sync::Arc::new(OverHttp::by_any_name(sandbox)),
        ca: Ca::new("postgres-operator-ca")?,
        taints: vec![],
        addresses: [].into(),
    };
    for definition in definitions() {
        sim.put(definition)?;
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pg"}});
    sim.put(namespace)?;
    let data = json!({"s3.conf": BASE64.encode(conf(sandbox))});
    let metadata = json!({"namespace": "pg", "name": "clo-s3-secret"});
    sim.put(json!({"apiVersion": "v1", "kind": "Secret", "data": data, "metadata": metadata}))?;
    let spec = json!({
        "postgresVersion": 17,
        "instances": [{"name": "instance1", "replicas": 1}],
        "proxy": {"pgBouncer": {"replicas": 1}},
        "users": [{"name": "postgres"}, {"name": "slrpguser", "databases": ["slr"]}],
        "backups": {"pgbackrest": {
            "configuration": [{"secret": {"name": "clo-s3-secret"}}],
            "global": {"repo1-path": SOURCE},
            "repos": [{"name": "repo1", "s3": {
                "bucket": sandbox.s3.bucket(), "endpoint": "s3.example.org", "region": "us-east-1",
            }}],
        }},
    });
    let cluster = json!({"apiVersion": "pgv2.percona.com/v2", "kind": "PerconaPGCluster",
        "metadata": {"namespace": "pg", "name": "pg-db"}, "spec": spec});
    until("a kind is served", || sim.put(cluster.clone()).is_ok()).await?;
    let percona: Box<dyn Controller> = Box::new(Percona::new(settings, Faults::default()));
    let operators = Operators::start(super::client(&sim)?, super::pace(), vec![percona]);

    until("the first database runs", || disks.get(DISK).running).await?;
    let begin = Timestamp::now() - SignedDuration::from_secs(60);
    let mut newest = begin;
    for row in 0..ROWS {
        if row == ROWS / 2 {
            until("the first backup is there", || {
                let info = sandbox.s3.object("pgbackrest/test/1/backup/db/backup.info");
                info.is_some_and(|info| String::from_utf8_lossy(&info).contains("backup-type"))
            })
            .await?;
        }
        newest = begin + SignedDuration::from_secs(i64::try_from(row)?);
        for table in TABLES {
            ensure!(
                disks.insert(DISK, "slr", table, newest),
                "a row was not taken"
            );
        }
    }
    // What was committed is archived in the next tick.
    let seen = operators.ticks() + 3;
    until("the WAL is archived", || operators.ticks() > seen).await?;
    operators.stop().await;
    Ok(newest)
}

async fn until(what: &str, mut there: impl FnMut() -> bool) -> anyhow::Result<()> {
    for _ in 0..1200 {
        if there() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("waited a minute, and still not: {what}")
}
