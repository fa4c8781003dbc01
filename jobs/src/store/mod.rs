//! The store: S3, the only truth, behind one concrete type. There is no storage trait; the S3
//! protocol is the seam, and tests put another server (or a faulty one) behind it.
//!
//! One primitive carries everything: [`Store::create`], which succeeds for exactly one writer of a
//! key. Records ([`Store::read`], [`Store::append`]) are series of such keys. [`Store::probe`]
//! finds out at start whether the bucket keeps that promise under a race.

mod config;
mod error;
mod markers;
mod objects;
mod presign;
mod probe;
mod records;
mod recovery;
mod transfer;

pub use config::{Credentials, Secret, StoreConfig};
pub use error::StoreError;
pub use objects::{Object, Small};
pub use records::{Appended, Stored, StoredJob};
pub use recovery::{CleanUp, Recovery};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::ByteStream;
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use error::{Failed, classify};
use markers::SeenDone;

/// A bucket and a prefix in it.
#[derive(Clone)]
pub struct Store {
    client: Client,
    bucket: String,
    prefix: String,
    writer: Uuid,
    seen_done: Arc<SeenDone>,
}

/// What came of a [`Store::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// We made the object.
    New,
    /// Somebody else's object is there; this is what it says.
    Exists(Bytes),
}

/// What one page of a list is to hold.
#[derive(Default)]
struct Ask<'a> {
    start_after: Option<&'a str>,
    delimiter: Option<&'a str>,
    token: Option<&'a str>,
    most: Option<i32>,
}

/// Where the next page begins, if there is one.
fn next_page(
    page: &ListObjectsV2Output,
    this: Option<String>,
    prefix: &str,
) -> Result<Option<String>, StoreError> {
    match (page.is_truncated(), page.next_continuation_token()) {
        (Some(true), Some(next)) if this.as_deref() != Some(next) => Ok(Some(next.to_owned())),
        // More, but not where; or the same page again.
        (Some(true), _) => Err(paging(prefix)),
        _ => Ok(None),
    }
}

fn paging(prefix: &str) -> StoreError {
    StoreError::Paging {
        prefix: prefix.to_owned(),
    }
}

/// How often a call is repeated before it is an error. Waits 50 ms to 5 s between tries, with jitter:
/// together under a minute, about as long as a store's hiccup lasts.
const TRIES: usize = 9;

