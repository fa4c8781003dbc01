//! Reading a pgBackRest repository in a bucket. Nothing here writes: the repository that a database is
//! restored from is never changed.

use std::fmt;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jobs::store::{Small, Store, StoreConfig, StoreError};

use super::archive::{Archive, Name};
use super::info::{ArchiveInfo, BackupInfo, Database, Label, MOST_BYTES};
use super::ini::InfoError;
use super::wal::parse_history;

/// Most bytes of a history file that are read; a fork takes a line.
const MOST_HISTORY: u64 = 1 << 20;

/// Requests at a time where many small ones are needed.
const AT_ONCE: usize = 8;

/// A stanza in a repository: one database's backups and archived WAL.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Store,
    stanza: String,
}

/// Why a repository could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The bucket did not answer, or refused us. This says nothing about what lies in it.
    #[error("read the backup repository")]
    Store(#[from] StoreError),
    /// There is no such file, and no copy of it.
    #[error(
        "the repository has no `{key}`: check the bucket, the repository's path and the stanza"
    )]
    NoStanza {
        /// What was looked for.
        key: String,
    },
    /// The file and its copy are both of no use.
    #[error("`{key}`: {main}; its copy: {copy}")]
    Broken {
        /// The file.
        key: String,
        /// What is wrong with it.
        main: Unusable,
        /// What is wrong with its copy.
        copy: Unusable,
    },
    /// A timeline's history file is of no use, and without it nobody knows which WAL follows which.
    #[error("`{key}`: {reason}")]
    History {
        /// The file.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The stanza is not a name that pgBackRest takes.
    #[error("`{0}` is not the name of a stanza")]
    StanzaName(String),
}

/// Why a file that could be looked for is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The bucket says that there is none.
    #[error("it is missing")]
    Missing,
    /// It is there, and bad.
    #[error("{0}")]
    Bad(#[from] InfoError),
}

/// An info file, and whether it was the copy that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<T> {
    /// What it says.
    pub info: T,
    /// What was wrong with the file itself, if its copy had to stand in.
    pub from_copy: Option<Unusable>,
}

impl Repository {
    /// A stanza of the repository at a place in a bucket. `place.prefix` is pgBackRest's `repo-path`; the
    /// bucket may be another one than Rekindle's own, with other keys.
    ///
    /// # Errors
    /// When a setting makes no sense. The bucket is not asked yet.
    pub async fn connect(place: &StoreConfig, stanza: &str) -> Result<Self, RepositoryError> {
        Self::over(Store::connect(place).await?, stanza)
    }

