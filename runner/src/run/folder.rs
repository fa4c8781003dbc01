//! The folders of the runs of this host.
//!
//! ```text
//! STORE/runs/ID/spec.json       what was asked for; never changes
//! STORE/runs/ID/lock            locked by the supervisor as long as it lives
//! STORE/runs/ID/status.json     the newest attempt
//! STORE/runs/ID/attempt-N.json  attempts that were lost
//! STORE/runs/ID/log             what the program wrote; log.start: where it begins
//! STORE/runs/ID/heartbeat       when the supervisor last looked
//! STORE/runs/ID/control         the supervisor's socket
//! STORE/runs/ID/supervisor.log  what the supervisor has to say about itself; usually nothing
//! STORE/runs/.trash-ID-…        being removed
//! ```
//!
//! Who writes anything here holds the lock, or has got it from the one who did.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{RunError, failed};
use super::id::RunId;
use super::process;
use super::request::Request;
use super::status::{Sight, Status};
use crate::disk;
use crate::lock;

pub(crate) const TRASH: &str = ".trash-";
const HEARTBEAT_WIDTH: usize = 80;

/// The runs of this host.
#[derive(Debug, Clone)]
pub struct Runs {
    store: PathBuf,
    root: PathBuf,
}

impl Runs {
    /// Opens the store's runs, and makes the folder when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(store: &Path) -> Result<Self, RunError> {
        fs::create_dir_all(store).map_err(failed("create", store))?;
        // The supervisor works in the root directory.
        let store = fs::canonicalize(store).map_err(failed("resolve", store))?;
        let root = store.join("runs");
        make(&root)?;
        Ok(Self { store, root })
    }

    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn folder(&self, id: &RunId) -> Folder {
        Folder {
            id: id.clone(),
            path: self.root.join(id),
        }
    }

    /// The runs, by id. Other names are not ours, and left alone.
    pub(crate) fn ids(&self) -> Result<Vec<RunId>, RunError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed("read", &self.root))? {
            let name = entry.map_err(failed("read", &self.root))?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort();
        Ok(ids)
    }
}

/// Makes a folder, unless it is there. When this returns, it survives a power cut.
fn make(path: &Path) -> Result<(), RunError> {
    match disk::make_private(path).and_then(|()| disk::sync_parent(path)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(failed("create", path)),
    }
}

/// The folder of one run.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    pub(crate) id: RunId,
    pub(crate) path: PathBuf,
}

/// What `status.json` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    Nothing,
    Status(Box<Status>),
    /// It is there and cannot be read.
    Damaged(String),
}

/// The right to change a folder. It ends when the last process that has it is gone.
#[derive(Debug)]
pub(crate) struct Lock(pub(crate) File);

impl Folder {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    pub(crate) fn create(&self) -> Result<(), RunError> {
        make(&self.path)
    }

