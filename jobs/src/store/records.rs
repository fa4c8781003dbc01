//! Records on top of [`Store::create`]: the next version is a new object, and exactly one writer
//! can create it. That is compare-and-swap, lease, fence and history at once.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Created, Store, StoreError};
use crate::keys::Series;
use crate::record::{JobRecord, JobVersion, SCHEMA, Versioned};

/// Reads at most this many objects at a time.
const PARALLEL: usize = 16;

/// The last version of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    /// Its number.
    pub version: u64,
    /// Who wrote it.
    pub writer: Uuid,
    /// What it says.
    pub body: T,
}

/// The last state of a job, put together from its last full version and the deltas since.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    /// Number of the last version.
    pub version: u64,
    /// Number of the last full version.
    pub base: u64,
    /// The state.
    pub record: JobRecord,
}

/// What came of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Our version is the next one.
    Won,
    /// Somebody else's is.
    Lost,
}

impl Store {
    /// The last version of a record; `None` when there is none at all.
    pub async fn read<T: DeserializeOwned>(
        &self,
        series: &Series,
    ) -> Result<Option<Stored<T>>, StoreError> {
        match self.last_version(series).await? {
            Some(version) => self.read_version(series, version).await.map(Some),
            None => Ok(None),
        }
    }

    /// Writes version `n` of a record; the caller has seen version `n - 1` (or none, for 1).
    pub async fn append<T: Serialize>(
        &self,
        series: &Series,
        n: u64,
        body: &T,
    ) -> Result<Appended, StoreError> {
        let versioned = Versioned {
            schema: SCHEMA,
            writer: self.writer,
            nonce: Uuid::new_v4(),
            body,
        };
        let bytes = serde_json::to_vec(&versioned).expect("records are plain data with text keys");
        Ok(match self.create(&series.version(n), bytes.into()).await? {
            Created::New => Appended::Won,
            Created::Exists(_) => Appended::Lost,
        })
    }

    /// Changes a record until the change wins: reads, asks `change` for the next state, appends,
    /// and begins again when somebody else was faster. `change` gives `None` to leave it as it is.
    pub async fn update<T, E>(
        &self,
        series: &Series,
        mut change: impl FnMut(Option<T>) -> Result<Option<T>, E>,
    ) -> Result<Option<u64>, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<StoreError>,
    {
        loop {
            let stored: Option<Stored<T>> = self.read(series).await?;
            let next = stored.as_ref().map_or(1, |s| s.version + 1);
            let Some(body) = change(stored.map(|s| s.body))? else {
                return Ok(None);
            };
            if self.append(series, next, &body).await? == Appended::Won {
                return Ok(Some(next));
            }
        }
    }

    /// The last version of every record below a prefix, by series.
    pub async fn read_all<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<Stored<T>>, StoreError> {
        let keys = self.list(prefix, None).await?;
        let mut last: Vec<(Series, u64)> = Vec::new();
        for (series, n) in keys.iter().filter_map(|key| Series::split(key)) {
            // A series' keys stand together, the newest first.
            if last.last().is_none_or(|(known, _)| *known != series) {
                last.push((series, n));
            }
        }
        let reads = last
            .into_iter()
            .map(|(series, n)| async move { self.read_version(&series, n).await });
        stream::iter(reads).buffered(PARALLEL).try_collect().await
    }

    /// The state of a job; `None` when nobody has touched it yet.
    pub async fn read_job(&self, series: &Series) -> Result<Option<StoredJob>, StoreError> {
        let Some(version) = self.last_version(series).await? else {
            return Ok(None);
        };
        let last: Stored<JobVersion> = self.read_version(series, version).await?;
        let base = match last.body {
            JobVersion::Full(record) => {
                return Ok(Some(StoredJob {
                    version,
                    base: version,
                    record: *record,
                }));
            }
            JobVersion::Delta { base, .. } if base < version => base,
            JobVersion::Delta { base, .. } => {
                return Err(damaged(
                    &series.version(version),
                    &format!("its base {base} is not older"),
                ));
            }
        };
        let reads = (base..=version).map(|n| self.read_version::<JobVersion>(series, n));
        let versions: Vec<Stored<JobVersion>> =
            stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        let mut record: Option<JobRecord> = None;
        for stored in versions {
            match (stored.body, &mut record) {
                (JobVersion::Full(full), _) => record = Some(*full),
                (JobVersion::Delta { changes, .. }, Some(record)) => {
                    changes.into_iter().for_each(|c| record.apply(c))
                }
                (JobVersion::Delta { .. }, None) => {
                    return Err(damaged(
                        &series.version(base),
                        "it should be a full version",
                    ));
                }
            }
        }
        let record =
            record.ok_or_else(|| damaged(&series.version(base), "it should be a full version"))?;
        Ok(Some(StoredJob {
            version,
            base,
            record,
        }))
    }

    /// The number of a record's last version: one request for one key.
    pub async fn last_version(&self, series: &Series) -> Result<Option<u64>, StoreError> {
        let mut most = 1;
        let mut after: Option<String> = None;
        loop {
            let keys = self.page(series.prefix(), after.as_deref(), most).await?;
            for key in &keys {
                if let Some(n) = series.number(key) {
                    return Ok(Some(n));
                }
                // Another series may lie below this one (`demo/1` below `demo`). Anything else is
                // not ours, and what it hides must not read as "there is none".
                if Series::split(key).is_none() {
                    return Err(damaged(key, "its name is not that of a version"));
                }
            }
            match keys.last() {
                Some(last) => after = Some(last.clone()),
                None => return Ok(None),
            }
            most = 1000;
        }
    }

    /// Stores an input under its digest and gives the digest.
    pub async fn put_input(&self, bytes: Bytes) -> Result<String, StoreError> {
        let digest = crate::digest(&bytes);
        self.put(&crate::keys::input(&digest), bytes).await?;
        Ok(digest)
    }

    /// Reads an input and checks its digest.
    pub async fn get_input(&self, digest: &str) -> Result<Bytes, StoreError> {
        let key = crate::keys::input(digest);
        let bytes = self.must_get(&key).await?;
        if crate::digest(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(damaged(&key, "its content has another digest"))
        }
    }

    async fn read_version<T: DeserializeOwned>(
        &self,
        series: &Series,
        version: u64,
    ) -> Result<Stored<T>, StoreError> {
        let key = series.version(version);
        let bytes = self.must_get(&key).await?;
        let versioned: Versioned<T> = decode(&key, &bytes)?;
        Ok(Stored {
            version,
            writer: versioned.writer,
            body: versioned.body,
        })
    }

    async fn must_get(&self, key: &str) -> Result<Bytes, StoreError> {
        match self.get(key).await? {
            Some(bytes) => Ok(bytes),
            None => Err(damaged(key, "it is missing although it must be there")),
        }
    }
}

fn damaged(key: &str, reason: &str) -> StoreError {
    StoreError::Damaged {
        key: key.to_owned(),
        reason: reason.to_owned(),
    }
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<Versioned<T>, StoreError> {
    #[derive(Deserialize)]
    struct Schema {
        schema: u32,
    }
    let Schema { schema } =
        serde_json::from_slice(bytes).map_err(|e| damaged(key, &e.to_string()))?;
    if schema > SCHEMA {
        return Err(StoreError::NewerSchema {
            key: key.to_owned(),
            found: schema,
            known: SCHEMA,
        });
    }
    serde_json::from_slice(bytes).map_err(|e| damaged(key, &e.to_string()))
}
