//! What manifests, indexes and configurations say, and whether it is taken. Pure: the digests of the
//! texts were checked before.

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os, RootFs};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Platform;
use crate::digest::Digest;
use crate::unpack::{Compression, printable};

/// The largest document that is taken, in bytes; what registries take.
pub(super) const DOCUMENT_MAX: u64 = 4 << 20;
/// The most layers that are taken. Overlay file systems end at 500, docker at 127.
const LAYERS_MAX: usize = 512;

const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The header `Accept` for manifests and indexes.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// What is wrong with an image of a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Not JSON, or without something that must be there.
    #[error("it is no sound {0}")]
    Unreadable(&'static str),
    /// A text that is a manifest and an index, so that two programs could see two images.
    #[error("it is an index and a manifest at once")]
    Ambiguous,
    /// Something else than what we unpack, such as a signature or a chart.
    #[error("its type `{0}` is not one that can be unpacked")]
    MediaType(String),
    /// An index that names an index.
    #[error("it is an index of indexes")]
    Nested,
    /// An index that has nothing for a platform, or an image for another one.
    #[error("it is not for {wanted}, but for {found}")]
    Platform {
        /// What it should be for.
        wanted: String,
        /// What the image is for, or the images.
        found: String,
    },
    /// A digest that is no SHA-256.
    #[error("the digest `{0}` is no SHA-256 digest")]
    Digest(String),
    /// A document that is larger than any.
    #[error("it names a document of {0} bytes")]
    TooLarge(u64),
    /// More layers than any image has.
    #[error("it has {0} layers")]
    TooManyLayers(usize),
    /// Manifest and configuration do not fit together.
    #[error("it has {layers} layers, and its configuration {diff_ids}")]
    Layers {
        /// Layers of the manifest.
        layers: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
}

/// What a digest of a registry can stand for.
#[derive(Debug)]
pub(super) enum Document {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

/// Something that is to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// What it must be.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// A layer, the lowest first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) blob: Blob,
    pub(super) compression: Compression,
    /// The digest of the archive before compression.
    pub(super) diff_id: Digest,
}

/// What a document has at its top, before we know what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    media_type: Option<MediaType>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// What of a configuration matters here. Everything else in it is for whoever would start the image.
#[derive(Deserialize)]
struct Configuration {
    architecture: Arch,
    os: Os,
    rootfs: RootFs,
}

impl Document {
    /// Reads a manifest or an index. What it is, it says itself; the headers of a registry do not count.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Flaw> {
        let outline: Outline = json(text, "manifest")?;
        let is_manifest = outline.config.is_some() || outline.layers.is_some();
        let is_index = outline.manifests.is_some();
        let fits = match &outline.media_type {
            None => true,
            Some(MediaType::ImageIndex) => is_index,
            Some(MediaType::ImageManifest) => is_manifest,
            Some(MediaType::Other(other)) if other == DOCKER_INDEX => is_index,
            Some(MediaType::Other(other)) if other == DOCKER_MANIFEST => is_manifest,
            Some(other) => return Err(unknown(other.as_ref())),
        };
        match (is_index, is_manifest) {
            (true, true) => Err(Flaw::Ambiguous),
            _ if !fits => Err(Flaw::Ambiguous),
            (true, false) => json(text, "index").map(Self::Index),
            (false, _) => json(text, "manifest").map(Self::Manifest),
        }
    }
}

impl Document {
    /// Its media type. Those of OCI need not say it.
    pub(super) fn media_type(&self) -> String {
        let (said, usual) = match self {
            Self::Index(index) => (index.media_type(), MediaType::ImageIndex),
            Self::Manifest(manifest) => (manifest.media_type(), MediaType::ImageManifest),
        };
        said.as_ref().unwrap_or(&usual).to_string()
    }
}

