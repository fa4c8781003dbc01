//! From a digest to a tree.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageManifest;

use super::Repository;
use super::document::{self, ACCEPT, Blob, DOCUMENT_MAX, Document, Flaw, Layer};
use super::platform::Platform;
use super::registry::Registry;
use crate::digest::{Digest, Hashed, Hasher};
use crate::image::download::Download;
use crate::image::{DownloadError, Network, PullError};
use crate::unpack::{Layers, Limits, Summary, UnpackError, unpack_layers};

/// Unpacks an image of a registry into an empty directory; gives the length of its layers as they came.
/// What comes is saved in `part`, the layers one after another, and what is there is not asked for.
///
/// # Errors
/// As [`PullError`] says. The directory is half full then: remove it.
pub(crate) fn unpack(
    repository: &Repository,
    digest: &Digest,
    part: &(File, PathBuf),
    rootfs: &Path,
    limits: &Limits,
    network: &Network,
) -> Result<(u64, Summary), PullError> {
    let mut registry = Registry::new(repository, network).map_err(PullError::Download)?;
    let layers = resolve(&mut registry, repository, digest)?;
    let bytes = layers
        .iter()
        .fold(0_u64, |sum, layer| sum.saturating_add(layer.blob.size));
    if bytes > limits.stream() {
        let url = repository.to_string();
        return Err(PullError::Download(DownloadError::TooLarge { url, bytes }));
    }
    // The mode of a root that no layer has an entry for.
    fs::set_permissions(rootfs, Permissions::from_mode(0o755)).map_err(|source| {
        PullError::File {
            operation: "set the mode of",
            path: rootfs.to_owned(),
            source,
        }
    })?;
    let summary = unpack_layers(rootfs, limits, |tree| {
        let mut start = 0;
        for (number, layer) in (1..).zip(&layers) {
            let name = format!("layer {number} of {repository}");
            let download = File::try_clone(&part.0)
                .and_then(|file| {
                    let blob = registry.large(&layer.blob.digest);
                    Download::new(blob, (file, part.1.clone()), limits.stream(), network.tries)
                })
                .map_err(UnpackError::Read)?;
            add(
                tree,
                layer,
                &name,
                Hashed::new(download.piece(start, layer.blob.size)),
            )?;
            start += layer.blob.size;
        }
        Ok::<_, PullError>(())
    })?;
    Ok((bytes, summary))
}

/// Adds a layer. Its digest decides first: one that is refused may just have been damaged on the way.
fn add(
    tree: &mut Layers<'_, '_>,
    layer: &Layer,
    name: &str,
    mut reader: Hashed<impl std::io::Read + Send>,
) -> Result<(), PullError> {
    let unpacked = tree.add(&mut reader, layer.compression);
    if let Err(error @ (UnpackError::Read(_) | UnpackError::Write { .. })) = unpacked {
        return Err(error.into());
    }
    let (found, _) = reader.finish().map_err(UnpackError::Read)?;
    same(name, found, layer.blob.digest)?;
    same(&format!("the archive in {name}"), unpacked?, layer.diff_id)
}

/// The layers that a digest stands for.
fn resolve(
    registry: &mut Registry,
    repository: &Repository,
    digest: &Digest,
) -> Result<Vec<Layer>, PullError> {
    let host = Platform::host();
    let manifest = match fetch_document(registry, repository, digest, None)?.0 {
        Document::Manifest(manifest) => manifest,
        Document::Index(index) => {
            let chosen = document::choose(&index, &host).map_err(flawed(repository))?;
            match fetch_document(registry, repository, &chosen.digest, Some(&chosen))?.0 {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => return Err(flawed(repository)(Flaw::Nested)),
            }
        }
    };
    let (_, configuration) = fetch_configuration(registry, repository, &manifest)?;
    document::layers(&manifest, &configuration, &host).map_err(flawed(repository))
}

pub(super) fn flawed(repository: &Repository) -> impl Fn(Flaw) -> PullError {
    |source| PullError::Registry {
        repository: repository.to_string(),
        source,
    }
}

/// A manifest or an index with its text, which the digest alone names, or a descriptor that knows its size.
pub(super) fn fetch_document(
    registry: &mut Registry,
    repository: &Repository,
    digest: &Digest,
    descriptor: Option<&Blob>,
) -> Result<(Document, Vec<u8>), PullError> {
    let most = descriptor.map_or(DOCUMENT_MAX, |blob| blob.size);
    let text = registry
        .manifest(&digest.to_string(), ACCEPT, most)
        .map_err(PullError::Download)?;
    same(
        &format!("the manifest of {repository}"),
        digest_of(&text),
        *digest,
    )?;
    let document = Document::parse(&text).map_err(flawed(repository))?;
    Ok((document, text))
}

/// The configuration of an image: where it is, and its text.
pub(super) fn fetch_configuration(
    registry: &mut Registry,
    repository: &Repository,
    manifest: &ImageManifest,
) -> Result<(Blob, Vec<u8>), PullError> {
    let blob = document::configuration(manifest).map_err(flawed(repository))?;
    let text = registry.small(&blob).map_err(PullError::Download)?;
    same(
        &format!("the configuration of {repository}"),
        digest_of(&text),
        blob.digest,
    )?;
    Ok((blob, text))
}

pub(super) fn digest_of(text: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(text);
    hasher.digest()
}

pub(super) fn same(from: &str, found: Digest, wanted: Digest) -> Result<(), PullError> {
    if found == wanted {
        return Ok(());
    }
    Err(PullError::Mismatch {
        from: from.to_owned(),
        found,
        wanted,
    })
}
