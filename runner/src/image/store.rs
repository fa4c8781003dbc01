//! The images of this host, by digest.
//!
//! ```text
//! STORE/images/<hex>/{rootfs/, image.json}   complete; appears by a rename, never half
//! STORE/images/.staging-<hex>                being unpacked, or left by a crash
//! STORE/images/.trash-<hex>-<pid>            being removed
//! STORE/parts/<hex>                          the beginning of a download
//! STORE/locks/<hex>                          locked shared by users, exclusively to pull or remove
//! ```
//!
//! Lock files are never removed: two processes could then hold "the" lock of two files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::tree::{self, Staging};
use crate::digest::Digest;
use crate::disk;
use crate::lock;
use crate::unpack::Dropped;

const STAGING: &str = ".staging-";
const TRASH: &str = ".trash-";

/// Where the images of this host are kept.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// What the store knows about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The digest of the compressed file.
    pub digest: Digest,
    /// The length of the compressed file.
    pub compressed_bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// What was left out.
    pub dropped: Dropped,
    /// When it was unpacked, in seconds since 1970.
    pub pulled_at: u64,
}

/// An image that cannot be removed while this exists.
#[derive(Debug)]
pub struct Image {
    /// What is known about it.
    pub manifest: Manifest,
    /// The tree. Nobody writes to it.
    pub rootfs: PathBuf,
    _lock: File,
}

/// One line of a list.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// What is known about it.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// The tree.
    pub rootfs: PathBuf,
    /// Whether a run, or somebody else, holds it now.
    pub in_use: bool,
    /// When it was last used, in seconds since 1970.
    pub used_at: u64,
}

/// What a collection did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Collected {
    /// Removed images.
    pub removed: Vec<Digest>,
    /// Images that are old enough, but in use.
    pub in_use: Vec<Digest>,
    /// Images that are still young.
    pub kept: Vec<Digest>,
    /// Downloads that nobody continued.
    pub parts: Vec<Digest>,
}

/// The store cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct StoreError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Names the operation and the path of an I/O error.
fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| StoreError {
        operation,
        path: path.to_owned(),
        source,
    }
}

impl Store {
    /// Opens the store, and makes it when it is not there.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(failed("create", root))?;
        let store = Self {
            root: root.to_owned(),
        };
        for name in ["images", "parts", "locks"] {
            let path = store.root.join(name);
            match disk::make_private(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result.map_err(failed("create", &path))?,
            }
        }
        Ok(store)
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("images").join(digest.hex())
    }

    /// The image, locked for use; waits while somebody pulls it. `None` when it is not here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn image(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        let (lock, path) = self.lock_file(digest)?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting(digest);
                lock.lock_shared().map_err(failed("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        let path = self.image_path(digest);
        let Some(manifest) = read_manifest(&path)? else {
            return Ok(None);
        };
        // The time of use is for `gc`; a reader of somebody else's store cannot set it.
        let _ = File::open(path.join("image.json"))
            .and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Some(Image {
            manifest,
            rootfs: path.join("rootfs"),
            _lock: lock,
        }))
    }

    /// The right to make an image; waits for users and pullers.
    pub(crate) fn claim(&self, digest: &Digest) -> Result<Claim<'_>, StoreError> {
        let (lock, path) = self.lock_file(digest)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting(digest);
                lock.lock().map_err(failed("lock", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        Ok(Claim {
            store: self,
            digest: *digest,
            _lock: lock,
        })
    }

    /// All images, by digest.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        for digest in self.digests("images", "")? {
            let path = self.image_path(&digest);
            // It may be removed while we look.
            let Some(manifest) = read_manifest(&path)? else {
                continue;
            };
            let in_use = self.try_claim(&digest)?.is_none();
            listed.push(Listed {
                in_use,
                used_at: seconds(used_at(&path).unwrap_or(SystemTime::UNIX_EPOCH)),
                rootfs: path.join("rootfs"),
                manifest,
            });
        }
        listed.sort_by_key(|image| image.manifest.digest);
        Ok(listed)
    }

    /// Removes the images that were not used for some time, what crashes left, and old downloads.
    /// Never one that is in use.
    ///
    /// # Errors
    /// When the store cannot be read, or something cannot be removed.
    pub fn collect(&self, unused_for: Duration) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        for digest in self.digests("images", "")? {
            let path = self.image_path(&digest);
            let old = |path: &Path| {
                used_at(path).is_none_or(|used| used.elapsed().unwrap_or_default() >= unused_for)
            };
            if !old(&path) {
                collected.kept.push(digest);
                continue;
            }
            match self.try_claim(&digest)? {
                None => collected.in_use.push(digest),
                // Somebody may have used it between the two looks.
                Some(_) if !old(&path) => collected.kept.push(digest),
                Some(claim) => {
                    claim.discard(&path)?;
                    collected.removed.push(digest);
                }
            }
        }
        for digest in self.digests("parts", "")? {
            let path = self.root.join("parts").join(digest.hex());
            let old = fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|modified| modified.elapsed().unwrap_or_default() >= unused_for);
            if old && let Some(claim) = self.try_claim(&digest)? {
                claim.remove_part()?;
                collected.parts.push(digest);
            }
        }
        self.sweep()?;
        Ok(collected)
    }

    /// Removes what crashed processes left: half trees and half removed ones. What cannot be removed keeps
    /// nothing else; the first error is told.
    pub(crate) fn sweep(&self) -> Result<(), StoreError> {
        let mut swept = Ok(());
        for digest in self.digests("images", STAGING)? {
            if let Some(claim) = self.try_claim(&digest)? {
                swept = swept.and(remove(&claim.staging_path()));
            }
        }
        let images = self.root.join("images");
        for entry in fs::read_dir(&images).map_err(failed("read", &images))? {
            let entry = entry.map_err(failed("read", &images))?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TRASH.as_bytes())
            {
                // Nobody needs it, so two processes may remove it at once.
                swept = swept.and(remove(&entry.path()));
            }
        }
        swept
    }

    /// The digests that entries of a folder are named by. Other names are not ours, and left alone.
    fn digests(&self, folder: &str, prefix: &str) -> Result<Vec<Digest>, StoreError> {
        let path = self.root.join(folder);
        let mut digests = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed("read", &path))? {
            let name = entry.map_err(failed("read", &path))?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_prefix(prefix));
            digests.extend(hex.and_then(|hex| Digest::from_hex(hex).ok()));
        }
        digests.sort();
        Ok(digests)
    }

    fn lock_file(&self, digest: &Digest) -> Result<(File, PathBuf), StoreError> {
        let path = self.root.join("locks").join(digest.hex());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        Ok((file, path))
    }

    /// The claim, unless somebody else holds a lock.
    fn try_claim(&self, digest: &Digest) -> Result<Option<Claim<'_>>, StoreError> {
        let (lock, path) = self.lock_file(digest)?;
        let locked = lock::try_lock(&lock).map_err(failed("lock", &path))?;
        Ok(locked.then(|| Claim {
            store: self,
            digest: *digest,
            _lock: lock,
        }))
    }
}

