//! Images as they are, for whoever copies them elsewhere: what a tag stands for now, which documents and
//! layers an image is made of, and its layers, byte for byte. Everything hangs on a digest, as in `pull`.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use super::Repository;
use super::document::{self, ACCEPT, Blob, DOCUMENT_MAX, Document, Flaw};
use super::platform::Platform;
use super::pull::{digest_of, fetch_configuration, fetch_document, flawed, same};
use super::registry::Registry;
use crate::digest::{Digest, Hasher};
use crate::image::download::Download;
use crate::image::{Network, PullError};

/// A repository of a registry that is read from.
pub struct Remote {
    registry: Registry,
    repository: Repository,
    tries: u32,
}

/// What has to be copied so that an image can be had from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// What the digest stands for: the media type of a manifest or an index.
    pub media_type: String,
    /// Index, manifests and configurations, with their texts. What was asked for comes first.
    pub documents: Vec<(Digest, Vec<u8>)>,
    /// The layers, each once.
    pub layers: Vec<Blob>,
}

impl Remote {
    /// Prepares to read; asks nothing yet.
    ///
    /// # Errors
    /// When the certificates or credentials cannot be read.
    pub fn new(repository: &Repository, network: &Network) -> Result<Self, PullError> {
        Ok(Self {
            registry: Registry::new(repository, network).map_err(PullError::Download)?,
            repository: repository.clone(),
            tries: network.tries,
        })
    }

    /// The digest that a tag stands for at this moment.
    ///
    /// # Errors
    /// As [`PullError`] says: also when what it stands for is no image.
    pub fn resolve(&mut self, tag: &str) -> Result<Digest, PullError> {
        let text = self
            .registry
            .manifest(tag, ACCEPT, DOCUMENT_MAX)
            .map_err(PullError::Download)?;
        Document::parse(&text).map_err(flawed(&self.repository))?;
        Ok(digest_of(&text))
    }

    /// What an image is made of on some platforms. An image without an index has to be for all of them.
    ///
    /// # Errors
    /// As [`PullError`] says: also when a platform is missing.
    pub fn describe(
        &mut self,
        digest: &Digest,
        platforms: &[Platform],
    ) -> Result<Described, PullError> {
        let repository = self.repository.clone();
        let flawed = |flaw: Flaw| flawed(&repository)(flaw);
        let (root, text) = fetch_document(&mut self.registry, &repository, digest, None)?;
        let mut described = Described {
            media_type: root.media_type(),
            documents: vec![(*digest, text)],
            layers: Vec::new(),
        };
        for platform in platforms {
            let manifest = match &root {
                Document::Manifest(manifest) => manifest.clone(),
                Document::Index(index) => {
                    let chosen = document::choose(index, platform).map_err(flawed)?;
                    let found = fetch_document(
                        &mut self.registry,
                        &repository,
                        &chosen.digest,
                        Some(&chosen),
                    )?;
                    let (Document::Manifest(manifest), text) = found else {
                        return Err(flawed(Flaw::Nested));
                    };
                    described.add(chosen.digest, text);
                    manifest
                }
            };
            let (blob, configuration) =
                fetch_configuration(&mut self.registry, &repository, &manifest)?;
            for layer in document::layers(&manifest, &configuration, platform).map_err(flawed)? {
                if !described.layers.contains(&layer.blob) {
                    described.layers.push(layer.blob);
                }
            }
            described.add(blob.digest, configuration);
        }
        Ok(described)
    }

    /// Writes a blob into a file, from its beginning, and verifies it. A connection that breaks is made anew
    /// and goes on where it broke. `go_on` is asked after every piece whether anybody still waits.
    ///
    /// # Errors
    /// As [`PullError`] says. The file holds nothing of worth then.
    pub fn fetch(
        &mut self,
        blob: &Blob,
        file: File,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), PullError> {
        let name = PathBuf::from("a temporary file");
        let failed = |source: io::Error| match source.downcast() {
            Ok(error) => PullError::Download(error),
            Err(source) => PullError::File {
                operation: "fill",
                path: name.clone(),
                source,
            },
        };
        file.set_len(0).map_err(failed)?;
        let origin = self.registry.large(&blob.digest);
        let download = Download::new(origin, (file, name.clone()), blob.size, self.tries);
        let mut download = download.map_err(failed)?.piece(0, blob.size);
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 64 << 10]);
        loop {
            match download.read(&mut buffer).map_err(failed)? {
                0 => break,
                length => hasher.update(&buffer[..length]),
            }
            if !go_on() {
                return Err(failed(io::Error::other("nobody waits for it any more")));
            }
        }
        same(
            &format!("a layer of {}", self.repository),
            hasher.digest(),
            blob.digest,
        )
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.repository).finish()
    }
}

impl Described {
    fn add(&mut self, digest: Digest, text: Vec<u8>) {
        if !self.documents.iter().any(|(there, _)| *there == digest) {
            self.documents.push((digest, text));
        }
    }
}

impl PullError {
    /// Whether a later try may end better: the registry did not answer, or what came was damaged.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        use crate::image::DownloadError::{GaveUp, Save};
        matches!(
            self,
            Self::Download(GaveUp { .. } | Save { .. }) | Self::Mismatch { .. } | Self::File { .. }
        )
    }
}
