//! Looking at runs, and stopping them.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::control;
use super::error::{RunError, failed};
use super::folder::Runs;
use super::id::RunId;
use super::log::Reader;
use super::message::Ask;
use super::status::Status;

/// How long the kernel may take to end what was killed.
const KILLED: Duration = Duration::from_secs(30);

/// A run as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    /// The newest attempt.
    #[serde(flatten)]
    pub status: Status,
    /// The code that `attach` exits with; `null` while it runs and when it is lost.
    pub exit_code: Option<u8>,
    /// What of the log is there.
    pub log: Range,
    /// Seconds since the supervisor last looked: a few, unless the machine hangs.
    pub heartbeat_age: Option<u64>,
    /// The attempts that were lost before this one.
    pub former: Vec<Status>,
}

/// Byte offsets. They are those of the whole log, and name the same bytes for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The oldest byte that is kept.
    pub oldest: u64,
    /// Behind the last byte.
    pub end: u64,
}

/// The runs of a host.
#[derive(Debug, Default)]
pub struct Listed {
    /// The runs, by name.
    pub runs: Vec<View>,
    /// Names whose folders nobody can read, with the reason.
    pub damaged: Vec<(RunId, RunError)>,
}

impl Runs {
    /// One run.
    ///
    /// # Errors
    /// When there is none of this name, or its folder cannot be read.
    pub fn view(&self, id: &RunId) -> Result<View, RunError> {
        let folder = self.folder(id);
        let unknown = || RunError::Unknown(id.clone());
        if !folder.exists() {
            return Err(unknown());
        }
        let status = folder.status()?.ok_or_else(unknown)?;
        let (oldest, end) = match self.log(id)? {
            Some(log) => log.range().map_err(failed("read", &folder.file("log")))?,
            None => (0, 0),
        };
        let mut former = folder.former()?;
        former.retain(|former| former.attempt != status.attempt);
        Ok(View {
            exit_code: status.exit_code(),
            log: Range { oldest, end },
            heartbeat_age: status
                .is_live()
                .then(|| folder.heartbeat_age())
                .flatten()
                .map(|age| age.as_secs()),
            former,
            status,
        })
    }

    /// All runs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Listed, RunError> {
        let mut listed = Listed::default();
        for id in self.ids()? {
            match self.view(&id) {
                Ok(view) => listed.runs.push(view),
                // Being started, or being removed.
                Err(RunError::Unknown(_)) => {}
                Err(error) => listed.damaged.push((id, error)),
            }
        }
        Ok(listed)
    }

    /// The log of a run; `None` when it has not begun one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self, id: &RunId) -> Result<Option<Reader>, RunError> {
        let path = self.folder(id).path;
        match Reader::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some).map_err(failed("read the log in", &path)),
        }
    }

    /// Ends a run: TERM, and KILL when it still runs after `grace`. Returns when it is over; one that is
    /// over already is left as it is.
    ///
    /// # Errors
    /// When there is none of this name, its supervisor does not answer, or it does not end.
    pub fn stop(&self, id: &RunId, grace: Duration) -> Result<View, RunError> {
        let folder = self.folder(id);
        // A time that no clock will ever show is no deadline.
        let deadline = Instant::now().checked_add(grace.saturating_add(KILLED));
        let too_late = || deadline.is_some_and(|deadline| Instant::now() > deadline);
        let mut asked = false;
        loop {
            let view = self.view(id)?;
            // A supervisor may live although its record is damaged: ask it all the same.
            let over = !view.status.is_live();
            if !asked {
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                match control::ask(&folder.path, &Ask::Stop { grace_ms }) {
                    Ok(()) => asked = true,
                    Err(_) if over => return Ok(view),
                    // It is just starting, or just ending.
                    Err(_) if !too_late() => {}
                    Err(source) => {
                        let id = id.clone();
                        return Err(RunError::Supervisor { id, source });
                    }
                }
            } else if over && !folder.is_held()? {
                return Ok(view);
            } else if too_late() {
                return Err(RunError::NotStopped(id.clone()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
