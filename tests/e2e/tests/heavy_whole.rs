//! One recovery from nothing but the bucket to an application that answers with its data: machines, Kubernetes, Flux with
//! the tree of `fluxcd/test`, the database, the shop; while everything that may fail fails now and then.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::lab::{Lab, Worker, quick, steps_are_recorded_once};
use e2e::processes::program;
use e2e::recovery::Begun;
use jobs::keys;
use jobs::record::{RecoveryRecord, Sealed};
use jobs::secrets::{Identity, Secrets};
use jobs::store::{Secret, StoreError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sandbox::kube_sim::KubeFault;
use sandbox::payload::{Estate, Payload, ROWS};
use tokio::time::sleep;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(600);
/// Kills of workers in one run: three in a row at one place would be a quarantine, and rightly so.
const KILLS: u32 = 6;

struct Scene {
    lab: Lab,
    estate: Estate,
    payload: Payload,
    identity: Arc<Identity>,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> anyhow::Result<Self> {
        let lab = Lab::start().await?;
        let estate = Estate::leave(&lab.sandbox).await?;
        let payload = Payload::follow(&lab.sandbox, &estate)?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("rekindle-runner"), "a runner")?;
        Ok(Self {
            lab,
            estate,
            payload,
            identity: Arc::new(Identity::generate()),
            folder,
        })
    }

    async fn worker(&self) -> anyhow::Result<Worker> {
        let mut world = self.lab.world()?;
        world.identity = Some(Arc::clone(&self.identity));
        world.runner = Some(self.folder.path().join("rekindle-runner"));
        let store = self.lab.sandbox.store().await?;
        Worker::start(store, self.lab.queue.clone(), world, quick())
    }

    /// Declares the disaster. What `rekindle` gives a recovery is there before a worker sees it.
    async fn begin(&self) -> anyhow::Result<Begun> {
        let begun = self.lab.recover(self.estate.spec()).await?;
        let store = &self.lab.store;
        let mut secrets = Secrets::default();
        for (name, value) in self.estate.secrets() {
            secrets.add(name, Secret::new(value))?;
        }
        let recipient = self.identity.recipient();
        let sealed = secrets.seal(&begun.cluster, &recipient)?;
        let sealed = Sealed {
            input: store.put_input(sealed.into()).await?,
            names: secrets.names(),
            recipient: recipient.to_string(),
        };
        let mut objects = String::new();
        for name in ["settings", "source", "root", "infra"] {
            let path = Estate::flux_folder().join(format!("{name}.yaml"));
            objects += &format!("---\n{}", std::fs::read_to_string(path)?);
        }
        let flux = store.put_input(objects.into()).await?;
        let series = keys::recovery(&begun.cluster, &begun.id);
        store
            .update(&series, |record: Option<RecoveryRecord>| {
                Ok::<_, StoreError>(record.map(|mut record| {
                    record.inputs.secrets = Some(sealed.clone());
                    record.inputs.flux = Some(flux.clone());
                    record
                }))
            })
            .await?;
        Ok(begun)
    }

    /// What must hold at the end, whatever happened on the way.
    async fn check(&self, begun: &Begun, source: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        ensure!(
            self.payload.rows() == Some(2 * ROWS),
            "rows: {:?}",
            self.payload.rows()
        );
        ensure!(
            self.payload.destroyed() == 0,
            "a living database was written over"
        );
        ensure!(self.source() == source, "the source was written");
        let report = self.lab.report(begun).context("a report")?;
        ensure!(report["verdict"] == "passed", "{}", report["conditions"]);
        let proofs = report["proofs"].as_array().context("proofs")?;
        ensure!(proofs.iter().all(|proof| proof["result"]["holds"] == true));
        let count = report["jobs"].as_array().map_or(0, Vec::len);
        ensure!(count > 40, "{count} jobs");
        for kind in [
            "kubespray",
            "flux-bootstrap",
            "wait-certificates",
            "restore",
        ] {
            ensure!(
                proofs.iter().any(|proof| proof["job"] == kind),
                "no proof of {kind}"
            );
        }
        steps_are_recorded_once(&self.lab, begun).await
    }

    /// The repository that is restored from.
    fn source(&self) -> Vec<(String, Vec<u8>)> {
        let all = self.lab.sandbox.s3.objects("pgbackrest/test/1/");
        all.into_iter()
            .map(|(key, body)| (key, body.to_vec()))
            .collect()
    }
}

