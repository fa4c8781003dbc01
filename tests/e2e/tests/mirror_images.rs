//! Images from a registry that misbehaves into the bucket, and from there to Kubespray.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use anyhow::{Context, ensure};
use e2e::harness::kinds::{IMAGE, IMAGES, SPEC};
use e2e::lab::{LONG, Lab, Worker, quick, until};
use e2e::recovery::{Begun, begin};
use jobs::ids::StepKey;
use jobs::images::{Bundle, Platform, Reference};
use jobs::message::{Job, MirrorImages};
use jobs::plan::PlannedJob;
use jobs::record::Status;
use sandbox::registry::{Door, Fault, Image, Pushed, Registry, tar};
use serde_json::Value;

const JOB: &str = "mirror-images";
const PAUSE: &str = "registry.k8s.io/pause:3.10";

/// A registry with the images, and a worker that reads all registries there.
struct Scene {
    lab: Lab,
    registry: Registry,
    /// What the registry has of [`PAUSE`].
    pause: Pushed,
    /// What stands for the runner's program.
    program: tempfile::NamedTempFile,
}

impl Scene {
    async fn new(door: Door) -> anyhow::Result<Self> {
        let lab = Lab::start().await?;
        let registry = Registry::start(door);
        let mut pause = None;
        for name in IMAGES.lines() {
            let pushed = push(&registry, name, name);
            pause = (name == PAUSE).then_some(pushed).or(pause);
        }
        let pause = pause.context("it is among the images")?;
        let program = tempfile::NamedTempFile::new()?;
        std::fs::write(program.path(), "a program")?;
        Ok(Self {
            lab,
            registry,
            pause,
            program,
        })
    }

    async fn worker(&self) -> anyhow::Result<Worker> {
        let mut world = self.lab.world()?;
        for host in ["registry.k8s.io", "quay.io"] {
            let url = format!("oci+http://{}", self.registry.address);
            world.registries.mirrors.insert(host.to_owned(), url);
        }
        world.registries.tries = 3;
        Worker::start(
            self.lab.sandbox.store().await?,
            self.lab.queue.clone(),
            world,
            quick(),
        )
    }

    async fn begin(&self, list: &str, platforms: &[&str]) -> anyhow::Result<Begun> {
        let platforms = platforms
            .iter()
            .map(|platform| platform.parse::<Platform>());
        let payload = Job::MirrorImages(MirrorImages {
            images: self.lab.store.put_input(list.to_owned().into()).await?,
            platforms: platforms.collect::<Result<_, _>>()?,
            read_all: false,
        });
        let job = PlannedJob {
            name: payload.name(),
            payload,
            needs: vec![],
            always: false,
        };
        begin(&self.lab.store, &self.lab.queue, SPEC, Some(vec![job])).await
    }

    /// Mirrors to the end; gives the bundle and its digits.
    async fn mirrored(&self, list: &str) -> anyhow::Result<(Bundle, String)> {
        let worker = self.worker().await?;
        let begun = self.begin(list, &["linux/amd64"]).await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        self.bundle(&begun).await
    }

    async fn bundle(&self, begun: &Begun) -> anyhow::Result<(Bundle, String)> {
        let record = begun.record(JOB).await?.context("it has a record")?;
        let digest = record.steps[&StepKey::new("bundle")?]
            .output
            .as_str()
            .context("a digest")?;
        let digits = digest
            .strip_prefix("sha256:")
            .context("SHA-256")?
            .to_owned();
        let index = self.object(&format!("artifacts/bundles/{digits}/index.json"))?;
        ensure!(jobs::digest(&index) == digits, "the index is another one");
        Ok((Bundle::parse(&index)?, digits))
    }

    fn object(&self, key: &str) -> anyhow::Result<Vec<u8>> {
        let all = self.lab.sandbox.s3.objects(key);
        let found = all.into_iter().find(|(there, _)| there == key);
        Ok(found.with_context(|| format!("no {key}"))?.1.to_vec())
    }

    /// What the job says when it has failed for good.
    async fn fails(
        &self,
        list: &str,
        platforms: &[&str],
    ) -> anyhow::Result<(Worker, Begun, String)> {
        let worker = self.worker().await?;
        let begun = self.begin(list, platforms).await?;
        let record = begun.reaches(JOB, &[Status::Failed], LONG).await?;
        let why = record.failure.as_ref().context("it failed")?.to_string();
        Ok((worker, begun, why))
    }
}