/// The right to make or remove one image. Nobody else uses or makes it meanwhile.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    store: &'a Store,
    digest: Digest,
    _lock: File,
}

impl Claim<'_> {
    pub(crate) fn is_here(&self) -> Result<bool, StoreError> {
        Ok(read_manifest(&self.store.image_path(&self.digest))?.is_some())
    }

    fn staging_path(&self) -> PathBuf {
        let name = format!("{STAGING}{}", self.digest.hex());
        self.store.root.join("images").join(name)
    }

    /// A new staging directory. What a crash left there is moved away, to be removed later: on ext4,
    /// making files right after removing many is ten times as slow.
    pub(crate) fn staging(&self) -> Result<Staging, StoreError> {
        let path = self.staging_path();
        self.move_away(&path)?;
        Staging::create(path.clone()).map_err(failed("create", &path))
    }

    /// The file that holds the beginning of the download.
    pub(crate) fn part(&self) -> Result<(File, PathBuf), StoreError> {
        let path = self.part_path();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        Ok((file, path))
    }

    /// Whether an earlier run downloaded something.
    pub(crate) fn has_part(&self) -> bool {
        fs::metadata(self.part_path()).is_ok_and(|metadata| metadata.len() > 0)
    }

    fn part_path(&self) -> PathBuf {
        self.store.root.join("parts").join(self.digest.hex())
    }

    pub(crate) fn remove_part(&self) -> Result<(), StoreError> {
        let path = self.part_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes a complete tree the image.
    pub(crate) fn publish(&self, staging: Staging, manifest: &Manifest) -> Result<(), StoreError> {
        let file = staging.path().join("image.json");
        let text = serde_json::to_vec_pretty(manifest).expect("a manifest is plain data");
        fs::write(&file, text).map_err(failed("write", &file))?;
        let path = self.store.image_path(&self.digest);
        // Without a manifest it is no image: something that we did not make, or that was damaged.
        self.move_away(&path)?;
        staging.publish(&path).map_err(failed("publish", &path))
    }

    fn discard(&self, path: &Path) -> Result<(), StoreError> {
        if let Some(trash) = self.move_away(path)? {
            disk::sync_parent(&trash).map_err(failed("sync", &trash))?;
            remove(&trash)?;
        }
        Ok(())
    }

    fn move_away(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let images = self.store.root.join("images");
        let stem = format!("{TRASH}{}-{}", self.digest.hex(), std::process::id());
        for number in 0_u32.. {
            let trash = images.join(format!("{stem}-{number}"));
            if trash.exists() {
                continue;
            }
            return match fs::rename(path, &trash) {
                Ok(()) => Ok(Some(trash)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed("move away", path)(error)),
            };
        }
        Ok(None)
    }
}

fn remove(tree: &Path) -> Result<(), StoreError> {
    tree::remove(tree).map_err(failed("remove", tree))
}

fn waiting(digest: &Digest) {
    eprintln!("waiting for another runner that has {digest} locked");
}

fn used_at(image: &Path) -> Option<SystemTime> {
    fs::metadata(image.join("image.json")).ok()?.modified().ok()
}

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// `None` when there is no image.
fn read_manifest(image: &Path) -> Result<Option<Manifest>, StoreError> {
    let path = image.join("image.json");
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(failed("read", &path))?,
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| failed("read", &path)(error.into()))
}