/// Something that goes wrong on the way.
async fn trouble(scene: &Scene, dice: &mut StdRng) -> anyhow::Result<&'static str> {
    let Some(kube) = scene.payload.kube() else {
        return Ok("nothing: there is no cluster yet");
    };
    Ok(match dice.random_range(0..5) {
        0 => {
            kube.restart(Duration::from_millis(500)).await?;
            "the API server restarts"
        }
        1 => {
            kube.cut_connections()?;
            "all connections to the API are cut"
        }
        2 => {
            let master = ["test-masterbig-1", "test-masterbig-2"][dice.random_range(0..2)];
            scene.lab.hosts().cut_connections(master);
            "the SSH connections of a master are cut"
        }
        3 => {
            kube.faults()
                .add(KubeFault::on("*", "/**").busy(1).times(3));
            "the API is busy (429)"
        }
        _ => {
            kube.faults()
                .add(KubeFault::on("PATCH", "/**").cut().after().times(1));
            "the answer to a change is lost"
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_a_cluster_comes_back_from_its_bucket_while_everything_stumbles() -> anyhow::Result<()>
{
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let scene = Scene::new().await?;
    let source = scene.source();
    let begun = scene.begin().await?;
    let mut workers = vec![scene.worker().await?, scene.worker().await?];
    let begin = Instant::now();
    let mut kills = 0;
    loop {
        sleep(Duration::from_millis(dice.random_range(500..2500))).await;
        let record = scene.lab.store.recovery_record(&begun.cluster, &begun.id);
        if record
            .await?
            .is_some_and(|record| record.finished.is_some())
        {
            break;
        }
        if begin.elapsed() > LONG {
            let (records, errors) = (begun.records().await?, scene.payload.errors());
            let open = records.into_iter().filter_map(|(name, record)| {
                let record = record?;
                record
                    .ended
                    .is_none()
                    .then(|| format!("{name}: {:?}", record.waits))
            });
            anyhow::bail!("not finished: {:#?}\n{errors}", open.collect::<Vec<_>>());
        }
        if kills < KILLS && dice.random_bool(0.3) {
            kills += 1;
            workers.remove(0).kill();
            workers.push(scene.worker().await?);
            eprintln!("{:?}: a worker is killed", begin.elapsed());
            continue;
        }
        let what = trouble(&scene, &mut dice).await?;
        eprintln!("{:?}: {what}", begin.elapsed());
    }
    for worker in workers {
        worker.stop().await?;
    }
    scene.check(&begun, &source).await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_plan_of_a_restore_shows_sets_and_loss_and_touches_nothing() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let spec = scene.folder.path().join("cluster.yaml");
    std::fs::write(&spec, scene.estate.spec())?;
    let before = scene.lab.sandbox.s3.objects("");
    let run = async |more: &[&str], secret: Option<&str>| {
        let mut command = tokio::process::Command::new(program("rekindle")?);
        command.arg("plan").args(more).arg("--spec").arg(&spec);
        command.env_clear().envs(scene.lab.sandbox.environment());
        if let Some(secret) = secret {
            command.env("CLUSTER_S3_ACCESS_KEY", scene.lab.sandbox.s3.access_key());
            command.env("CLUSTER_S3_SECRET_KEY", secret);
        }
        let output = command.stdin(Stdio::null()).output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        anyhow::Ok((output.status.code(), said))
    };
    let good = scene.lab.sandbox.s3.secret_key().to_owned();
    let job = ["--job", "restore"];
    let (code, said) = run(&job, Some(&good)).await?;
    assert_eq!(code, Some(0), "{said}");
    for word in [
        "system id",
        "usable",
        "the end of the archived WAL",
        "segments",
        "Loss",
    ] {
        assert!(said.contains(word), "no {word}: {said}");
    }
    // Without keys of the cluster those of the store are tried, which are the same here.
    let (code, _) = run(&job, None).await?;
    assert_eq!(code, Some(0));
    let (code, said) = run(&["--job", "restore", "--output", "json"], Some(&good)).await?;
    let json: serde_json::Value = serde_json::from_str(&said)?;
    assert_eq!(
        (code, json["restore"]["sets"].as_array().map(Vec::len)),
        (Some(0), Some(1))
    );

    let (code, said) = run(
        &["--job", "restore", "--set", "20200101-000000F"],
        Some(&good),
    )
    .await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("20200101-000000F"), "{said}");
    let (code, said) = run(&job, Some("another")).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains(&good), "{said}");
    let (code, said) = run(&["--set", "20200101-000000F"], None).await?;
    assert_eq!(code, Some(2), "{said}");

    assert!(
        before == scene.lab.sandbox.s3.objects(""),
        "something was written"
    );
    scene.lab.sandbox.stop().await
}