    /// The lock, unless somebody has it, or the folder is not there (any more).
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>, RunError> {
        let path = self.file("lock");
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(failed("open", &path))?,
        };
        if !lock::try_lock(&file).map_err(failed("lock", &path))? {
            return Ok(None);
        }
        let ours = stands_at(&file, &path).map_err(failed("read", &path))?;
        Ok(ours.then_some(Lock(file)))
    }

    /// Whether somebody has the lock.
    pub(crate) fn is_held(&self) -> Result<bool, RunError> {
        let path = self.file("lock");
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result.map_err(failed("open", &path))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
        }
    }

    pub(crate) fn request(&self) -> Result<Option<Request>, RunError> {
        let path = self.file("spec.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(failed("read", &path))?,
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| failed("read", &path)(error.into()))
    }

    pub(crate) fn write_request(&self, request: &Request) -> Result<(), RunError> {
        self.write_whole("spec.json", &json(request))
    }

    pub(crate) fn stored(&self) -> Result<Stored, RunError> {
        self.stored_in("status.json")
    }

    fn stored_in(&self, name: &str) -> Result<Stored, RunError> {
        let path = self.file(name);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::Nothing),
            result => result.map_err(failed("read", &path))?,
        };
        Ok(match serde_json::from_slice::<Status>(&text) {
            Ok(status) if status.id == self.id => Stored::Status(Box::new(status)),
            Ok(status) => Stored::Damaged(format!("{name} is that of {}", status.id)),
            Err(error) => Stored::Damaged(format!("{name} cannot be read: {error}")),
        })
    }

    /// The newest attempt as it is now. `None` when nothing was ever started.
    pub(crate) fn status(&self) -> Result<Option<Status>, RunError> {
        let boot_id = process::boot_id().map_err(failed("read", Path::new("the boot id")))?;
        let mut before = None;
        loop {
            // In this order: the record of who let go of the lock is complete.
            let held = self.is_held()?;
            let stored = self.stored()?;
            let status = match &stored {
                Stored::Status(status) => {
                    let supervisor = status.supervisor;
                    let sight = Sight {
                        held,
                        boot_id: &boot_id,
                        supervisor_lives: supervisor.is_some_and(process::Process::lives),
                    };
                    let judged = status.as_ref().clone().judged(sight);
                    if judged == **status {
                        return Ok(Some(judged));
                    }
                    judged
                }
                Stored::Nothing => return Ok(self.former()?.pop()),
                Stored::Damaged(why) => self.damaged(why)?,
            };
            // Somebody may have finished it, or begun it again, while we looked.
            if before.as_ref() == Some(&stored) {
                return Ok(Some(status));
            }
            before = Some(stored);
        }
    }

    /// The newest attempt for who has the lock, so that nobody else changes anything.
    pub(crate) fn status_with(&self, _lock: &Lock) -> Result<Option<Status>, RunError> {
        let boot_id = process::boot_id().map_err(failed("read", Path::new("the boot id")))?;
        match self.stored()? {
            Stored::Nothing => Ok(self.former()?.pop()),
            Stored::Damaged(why) => self.damaged(&why).map(Some),
            Stored::Status(status) => Ok(Some(status.judged(Sight {
                held: false,
                boot_id: &boot_id,
                supervisor_lives: false,
            }))),
        }
    }

    /// A lost attempt, instead of a record that nobody can read.
    fn damaged(&self, why: &str) -> Result<Status, RunError> {
        let request = self.request()?.ok_or_else(|| RunError::Damaged {
            id: self.id.clone(),
            why: why.to_owned(),
        })?;
        let attempt = self.former()?.last().map_or(0, |last| last.attempt) + 1;
        let mut status = Status::new(&self.id, attempt, &request);
        status.lose(why);
        Ok(status)
    }

    /// The attempts that were lost before, in order.
    pub(crate) fn former(&self) -> Result<Vec<Status>, RunError> {
        let mut former = Vec::new();
        for attempt in 1.. {
            match self.stored_in(&attempt_file(attempt))? {
                Stored::Status(status) => former.push(*status),
                Stored::Nothing | Stored::Damaged(_) => break,
            }
        }
        Ok(former)
    }

    /// Files a lost attempt away, so that the next one can begin. May be done again after a crash.
    pub(crate) fn file_away(&self, status: &Status) -> Result<(), RunError> {
        self.write_whole(&attempt_file(status.attempt), &json(status))?;
        self.forget_status()
    }

    /// Removes the record of an attempt that never began.
    pub(crate) fn forget_status(&self) -> Result<(), RunError> {
        let path = self.file("status.json");
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(failed("remove", &path))?,
        }
        disk::sync_parent(&path).map_err(failed("sync", &self.path))
    }

    fn write_whole(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        let path = self.file(name);
        disk::replace(&path, bytes).map_err(failed("write", &path))
    }

    /// How long ago the supervisor of this boot last looked. `None` when that is not known.
    pub(crate) fn heartbeat_age(&self) -> Option<Duration> {
        let text = fs::read_to_string(self.file("heartbeat")).ok()?;
        let mut words = text.split_ascii_whitespace();
        let boot_id = words.next()?;
        let beat = Duration::from_millis(words.next()?.parse().ok()?);
        let same_boot = process::boot_id().is_ok_and(|now| now == boot_id);
        same_boot.then(|| process::uptime().ok()?.checked_sub(beat))?
    }
}