/// The manifest of an index that is for a platform.
pub(super) fn choose(index: &ImageIndex, wanted: &Platform) -> Result<Blob, Flaw> {
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_some_and(|platform| {
            let variant = platform.variant().as_deref();
            *platform.os() == Os::Linux
                && *platform.architecture() == wanted.architecture
                && (variant == wanted.variant.as_deref()
                    // Of the variants, this is the one that every such processor has.
                    || (wanted.variant.is_none() && wanted.architecture == Arch::ARM64 && variant == Some("v8")))
        })
    };
    let Some(descriptor) = index.manifests().iter().find(fits) else {
        let found = index
            .manifests()
            .iter()
            .map(|descriptor| match descriptor.platform() {
                Some(platform) => name(platform.os(), platform.architecture()),
                None => "no platform".to_owned(),
            });
        return Err(Flaw::Platform {
            wanted: wanted.to_string(),
            found: found.collect::<Vec<_>>().join(", "),
        });
    };
    match descriptor.media_type() {
        MediaType::ImageManifest => {}
        MediaType::Other(other) if other == DOCKER_MANIFEST => {}
        MediaType::ImageIndex => return Err(Flaw::Nested),
        MediaType::Other(other) if other == DOCKER_INDEX => return Err(Flaw::Nested),
        other => return Err(unknown(other.as_ref())),
    }
    document(descriptor)
}

/// The configuration of an image.
pub(super) fn configuration(manifest: &ImageManifest) -> Result<Blob, Flaw> {
    match manifest.config().media_type() {
        MediaType::ImageConfig => {}
        MediaType::Other(other) if other == DOCKER_CONFIG => {}
        other => return Err(unknown(other.as_ref())),
    }
    document(manifest.config())
}

/// The layers of an image, the lowest first.
pub(super) fn layers(
    manifest: &ImageManifest,
    configuration: &[u8],
    wanted: &Platform,
) -> Result<Vec<Layer>, Flaw> {
    let configuration: Configuration = json(configuration, "configuration")?;
    let platform = (&configuration.os, &configuration.architecture);
    if platform != (&Os::Linux, &wanted.architecture) {
        return Err(Flaw::Platform {
            wanted: wanted.to_string(),
            found: name(platform.0, platform.1),
        });
    }
    let (layers, diff_ids) = (manifest.layers(), configuration.rootfs.diff_ids());
    if layers.len() > LAYERS_MAX {
        return Err(Flaw::TooManyLayers(layers.len()));
    }
    if layers.len() != diff_ids.len() || configuration.rootfs.typ() != "layers" {
        return Err(Flaw::Layers {
            layers: layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let layer = |(descriptor, diff_id): (&Descriptor, &String)| {
        Ok(Layer {
            blob: blob(descriptor)?,
            compression: compression(descriptor.media_type())?,
            diff_id: digest(diff_id)?,
        })
    };
    layers.iter().zip(diff_ids).map(layer).collect()
}

fn compression(media_type: &MediaType) -> Result<Compression, Flaw> {
    Ok(match media_type {
        MediaType::ImageLayer => Compression::None,
        MediaType::ImageLayerGzip => Compression::Gzip,
        MediaType::ImageLayerZstd => Compression::Zstd,
        MediaType::Other(other) => match other.as_str() {
            DOCKER_LAYER => Compression::None,
            DOCKER_LAYER_GZIP => Compression::Gzip,
            DOCKER_LAYER_ZSTD => Compression::Zstd,
            _ => return Err(unknown(other)),
        },
        other => return Err(unknown(other.as_ref())),
    })
}

fn unknown(media_type: &str) -> Flaw {
    Flaw::MediaType(printable(media_type.as_bytes()))
}

fn document(descriptor: &Descriptor) -> Result<Blob, Flaw> {
    match descriptor.size() {
        size if size > DOCUMENT_MAX => Err(Flaw::TooLarge(size)),
        _ => blob(descriptor),
    }
}

fn blob(descriptor: &Descriptor) -> Result<Blob, Flaw> {
    Ok(Blob {
        digest: digest(descriptor.digest().as_ref())?,
        size: descriptor.size(),
    })
}

fn digest(text: &str) -> Result<Digest, Flaw> {
    text.parse()
        .map_err(|_| Flaw::Digest(printable(text.as_bytes())))
}

fn json<T: DeserializeOwned>(text: &[u8], what: &'static str) -> Result<T, Flaw> {
    serde_json::from_slice(text).map_err(|_| Flaw::Unreadable(what))
}

fn name(os: &Os, architecture: &Arch) -> String {
    printable(format!("{os}/{architecture}").as_bytes())
}
