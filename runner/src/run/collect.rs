//! Removing what is over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::error::{RunError, failed};
use super::folder::{Folder, Runs, TRASH, is_known};
use super::id::RunId;
use super::launch::survivor;
use super::status::State;
use crate::disk;

/// What a collection of runs did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Gone {
    /// Removed runs.
    pub removed: Vec<RunId>,
    /// Runs that live, or are being started.
    pub live: Vec<RunId>,
    /// Runs that are still young.
    pub kept: Vec<RunId>,
    /// Folders that are left alone because something in them is not ours, and what.
    pub foreign: Vec<(PathBuf, String)>,
}

impl Runs {
    /// Removes the runs that ended, or were lost, some time ago. Never one that lives, and never a
    /// folder with something in it that we did not put there.
    ///
    /// # Errors
    /// When the store cannot be read, or something cannot be removed.
    pub fn collect(&self, older_than: Duration) -> Result<Gone, RunError> {
        let mut gone = Gone::default();
        let swept = self.sweep();
        for id in self.ids()? {
            let folder = self.folder(&id);
            if let Some(why) = foreign(&folder.path)? {
                gone.foreign.push((folder.path, why));
                continue;
            }
            let Some(lock) = folder.try_lock()? else {
                if folder.exists() {
                    gone.live.push(id);
                }
                continue;
            };
            let status = match folder.status_with(&lock) {
                Err(error @ (RunError::Damaged { .. } | RunError::File { .. })) => {
                    gone.foreign.push((folder.path, error.to_string()));
                    continue;
                }
                result => result?,
            };
            let ended_at = match &status {
                Some(status) if survivor(&folder, status)?.is_some() => {
                    gone.live.push(id);
                    continue;
                }
                Some(status) if status.state == State::Exited => status.ended_at,
                _ => None,
            };
            let ended_at = ended_at
                .map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
                .or_else(|| newest(&folder));
            // A clock that was set back makes it younger, which does no harm.
            let age = ended_at.and_then(|ended| ended.elapsed().ok());
            if age.is_some_and(|age| age >= older_than) {
                self.discard(&folder)?;
                gone.removed.push(id);
            } else {
                gone.kept.push(id);
            }
        }
        swept.map(|()| gone)
    }

    /// Removes a folder, for who has its lock: at once by its name, so that a crash leaves no half of
    /// it.
    pub(crate) fn discard(&self, folder: &Folder) -> Result<(), RunError> {
        let name = format!("{TRASH}{}-{}", folder.id, std::process::id());
        let trash = self.root().join(name);
        fs::rename(&folder.path, &trash).map_err(failed("move away", &folder.path))?;
        disk::sync_parent(&trash).map_err(failed("sync", &trash))?;
        remove(&trash)
    }

    /// Removes what a crashed process had begun to. What cannot be removed keeps nothing else; the first error
    /// is told.
    fn sweep(&self) -> Result<(), RunError> {
        let mut swept = Ok(());
        for entry in fs::read_dir(self.root()).map_err(failed("read", self.root()))? {
            let entry = entry.map_err(failed("read", self.root()))?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TRASH.as_bytes())
            {
                swept = swept.and(remove(&entry.path()));
            }
        }
        swept
    }
}

/// Two processes may remove the same at once.
fn remove(path: &Path) -> Result<(), RunError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

/// What in a folder is not ours, if there is anything.
fn foreign(folder: &Path) -> Result<Option<String>, RunError> {
    let look = || -> io::Result<Option<String>> {
        if !fs::symlink_metadata(folder)?.is_dir() {
            return Ok(Some("it is no folder".to_owned()));
        }
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_known(&name) || kind.is_dir() || kind.is_symlink() {
                return Ok(Some(format!("{} is not ours", name.escape_debug())));
            }
        }
        Ok(None)
    };
    match look() {
        // Somebody else removed it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map_err(failed("read", folder)),
    }
}

/// When something last happened in a folder whose record does not say.
fn newest(folder: &Folder) -> Option<SystemTime> {
    ["status.json", "heartbeat", "spec.json", "lock"]
        .iter()
        .filter_map(|name| fs::metadata(folder.file(name)).ok()?.modified().ok())
        .max()
}
