//! Mirror-images: container images from their registries into the bucket, for installs without them.
//!
//! What each tag stands for is on record before the first byte comes, so that a job that is resumed mirrors the
//! same images although a tag has moved. Every blob lies under its digest, shared by all bundles, and is verified
//! before it is there; the bundle's index comes last, and its digest is what a spec names.
//!
//! ```text
//! list ─check→ resolve (tags → digests) ─→ image (documents) ─→ layer … ─→ bundle (index.json) ─→ proof
//! ```

mod proof;
mod registry;

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jobs::images::{Bundle, List, Mirrored, Reference, missing};
use jobs::keys;
use jobs::message::MirrorImages;
use jobs::spec::Problem;
use jobs::store::Created;
use serde::{Deserialize, Serialize};

use crate::engine::{Ctx, JobError, Proven};
use registry::Reader;

pub(super) use proof::blobs_of;

/// The step names.
pub const STEPS: &[&str] = &["list", "resolve", "image", "layer", "bundle", "prove"];

/// Questions to registries at a time; they answer 429 to more.
const QUESTIONS: usize = 4;
/// Layers on their way at a time. Each needs as much room for temporary files as it is large.
const LAYERS: usize = 3;
/// The largest layer: what S3 takes in one request.
const LARGEST: u64 = 5 << 30;

/// An image whose documents are in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    media_type: String,
    size: u64,
    layers: Vec<Layer>,
}

/// A layer that has to be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Layer {
    /// 64 digits.
    digest: String,
    /// In bytes.
    size: u64,
}

/// Mirrors the images of a list, and proves that all of them are there.
pub async fn run(ctx: &Ctx, job: &MirrorImages) -> Result<Proven, JobError> {
    let images: Vec<Reference> = ctx.step("list", || read(ctx, job)).await?;

    // All of them, before anything is made of one: whatever happens then, it is these.
    let resolving = images.iter().map(|image| resolve(ctx, image).boxed());
    let digests: Vec<String> = together(resolving.collect(), QUESTIONS).await?;
    let images: Vec<(Reference, String)> = images.into_iter().zip(digests).collect();

    let describing = images.iter().map(|image| describe(ctx, job, image).boxed());
    let known: Vec<Known> = together(describing.collect(), QUESTIONS).await?;

    // What several images share comes once, from the first of them.
    let mut seen = BTreeSet::new();
    let mut copying = Vec::new();
    for ((image, _), known) in images.iter().zip(&known) {
        for layer in &known.layers {
            if seen.insert(&layer.digest) {
                copying.push(copy(ctx, image, layer).boxed());
            }
        }
    }
    together(copying, LAYERS).await?;

    let images = images
        .into_iter()
        .zip(known)
        .map(|((reference, digest), known)| Mirrored {
            reference,
            media_type: known.media_type,
            digest,
            size: known.size,
        });
    let bundle = Bundle::new(job.platforms.clone(), images.collect());
    let digest: String = ctx.step("bundle", || publish(ctx, &bundle)).await?;
    ctx.prove("bundle", || {
        proof::look(ctx, &bundle, &digest, job.read_all)
    })
    .await
}

/// The list, checked against the spec: what it lacks is found before anything is transferred.
async fn read(ctx: &Ctx, job: &MirrorImages) -> Result<Vec<Reference>, JobError> {
    let text = ctx.store().get_input(&job.images).await?;
    let text = std::str::from_utf8(&text)
        .map_err(|_| JobError::fatal("the list of images is not text"))?;
    let list = List::parse(text)
        .map_err(|problems| wrong("the list of images cannot be read", &problems))?;
    let kubernetes = ctx.spec().kubernetes.as_ref().ok_or_else(|| {
        JobError::fatal("the spec has no `kubernetes` section to check the images against")
    })?;
    let missing = missing(list.images(), kubernetes);
    match missing.is_empty() {
        true => Ok(list.images().to_vec()),
        false => Err(wrong(
            "the list of images is not for the Kubernetes of the spec",
            &missing,
        )),
    }
}

/// An error of problems, all of them.
pub(super) fn wrong(what: &str, problems: &[Problem]) -> JobError {
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    JobError::fatal(format!("{what}: {}", all.join("; ")))
}

/// Does several things at a time; gives what came of them in their order.
async fn together<T>(
    things: Vec<BoxFuture<'_, Result<T, JobError>>>,
    most: usize,
) -> Result<Vec<T>, JobError> {
    stream::iter(things).buffered(most).try_collect().await
}

