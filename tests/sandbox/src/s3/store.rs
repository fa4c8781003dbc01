//! The objects, and the one place where conditions are decided.
//!
//! All keys of the server are behind one mutex. It is held for a look-up and an insert, about a
//! microsecond; bodies are read, hashed and written to disk before it is taken.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use s3s::crypto::{Checksum, Md5};
use tempfile::TempDir;

/// Bodies up to this size stay in memory, larger ones become files.
pub(super) const INLINE: usize = 256 * 1024;

/// Metadata of an object as the client gave it.
pub(super) type UserMetadata = std::collections::HashMap<String, String>;

/// What a PUT demands of the object that is already there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// `If-None-Match: *`
    pub(super) absent: bool,
    /// `If-Match`
    pub(super) matches: Option<Match>,
}

/// The value of `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    Any,
    ETag(String),
}

/// Why the store refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is no such bucket")]
    NoBucket,
    #[error("there is no such key")]
    NoKey,
    #[error("the condition does not hold")]
    Precondition,
}

/// One version of an object; immutable once published, so that readers never see a mixture.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) body: Body,
    pub(super) etag: String,
    pub(super) modified: SystemTime,
    pub(super) content_type: Option<String>,
    pub(super) metadata: Option<UserMetadata>,
}

/// Where the bytes are.
#[derive(Debug)]
pub(super) enum Body {
    Memory(Bytes),
    File(BodyFile),
}

/// A body on disk; the file goes when the last reader of the object has gone.
#[derive(Debug)]
pub(super) struct BodyFile {
    pub(super) path: PathBuf,
    pub(super) len: u64,
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        // The whole directory is removed with the store; a file left behind does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The keys of one bucket, in the order in which S3 lists them.
pub(super) type Keys = BTreeMap<Arc<str>, Arc<Object>>;

#[derive(Debug)]
struct Bucket {
    created: SystemTime,
    versioned: bool,
    keys: Keys,
}

/// All buckets of the server.
#[derive(Debug)]
pub(super) struct Store {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    dir: TempDir,
    next_file: AtomicU64,
}

impl Store {
    /// An empty store; large bodies go to a fresh directory under `data_dir`, or under the
    /// system's temporary directory.
    pub(super) fn new(data_dir: Option<&Path>) -> std::io::Result<Store> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("s3-");
        let dir = match data_dir {
            Some(parent) => {
                std::fs::create_dir_all(parent)?;
                builder.tempdir_in(parent)?
            }
            None => builder.tempdir()?,
        };
        Ok(Store {
            buckets: Mutex::default(),
            dir,
            next_file: AtomicU64::new(0),
        })
    }

    /// Decides and publishes in one step. This is what the whole server is for.
    pub(super) fn put(
        &self,
        bucket: &str,
        key: &str,
        object: Object,
        conditions: &Conditions,
    ) -> Result<(), Refusal> {
        let replaced;
        {
            let mut buckets = self.lock();
            let bucket = buckets.get_mut(bucket).ok_or(Refusal::NoBucket)?;
            check(bucket.keys.get(key), conditions)?;
            replaced = match bucket.keys.get_mut(key) {
                Some(slot) => Some(std::mem::replace(slot, Arc::new(object))),
                None => bucket.keys.insert(Arc::from(key), Arc::new(object)),
            };
        }
        // A replaced body may be a file; it is unlinked outside the lock.
        drop(replaced);
        Ok(())
    }

    /// Whether `conditions` hold now. Only misbehaving servers ask before they act.
    pub(super) fn check(
        &self,
        bucket: &str,
        key: &str,
        conditions: &Conditions,
    ) -> Result<(), Refusal> {
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or(Refusal::NoBucket)?;
        check(bucket.keys.get(key), conditions)
    }

    pub(super) fn get(&self, bucket: &str, key: &str) -> Result<Arc<Object>, Refusal> {
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or(Refusal::NoBucket)?;
        bucket.keys.get(key).cloned().ok_or(Refusal::NoKey)
    }

