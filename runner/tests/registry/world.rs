//! Images to push, and a store to pull into.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use runner::Digest;
use serde_json::{Value, json};

use crate::common::{Arena, Tar, binary, digest_of, text};
use crate::server::{PASSWORD, Registry};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What this host is, to registries.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer as it travels, and the digest of its archive.
#[derive(Debug, Clone)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub media_type: String,
    pub diff_id: Digest,
}

pub fn plain(tar: Tar) -> Layer {
    let blob = tar.end();
    Layer {
        diff_id: digest_of(&blob),
        media_type: LAYER.to_owned(),
        blob,
    }
}

pub fn gzipped(tar: Tar) -> Layer {
    let layer = plain(tar);
    Layer {
        blob: gzip(&layer.blob),
        media_type: format!("{LAYER}+gzip"),
        ..layer
    }
}

pub fn zstd(tar: Tar) -> Layer {
    let layer = plain(tar);
    Layer {
        blob: crate::common::zst(&layer.blob),
        media_type: format!("{LAYER}+zstd"),
        ..layer
    }
}

pub fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest_of(blob).to_string(), "size": blob.len() })
}

/// Puts a blob where a registry has it; gives its digest.
pub fn push_blob(registry: &Registry, blob: &[u8]) -> Digest {
    let digest = digest_of(blob);
    registry.put(&format!("/v2/team/app/blobs/{digest}"), blob);
    digest
}

pub fn push_manifest(registry: &Registry, manifest: &Value) -> (Digest, Vec<u8>) {
    let text = serde_json::to_vec(manifest).unwrap();
    let digest = digest_of(&text);
    registry.put(&format!("/v2/team/app/manifests/{digest}"), &text);
    (digest, text)
}

/// The configuration of layers, for this host.
pub fn config(layers: &[Layer]) -> Value {
    let diff_ids: Vec<_> = layers
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Env": ["LD_PRELOAD=/evil.so"], "Cmd": ["/evil"], "Volumes": null,
            "WorkingDir": "/proc/self/fd/3", "Labels": { "run": "$(evil)" } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "empty_layer": true }]
    })
}

/// The manifest of layers; pushes them.
pub fn manifest(registry: &Registry, layers: &[Layer]) -> Value {
    let config = serde_json::to_vec(&config(layers)).unwrap();
    push_blob(registry, &config);
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| {
            push_blob(registry, &layer.blob);
            descriptor(&layer.media_type, &layer.blob)
        })
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": descriptors
    })
}

pub fn push(registry: &Registry, layers: &[Layer]) -> Digest {
    let manifest = manifest(registry, layers);
    push_manifest(registry, &manifest).0
}

/// A store, in an arena whose canary must survive.
pub struct World {
    pub arena: Arena,
    pub store: PathBuf,
}

impl World {
    pub fn new() -> Self {
        let arena = Arena::new();
        let store = arena.folder.path().join("a/b/store");
        fs::create_dir_all(store.parent().unwrap()).unwrap();
        Self { arena, store }
    }

    /// A pull, not yet started.
    pub fn pull(&self, url: &str, digest: &Digest) -> Command {
        let mut command = binary();
        command
            .args([
                "image", "pull", "--output", "json", "--tries", "3", "--url", url,
            ])
            .args(["--digest", &digest.to_string()])
            .arg("--store")
            .arg(&self.store)
            .env_remove("REKINDLE_AUTH_FILE")
            .env_remove("REKINDLE_CA_FILE")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, url: &str, digest: &Digest) -> Output {
        self.pull(url, digest).output().unwrap()
    }

    /// The pull works, and what is unpacked lies in the folder that is given.
    #[track_caller]
    pub fn pulled(&self, registry: &Registry, digest: &Digest) -> PathBuf {
        let output = self.run(&registry.url(), digest);
        let value = ended(&output, 0);
        self.check_canary();
        assert_eq!(names(&self.store.join("images")), [digest.hex()]);
        assert_eq!(names(&self.store.join("parts")), [""; 0]);
        assert_eq!(value["image"]["digest"], digest.to_string());
        PathBuf::from(value["rootfs"].as_str().unwrap())
    }

    /// The pull fails, says why, and leaves no image; what was downloaded may stay.
    #[track_caller]
    pub fn fails(&self, registry: &Registry, digest: &Digest, code: i32, reason: &str) -> Output {
        let output = self.run(&registry.url(), digest);
        let value = ended(&output, code);
        let error = value["error"].as_str().unwrap();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
        self.check_canary();
        assert_eq!(names(&self.store.join("images")), [""; 0], "{error}");
        output
    }

    /// As `fails`; trying again does not help, so the download is gone, too.
    #[track_caller]
    pub fn refuses(&self, registry: &Registry, digest: &Digest, reason: &str) {
        self.fails(registry, digest, 4, reason);
        assert_eq!(names(&self.store.join("parts")), [""; 0]);
    }

    #[track_caller]
    fn check_canary(&self) {
        self.arena.check_canary();
        assert_eq!(
            names(self.arena.folder.path()),
            ["a", "canary"],
            "something got out"
        );
        assert_eq!(names(&self.arena.folder.path().join("a/b")), ["store"]);
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The command ended so, and printed no secret.
#[track_caller]
pub fn ended(output: &Output, code: i32) -> Value {
    let printed = text(output);
    assert_eq!(output.status.code(), Some(code), "{printed}");
    assert!(
        !printed.contains(PASSWORD) && !printed.contains("secret-"),
        "{printed}"
    );
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
}

#[track_caller]
pub fn is_file(path: &Path, contents: &str) {
    let found = path.symlink_metadata();
    assert!(
        found.is_ok_and(|found| found.is_file()),
        "{} is no file",
        path.display()
    );
    assert_eq!(fs::read_to_string(path).unwrap(), contents);
}

#[track_caller]
pub fn is_gone(path: &Path) {
    assert!(
        path.symlink_metadata().is_err(),
        "{} is there",
        path.display()
    );
}
