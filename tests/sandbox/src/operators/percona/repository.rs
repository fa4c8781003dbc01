//! Repositories: their objects in S3, and what the sets and the WAL in them hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::info::Info;
use crate::postgres::Data;
use crate::s3::S3Server;

/// The keys to a bucket.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The access key.
    pub access: String,
    /// Its secret.
    pub secret: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// The object store as pgBackRest uses it. Errors are its words, such as `HTTP request failed with 403 (Forbidden)`.
#[async_trait]
pub trait Bucket: fmt::Debug + Send + Sync {
    /// An object; `None` when there is none.
    async fn get(&self, keys: &Keys, bucket: &str, key: &str) -> Result<Option<Bytes>, String>;

    /// Writes an object.
    async fn put(&self, keys: &Keys, bucket: &str, key: &str, body: Bytes) -> Result<(), String>;
}

/// The sandbox's own store, without the way over HTTP: its faults do not meet the operator.
#[async_trait]
impl Bucket for S3Server {
    async fn get(&self, keys: &Keys, bucket: &str, key: &str) -> Result<Option<Bytes>, String> {
        self.admit(keys, bucket)?;
        Ok(self.object(key))
    }

    async fn put(&self, keys: &Keys, bucket: &str, key: &str, body: Bytes) -> Result<(), String> {
        self.admit(keys, bucket)?;
        self.put_object(key, body);
        Ok(())
    }
}

impl S3Server {
    fn admit(&self, keys: &Keys, bucket: &str) -> Result<(), String> {
        if keys.access != self.access_key() || keys.secret != self.secret_key() {
            return Err("HTTP request failed with 403 (Forbidden)".to_owned());
        }
        if bucket != self.bucket() {
            return Err("HTTP request failed with 404 (Not Found): NoSuchBucket".to_owned());
        }
        Ok(())
    }
}

/// Where a database's backups and WAL lie.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The bucket.
    pub bucket: String,
    /// The repository's path, such as `/pgbackrest/repo1`.
    pub path: String,
    /// Whose.
    pub system_id: u64,
}

/// What the sets and the WAL of repositories bring back. The objects in S3 have the form of real ones, and this what
/// would be inside. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Archives(Arc<Mutex<BTreeMap<Place, Archive>>>);

/// What came of one database's archive.
#[derive(Debug, Clone)]
struct Archive {
    /// At the end of the WAL.
    newest: Data,
    /// When that was.
    to: Timestamp,
    /// At the end of each set, by label.
    sets: BTreeMap<String, Data>,
}

impl Archives {
    /// A database's WAL was archived up to a moment.
    pub fn archive(&self, place: &Place, data: &Data, to: Timestamp) {
        let mut all = self.lock();
        let new = || Archive {
            newest: data.clone(),
            to,
            sets: BTreeMap::new(),
        };
        let archive = all.entry(place.clone()).or_insert_with(new);
        (archive.newest, archive.to) = (data.at(to), to);
    }

    /// A set was finished.
    pub fn set(&self, place: &Place, label: &str, data: &Data) {
        if let Some(archive) = self.lock().get_mut(place) {
            archive.sets.insert(label.to_owned(), data.clone());
        }
    }

    /// The data at the end of the WAL, and when that was.
    pub(super) fn newest(&self, place: &Place) -> Option<(Data, Timestamp)> {
        let all = self.lock();
        all.get(place)
            .map(|archive| (archive.newest.clone(), archive.to))
    }

    /// The data of a set alone; where the set is not known, those that had been committed when it was finished.
    pub(super) fn at_set(&self, place: &Place, label: &str, stop: Timestamp) -> Option<Data> {
        let all = self.lock();
        let archive = all.get(place)?;
        Some(
            archive
                .sets
                .get(label)
                .cloned()
                .unwrap_or_else(|| archive.newest.at(stop)),
        )
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Archive>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stanza of a repository in a bucket.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    pub(super) store: &'a dyn Bucket,
    pub(super) keys: Keys,
    pub(super) bucket: String,
    pub(super) path: String,
    pub(super) stanza: String,
}

/// Why an info file could not be loaded, in pgBackRest's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotLoaded {
    Missing,
    Other(String),
}

impl Repository<'_> {
    fn key(&self, kind: &str, rest: &str) -> String {
        format!(
            "{}/{kind}/{}/{rest}",
            self.path.trim_start_matches('/'),
            self.stanza
        )
    }

    /// Reads `backup.info` or `archive.info`, or its copy.
    pub(super) async fn info(&self, kind: &str) -> Result<Info, NotLoaded> {
        let mut why = NotLoaded::Missing;
        for copy in ["", ".copy"] {
            let key = self.key(kind, &format!("{kind}.info{copy}"));
            let found = self.store.get(&self.keys, &self.bucket, &key).await;
            match found.map_err(NotLoaded::Other)? {
                None => {}
                Some(body) => match Info::parse(&String::from_utf8_lossy(&body)) {
                    Ok(info) => return Ok(info),
                    Err(error) => why = NotLoaded::Other(format!("{error:#}")),
                },
            }
        }
        Err(why)
    }

    pub(super) async fn write_info(&self, kind: &str, info: &Info) -> Result<(), String> {
        for copy in ["", ".copy"] {
            self.put(kind, &format!("{kind}.info{copy}"), info.text())
                .await?;
        }
        Ok(())
    }

    pub(super) async fn has(&self, kind: &str, rest: &str) -> Result<bool, String> {
        let found = self
            .store
            .get(&self.keys, &self.bucket, &self.key(kind, rest))
            .await?;
        Ok(found.is_some())
    }

    pub(super) async fn put(
        &self,
        kind: &str,
        rest: &str,
        body: impl Into<Bytes> + Send,
    ) -> Result<(), String> {
        let key = self.key(kind, rest);
        self.store
            .put(&self.keys, &self.bucket, &key, body.into())
            .await
    }

    pub(super) fn place(&self, system_id: u64) -> Place {
        Place {
            bucket: self.bucket.clone(),
            path: self.path.clone(),
            system_id,
        }
    }
}
