//! The proof of a bundle: from its index in the bucket to every blob that it leads to.
//!
//! Of all blobs the lengths are compared, by one listing. Indexes, manifests and configurations are read back whole
//! and verified, since everything hangs on them; of the layers, as many as come first in the order of their
//! digests, which is as good as drawn by lot, or all when that was asked for. A layer was verified before it went
//! up, so what reading back can find is damage on the way to the store and in it.

use std::collections::{BTreeMap, BTreeSet};

use jobs::images::{Bundle, Mirrored, Platform};
use jobs::keys;
use jobs::store::Store;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use crate::engine::{Ctx, JobError, Proof};

/// Bytes of layers that a sample has, at least one layer.
const SAMPLE: u64 = 64 << 20;

/// What images lead to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::jobs) struct Blobs {
    /// Every blob by its 64 digits, with its length.
    pub(in crate::jobs) sizes: BTreeMap<String, u64>,
    /// Which of them are layers.
    layers: BTreeSet<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    size: u64,
    platform: Option<PlatformOf>,
}

#[derive(Debug, Clone, Deserialize)]
struct PlatformOf {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// An index or a manifest: which of the two, its fields say.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What is there of a bundle, and what should be.
pub(super) async fn look(
    ctx: &Ctx,
    bundle: &Bundle,
    digest: &str,
    all: bool,
) -> Result<Proof, JobError> {
    let store = ctx.store();
    let digits = digest.trim_start_matches("sha256:");
    let index = store.get(&keys::image_bundle(digits, "index.json")).await?;
    let index = index
        .ok_or_else(|| JobError::retry(format!("bundle {digest} has no index in the bucket")))?;
    let found = Bundle::parse(&index).map_err(JobError::retry)?;

    let mut blobs = Blobs::default();
    for image in &bundle.images {
        let more = blobs_of(store, image, &bundle.platforms).await?;
        blobs.sizes.extend(more.sizes);
        blobs.layers.extend(more.layers);
    }
    let there = store.sizes(&keys::image_blob("")).await?;
    let mut wrong: Vec<Value> = Vec::new();
    for (digits, size) in &blobs.sizes {
        let found = there.get(&keys::image_blob(digits));
        if found != Some(size) {
            wrong.push(json!({"blob": digits, "bytes": size, "found": found}));
        }
    }
    let (mut read, mut bytes) = (0, 0);
    for digits in &blobs.layers {
        if !all && bytes >= SAMPLE {
            break;
        }
        let verified = digest_in(store, &keys::image_blob(digits)).await?;
        if verified.as_ref() != Some(digits) {
            wrong.push(json!({"blob": digits, "digest": verified}));
        }
        read += 1;
        bytes += blobs.sizes.get(digits).copied().unwrap_or_default();
    }
    let total: u64 = blobs.sizes.values().sum();
    let expected = json!({
        "bundle": digest, "images": bundle.images.len(), "platforms": bundle.platforms,
        "blobs": blobs.sizes.len(), "bytes": total, "wrong": [],
    });
    let observed = json!({
        "bundle": format!("sha256:{}", jobs::digest(&index)), "images": found.images.len(), "platforms": found.platforms,
        "blobs": blobs.sizes.len(), "bytes": total, "wrong": wrong,
    });
    let holds = expected == observed;
    let mut observed = observed;
    observed["layers"] = json!({"all": blobs.layers.len(), "read_back": read});
    Ok(Proof {
        expected,
        observed,
        holds,
    })
}

/// Every blob of an image of a bundle, by its documents in the bucket, which are read and verified. A document that
/// is missing or not what its digest says is an error.
pub(in crate::jobs) async fn blobs_of(
    store: &Store,
    image: &Mirrored,
    platforms: &[Platform],
) -> Result<Blobs, JobError> {
    let mut blobs = Blobs::default();
    let root = document(store, &image.digest, image.size, &mut blobs).await?;
    let mut manifests = Vec::new();
    if root.config.is_some() {
        manifests.push(root);
    } else {
        for platform in platforms {
            let mut all = root.manifests.iter();
            let chosen = all.find(|descriptor| descriptor.is_for(platform.as_str()));
            let none = || {
                format!(
                    "`{}` in the bundle has nothing for {platform}",
                    image.reference
                )
            };
            let chosen = chosen.ok_or_else(|| JobError::fatal(none()))?;
            manifests.push(document(store, &chosen.digest, chosen.size, &mut blobs).await?);
        }
    }
    for manifest in manifests {
        let none = || format!("`{}` in the bundle has no configuration", image.reference);
        let config = manifest.config.ok_or_else(|| JobError::fatal(none()))?;
        read(store, &config.digest, config.size, &mut blobs).await?;
        for layer in manifest.layers {
            let digits = layer.digits()?;
            blobs.layers.insert(digits.clone());
            blobs.sizes.insert(digits, layer.size);
        }
    }
    Ok(blobs)
}

async fn document(
    store: &Store,
    digest: &str,
    size: u64,
    blobs: &mut Blobs,
) -> Result<Document, JobError> {
    let text = read(store, digest, size, blobs).await?;
    serde_json::from_slice(&text)
        .map_err(|e| JobError::fatal(e).while_doing(format!("read the document {digest}")))
}

async fn read(
    store: &Store,
    digest: &str,
    size: u64,
    blobs: &mut Blobs,
) -> Result<Vec<u8>, JobError> {
    let digits = digest.trim_start_matches("sha256:");
    let key = keys::image_blob(digits);
    let text = store.get(&key).await?;
    let text = text
        .ok_or_else(|| JobError::fatal(format!("`{key}` is missing: mirror the images again")))?;
    if jobs::digest(&text) != digits || text.len() as u64 != size {
        return Err(JobError::fatal(format!(
            "`{key}` is not what its name says: delete it, and mirror again"
        )));
    }
    blobs.sizes.insert(digits.to_owned(), size);
    Ok(text.into())
}

impl Descriptor {
    fn digits(&self) -> Result<String, JobError> {
        let digits = self.digest.strip_prefix("sha256:");
        let unknown = || JobError::fatal(format!("`{}` is no SHA-256 digest", self.digest));
        digits.map(str::to_owned).ok_or_else(unknown)
    }

    /// As the registry's client chooses.
    fn is_for(&self, wanted: &str) -> bool {
        self.platform.as_ref().is_some_and(|platform| {
            let plain = format!("{}/{}", platform.os, platform.architecture);
            match &platform.variant {
                None => plain == wanted,
                Some(variant) => {
                    format!("{plain}/{variant}") == wanted
                        || (plain == wanted && wanted == "linux/arm64" && variant == "v8")
                }
            }
        })
    }
}

/// The digest of an object as it is in the bucket.
async fn digest_in(store: &Store, key: &str) -> Result<Option<String>, JobError> {
    let mut hashing = Hashing(Sha256::new());
    let found = store.get_into(key, &mut hashing).await?;
    hashing.flush().await.map_err(JobError::retry)?;
    Ok(found.map(|_| hex::encode(hashing.0.finalize())))
}

/// A writer that keeps nothing but the digest.
struct Hashing(Sha256);

impl tokio::io::AsyncWrite for Hashing {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.0.update(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