    /// Removes a key; a key that is not there is no error, unless a condition was given.
    pub(super) fn delete(
        &self,
        bucket: &str,
        key: &str,
        matches: Option<&Match>,
    ) -> Result<bool, Refusal> {
        let removed;
        {
            let mut buckets = self.lock();
            let bucket = buckets.get_mut(bucket).ok_or(Refusal::NoBucket)?;
            let conditions = Conditions {
                absent: false,
                matches: matches.cloned(),
            };
            check(bucket.keys.get(key), &conditions)?;
            removed = bucket.keys.remove(key);
        }
        Ok(removed.is_some())
    }

    /// Runs `read` over the keys of a bucket, under the lock: it must be short.
    pub(super) fn with_keys<T>(
        &self,
        bucket: &str,
        read: impl FnOnce(&Keys) -> T,
    ) -> Result<T, Refusal> {
        let buckets = self.lock();
        let bucket = buckets.get(bucket).ok_or(Refusal::NoBucket)?;
        Ok(read(&bucket.keys))
    }

    /// Makes a bucket; `false` if it was there already.
    pub(super) fn create_bucket(&self, name: &str) -> bool {
        let mut buckets = self.lock();
        if buckets.contains_key(name) {
            return false;
        }
        let bucket = Bucket {
            created: SystemTime::now(),
            versioned: false,
            keys: Keys::new(),
        };
        buckets.insert(name.to_owned(), bucket);
        true
    }

    /// Names and ages of all buckets.
    pub(super) fn buckets(&self) -> Vec<(String, SystemTime)> {
        self.lock()
            .iter()
            .map(|(name, bucket)| (name.clone(), bucket.created))
            .collect()
    }

    pub(super) fn versioned(&self, bucket: &str) -> Result<bool, Refusal> {
        self.lock()
            .get(bucket)
            .map(|b| b.versioned)
            .ok_or(Refusal::NoBucket)
    }

    /// Marks a bucket as versioned. Old versions are not kept: nobody here asks for them.
    pub(super) fn set_versioned(&self, bucket: &str, versioned: bool) -> Result<(), Refusal> {
        let mut buckets = self.lock();
        buckets.get_mut(bucket).ok_or(Refusal::NoBucket)?.versioned = versioned;
        Ok(())
    }

    /// A path for a new body file.
    pub(super) fn new_file(&self) -> PathBuf {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(number.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        // Nothing under the lock can leave the map half changed, so a poisoned lock is usable.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object {
    /// An object in memory, made now.
    pub(super) fn in_memory(body: Bytes) -> Object {
        let etag = etag(Md5::checksum(&body));
        Object::new(Body::Memory(body), etag)
    }

    pub(super) fn new(body: Body, etag: String) -> Object {
        Object {
            body,
            etag,
            modified: SystemTime::now(),
            content_type: None,
            metadata: None,
        }
    }
}

impl Body {
    pub(super) fn len(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::File(file) => file.len,
        }
    }

    /// All bytes, blocking; for assertions of tests.
    pub(super) fn read(&self) -> std::io::Result<Bytes> {
        match self {
            Body::Memory(bytes) => Ok(bytes.clone()),
            Body::File(file) => std::fs::read(&file.path).map(Bytes::from),
        }
    }
}

impl BodyFile {
    /// Opens the file at `start`. Keep the object until this has returned: afterwards the open
    /// file outlives its name.
    pub(super) fn open(&self, start: u64) -> std::io::Result<File> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(start))?;
        Ok(file)
    }
}

/// The ETag of a body with this MD5, without quotes. Equal bodies have equal ETags, as on S3.
pub(super) fn etag(md5: impl AsRef<[u8]>) -> String {
    hex::encode(md5)
}

fn check(current: Option<&Arc<Object>>, conditions: &Conditions) -> Result<(), Refusal> {
    if conditions.absent && current.is_some() {
        return Err(Refusal::Precondition);
    }
    match (&conditions.matches, current) {
        (None, _) | (Some(Match::Any), Some(_)) => Ok(()),
        (Some(_), None) => Err(Refusal::NoKey),
        (Some(Match::ETag(wanted)), Some(object)) if *wanted == object.etag => Ok(()),
        (Some(Match::ETag(_)), Some(_)) => Err(Refusal::Precondition),
    }
}
