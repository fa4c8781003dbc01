//! What the source controller keeps for the others: files by revision.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

/// Files by their path from the root, with `/` between.
pub type Files = BTreeMap<String, Vec<u8>>;

type Key = (String, String, String);
/// A revision and its files.
type Stored = (String, Arc<Files>);

/// The artifacts of all sources: kind, namespace and name lead to a revision and its files. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Artifacts(Arc<Mutex<HashMap<Key, Stored>>>);

impl Artifacts {
    pub(super) fn put(&self, source: Key, revision: String, files: Files) {
        self.lock().insert(source, (revision, Arc::new(files)));
    }

    /// The files of a source, if they are of this revision.
    pub(super) fn get(&self, source: &Key, revision: &str) -> Option<Arc<Files>> {
        let all = self.lock();
        let (stored, files) = all.get(source)?;
        (stored == revision).then(|| Arc::clone(files))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A digest over all files, as hex.
pub(super) fn digest(files: &Files) -> String {
    let mut hash = Sha256::new();
    for (path, bytes) in files {
        // Lengths, so that nothing moves from a name into its file unnoticed.
        hash.update((path.len() as u64).to_be_bytes());
        hash.update(path);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    hex::encode(hash.finalize())
}

/// The files of a working tree that `ignore` leaves. What it understands is the one shape that our sources have:
/// `/*` (nothing at all), then `!/name` for each name at the root that counts.
pub(super) fn checkout(root: &Path, ignore: Option<&str>) -> io::Result<Files> {
    let lines = ignore.unwrap_or_default().lines().map(str::trim);
    let lines: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let mut files = Files::new();
    match lines.split_first() {
        Some((&"/*", kept)) => {
            for line in kept {
                let name = line.strip_prefix("!/").ok_or_else(|| unknown(line))?;
                collect(root, name.trim_end_matches('/'), &mut files)?;
            }
        }
        Some((line, _)) => return Err(unknown(line)),
        None => {
            for name in names(root)? {
                // Neither is in a repository.
                if name != ".git" && name != "target" {
                    collect(root, &name, &mut files)?;
                }
            }
        }
    }
    Ok(files)
}

fn unknown(line: &str) -> io::Error {
    io::Error::other(format!("this pattern of `ignore` is not simulated: {line}"))
}

fn collect(root: &Path, path: &str, into: &mut Files) -> io::Result<()> {
    let here = root.join(path);
    if here.is_dir() {
        for name in names(&here)? {
            collect(root, &format!("{path}/{name}"), into)?;
        }
    } else if here.is_file() {
        into.insert(path.to_owned(), std::fs::read(here)?);
    }
    Ok(())
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}
