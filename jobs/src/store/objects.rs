//! Objects that are not ours: a repository of backups, for example. They are listed with their sizes
//! and ages, and read up to a bound, since nobody promised us that they are small.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use backon::Retryable;
use bytes::Bytes;
use jiff::Timestamp;

use super::error::{Failed, classify};
use super::{Ask, Store, StoreError, backoff, next_page, paging};

/// One object of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key, without the store's prefix.
    pub key: String,
    /// How many bytes it has.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub modified: Timestamp,
}

/// What came of reading an object up to a bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Small {
    /// The store says that there is none.
    Absent,
    /// All of it.
    Body(Bytes),
    /// It has so many bytes, which are more than the bound.
    TooLarge(u64),
}

impl Store {
    /// Every object whose key begins with `prefix`, in order, through all pages.
    ///
    /// # Errors
    /// When the store refuses or stays unreachable, and when a page does not follow on the last one or
    /// lacks what every store tells: a list is whole, or an error.
    pub async fn objects(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let mut objects: Vec<Object> = Vec::new();
        let mut token = None;
        loop {
            let ask = Ask {
                token: token.as_deref(),
                ..Ask::default()
            };
            let page = self.ask(prefix, &ask).await?;
            let before = objects.len().saturating_sub(1);
            for object in self.objects_in(&page) {
                objects.push(object.ok_or_else(|| paging(prefix))?);
            }
            // What comes twice would be counted twice.
            if !objects[before..].is_sorted_by(|one, next| one.key < next.key) {
                return Err(paging(prefix));
            }
            token = next_page(&page, token, prefix)?;
            if token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Reads an object of at most `most` bytes. [`Small::Absent`] only when the store says that there
    /// is none: a failed read is an error, never "absent".
    ///
    /// # Errors
    /// When the store refuses or stays unreachable.
    pub async fn get_small(&self, key: &str, most: u64) -> Result<Small, StoreError> {
        (|| self.get_small_once(key, most))
            .retry(backoff())
            .when(Failed::is_unclear)
            .await
            .map_err(|failed| failed.during("read", key))
    }

    async fn get_small_once(&self, key: &str, most: u64) -> Result<Small, Failed> {
        let request = self.client.get_object().bucket(&self.bucket);
        match request.key(self.full(key)).send().await.map_err(classify) {
            Ok(object) => self.small(object.body, object.content_length, most).await,
            Err(failed) if failed.is_no_such_key() => Ok(Small::Absent),
            Err(failed) => Err(failed),
        }
    }

    /// A body is collected only when its length is known and within the bound; it cannot grow then.
    async fn small(
        &self,
        body: ByteStream,
        length: Option<i64>,
        most: u64,
    ) -> Result<Small, Failed> {
        match length.and_then(|length| u64::try_from(length).ok()) {
            Some(length) if length > most => Ok(Small::TooLarge(length)),
            Some(_) => self.collect(body, length).await.map(Small::Body),
            None => Err(Failed::cut(&"its length is not told")),
        }
    }

    fn objects_in<'a>(
        &'a self,
        page: &'a ListObjectsV2Output,
    ) -> impl Iterator<Item = Option<Object>> + 'a {
        page.contents().iter().map(|object| {
            let modified = object.last_modified()?;
            let nanos = i32::try_from(modified.subsec_nanos()).ok()?;
            Some(Object {
                key: object.key()?.strip_prefix(&self.prefix)?.to_owned(),
                size: u64::try_from(object.size()?).ok()?,
                modified: Timestamp::new(modified.secs(), nanos).ok()?,
            })
        })
    }
}