/// An image with a layer of its own under a name.
fn push(registry: &Registry, name: &str, own: &str) -> Pushed {
    let image: Reference = name.parse().unwrap();
    let layers = vec![tar("base", b"the same"), tar("own", own.as_bytes())];
    Image::of(layers).push(registry, image.repository(), image.tag().unwrap())
}

fn digest_of(bundle: &Bundle, name: &str) -> String {
    let mut images = bundle.images.iter();
    images
        .find(|image| image.reference.to_string() == name)
        .unwrap()
        .digest
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_a_whole_oci_layout_and_another_one_shares_its_blobs() -> anyhow::Result<()> {
    let scene = Scene::new(Door::Token).await?;
    let (bundle, digits) = scene.mirrored(IMAGES).await?;
    assert_eq!(digest_of(&bundle, PAUSE), scene.pause.index);
    assert_eq!(
        scene.object(&format!("artifacts/bundles/{digits}/oci-layout"))?,
        Bundle::layout().as_bytes()
    );
    // The index, the manifest for this platform and not the other one, and the layers, each once.
    let blob = |digest: &str| {
        format!(
            "artifacts/bundles/blobs/sha256/{}",
            digest.trim_start_matches("sha256:")
        )
    };
    for digest in [&scene.pause.index, &scene.pause.manifests[1]]
        .into_iter()
        .chain(&scene.pause.layers)
    {
        let body = scene.object(&blob(digest))?;
        assert_eq!(format!("sha256:{}", jobs::digest(&body)), **digest);
    }
    assert!(scene.object(&blob(&scene.pause.manifests[0])).is_err());
    assert_eq!(
        scene.registry.count(&scene.pause.layers[0]),
        1 + 1,
        "one layer of all images: challenged, then once"
    );

    // One image more: what is there is not asked for.
    let asked = scene.registry.count("/blobs/");
    let more = "quay.io/calico/apiserver:v3.30.5";
    push(&scene.registry, more, more);
    let (second, other) = scene.mirrored(&format!("{IMAGES}{more}\n")).await?;
    assert_ne!(digits, other);
    assert_eq!(second.images.len(), bundle.images.len() + 1);
    let layers = scene
        .registry
        .requests()
        .into_iter()
        .filter(|request| request.path.contains("/blobs/"));
    let layers: Vec<String> = layers.skip(asked).map(|request| request.path).collect();
    let old = layers.iter().filter(|path| {
        scene
            .pause
            .layers
            .iter()
            .any(|layer| path.contains(layer.as_str()))
    });
    assert_eq!(old.count(), 0, "{layers:?}");
    // The same once more is the same bundle.
    assert_eq!(scene.mirrored(IMAGES).await?.1, digits);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_under_way_changes_nothing() -> anyhow::Result<()> {
    let scene = Scene::new(Door::Open).await?;
    let own = &scene.pause.layers[1];
    scene.registry.fail(own, Fault::Stall(10));
    let worker = scene.worker().await?;
    let begun = scene.begin(IMAGES, &["linux/amd64"]).await?;
    until("the layer is on its way", || async {
        Ok(scene.registry.count(own) > 0)
    })
    .await?;
    worker.kill();
    let moved = push(&scene.registry, PAUSE, "another one");
    assert_ne!(moved.index, scene.pause.index);
    scene.registry.release();
    let worker = scene.worker().await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    let (bundle, _) = scene.bundle(&begun).await?;
    assert_eq!(digest_of(&bundle, PAUSE), scene.pause.index);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stumbles_is_asked_again() -> anyhow::Result<()> {
    let scene = Scene::new(Door::Token).await?;
    let registry = &scene.registry;
    let [base, own] = [0, 1].map(|n| scene.pause.layers[n].clone());
    registry.fail("/pause/manifests/3.10", Fault::Status(429));
    registry.fail("/token", Fault::Status(503));
    registry.fail(
        format!("/manifests/{}", scene.pause.manifests[1]),
        Fault::Status(500),
    );
    registry.fail(&own, Fault::Cut(100));
    registry.fail(&own, Fault::Cut(0));
    // Another layer of the same length: only its digest tells.
    registry.fail(&base, Fault::Body(tar("base", b"another!")));
    let (bundle, _) = scene.mirrored(IMAGES).await?;
    assert_eq!(digest_of(&bundle, PAUSE), scene.pause.index);
    assert!(registry.count(&own) > 2);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_ends_the_job_with_the_image_and_the_reason() -> anyhow::Result<()> {
    type Spoil = fn(&Scene);
    let cases: [(Door, Spoil, &[&str], &str); 6] = [
        (
            Door::Open,
            |_| {},
            &["linux/amd64", "linux/s390x"],
            "not for linux/s390x, but for linux/arm64, linux/amd64",
        ),
        (
            Door::Open,
            |scene| scene.registry.remove("/pause/manifests/3.10"),
            &["linux/amd64"],
            "404",
        ),
        (
            Door::Open,
            |scene| scene.registry.remove(&scene.pause.layers[1]),
            &["linux/amd64"],
            "404",
        ),
        (
            Door::Alice,
            |_| {},
            &["linux/amd64"],
            "the registry says 401",
        ),
        (
            Door::Open,
            |scene| {
                scene
                    .registry
                    .put("/v2/pause/manifests/3.10", &vec![b' '; 5 << 20])
            },
            &["linux/amd64"],
            "4194304 bytes",
        ),
        (
            Door::Open,
            |scene| scene.registry.put("/v2/pause/manifests/3.10", b"{}"),
            &["linux/amd64"],
            "no sound",
        ),
    ];
    for (door, spoil, platforms, reason) in cases {
        let scene = Scene::new(door).await?;
        spoil(&scene);
        let (worker, _, why) = scene.fails(IMAGES, platforms).await?;
        ensure!(why.contains(reason), "`{why}` does not say `{reason}`");
        ensure!(
            door == Door::Alice || reason.contains("s390x") || why.contains(PAUSE),
            "{why}"
        );
        let bundles = scene.lab.sandbox.s3.objects("artifacts/bundles/");
        let visible = bundles
            .iter()
            .filter(|(key, _)| key.ends_with("index.json"));
        assert_eq!(
            visible.count(),
            0,
            "a bundle that is not whole is not there"
        );
        worker.stop().await?;
        scene.lab.sandbox.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_fails_the_job_and_a_retry_goes_on() -> anyhow::Result<()> {
    let scene = Scene::new(Door::Open).await?;
    scene
        .registry
        .fail(&scene.pause.layers[1], Fault::Stall(10));
    let worker = scene.worker().await?;
    let begun = scene.begin(IMAGES, &["linux/amd64"]).await?;
    until("the layer is on its way", || async {
        Ok(scene.registry.count(&scene.pause.layers[1]) > 0)
    })
    .await?;
    // From the middle of one on.
    scene.registry.set_down(true);
    worker.kill();
    scene.registry.release();
    let worker = scene.worker().await?;
    let record = begun.reaches(JOB, &[Status::Failed], LONG).await?;
    let why = record.failure.as_ref().unwrap().to_string();
    ensure!(
        why.contains("no byte came") && why.contains("read `"),
        "{why}"
    );
    scene.registry.set_down(false);
    let before = scene.registry.count("/manifests/");
    scene.lab.retry(&begun, JOB, None).await?;
    begun.finished(LONG).await?;
    assert_eq!(
        scene.registry.count("/manifests/"),
        before,
        "what was resolved stays resolved"
    );
    worker.stop().await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_44_a_list_for_another_kubernetes_is_refused_before_anything_is_asked()
-> anyhow::Result<()> {
    let scene = Scene::new(Door::Open).await?;
    for (list, reason) in [
        (
            IMAGES.replace("v1.33.7", "v1.31.1"),
            "wants `registry.k8s.io/kube-proxy:v1.33.7`; there is `registry.k8s.io/kube-proxy:v1.31.1`",
        ),
        (
            format!("{IMAGES}nginx:1\n"),
            "line 10: `nginx:1` is not an image",
        ),
        (format!("{IMAGES}{PAUSE}\n"), "stands in line 5 already"),
        (String::new(), "there is no image in the list"),
    ] {
        let (worker, begun, why) = scene.fails(&list, &["linux/amd64"]).await?;
        ensure!(why.contains(reason), "`{why}` does not say `{reason}`");
        worker.stop().await?;
        scene.lab.cancel(&begun).await?;
    }
    assert_eq!(scene.registry.requests(), [], "nothing was asked for");
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_was_damaged_in_the_bucket_is_named_and_not_used() -> anyhow::Result<()> {
    let scene = Scene::new(Door::Open).await?;
    let key = format!(
        "artifacts/bundles/blobs/sha256/{}",
        scene.pause.layers[1].trim_start_matches("sha256:")
    );
    scene.lab.sandbox.s3.put_object(&key, "short");
    let (worker, _, why) = scene.fails(IMAGES, &["linux/amd64"]).await?;
    ensure!(why.contains(&key) && why.contains("damaged"), "{why}");
    worker.stop().await?;
    // Of the right length: only reading it back tells.
    let scene = Scene::new(Door::Open).await?;
    let whole = tar("own", PAUSE.as_bytes());
    scene
        .lab
        .sandbox
        .s3
        .put_object(&key, vec![b'x'; whole.len()]);
    let (worker, _, why) = scene.fails(IMAGES, &["linux/amd64"]).await?;
    ensure!(why.contains("the proof `bundle` does not hold"), "{why}");
    worker.stop().await?;
    scene.lab.sandbox.stop().await
}

/// The spec of the harness with a bundle.
fn with_images(digits: &str) -> String {
    let images = format!("  images: {{ digest: \"sha256:{digits}\" }}\n  extra_vars:");
    SPEC.replacen("  extra_vars:", &images, 1)
}

/// The whole cluster, by the plan that everybody gets.
async fn install(scene: &Scene, spec: &str) -> anyhow::Result<(Worker, Begun)> {
    scene
        .lab
        .sandbox
        .s3
        .put_object("artifacts/kubespray", IMAGE);
    let mut world = scene.lab.world()?;
    world.runner = Some(scene.program.path().to_owned());
    let worker = Worker::start(
        scene.lab.sandbox.store().await?,
        scene.lab.queue.clone(),
        world,
        quick(),
    )?;
    Ok((worker, scene.lab.recover(spec).await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn kubespray_brings_the_bundle_to_the_bastion_and_no_url_stands_anywhere()
-> anyhow::Result<()> {
    let scene = Scene::new(Door::Open).await?;
    let (_, digits) = scene.mirrored(IMAGES).await?;
    let (worker, begun) = install(&scene, &with_images(&digits)).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    let hosts = scene.lab.hosts();
    for layer in &scene.pause.layers {
        let digits = layer.trim_start_matches("sha256:");
        let file = hosts.file(
            "demo-bastion-1",
            &format!("/var/lib/rekindle/images/blobs/sha256/{digits}"),
        );
        assert_eq!(
            file.map(|body| jobs::digest(&body)).as_deref(),
            Some(digits)
        );
    }
    let run = hosts.file(
        "demo-bastion-1",
        &format!(
            "/var/lib/rekindle/runner/runs/{}-kubespray-1/run.json",
            begun.id
        ),
    );
    let run: Value = serde_json::from_slice(&run.unwrap())?;
    assert_eq!(
        run["spec"]["binds"][2],
        "/var/lib/rekindle/images:/rekindle/images"
    );
    let script = run["spec"]["argv"].to_string();
    for part in ["--tags container-engine", "import-images.yml"] {
        assert!(script.contains(part), "{script}");
    }
    let mut places: Vec<(String, String)> = Vec::new();
    for (server, argv) in hosts.commands() {
        places.push((format!("a command on {server}"), argv.join(" ")));
    }
    for (path, entry) in hosts.root_disk("demo-bastion-1") {
        places.push((path, entry));
    }
    for (key, body) in scene.lab.sandbox.s3.objects("") {
        places.push((key, String::from_utf8_lossy(&body).into_owned()));
    }
    assert!(
        places
            .iter()
            .any(|(_, text)| text.contains("rekindle-runner fetch --into"))
    );
    for (place, text) in &places {
        assert!(!text.contains("X-Amz-Signature"), "{place} has a URL");
    }
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubespray_takes_no_bundle_that_is_not_there_or_not_for_it() -> anyhow::Result<()> {
    let scene = Scene::new(Door::Open).await?;
    let (_, digits) = scene.mirrored(IMAGES).await?;
    let other = with_images(&digits).replace("version: \"1.33.7\"", "version: \"1.33.6\"");
    let mut lost = digits.clone();
    lost.replace_range(0..4, "0000");
    for (spec, reason) in [
        (with_images(&lost), "rekindle mirror-images"),
        (
            other,
            "wants `registry.k8s.io/kube-apiserver:v1.33.6`; there is `registry.k8s.io/kube-apiserver:v1.33.7`",
        ),
    ] {
        let (worker, begun) = install(&scene, &spec).await?;
        let record = begun.reaches("kubespray", &[Status::Failed], LONG).await?;
        let why = record.failure.as_ref().unwrap().to_string();
        ensure!(why.contains(reason), "`{why}` does not say `{reason}`");
        worker.stop().await?;
        scene.lab.cancel(&begun).await?;
    }
    let started = scene.lab.hosts().commands();
    assert!(
        !started
            .iter()
            .any(|(_, argv)| argv.iter().any(|word| word == "--detach")),
        "nothing was run"
    );
    scene.lab.sandbox.stop().await
}
