//! Large objects: files go up and come down as streams, over lines that are slow, stall and break.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, StalledStreamProtectionConfig};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::{ByteStream, Length};
use backon::BackoffBuilder;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use super::error::{Failed, classify};
use super::{Ask, Store, StoreError, backoff, next_page};

/// Bytes in a second. A write gets so much more time as this line would need for it.
const SLOWEST_LINE: u64 = 64 * 1024;

/// An upload that has not moved for so many request timeouts is given up.
const STANDSTILL: u32 = 10;

/// A try of a download that brought so many bytes gives it all its tries back.
const WORTH_IT: u64 = 1024 * 1024;

/// What the first answer said about the object; all others must say the same.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    etag: Option<String>,
    size: u64,
}

/// A download on its way.
#[derive(Debug, Default)]
struct Progress {
    said: Option<Said>,
    got: u64,
}

/// Why one try of a download ended.
enum Ended {
    /// There is no such object.
    Absent,
    /// The store's doing; another try goes on where this one ended.
    Failed(Failed),
    /// Trying again does not help.
    Fatal(StoreError),
}

impl Store {
    /// Uploads a file as a stream. A broken upload leaves no object, and is begun again.
    pub async fn put_file(&self, key: &str, file: &Path) -> Result<(), StoreError> {
        let open = || async { File::open(file).await };
        let name = file.display().to_string();
        self.upload(key, &name, false, open).await.map(|_| ())
    }

    /// The same for an object that is named by what it holds, such as a blob, unless there is one already. Gives
    /// whether we made it. An open file will do: what has no name needs no tidying up.
    pub async fn create_from(&self, key: &str, file: &std::fs::File) -> Result<bool, StoreError> {
        let open = || async {
            let mut file = File::from_std(file.try_clone()?);
            file.rewind().await?;
            Ok(file)
        };
        self.upload(key, "a temporary file", true, open).await
    }

    async fn upload<F: Future<Output = std::io::Result<File>>>(
        &self,
        key: &str,
        name: &str,
        if_absent: bool,
        open: impl Fn() -> F,
    ) -> Result<bool, StoreError> {
        let ours = |error: std::io::Error| on_our_side("upload", key, name, &error);
        let mut delays = backoff().build();
        loop {
            let source = open().await.map_err(ours)?;
            let size = source.metadata().await.map_err(ours)?.len();
            let watched = source.try_clone().await.map_err(ours)?;
            let failed = tokio::select! {
                put = self.put_stream(key, source, size, if_absent) => match put {
                    Ok(()) => return Ok(true),
                    Err(failed) => failed,
                },
                stopped = self.standstill(watched) => match stopped {
                    Ok(()) => Failed::cut(&"the upload stands still"),
                    Err(error) => return Err(ours(error)),
                },
            };
            if if_absent && failed.is_conflict() {
                return Ok(false);
            }
            match delays.next() {
                Some(delay) if failed.is_unclear() => tokio::time::sleep(delay).await,
                _ => return Err(failed.during("upload", key)),
            }
        }
    }

