//! Images small enough for tests, in the form that registries have them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Registry;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that is not in a registry yet.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its layers, plain tar archives, the same for every platform.
    pub layers: Vec<Vec<u8>>,
    /// `linux/amd64` and the like: an index of so many manifests.
    pub platforms: Vec<String>,
}

/// What a registry has of an image, for tests that take some of it away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// `sha256:…` of the index.
    pub index: String,
    /// Of the manifests, in the order of the platforms.
    pub manifests: Vec<String>,
    /// Of the layers.
    pub layers: Vec<String>,
}

impl Image {
    /// An image of these layers for two platforms, as most are for several.
    pub fn of(layers: Vec<Vec<u8>>) -> Self {
        let platforms = ["linux/arm64", "linux/amd64"].map(str::to_owned);
        Self {
            layers,
            platforms: platforms.into(),
        }
    }

    /// Puts it into a repository under a tag, instead of what the tag stood for.
    pub fn push(&self, registry: &Registry, repository: &str, tag: &str) -> Pushed {
        let put = |kind: &str, body: &[u8]| {
            let digest = digest(body);
            registry.put(&format!("/v2/{repository}/{kind}/{digest}"), body);
            digest
        };
        let layers: Vec<(String, usize)> = self
            .layers
            .iter()
            .map(|layer| (put("blobs", layer), layer.len()))
            .collect();
        let mut manifests = Vec::new();
        let mut descriptors = Vec::new();
        for platform in &self.platforms {
            let (os, architecture) = platform.split_once('/').unwrap_or((platform, ""));
            let diff_ids: Vec<&String> = layers.iter().map(|(digest, _)| digest).collect();
            let config = json!({
                "os": os, "architecture": architecture, "config": {},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            });
            let config = config.to_string().into_bytes();
            let of = |(digest, size): &(String, usize)| json!({"mediaType": LAYER, "digest": digest, "size": size});
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": put("blobs", &config), "size": config.len()},
                "layers": layers.iter().map(of).collect::<Vec<Value>>(),
            });
            let manifest = manifest.to_string().into_bytes();
            let digest = put("manifests", &manifest);
            descriptors.push(json!({
                "mediaType": MANIFEST, "digest": digest, "size": manifest.len(),
                "platform": {"os": os, "architecture": architecture},
            }));
            manifests.push(digest);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors});
        let index = index.to_string().into_bytes();
        registry.put(&format!("/v2/{repository}/manifests/{tag}"), &index);
        Pushed {
            index: put("manifests", &index),
            manifests,
            layers: layers.into_iter().map(|(digest, _)| digest).collect(),
        }
    }
}

/// A tar archive with one file.
pub fn tar(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", contents.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(contents);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