/// Marks the time, of one boot: no clock that somebody sets.
pub(crate) fn beat(file: &File, boot_id: &str) -> io::Result<()> {
    let uptime = process::uptime()?.as_millis();
    let text = format!("{boot_id} {uptime}");
    // Of one width, so it is overwritten in place: that works on a full disk, too.
    std::os::unix::fs::FileExt::write_all_at(
        file,
        format!("{text:<HEARTBEAT_WIDTH$}\n").as_bytes(),
        0,
    )
}

/// Whether an open file is the one that has this path now. Its folder may have been removed, and made
/// again, between opening and locking; the lock of a file that nobody finds is worth nothing.
fn stands_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())),
    }
}

fn attempt_file(attempt: u32) -> String {
    format!("attempt-{attempt}.json")
}

/// Whether a file of a run's folder is one that we make.
pub(crate) fn is_known(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    let attempt = name
        .strip_prefix("attempt-")
        .and_then(|rest| rest.strip_suffix(".json"));
    matches!(
        name,
        "spec.json"
            | "lock"
            | "status.json"
            | "log"
            | "log.start"
            | "heartbeat"
            | "control"
            | "supervisor.log"
    ) || attempt.is_some_and(|number| number.parse::<u32>().is_ok())
}

pub(crate) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("records are plain data");
    text.push(b'\n');
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn folder(parent: &Path) -> Folder {
        let runs = Runs::open(parent).unwrap();
        let folder = runs.folder(&"a".parse().unwrap());
        folder.create().unwrap();
        folder
    }

    #[test]
    fn the_lock_of_a_removed_folder_is_worth_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = folder(parent.path());
        let path = folder.file("lock");
        let file = File::create(&path).unwrap();
        assert!(stands_at(&file, &path).unwrap());
        fs::rename(&folder.path, parent.path().join("away")).unwrap();
        assert!(!stands_at(&file, &path).unwrap());
        folder.create().unwrap();
        File::create(&path).unwrap();
        assert!(!stands_at(&file, &path).unwrap());
    }

    #[test]
    fn one_has_the_lock_until_its_last_copy_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = folder(parent.path());
        assert!(!folder.is_held().unwrap());
        let lock = folder.try_lock().unwrap().unwrap();
        assert!(folder.is_held().unwrap());
        assert!(folder.try_lock().unwrap().is_none());
        let copy = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(folder.try_lock().unwrap().is_none());
        drop(copy);
        assert!(folder.try_lock().unwrap().is_some());
        fs::remove_dir_all(&folder.path).unwrap();
        assert!(folder.try_lock().unwrap().is_none());
        assert!(!folder.is_held().unwrap());
    }

    #[test]
    fn a_heartbeat_of_another_boot_tells_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = folder(parent.path());
        assert_eq!(folder.heartbeat_age(), None);
        let file = File::create(folder.file("heartbeat")).unwrap();
        beat(&file, &process::boot_id().unwrap()).unwrap();
        assert!(folder.heartbeat_age().is_some());
        beat(&file, "another").unwrap();
        assert_eq!(folder.heartbeat_age(), None);
    }

    #[test]
    fn we_know_our_files() {
        for ours in [
            "lock",
            "status.json",
            "status.json.new",
            "attempt-12.json",
            "log.start",
        ] {
            assert!(is_known(ours), "{ours}");
        }
        for other in [
            "",
            "notes",
            "attempt-x.json",
            "attempt-.json",
            ".new",
            "status.json.bak",
        ] {
            assert!(!is_known(other), "{other}");
        }
    }
}
