//! An image comes from S3, a registry or a file into the store, unpacked while it comes.

use std::fs;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::download::{self, Download, DownloadError, Network, Object};
use super::source::Source;
use super::store::{self, Image, Manifest, Store, StoreError};
use super::tree::{self, Staging};
use crate::digest::{Digest, Hashed};
use crate::disk::make_private;
use crate::oci::{self, Flaw};
use crate::unpack::{self, Limits, Summary, UnpackError};

/// Why an image was not pulled or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive is refused, or the tree cannot be written.
    #[error(transparent)]
    Unpack(UnpackError),
    /// The download failed. What came is kept.
    #[error(transparent)]
    Download(DownloadError),
    /// What came is not what was asked for.
    #[error("verify {from}: its digest is {found}, and {wanted} was asked for")]
    Mismatch {
        /// Where it came from.
        from: String,
        /// The digest of what came.
        found: Digest,
        /// The digest that was asked for.
        wanted: Digest,
    },
    /// The image of a registry is refused.
    #[error("accept {repository}")]
    Registry {
        /// Where it is.
        repository: String,
        /// What is wrong with it.
        #[source]
        source: Flaw,
    },
    /// A file or directory of this machine.
    #[error("{operation} {}", path.display())]
    File {
        /// What we were doing.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// An image that is in the store now.
#[derive(Debug)]
pub struct Pulled {
    /// The image; it is not removed while this exists.
    pub image: Image,
    /// Whether it was here already.
    pub cached: bool,
}

/// Brings an image into the store, or finds it there. Any number of processes may ask for one digest:
/// one pulls, the others wait and use what it made.
///
/// # Errors
/// As [`PullError`] says. What was downloaded is kept for the next try, unless it is wrong.
pub fn pull(
    store: &Store,
    source: &Source,
    digest: &Digest,
    limits: &Limits,
    network: &Network,
) -> Result<Pulled, PullError> {
    loop {
        if let Some(image) = store.image(digest)? {
            return Ok(Pulled {
                image,
                cached: true,
            });
        }
        let claim = store.claim(digest)?;
        if claim.is_here()? {
            continue;
        }
        let resumed = claim.has_part();
        let made = make(&claim, source, digest, limits, network);
        let wrong = matches!(
            made,
            Err(PullError::Mismatch { .. } | PullError::Download(DownloadError::Changed { .. }))
        );
        let refused = matches!(
            made,
            Err(PullError::Unpack(UnpackError::Refused { .. })
                | PullError::Registry { .. }
                | PullError::Download(DownloadError::Size { .. } | DownloadError::TooLarge { .. }))
        );
        if made.is_ok() || wrong || refused {
            claim.remove_part()?;
        }
        if wrong && resumed {
            // The beginning was of another object, or damaged on the disk: once more, from zero.
            continue;
        }
        made?;
        drop(claim);
        let image = store.image(digest)?;
        // What crashes left is removed only now, when nobody waits for the image any more.
        if let Err(error) = store.sweep() {
            eprintln!("warning: failed to {error}; the next run tries again");
        }
        if let Some(image) = image {
            return Ok(Pulled {
                image,
                cached: false,
            });
        }
    }
}

fn make(
    claim: &store::Claim<'_>,
    source: &Source,
    digest: &Digest,
    limits: &Limits,
    network: &Network,
) -> Result<(), PullError> {
    let staging = claim.staging()?;
    let rootfs = staging.path().join("rootfs");
    make_private(&rootfs).map_err(|source| PullError::File {
        operation: "create",
        path: rootfs.clone(),
        source,
    })?;
    let from = source.to_string();
    let (compressed_bytes, summary) = match source {
        Source::File(path) => unpack_image(open(path)?, &from, &rootfs, digest, limits)?,
        Source::Http(uri) => {
            let agent = download::agent(network).map_err(PullError::Download)?;
            let uri = uri.clone();
            let object = Object { agent, uri };
            let longest = limits.stream();
            let download = Download::new(object, claim.part()?, longest, network.tries)
                .map_err(UnpackError::Read)?;
            unpack_image(download, &from, &rootfs, digest, limits)?
        }
        Source::Registry(repository) => {
            let part = claim.part()?;
            oci::unpack(repository, digest, &part, &rootfs, limits, network)?
        }
    };
    let manifest = Manifest {
        digest: *digest,
        compressed_bytes,
        entries: summary.entries,
        bytes: summary.bytes,
        dropped: summary.dropped,
        pulled_at: store::seconds(SystemTime::now()),
    };
    claim.publish(staging, &manifest)?;
    Ok(())
}

fn unpack_image(
    reader: impl Read + Send,
    from: &str,
    rootfs: &Path,
    wanted: &Digest,
    limits: &Limits,
) -> Result<(u64, Summary), PullError> {
    let (_, bytes, summary) = unpack_into(reader, from, rootfs, Some(wanted), limits)?;
    Ok((bytes, summary))
}

/// Unpacks a file of this machine into a directory that is not there yet. It appears complete, or not
/// at all.
///
/// # Errors
/// As [`PullError`] says.
pub fn unpack_file(
    file: &Path,
    target: &Path,
    wanted: Option<&Digest>,
    limits: &Limits,
) -> Result<(Digest, Summary), PullError> {
    let reader = open(file)?;
    let failed = |operation, path: &Path, source| PullError::File {
        operation,
        path: path.to_owned(),
        source,
    };
    if target.symlink_metadata().is_ok() {
        return Err(failed(
            "create",
            target,
            io::ErrorKind::AlreadyExists.into(),
        ));
    }
    let name = target
        .file_name()
        .ok_or_else(|| failed("create", target, io::ErrorKind::InvalidInput.into()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".unpacking");
    let path = target.with_file_name(hidden);
    // The lock tells a living run's tree from what a crashed one left.
    if let Ok(left) = File::open(&path) {
        left.try_lock()
            .map_err(|error| failed("lock", &path, error.into()))?;
        tree::remove(&path).map_err(|error| failed("remove", &path, error))?;
    }
    let staging = Staging::create(path.clone()).map_err(|error| failed("create", &path, error))?;
    let lock = File::open(&path).map_err(|error| failed("open", &path, error))?;
    lock.try_lock()
        .map_err(|error| failed("lock", &path, error.into()))?;
    let from = file.display().to_string();
    let (digest, _, summary) = unpack_into(reader, &from, &path, wanted, limits)?;
    staging
        .publish(target)
        .map_err(|error| failed("publish", target, error))?;
    Ok((digest, summary))
}

/// Checks a file without writing anything: its digest, and every entry.
///
/// # Errors
/// As [`PullError`] says.
pub fn verify_file(
    file: &Path,
    wanted: Option<&Digest>,
    limits: &Limits,
) -> Result<(Digest, Summary), PullError> {
    let mut reader = Hashed::new(open(file)?);
    let checked = unpack::check(&mut reader, limits);
    let from = file.display().to_string();
    let (digest, _, summary) = judge(reader, &from, checked, wanted)?;
    Ok((digest, summary))
}

fn open(path: &Path) -> Result<File, PullError> {
    File::open(path).map_err(|source| PullError::File {
        operation: "open",
        path: path.to_owned(),
        source,
    })
}

/// Unpacks into an empty directory.
fn unpack_into(
    reader: impl Read + Send,
    from: &str,
    rootfs: &Path,
    wanted: Option<&Digest>,
    limits: &Limits,
) -> Result<(Digest, u64, Summary), PullError> {
    let mut reader = Hashed::new(reader);
    // The mode of a root that the archive has no entry for.
    fs::set_permissions(rootfs, fs::Permissions::from_mode(0o755)).map_err(|source| {
        PullError::File {
            operation: "set the mode of",
            path: rootfs.to_owned(),
            source,
        }
    })?;
    let unpacked = unpack::unpack(&mut reader, rootfs, limits);
    judge(reader, from, unpacked, wanted)
}

/// The digest decides first: an archive that is refused may just have been damaged on the way.
fn judge(
    reader: Hashed<impl Read>,
    from: &str,
    unpacked: Result<Summary, UnpackError>,
    wanted: Option<&Digest>,
) -> Result<(Digest, u64, Summary), PullError> {
    if let Err(error @ (UnpackError::Read(_) | UnpackError::Write { .. })) = unpacked {
        return Err(error.into());
    }
    let (found, bytes) = reader.finish().map_err(UnpackError::Read)?;
    match wanted {
        Some(&wanted) if wanted != found => Err(PullError::Mismatch {
            from: from.to_owned(),
            found,
            wanted,
        }),
        _ => Ok((found, bytes, unpacked?)),
    }
}

/// A download is a reader to the unpacker; here its own error comes out again.
impl From<UnpackError> for PullError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Read(error) => match error.downcast::<DownloadError>() {
                Ok(error) => Self::Download(error),
                Err(error) => Self::Unpack(UnpackError::Read(error)),
            },
            error => Self::Unpack(error),
        }
    }
}
