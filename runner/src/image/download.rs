//! A download as a reader: what was saved earlier first, then the rest from the server, however often
//! the connection breaks. Each byte is delivered once, in order, and saved in the part file.

mod agent;
mod error;

pub use agent::Network;
pub(crate) use agent::agent;
pub use error::DownloadError;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, Uri, header};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, BodyReader, RequestBuilder};

use super::source::Source;

/// The first pause before another try; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Who brings the bytes of one object.
pub(crate) trait Origin: Send {
    /// Asks for the object, from a byte on. An error that is a [`DownloadError`] inside is final.
    fn get(&mut self, from: u64) -> io::Result<Response<Body>>;
    /// What may be printed.
    fn url(&self) -> String;
}

/// An object with a URL of its own. A redirect is not followed.
pub(crate) struct Object {
    pub(crate) agent: Agent,
    pub(crate) uri: Uri,
}

impl Origin for Object {
    fn get(&mut self, from: u64) -> io::Result<Response<Body>> {
        call(ranged(self.agent.get(self.uri.clone()), from))
    }

    fn url(&self) -> String {
        Source::Http(self.uri.clone()).to_string()
    }
}

/// Asks for what comes from a byte on.
pub(crate) fn ranged(
    request: RequestBuilder<WithoutBody>,
    from: u64,
) -> RequestBuilder<WithoutBody> {
    match from {
        0 => request,
        from => request.header(header::RANGE, format!("bytes={from}-")),
    }
}

pub(crate) fn call(request: RequestBuilder<WithoutBody>) -> io::Result<Response<Body>> {
    request.call().map_err(|error| match error {
        ureq::Error::Io(error) => error,
        error => io::Error::other(error),
    })
}

/// How long to wait after so many failures in a row.
pub(crate) fn pause(failures: u32) -> Duration {
    PAUSE_MAX.min(PAUSE * 2_u32.pow(failures.clamp(1, 8) - 1))
}

/// A download in progress.
pub(crate) struct Download<O> {
    origin: O,
    part: File,
    part_path: PathBuf,
    /// Where the object begins in the part file.
    start: u64,
    /// Bytes that were saved by an earlier run.
    saved: u64,
    /// Bytes that were delivered.
    at: u64,
    body: Option<BodyReader<'static>>,
    /// Bytes of the body that we have already: the server did not heed our range.
    skip: u64,
    total: Option<u64>,
    etag: Option<String>,
    /// How long it must be; then it has a digest of its own, and its tag means nothing.
    exact: Option<u64>,
    longest: u64,
    tries: u32,
    failures: u32,
    finished: bool,
}

impl<O: Origin> Download<O> {
    /// Continues the download that `part` holds the beginning of.
    pub(crate) fn new(
        origin: O,
        part: (File, PathBuf),
        longest: u64,
        tries: u32,
    ) -> io::Result<Self> {
        let (part, part_path) = part;
        let saved = part.metadata()?.len();
        Ok(Self {
            origin,
            part,
            part_path,
            start: 0,
            saved,
            at: 0,
            body: None,
            skip: 0,
            total: None,
            etag: None,
            exact: None,
            longest,
            tries: tries.max(1),
            failures: 0,
            finished: false,
        })
    }

    /// One of several objects that are saved in one file, one after another; its length is known.
    pub(crate) fn piece(self, start: u64, bytes: u64) -> Self {
        Self {
            start,
            saved: self.saved.saturating_sub(start).min(bytes),
            total: Some(bytes),
            exact: Some(bytes),
            ..self
        }
    }

    fn url(&self) -> String {
        self.origin.url()
    }

