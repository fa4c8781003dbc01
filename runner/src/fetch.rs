//! Files from URLs into a folder, each with a digest: what a container is to be given that is too large to
//! come with the order. A file appears under its name only when it is whole and right.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hashed};
use crate::image::download::{Download, Object, agent};
use crate::image::{DownloadError, Network, PullError, Source};

/// A file that is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Where in the folder: `blobs/sha256/…`.
    pub name: String,
    /// What it must be.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where it comes from. A secret where it is presigned.
    pub url: String,
}

/// Without the URL, which may be a secret.
impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Files that came.
    pub fetched: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were there.
    pub there: usize,
}

/// What is wrong with an order. No URL is repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOrder {
    /// The name would lead elsewhere, or is none.
    #[error("`{0}` is not the name of a file in a folder")]
    Name(String),
    /// The URL of a file.
    #[error("the URL of `{0}` is neither https:, nor http: on this machine")]
    Url(String),
}

impl Wanted {
    /// Whether it can be fetched at all.
    ///
    /// # Errors
    /// When its name or its URL is not taken.
    pub fn check(&self) -> Result<(), BadOrder> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
        let shown = || {
            self.name
                .chars()
                .take(200)
                .filter(|c| !c.is_control())
                .collect()
        };
        if !self.name.split('/').all(part) {
            return Err(BadOrder::Name(shown()));
        }
        match self.url.parse() {
            Ok(Source::Http(_)) => Ok(()),
            _ => Err(BadOrder::Url(shown())),
        }
    }
}

/// Brings files into a folder, or finds them there. Processes that fetch into one folder wait for each other. A
/// download that broke goes on where it ended, also in another process.
///
/// # Errors
/// As [`PullError`] says. The files that came until then stay.
pub fn fetch(folder: &Path, wanted: &[Wanted], network: &Network) -> Result<Fetched, PullError> {
    make(folder)?;
    let lock = folder.join(".lock");
    let file = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _held = file.map_err(|source| failed("lock", &lock, source))?;
    let agent = agent(network).map_err(PullError::Download)?;
    let mut done = Fetched::default();
    for one in wanted {
        let path = folder.join(&one.name);
        if fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == one.size) {
            done.there += 1;
            continue;
        }
        let Ok(Source::Http(uri)) = one.url.parse() else {
            let source = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(failed("fetch", &path, source));
        };
        make(path.parent().unwrap_or(folder))?;
        let object = Object {
            agent: agent.clone(),
            uri,
        };
        bring(object, one, &path, network.tries)?;
        done.fetched += 1;
        done.bytes += one.size;
    }
    Ok(done)
}

/// A folder that only we can look into.
fn make(folder: &Path) -> Result<(), PullError> {
    let made = fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)));
    made.map_err(|source| failed("make", folder, source))
}

fn bring(object: Object, wanted: &Wanted, path: &Path, tries: u32) -> Result<(), PullError> {
    let part = PathBuf::from(format!("{}.part", path.display()));
    let failed_here = |source| failed("save", &part, source);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&part)
        .map_err(failed_here)?;
    // Longer than it can be: not what we began.
    if file.metadata().map_err(failed_here)?.len() > wanted.size {
        file.set_len(0).map_err(failed_here)?;
    }
    let copy = file.try_clone().map_err(failed_here)?;
    let download =
        Download::new(object, (copy, part.clone()), wanted.size, tries).map_err(failed_here)?;
    let (found, _) = Hashed::new(download.piece(0, wanted.size))
        .finish()
        .map_err(|source| {
            let error = failed("save", &part, source);
            if matches!(error, PullError::Download(DownloadError::Size { .. })) {
                // What came is of no use to a later try.
                let _ = fs::remove_file(&part);
            }
            error
        })?;
    if found != wanted.digest {
        let _ = fs::remove_file(&part);
        return Err(PullError::Mismatch {
            from: format!("what came for `{}`", wanted.name),
            found,
            wanted: wanted.digest,
        });
    }
    file.sync_all().map_err(failed_here)?;
    fs::rename(&part, path).map_err(|source| failed("name", path, source))
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> PullError {
    match source.downcast() {
        Ok(error) => PullError::Download(error),
        Err(source) => PullError::File {
            operation,
            path: path.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder_and_urls_are_checked() {
        let check = |name: &str, url: &str| {
            let wanted = Wanted {
                name: name.to_owned(),
                digest: format!("sha256:{}", "0a".repeat(32))
                    .parse()
                    .expect("a digest"),
                size: 1,
                url: url.to_owned(),
            };
            wanted.check()
        };
        let url = "https://s3.example/x?hunter2";
        assert_eq!(check("blobs/sha256/0a", url), Ok(()));
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            ".lock",
            "a b",
            "a/",
        ] {
            assert_eq!(
                check(name, url),
                Err(BadOrder::Name(name.to_owned())),
                "{name}"
            );
        }
        for url in [
            "",
            "hunter2",
            "file:/etc/passwd",
            "http://s3.example/hunter2",
            "oci://r.example/a",
        ] {
            assert_eq!(check("a", url), Err(BadOrder::Url("a".to_owned())), "{url}");
        }
    }
}