/// The digest of an image, as it was when it was first asked for.
async fn resolve(ctx: &Ctx, image: &Reference) -> Result<String, JobError> {
    let ask = || async { Reader::new(ctx, image)?.resolve().await };
    ctx.step(("resolve", key(image)), ask).await
}

/// What an image is made of. Its documents are in the bucket then.
async fn describe(
    ctx: &Ctx,
    job: &MirrorImages,
    (image, digest): &(Reference, String),
) -> Result<Known, JobError> {
    let step = ("image", key(image));
    ctx.step(step, || put_documents(ctx, job, image, digest))
        .await
}

/// A layer.
async fn copy(ctx: &Ctx, image: &Reference, layer: &Layer) -> Result<(), JobError> {
    ctx.step(("layer", &layer.digest), || put_layer(ctx, image, layer))
        .await
}

/// Puts an image's manifests and configurations into the bucket; says which layers it has.
async fn put_documents(
    ctx: &Ctx,
    job: &MirrorImages,
    image: &Reference,
    digest: &str,
) -> Result<Known, JobError> {
    let described = Reader::new(ctx, image)?
        .describe(digest, &job.platforms)
        .await?;
    let too_large = described.layers.iter().find(|layer| layer.size > LARGEST);
    if let Some(layer) = too_large {
        return Err(JobError::fatal(format!(
            "`{image}` has a layer of {} bytes; {LARGEST} bytes are the most that is mirrored",
            layer.size
        )));
    }
    let size = described
        .documents
        .first()
        .map_or(0, |(_, text)| text.len() as u64);
    for (digest, text) in described.documents {
        create(ctx, &keys::image_blob(&digest.hex()), text.into()).await?;
    }
    let layers = described.layers.iter().map(|layer| Layer {
        digest: layer.digest.hex(),
        size: layer.size,
    });
    Ok(Known {
        media_type: described.media_type,
        size,
        layers: layers.collect(),
    })
}

/// Puts a layer into the bucket unless it is there.
async fn put_layer(ctx: &Ctx, image: &Reference, layer: &Layer) -> Result<(), JobError> {
    let key = keys::image_blob(&layer.digest);
    if is_there(ctx, &key, layer.size).await? {
        return Ok(());
    }
    let file = Reader::new(ctx, image)?
        .fetch(&layer.digest, layer.size)
        .await?;
    ctx.store().create_from(&key, &file).await?;
    // Whoever made it, also when the store's answer was about somebody else's.
    match is_there(ctx, &key, layer.size).await? {
        true => Ok(()),
        false => Err(JobError::retry(format!(
            "`{key}` was put into the bucket and is not there"
        ))),
    }
}

/// Whether a blob is there. One of another length was damaged by somebody: nothing of ours replaces an object.
async fn is_there(ctx: &Ctx, key: &str, size: u64) -> Result<bool, JobError> {
    match ctx.store().size(key).await? {
        None => Ok(false),
        Some(there) if there == size => Ok(true),
        Some(there) => Err(JobError::fatal(format!(
            "`{key}` has {there} bytes in the bucket, and {size} in the registry: it is damaged; delete it, then \
             `rekindle retry`"
        ))),
    }
}

/// Makes the bundle visible.
async fn publish(ctx: &Ctx, bundle: &Bundle) -> Result<String, JobError> {
    let digest = bundle.digest();
    let file = |name: &str| keys::image_bundle(&digest, name);
    create(ctx, &file("oci-layout"), Bundle::layout().into()).await?;
    create(ctx, &file("index.json"), bundle.index().into()).await?;
    Ok(format!("sha256:{digest}"))
}

/// Creates an object whose key says what it holds.
async fn create(ctx: &Ctx, key: &str, body: Bytes) -> Result<(), JobError> {
    match ctx.store().create(key, body.clone()).await? {
        Created::New => Ok(()),
        Created::Exists(there) if there == body => Ok(()),
        Created::Exists(_) => Err(JobError::fatal(format!(
            "`{key}` in the bucket is not what its name says: it is damaged; delete it, then `rekindle retry`"
        ))),
    }
}

/// An image in a step's key: its name where that can stand in one, for those who read along.
fn key(image: &Reference) -> String {
    let name = image.to_string().replace('@', "/");
    match name.len() <= 180 {
        true => name,
        false => jobs::digest(name.as_bytes()),
    }
}
