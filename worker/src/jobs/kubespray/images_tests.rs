//! The import, played by a real Ansible into a real containerd.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jobs::images::{Bundle, Mirrored, Platform};
use jobs::spec::ClusterSpec;
use serde_json::json;
use tempfile::TempDir;

use super::{images, inventory};
use crate::jobs::ansible::stage::{Ran, SPEC, Stage, machines};

const NODE: &str = "small-app-1";

/// A containerd of its own. It dies with this, and with the test.
struct Containerd {
    folder: TempDir,
    process: Child,
}

impl Containerd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write(at("config"), config).unwrap();
        let process = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "containerd",
                "--config",
                &at("config"),
            ])
            .args([
                "--root",
                &at("root"),
                "--state",
                &at("state"),
                "--address",
                &at("socket"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let mut containerd = Self { folder, process };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !containerd.ctr(&["images", "ls"]).0 {
            let ended = containerd.process.try_wait().unwrap();
            let log = fs::read_to_string(containerd.folder.path().join("log")).unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "containerd does not start: {log}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        containerd
    }

    fn address(&self) -> String {
        self.folder.path().join("socket").display().to_string()
    }

    fn ctr(&self, args: &[&str]) -> (bool, String) {
        let output = Command::new("ctr")
            .args([
                "--address",
                &self.address(),
                "--connect-timeout",
                "1s",
                "--namespace",
                "k8s.io",
            ])
            .args(args)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }

    /// `name digest` of each image.
    fn images(&self) -> Vec<String> {
        let (done, text) = self.ctr(&["images", "ls"]);
        assert!(done, "{text}");
        let words = text
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .map(|words| format!("{} {}", words[0], words[2]))
            .collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Puts an image with one file into a layout; gives its blobs, its layer last.
fn image(layout: &Path, reference: &str) -> (Mirrored, Vec<String>) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digits = jobs::digest(bytes);
        fs::write(blobs.join(&digits), bytes).unwrap();
        digits
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("own"), reference).unwrap();
    let tar = Command::new("tar")
        .args(["-C", folder.path().to_str().unwrap(), "-c", "own"])
        .output()
        .unwrap();
    let layer = put(&tar.stdout);
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    });
    let config = config.to_string();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let config_digits = put(config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{config_digits}"), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{layer}"), "size": tar.stdout.len(),
        }],
    });
    let manifest = manifest.to_string();
    let digits = put(manifest.as_bytes());
    let image = Mirrored {
        reference: reference.parse().unwrap(),
        media_type: media_type.into(),
        digest: format!("sha256:{digits}"),
        size: manifest.len() as u64,
    };
    (image, vec![config_digits, digits, layer])
}

/// A node, its containerd, and the bundle on the bastion.
struct Scene {
    stage: Stage,
    containerd: Containerd,
    pairs: Vec<String>,
    /// Of the second image.
    layer: String,
}

impl Scene {
    fn new() -> Self {
        let spec = ClusterSpec::parse(SPEC).unwrap();
        let machines = machines(&spec);
        let stage =
            Stage::new(&inventory::render(&spec.kubernetes.unwrap(), &machines, None).unwrap());
        let containerd = Containerd::start();
        std::os::unix::fs::symlink(containerd.address(), stage.home.path().join("socket")).unwrap();
        let layout = stage.home.path().join("layout");
        let (one, one_blobs) = image(&layout, "registry.k8s.io/pause:3.10");
        let bound = format!(
            "quay.io/calico/node:v3.30.5@{}",
            image(&layout, "quay.io/calico/node:v3.30.5").0.digest
        );
        let (two, two_blobs) = image(&layout, "quay.io/calico/node:v3.30.5");
        let two = Mirrored {
            reference: bound.parse().unwrap(),
            ..two
        };
        let bundle = Bundle::new(vec![Platform::default()], vec![one.clone(), two.clone()]);
        let vars = json!({"rekindle_images": [
            images::describe(&one, &bundle, one_blobs.iter()),
            images::describe(&two, &bundle, two_blobs.iter()),
        ]});
        for (name, bytes) in images::files(&vars) {
            fs::write(stage.home.path().join("in").join(name), bytes).unwrap();
        }
        let pairs = vec![
            format!("quay.io/calico/node:v3.30.5 {}", two.digest),
            format!("quay.io/calico/node@{0} {0}", two.digest),
            format!("registry.k8s.io/pause:3.10 {}", one.digest),
        ];
        let layer = two_blobs[2].clone();
        Self {
            stage,
            containerd,
            pairs,
            layer,
        }
    }