    /// The length of an object in bytes; `None` only when the store says that there is none. Asked by a listing: the
    /// answer to a HEAD has no room for why there is nothing.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let ask = Ask {
            most: Some(1),
            ..Ask::default()
        };
        let page = self.ask(key, &ask).await?;
        let found = self.sizes_in(&page).find(|(there, _)| there == key);
        Ok(found.map(|(_, size)| size))
    }

    /// The lengths of all objects whose keys begin with `prefix`.
    pub async fn sizes(&self, prefix: &str) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut sizes = BTreeMap::new();
        let mut token = None;
        loop {
            let ask = Ask {
                token: token.as_deref(),
                ..Ask::default()
            };
            let page = self.ask(prefix, &ask).await?;
            sizes.extend(self.sizes_in(&page));
            token = next_page(&page, token, prefix)?;
            if token.is_none() {
                return Ok(sizes);
            }
        }
    }

    fn sizes_in(&self, page: &ListObjectsV2Output) -> impl Iterator<Item = (String, u64)> {
        page.contents().iter().filter_map(|object| {
            let key = object.key()?.strip_prefix(&self.prefix)?;
            let size = u64::try_from(object.size()?).ok()?;
            Some((key.to_owned(), size))
        })
    }

    /// Streams an object into a writer; gives the number of bytes, or `None` when there is no such
    /// object. A broken download goes on where it broke. After an error the writer has seen the
    /// beginning of the object; [`Store::get_file`] never leaves that behind.
    pub async fn get_into(
        &self,
        key: &str,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Option<u64>, StoreError> {
        let mut progress = Progress::default();
        let mut delays = backoff().build();
        loop {
            let before = progress.got;
            let failed = match self.stream(key, &mut progress, to).await {
                Ok(()) => return Ok(Some(progress.got)),
                Err(Ended::Absent) => return Ok(None),
                Err(Ended::Fatal(error)) => return Err(error),
                Err(Ended::Failed(failed)) => failed,
            };
            if progress.got - before >= WORTH_IT {
                delays = backoff().build();
            }
            match delays.next() {
                Some(delay) if failed.is_unclear() => tokio::time::sleep(delay).await,
                _ => return Err(failed.during("download", key)),
            }
        }
    }

    /// Downloads an object into a file, which appears under its name only when it is whole and on
    /// the disk; gives the number of bytes, or `None` when there is no such object.
    pub async fn get_file(&self, key: &str, file: &Path) -> Result<Option<u64>, StoreError> {
        let name = file.display().to_string();
        let ours = |error: std::io::Error| on_our_side("download", key, &name, &error);
        let part = Part::beside(file);
        let mut to = File::create_new(&part.0).await.map_err(ours)?;
        let Some(size) = self.get_into(key, &mut to).await? else {
            return Ok(None);
        };
        to.sync_all().await.map_err(ours)?;
        tokio::fs::rename(&part.0, file).await.map_err(ours)?;
        Ok(Some(size))
    }

    async fn put_stream(
        &self,
        key: &str,
        source: File,
        size: u64,
        if_absent: bool,
    ) -> Result<(), Failed> {
        let body = ByteStream::read_from()
            .file(source)
            .length(Length::Exact(size))
            .build()
            .await
            .map_err(|e| Failed::local(&e))?;
        // However long it takes: a standstill ends it.
        let timeouts = TimeoutConfig::builder()
            .disable_operation_attempt_timeout()
            .build();
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_if_none_match(if_absent.then(|| "*".to_owned()))
            .body(body);
        let request = request.customize().config_override(
            Builder::new()
                .timeout_config(timeouts)
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled()),
        );
        request.send().await.map(|_| ()).map_err(classify)
    }

    /// Ends when nothing was read from a file for a while. Clones of a file share its position, so
    /// that it tells how far the reader of another clone has come.
    async fn standstill(&self, mut clone: File) -> std::io::Result<()> {
        let mut last = 0;
        let mut still = 0;
        while still < STANDSTILL {
            tokio::time::sleep(self.timeout()).await;
            let position = clone.stream_position().await?;
            still = if position == last { still + 1 } else { 0 };
            last = position;
        }
        Ok(())
    }

    /// The settings of a request that carries so many bytes.
    pub(super) fn patience(&self, bytes: u64) -> Builder {
        let transfer = Duration::from_secs(bytes / SLOWEST_LINE);
        let timeouts = self
            .client
            .config()
            .timeout_config()
            .map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
        let timeouts = timeouts.operation_attempt_timeout(self.timeout() + transfer);
        Builder::new().timeout_config(timeouts.build())
    }

    /// One try: from where the last one ended.
    async fn stream(
        &self,
        key: &str,
        progress: &mut Progress,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Ended> {
        let from = progress.got;
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_range((from > 0).then(|| format!("bytes={from}-")));
        let mut object = match request.send().await.map_err(classify) {
            Ok(object) => object,
            Err(failed) if failed.is_no_such_key() && progress.said.is_none() => {
                return Err(Ended::Absent);
            }
            Err(failed) => return Err(Ended::Failed(failed)),
        };
        let length = object.content_length.and_then(|n| u64::try_from(n).ok());
        let Some(length) = length else {
            return Err(Ended::Failed(Failed::cut(&"it has no length")));
        };
        // A store that does not know ranges sends the whole object again.
        let mut skip = if object.content_range.is_some() {
            0
        } else {
            from
        };
        let said = Said {
            etag: object.e_tag.take(),
            size: from - skip + length,
        };
        if *progress.said.get_or_insert(Said {
            etag: said.etag.clone(),
            ..said
        }) != said
        {
            let key = key.to_owned();
            return Err(Ended::Fatal(StoreError::Changed { key }));
        }
        loop {
            let chunk = tokio::time::timeout(self.timeout(), object.body.next()).await;
            let chunk = match chunk {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Err(Ended::Failed(Failed::cut(&error))),
                Ok(None) => break,
                Err(late) => return Err(Ended::Failed(Failed::cut(&late))),
            };
            let old = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= old as u64;
            let written = to.write_all(&chunk[old..]).await;
            written.map_err(|error| {
                Ended::Fatal(StoreError::Local {
                    doing: "download",
                    key: key.to_owned(),
                    reason: error.to_string(),
                })
            })?;
            progress.got += (chunk.len() - old) as u64;
        }
        if progress.got < said.size {
            return Err(Ended::Failed(Failed::cut(&format!(
                "{} of {} bytes came",
                progress.got, said.size
            ))));
        }
        to.flush().await.map_err(|error| {
            Ended::Fatal(StoreError::Local {
                doing: "download",
                key: key.to_owned(),
                reason: error.to_string(),
            })
        })
    }
}

/// A file that is being written; what is left of it goes with this.
struct Part(PathBuf);

impl Part {
    fn beside(file: &Path) -> Part {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", Uuid::new_v4().simple()));
        Part(file.with_file_name(name))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is absent when it was renamed.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn on_our_side(doing: &'static str, key: &str, file: &str, error: &std::io::Error) -> StoreError {
    StoreError::Local {
        doing,
        key: key.to_owned(),
        reason: format!("{file}: {error}"),
    }
}