    /// One piece from the server, empty at the end. An error means that another try is due.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => match self.connect()? {
                Some(body) => body,
                None => return Ok(0),
            },
        };
        while self.skip > 0 {
            let most = usize::try_from(self.skip).map_or(buffer.len(), |n| n.min(buffer.len()));
            match body.read(&mut buffer[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.skip -= length as u64,
            }
        }
        let length = body.read(buffer)?;
        if length == 0 {
            return match self.total {
                Some(total) if self.at < total => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(0),
            };
        }
        self.body = Some(body);
        Ok(length)
    }

    /// Asks for the rest. `None`: there is no rest.
    fn connect(&mut self) -> io::Result<Option<BodyReader<'static>>> {
        if self.total == Some(self.at) && self.at > 0 {
            return Ok(None);
        }
        let response = self.origin.get(self.at)?;
        match self.judge(&response) {
            Ok(true) => Ok(Some(response.into_body().into_reader())),
            Ok(false) => Ok(None),
            Err(Answer::Fatal(error)) => Err(io::Error::other(error)),
            Err(Answer::Again(message)) => Err(io::Error::other(message)),
        }
    }

    /// Whether the answer brings more bytes, and from where.
    fn judge(&mut self, response: &Response<Body>) -> Result<bool, Answer> {
        let status = response.status().as_u16();
        let headers = response.headers();
        // What an answer that broke off left to skip is none of this one's.
        self.skip = 0;
        let total = match status {
            200 => {
                self.skip = self.at;
                response.body().content_length()
            }
            206 => {
                let (from, total) = content_range(headers)
                    .ok_or_else(|| Answer::Again("its Content-Range cannot be read".into()))?;
                if from != Some(self.at) {
                    return Err(Answer::Again("it sent another range than asked for".into()));
                }
                Some(total)
            }
            416 => match content_range(headers) {
                Some((None, total)) if total == self.at => return Ok(false),
                // All of it may have been saved by an earlier run; the digest decides.
                None if self.at > 0 && self.at == self.saved => return Ok(false),
                _ => return Err(self.changed()),
            },
            300..=399 => return Err(Answer::Fatal(DownloadError::Redirect { url: self.url() })),
            408 | 429 | 500..=599 => {
                return Err(Answer::Again(format!("the server says {status}")));
            }
            _ => {
                let url = self.url();
                return Err(Answer::Fatal(DownloadError::Status { url, status }));
            }
        };
        if let Some(bytes) = self.exact {
            return match total.is_none_or(|total| total == bytes) {
                true => Ok(true),
                false => Err(Answer::Fatal(self.wrong_size(bytes))),
            };
        }
        let etag = headers
            .get(header::ETAG)
            .and_then(|etag| etag.to_str().ok())
            .map(str::to_owned);
        let other_tag = self.etag.is_some() && etag.is_some() && self.etag != etag;
        let other_size = self.total.is_some() && total.is_some() && self.total != total;
        if other_tag || other_size || total.is_some_and(|total| total < self.at) {
            return Err(self.changed());
        }
        self.etag = etag.or(self.etag.take());
        self.total = total.or(self.total);
        match self.total {
            Some(bytes) if bytes > self.longest => Err(Answer::Fatal(DownloadError::TooLarge {
                url: self.url(),
                bytes,
            })),
            _ => Ok(true),
        }
    }

    fn wrong_size(&self, bytes: u64) -> DownloadError {
        let url = self.url();
        DownloadError::Size { url, bytes }
    }

    fn changed(&self) -> Answer {
        Answer::Fatal(DownloadError::Changed { url: self.url() })
    }

    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        self.part
            .write_all_at(bytes, self.start + self.at)
            .map_err(|source| {
                io::Error::other(DownloadError::Save {
                    path: self.part_path.clone(),
                    source,
                })
            })
    }
}

/// What an answer that brings nothing means.
enum Answer {
    Again(String),
    Fatal(DownloadError),
}

impl<O: Origin> Read for Download<O> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.saved {
            let left = usize::try_from(self.saved - self.at).unwrap_or(usize::MAX);
            let most = left.min(buffer.len());
            let length = self
                .part
                .read_at(&mut buffer[..most], self.start + self.at)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += length as u64;
            return Ok(length);
        }
        while !self.finished {
            match self.receive(buffer) {
                Ok(0) => self.finished = true,
                Ok(length) => {
                    if let Some(bytes) = self.exact
                        && self.at + length as u64 > bytes
                    {
                        return Err(io::Error::other(self.wrong_size(bytes)));
                    }
                    self.save(&buffer[..length])?;
                    self.at += length as u64;
                    self.failures = 0;
                    if self.at > self.longest {
                        return Err(io::Error::other(DownloadError::TooLarge {
                            url: self.url(),
                            bytes: self.at,
                        }));
                    }
                    return Ok(length);
                }
                Err(error) if is_fatal(&error) => return Err(error),
                Err(source) => {
                    self.failures += 1;
                    if self.failures >= self.tries {
                        return Err(io::Error::other(DownloadError::GaveUp {
                            url: self.url(),
                            tries: self.failures,
                            source,
                        }));
                    }
                    thread::sleep(pause(self.failures));
                }
            }
        }
        Ok(0)
    }
}

fn is_fatal(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<DownloadError>())
}

/// `bytes FROM-TO/TOTAL`, or `bytes */TOTAL` where no range was sent.
fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, u64)> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let total = total.parse().ok()?;
    if range == "*" {
        return Some((None, total));
    }
    let (from, _) = range.split_once('-')?;
    Some((Some(from.parse().ok()?), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<(Option<u64>, u64)>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_RANGE, value.parse().expect("a header"));
        assert_eq!(content_range(&headers), expected);
    }

    #[test]
    fn content_ranges() {
        check("bytes 5-9/10", Some((Some(5), 10)));
        check("bytes */10", Some((None, 10)));
        check("bytes 5-9/*", None);
        check("items 5-9/10", None);
    }
}