    /// The playbook as it is, but for places of this machine, which are below `root`.
    fn here(&self, name: &str, root: &str) -> String {
        let text = fs::read_to_string(self.stage.home.path().join("in").join(name)).unwrap();
        text.replace("/var/lib/rekindle/images", &format!("{root}/node"))
            .replace("/rekindle/images", &format!("{root}/layout"))
            .replace("/rekindle/out", &format!("{root}/out"))
            .replace("[ctr, ", &format!("[ctr, --address, {root}/socket, "))
    }

    fn play(&self) -> Ran {
        let home = self.stage.home.path();
        let tasks = self.here("import-image.yml", &home.display().to_string());
        fs::write(home.join("import-image.yml"), tasks).unwrap();
        let vars = format!("@{}", home.join("in/images.json").display());
        let ran = self.stage.play(
            &self.here("import-images.yml", "HOME"),
            &[
                "--connection",
                "local",
                "--limit",
                NODE,
                "--extra-vars",
                &vars,
            ],
        );
        // Whatever came of it, nothing that was packed or sent is left.
        for folder in ["node", "out/images"] {
            let left = fs::read_dir(home.join(folder)).map_or(0, |files| files.count());
            assert_eq!(left, 0, "{folder}: {}", ran.text());
        }
        ran
    }

    #[track_caller]
    fn imports(&self, how_many: usize) {
        let ran = self.play();
        assert_eq!(ran.verdict(&[NODE]), Ok(()), "{}", ran.text());
        let sent = ran.text().matches("TASK [Import it]").count();
        assert_eq!(sent, how_many, "{}", ran.text());
        assert_eq!(self.containerd.images(), self.pairs);
    }
}

#[test]
fn heavy_images_are_imported_once_and_what_is_missing_again() {
    let scene = Scene::new();
    scene.imports(2);
    scene.imports(0);
    // A name that is gone, and one that means another image.
    assert!(
        scene
            .containerd
            .ctr(&["images", "rm", "quay.io/calico/node:v3.30.5"])
            .0
    );
    scene.imports(1);
    let other = [
        "images",
        "tag",
        "--force",
        "registry.k8s.io/pause:3.10",
        "quay.io/calico/node:v3.30.5",
    ];
    assert!(scene.containerd.ctr(&other).0);
    scene.imports(1);
}

#[test]
fn heavy_an_import_that_fails_fails_the_run() {
    let scene = Scene::new();
    let layer = scene
        .stage
        .home
        .path()
        .join("layout/blobs/sha256")
        .join(&scene.layer);
    let whole = fs::read(&layer).unwrap();
    fs::write(&layer, b"damaged").unwrap();
    let ran = scene.play();
    let why = ran.verdict(&[NODE]).unwrap_err();
    assert!(why.contains("Import it") && why.contains(NODE), "{why}");
    fs::remove_file(&layer).unwrap();
    let why = scene.play().verdict(&[NODE]).unwrap_err();
    assert!(why.contains("Pack it with its blobs"), "{why}");
    fs::write(&layer, whole).unwrap();
    // The failed import has left the image's names, which must not count.
    assert_eq!(scene.containerd.images(), scene.pairs);
    scene.imports(1);
}

#[test]
fn the_engine_comes_first_then_the_images_then_the_rest() {
    let kubernetes = ClusterSpec::parse(SPEC).unwrap().kubernetes.unwrap();
    let lines = |with| {
        images::commands(&kubernetes, with)
            .iter()
            .map(|words| words.join(" "))
            .collect::<Vec<_>>()
    };
    let [all] = &lines(false)[..] else {
        panic!("one command")
    };
    let [engine, import, rest] = &lines(true)[..] else {
        panic!("three commands")
    };
    assert_eq!(
        (engine, rest),
        (&format!("{all} --tags container-engine"), all)
    );
    assert!(
        import.ends_with("/rekindle/in/import-images.yml --extra-vars @/rekindle/in/images.json"),
        "{import}"
    );
}