    /// The same over a store whose prefix is the repository's path.
    pub fn over(store: Store, stanza: &str) -> Result<Self, RepositoryError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let dots = stanza.bytes().all(|b| b == b'.');
        if dots || stanza.len() > 127 || !stanza.bytes().all(fits) {
            return Err(RepositoryError::StanzaName(stanza.to_owned()));
        }
        let stanza = stanza.to_owned();
        Ok(Self { store, stanza })
    }

    /// Reads `backup.info`.
    ///
    /// # Errors
    /// When the bucket fails, or neither the file nor its copy is of use.
    pub async fn backups(&self) -> Result<Loaded<BackupInfo>, RepositoryError> {
        let key = format!("backup/{}/backup.info", self.stanza);
        self.info(key, BackupInfo::parse).await
    }

    /// Reads `archive.info`.
    ///
    /// # Errors
    /// As [`Repository::backups`].
    pub async fn archives(&self) -> Result<Loaded<ArchiveInfo>, RepositoryError> {
        let key = format!("archive/{}/archive.info", self.stanza);
        self.info(key, ArchiveInfo::parse).await
    }

    /// Those of some sets that have a manifest, without which pgBackRest restores nothing. It is written
    /// last; one that was begun only has a `backup.manifest.copy`.
    ///
    /// # Errors
    /// When the bucket fails: then nobody knows which are missing.
    pub async fn manifests(&self, of: &[Label]) -> Result<Vec<Label>, RepositoryError> {
        let looks: Vec<_> = of
            .iter()
            .map(|label| self.manifest(label).boxed())
            .collect();
        let found: Vec<Option<Label>> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// A set's label, if it has a manifest.
    async fn manifest(&self, label: &Label) -> Result<Option<Label>, RepositoryError> {
        let key = format!("backup/{}/{label}/backup.manifest", self.stanza);
        let found = self.store.objects(&key).await?;
        let there = found
            .iter()
            .any(|object| object.key == key && object.size > 0);
        Ok(there.then(|| label.clone()))
    }

    /// Lists the archived WAL of a database.
    ///
    /// # Errors
    /// When the bucket fails, or a timeline's history cannot be understood.
    pub async fn archive(
        &self,
        info: &ArchiveInfo,
        database: &Database,
    ) -> Result<Archive, RepositoryError> {
        let mut archive = Archive::default();
        let mut histories = Vec::new();
        for folder in info.folders(database) {
            let folder = format!("archive/{}/{folder}/", self.stanza);
            for object in self.store.objects(&folder).await? {
                let name = object.key.rsplit('/').next().unwrap_or_default();
                match Name::of(name) {
                    Name::Segment(segment) => archive.add_segment(segment, object.modified),
                    Name::Partial(segment) => archive.add_partial(segment),
                    Name::History(timeline) => histories.push((timeline, object.key)),
                    Name::Other => {}
                }
            }
        }
        for (timeline, key) in histories {
            archive.add_history(timeline, self.history(&key).await?);
        }
        Ok(archive)
    }

    /// Whether anybody has used this stanza: a repository for new backups has to be empty.
    ///
    /// # Errors
    /// When the bucket fails: then nobody knows.
    pub async fn is_used(&self) -> Result<bool, RepositoryError> {
        for folder in ["archive", "backup"] {
            let found = self
                .store
                .objects(&format!("{folder}/{}/", self.stanza))
                .await?;
            if !found.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn history(&self, key: &str) -> Result<Vec<super::wal::Fork>, RepositoryError> {
        let bad = |reason: &dyn fmt::Display| RepositoryError::History {
            key: key.to_owned(),
            reason: reason.to_string(),
        };
        let body = match self.store.get_small(key, MOST_HISTORY).await? {
            Small::Body(body) => body,
            Small::Absent => return Err(bad(&"it went away while the archive was read")),
            Small::TooLarge(bytes) => return Err(bad(&format!("it has {bytes} bytes"))),
        };
        let text = std::str::from_utf8(&body).map_err(|error| bad(&error))?;
        parse_history(text).map_err(|error| bad(&error))
    }

    /// Reads an info file, or its copy when the file itself is missing or bad. pgBackRest writes the copy
    /// right after the file and does the same when it reads. A read that failed is neither.
    async fn info<T>(
        &self,
        key: String,
        parse: impl Fn(&[u8]) -> Result<T, InfoError>,
    ) -> Result<Loaded<T>, RepositoryError> {
        let main = match self.usable(&key, &parse).await? {
            Ok(info) => {
                return Ok(Loaded {
                    info,
                    from_copy: None,
                });
            }
            Err(main) => main,
        };
        match (self.usable(&format!("{key}.copy"), &parse).await?, main) {
            (Ok(info), main) => Ok(Loaded {
                info,
                from_copy: Some(main),
            }),
            (Err(Unusable::Missing), Unusable::Missing) => Err(RepositoryError::NoStanza { key }),
            (Err(copy), main) => Err(RepositoryError::Broken { key, main, copy }),
        }
    }

    async fn usable<T>(
        &self,
        key: &str,
        parse: impl Fn(&[u8]) -> Result<T, InfoError>,
    ) -> Result<Result<T, Unusable>, StoreError> {
        let most = MOST_BYTES;
        Ok(match self.store.get_small(key, most).await? {
            Small::Absent => Err(Unusable::Missing),
            Small::TooLarge(bytes) => Err(InfoError::TooLarge { bytes, most }.into()),
            Small::Body(body) => parse(&body).map_err(Unusable::Bad),
        })
    }
}

impl RepositoryError {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}
