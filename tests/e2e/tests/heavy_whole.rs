//! One recovery from nothing but the bucket to an application that answers with its data: machines, Kubernetes, Flux with
//! the tree of `fluxcd/test`, the database, the shop; while everything that may fail fails now and then.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::lab::{Lab, Worker, quick, steps_are_recorded_once};
use e2e::processes::program;
use e2e::recovery::{Begun, begin_one};
use jobs::message::{Backup, Image, Job, Release};
use jobs::record::Status;
use jobs::secrets::Identity;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sandbox::kube_sim::KubeFault;
use sandbox::payload::{Estate, Payload, ROWS};
use tokio::time::sleep;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(600);
/// Workers are not killed more often: three in a row at one place would be a quarantine, and rightly so.
const BETWEEN_KILLS: Duration = Duration::from_secs(8);

/// What goes wrong with a cluster in one run.
const TROUBLES: u32 = 25;

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
        self.give(&begun).await?;
        Ok(begun)
    }

    /// Gives a recovery what `rekindle` does: sealed secrets, and what bootstraps Flux.
    async fn give(&self, begun: &Begun) -> anyhow::Result<()> {
        let mut objects = String::new();
        for name in ["settings", "source", "root", "infra"] {
            let path = Estate::flux_folder().join(format!("{name}.yaml"));
            objects += &format!("---\n{}", std::fs::read_to_string(path)?);
        }
        let secrets = self.estate.secrets();
        begun.give(&self.identity, &secrets, Some(objects)).await
    }

    /// A single job on the cluster that runs.
    async fn begin_job(&self, job: Job) -> anyhow::Result<Begun> {
        let (store, queue) = (&self.lab.store, &self.lab.queue);
        let begun = begin_one(store, queue, self.estate.spec(), job).await?;
        self.give(&begun).await?;
        Ok(begun)
    }

    /// Runs a recovery to its end. A worker is killed, more often than not, as soon as one of these jobs has another
    /// step on record; gives how many were.
    async fn run(&self, begun: &Begun, jobs: &[&str], dice: &mut StdRng) -> anyhow::Result<u32> {
        let (mut worker, mut killed) = (self.worker().await?, 0);
        let (begin, mut seen, mut looks) = (Instant::now(), 0, 0_u32);
        loop {
            sleep(Duration::from_millis(50)).await;
            let record = self.lab.store.recovery_record(&begun.cluster, &begun.id);
            if record
                .await?
                .is_some_and(|record| record.finished.is_some())
            {
                worker.stop().await?;
                return Ok(killed);
            }
            looks += 1;
            if looks % 40 == 0 {
                self.is_on_its_way(begun, begin).await?;
            }
            let mut steps = 0;
            for job in jobs {
                let record = begun.record(job).await?;
                steps += record.map_or(0, |record| record.steps.len());
            }
            if steps > seen {
                seen = steps;
                if dice.random_bool(0.6) {
                    worker.kill();
                    worker = self.worker().await?;
                    killed += 1;
                }
            }
        }
    }

    /// Fails when the recovery waits for an operator, or for too long.
    async fn is_on_its_way(&self, begun: &Begun, since: Instant) -> anyhow::Result<()> {
        let stuck = [Status::Failed, Status::NeedsApproval, Status::Quarantined];
        for (name, record) in begun.records().await? {
            let Some(record) = record else { continue };
            let status = &record.status;
            let errors = || {
                format!(
                    "{name} is {status}: {:?}\n{}",
                    record.waits,
                    self.payload.errors()
                )
            };
            ensure!(
                !stuck.contains(status),
                "{}\n{:?}",
                errors(),
                record.failure
            );
            ensure!(
                since.elapsed() < LONG || record.ended.is_some(),
                "{}",
                errors()
            );
        }
        Ok(())
    }

    /// Where the restored database archives.
    async fn generation(&self) -> anyhow::Result<String> {
        let cluster = "test".parse()?;
        let record = self.lab.cluster(&cluster).database().await?;
        let restored = record.and_then(|record| record.restored);
        Ok(restored.context("a restored database")?.generation)
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
            "load-test",
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
    let (mut killed, mut troubles) = (begin, 0);
    loop {
        sleep(Duration::from_millis(dice.random_range(500..2500))).await;
        let record = scene.lab.store.recovery_record(&begun.cluster, &begun.id);
        if record
            .await?
            .is_some_and(|record| record.finished.is_some())
        {
            break;
        }
        scene.is_on_its_way(&begun, begin).await?;
        let peace = troubles == TROUBLES;
        if !peace && killed.elapsed() > BETWEEN_KILLS && dice.random_bool(0.5) {
            killed = Instant::now();
            workers.remove(0).kill();
            workers.push(scene.worker().await?);
            eprintln!("{:?}: a worker is killed", begin.elapsed());
            continue;
        }
        // Then peace, and it must come to its end: whoever is never left alone may never finish.
        if peace {
            continue;
        }
        let what = trouble(&scene, &mut dice).await?;
        troubles += u32::from(scene.payload.kube().is_some());
        eprintln!("{:?}: {what}", begin.elapsed());
    }
    for worker in workers {
        worker.stop().await?;
    }
    scene.check(&begun, &source).await?;
    scene.lab.sandbox.stop().await
}

/// The kinds that operators answer, each with its worker killed again and again, right after a step.
#[tokio::test(flavor = "multi_thread")]
async fn heavy_workers_that_die_after_a_step_leave_flux_and_the_database_right()
-> anyhow::Result<()> {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let scene = Scene::new().await?;
    let source = scene.source();
    let begun = scene.begin().await?;
    let killed = scene
        .run(&begun, &["flux-bootstrap", "restore"], &mut dice)
        .await?;
    eprintln!("{killed} workers killed");
    ensure!(killed > 5, "only {killed} workers were killed");
    scene.check(&begun, &source).await?;

    let generation = scene.generation().await?;
    let tag = |tag: &str| {
        Job::Release(Release {
            application: "dsf".parse().expect("a name"),
            image: Image::Tag(tag.parse().expect("a tag")),
        })
    };
    for job in [Job::Backup(Backup::default()), Job::Promote, tag("123.2")] {
        let kind = job.kind();
        let begun = scene.begin_job(job).await?;
        let killed = scene.run(&begun, &[kind], &mut dice).await?;
        eprintln!("{kind}: {killed} workers killed");
        steps_are_recorded_once(&scene.lab, &begun).await?;
    }
    let cluster = begun.cluster.clone();
    let record = scene
        .lab
        .cluster(&cluster)
        .database()
        .await?
        .context("a record")?;
    ensure!(
        record.source.as_deref() == Some(generation.as_str()),
        "{record:?}"
    );
    let kube = scene.payload.kube().context("a cluster")?;
    let front = kube
        .get("Deployment", "dsf", "dsf")
        .context("the storefront")?;
    let image = &front["spec"]["template"]["spec"]["containers"][0]["image"];
    ensure!(
        image
            .as_str()
            .is_some_and(|image| image.ends_with(":123.2")),
        "{image}"
    );
    ensure!(scene.payload.rows() == Some(2 * ROWS) && scene.payload.destroyed() == 0);
    ensure!(scene.source() == source, "the source was written");
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