impl Store {
    /// Makes the client; does not talk to the store yet.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        Ok(Self::of(config.client().await?, config))
    }

    /// The same over another HTTP client than the one that speaks TCP: a simulation's, for example.
    pub fn connect_over(config: &StoreConfig, http: SharedHttpClient) -> Result<Self, StoreError> {
        Ok(Self::of(config.client_over(http)?, config))
    }

    fn of(client: Client, config: &StoreConfig) -> Self {
        Self {
            client,
            bucket: config.bucket.clone(),
            prefix: config.normal_prefix(),
            writer: Uuid::new_v4(),
            seen_done: Arc::default(),
        }
    }

    /// The random id of this process as a writer; it stands in every version we write.
    pub fn writer(&self) -> Uuid {
        self.writer
    }

    /// The same bucket for another writer, as another process would have it.
    #[must_use]
    pub fn as_another_writer(&self) -> Self {
        Self {
            writer: Uuid::new_v4(),
            seen_done: Arc::default(),
            ..self.clone()
        }
    }

    /// Creates an object if there is none under `key` (`If-None-Match: *`).
    ///
    /// An answer that leaves the effect open (timeout, 5xx, 409, a cut connection) is resolved by
    /// reading back: bodies are unique, so the same bytes mean that our own try took effect.
    ///
    /// # Errors
    /// When the store refuses us, or when it stays unreachable: then the object may or may not be there.
    pub async fn create(&self, key: &str, body: Bytes) -> Result<Created, StoreError> {
        let mut delays = backoff().build();
        loop {
            let failed = match self.put_if_absent(key, body.clone()).await {
                Ok(()) => return Ok(Created::New),
                Err(failed) => failed,
            };
            // Also a plain 412 is compared: it may be the answer to an earlier try of ours that
            // was lost on the way.
            if !failed.is_conflict() && !failed.is_unclear() {
                return Err(failed.during("create", key));
            }
            match self.get_once(key).await {
                Ok(Some(there)) if there == body => return Ok(Created::New),
                Ok(Some(there)) => return Ok(Created::Exists(there)),
                Ok(None) => {}
                Err(read) if read.is_unclear() => {}
                Err(read) => return Err(read.during("read back", key)),
            }
            match delays.next() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(failed.during("create", key)),
            }
        }
    }

    /// Reads an object. `None` only when the store says that there is none: a failed read is an
    /// error, never "absent".
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        (|| self.get_once(key))
            .retry(backoff())
            .when(Failed::is_unclear)
            .await
            .map_err(|f| f.during("read", key))
    }

    /// Writes an object whose content is decided by its key (inputs by digest) or that only one
    /// writer has (logs, reports). Records go through [`Store::append`].
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let put = || async {
            let request = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(self.full(key));
            request
                .body(body.clone().into())
                .customize()
                .config_override(self.patience(body.len() as u64))
                .send()
                .await
                .map(|_| ())
                .map_err(classify)
        };
        put.retry(backoff())
            .when(Failed::is_unclear)
            .await
            .map_err(|f| f.during("write", key))
    }

    /// Deletes an object; that there is none is fine. Records are never deleted.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let delete = || async {
            let request = self.client.delete_object().bucket(&self.bucket);
            let sent = request.key(self.full(key)).send().await;
            sent.map(|_| ()).map_err(classify)
        };
        delete
            .retry(backoff())
            .when(Failed::is_unclear)
            .await
            .map_err(|f| f.during("delete", key))
    }

    /// Every key that begins with `prefix` and comes after `start_after`, in order, through all pages.
    pub async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let mut token = None;
        loop {
            let ask = Ask {
                start_after,
                token: token.as_deref(),
                ..Ask::default()
            };
            let page = self.ask(prefix, &ask).await?;
            keys.extend(self.keys_in(&page));
            // The last version of a record is the last key, and a page that comes twice would go on
            // for ever.
            if !keys.is_sorted_by(|one, next| one < next) {
                return Err(paging(prefix));
            }
            token = next_page(&page, token, prefix)?;
            if token.is_none() {
                return Ok(keys);
            }
        }
    }

    /// The first `most` keys that begin with `prefix` and come after `start_after`, in order. Fewer
    /// only when there are no more; none at all only when there is none.
    async fn page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        most: i32,
    ) -> Result<Vec<String>, StoreError> {
        let ask = Ask {
            start_after,
            most: Some(most),
            ..Ask::default()
        };
        let page = self.ask(prefix, &ask).await?;
        let keys: Vec<String> = self.keys_in(&page).collect();
        match keys.is_empty() && page.is_truncated() == Some(true) {
            true => Err(paging(prefix)),
            false => Ok(keys),
        }
    }

    /// The names directly below `prefix` that have something below them, without the closing `/`.
    pub async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let full = self.full(prefix);
        let mut names = Vec::new();
        let mut token = None;
        loop {
            let ask = Ask {
                delimiter: Some("/"),
                token: token.as_deref(),
                ..Ask::default()
            };
            let page = self.ask(prefix, &ask).await?;
            let folders = page.common_prefixes().iter().filter_map(|p| p.prefix());
            names.extend(
                folders
                    .filter_map(|p| p.strip_prefix(&full))
                    .map(|p| p.trim_end_matches('/').to_owned()),
            );
            token = next_page(&page, token, prefix)?;
            if token.is_none() {
                return Ok(names);
            }
        }
    }

    /// One page of a list.
    async fn ask(&self, prefix: &str, ask: &Ask<'_>) -> Result<ListObjectsV2Output, StoreError> {
        let page = || async {
            self.client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(self.full(prefix))
                .set_start_after(ask.start_after.map(|key| self.full(key)))
                .set_delimiter(ask.delimiter.map(str::to_owned))
                .set_continuation_token(ask.token.map(str::to_owned))
                .set_max_keys(ask.most)
                .send()
                .await
                .map_err(classify)
        };
        page.retry(backoff())
            .when(Failed::is_unclear)
            .await
            .map_err(|f| f.during("list", prefix))
    }

    fn keys_in(&self, page: &ListObjectsV2Output) -> impl Iterator<Item = String> {
        let names = page.contents().iter().filter_map(|object| object.key());
        names
            .filter_map(|key| key.strip_prefix(&self.prefix))
            .map(str::to_owned)
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<(), Failed> {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(key));
        let sent = request
            .if_none_match("*")
            .content_type("application/json")
            .body(body.into())
            .send()
            .await;
        sent.map(|_| ()).map_err(classify::<PutObjectError>)
    }

    async fn get_once(&self, key: &str) -> Result<Option<Bytes>, Failed> {
        let got = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .send()
            .await;
        match got.map_err(classify) {
            Ok(object) => self
                .collect(object.body, object.content_length)
                .await
                .map(Some),
            Err(failed) if failed.is_no_such_key() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Reads a body that may stop in the middle, without a word or for ever.
    async fn collect(&self, mut body: ByteStream, length: Option<i64>) -> Result<Bytes, Failed> {
        let mut whole = BytesMut::new();
        loop {
            match tokio::time::timeout(self.timeout(), body.next()).await {
                Ok(Some(Ok(chunk))) => whole.extend_from_slice(&chunk),
                Ok(Some(Err(error))) => return Err(Failed::cut(&error)),
                Ok(None) => break,
                Err(late) => return Err(Failed::cut(&late)),
            }
        }
        match length.and_then(|n| usize::try_from(n).ok()) {
            Some(want) if want != whole.len() => Err(Failed::cut(&format!(
                "{} of {want} bytes came",
                whole.len()
            ))),
            _ => Ok(whole.freeze()),
        }
    }

    /// How long one request may take, and how long a body may stand still.
    fn timeout(&self) -> Duration {
        let timeouts = self.client.config().timeout_config();
        timeouts
            .and_then(|timeouts| timeouts.operation_attempt_timeout())
            .unwrap_or(Duration::from_secs(30))
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .with_max_times(TRIES - 1)
}
