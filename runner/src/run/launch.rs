//! Starting a run: exactly once for each name, whoever asks and however often.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{RunError, failed};
use super::folder::{Folder, Lock, Runs, Stored};
use super::id::RunId;
use super::message::{Hidden, Order, Report};
use super::process;
use super::request::{Request, Rootfs};
use super::scope;
use super::status::{State, Status};
use crate::container::{PATH, Secrets};
use crate::image::Store;

/// How long somebody else may take to start or remove the run.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what is left of a lost attempt may take to die: the kernel kills it with its supervisor.
const DYING: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug)]
pub struct Launched {
    /// The run.
    pub status: Status,
    /// Whether this call began an attempt. If not, it was there: it runs, or ended before.
    pub new: bool,
}

impl Runs {
    /// Starts a run and returns when its program runs. The same request under the same name finds the
    /// run that is there, also one that ended; only a lost one is started again.
    ///
    /// # Errors
    /// When the name stands for something else, or nothing could be started. Then nothing runs that
    /// did not run before.
    pub fn launch(
        &self,
        id: &RunId,
        request: &Request,
        secrets: &Secrets,
        log_limit: u64,
    ) -> Result<Launched, RunError> {
        let folder = self.folder(id);
        let deadline = Instant::now() + PATIENCE;
        loop {
            folder.create()?;
            let Some(lock) = folder.try_lock()? else {
                // Somebody runs it, starts it or looks at it.
                if let Some(status) = running(&folder, request)? {
                    return Ok(Launched { status, new: false });
                }
                if Instant::now() > deadline {
                    return Err(RunError::Busy(id.clone()));
                }
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            let before = folder.status_with(&lock)?;
            let attempt = match before {
                None => 1,
                Some(before) => {
                    agree(&folder, request)?;
                    if before.state == State::Exited {
                        return Ok(Launched {
                            status: before,
                            new: false,
                        });
                    }
                    wait_until_gone(&folder, &before)?;
                    folder.file_away(&before)?;
                    before.attempt + 1
                }
            };
            let order = Order {
                store: self.store().to_owned(),
                id: id.clone(),
                attempt,
                request: request.clone(),
                secrets: secrets
                    .iter()
                    .map(|(name, contents)| (name.clone(), Hidden(contents.clone())))
                    .collect(),
                log_limit,
            };
            let begun = self.begin(&folder, &lock, &order);
            // Nothing ran under this name, so it is free again. With a record it is not sure that
            // nothing ran: the supervisor was killed.
            if begun.is_err() && attempt == 1 && folder.stored()? == Stored::Nothing {
                self.discard(&folder)?;
            }
            begun?;
            drop(lock);
            let status = folder.status()?;
            return match status {
                Some(status) => Ok(Launched { status, new: true }),
                None => Err(RunError::Unknown(id.clone())),
            };
        }
    }

    /// Starts the supervisor, which has the lock from now on, and waits for its word.
    fn begin(&self, folder: &Folder, lock: &Lock, order: &Order) -> Result<(), RunError> {
        if let Rootfs::Image(digest) = order.request.rootfs
            && Store::open(self.store())?.image(&digest)?.is_none()
        {
            return Err(RunError::NoImage {
                id: folder.id.clone(),
                digest,
            });
        }
        if order.attempt == 1 {
            folder.write_request(&order.request)?;
        }
        let cgroups = scope::cgroups_of_this_process();
        let unit = format!("rekindle-run-{}-{}", folder.id, std::process::id());
        let program = format!("/proc/{}/exe", std::process::id());
        let mut direct = Command::new(&program);
        direct.arg0("rekindle-runner");
        let scoped = scope::systemd_run(&cgroups, &unit).map(|mut command| {
            command.arg(&program);
            command
        });
        let mut last = None;
        for mut command in scoped.into_iter().chain([direct]) {
            match word_of(&mut command, folder, lock, order)? {
                Some(Report::Started) => return Ok(()),
                Some(Report::Failed(message)) => {
                    let id = folder.id.clone();
                    return Err(RunError::NotStarted { id, message });
                }
                // It never came to life, so the next way may be tried.
                None => last = Some("the supervisor could not be started"),
                Some(Report::Here) => {
                    last = Some("the supervisor died while it made the container");
                    break;
                }
            }
        }
        Err(RunError::NotStarted {
            id: folder.id.clone(),
            message: last.unwrap_or_default().to_owned() + &complaints(folder),
        })
    }
}

/// Hands the order to a new supervisor. Returns the last thing that it said.
fn word_of(
    command: &mut Command,
    folder: &Folder,
    lock: &Lock,
    order: &Order,
) -> Result<Option<Report>, RunError> {
    let path = folder.file("supervisor.log");
    let complaints = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    let supervisor = |source| RunError::Supervisor {
        id: folder.id.clone(),
        source,
    };
    let (ours, theirs) = UnixStream::pair().map_err(supervisor)?;
    // The three standard files are what every program between us hands on: the socket, the lock, and a
    // place for what it has to say about itself.
    let spawned = command
        .args(["supervise", &folder.id.to_string()])
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(lock.0.try_clone().map_err(supervisor)?))
        .stderr(Stdio::from(complaints))
        .spawn();
    // Ours would keep the socket from ending when the supervisor dies.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let Ok(mut child) = spawned else {
        return Ok(None);
    };
    // The last word may be there although not all of the order was read.
    let _ = serde_json::to_writer(&ours, order)
        .map_err(io::Error::from)
        .and_then(|()| (&ours).flush())
        .and_then(|()| ours.shutdown(Shutdown::Write));
    let mut last = None;
    for line in BufReader::new(&ours).lines() {
        let Ok(report) = line.and_then(|line| Ok(serde_json::from_str(&line)?)) else {
            break;
        };
        last = Some(report);
        if last != Some(Report::Here) {
            break;
        }
    }
    if last != Some(Report::Started) {
        // It is on its way out, or never came. Whoever waits for the lock must not wait for it.
        let _ = child.wait();
    }
    Ok(last)
}

/// What the supervisor wrote about itself, for an error message.
fn complaints(folder: &Folder) -> String {
    let text = std::fs::read_to_string(folder.file("supervisor.log")).unwrap_or_default();
    let last = text.lines().last().unwrap_or_default().trim();
    if last.is_empty() {
        String::new()
    } else {
        format!(": {}", last.escape_debug())
    }
}

/// The run, if it is past its start.
fn running(folder: &Folder, request: &Request) -> Result<Option<Status>, RunError> {
    let status = folder.status()?;
    let Some(status) =
        status.filter(|status| matches!(status.state, State::Running | State::Exited))
    else {
        return Ok(None);
    };
    match agree(folder, request) {
        // It was removed between the two looks.
        Err(RunError::Damaged { .. }) => Ok(None),
        result => result.map(|()| Some(status)),
    }
}

/// The name stands for this request.
fn agree(folder: &Folder, request: &Request) -> Result<(), RunError> {
    let stored = folder.request()?.ok_or_else(|| RunError::Damaged {
        id: folder.id.clone(),
        why: "there is a status, but no spec.json".to_owned(),
    })?;
    let differences = stored.differences(request);
    if differences.is_empty() {
        return Ok(());
    }
    Err(RunError::Differs {
        id: folder.id.clone(),
        differences,
    })
}

/// Waits until nothing of a lost attempt runs. Two programs on the same machines would be worse than
/// none.
fn wait_until_gone(folder: &Folder, status: &Status) -> Result<(), RunError> {
    let deadline = Instant::now() + DYING;
    loop {
        let Some(pid) = survivor(folder, status)? else {
            return Ok(());
        };
        if Instant::now() > deadline {
            let id = folder.id.clone();
            return Err(RunError::StillAlive { id, pid });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process of an attempt that is over, if one is left: the container's first, whose death ends all
/// others, or one that can still write to the log. The second look is for an attempt that was lost
/// before its first process was on record.
pub(crate) fn survivor(folder: &Folder, status: &Status) -> Result<Option<u32>, RunError> {
    let boot_id = process::boot_id().map_err(failed("read", "the boot id".as_ref()))?;
    if let Some(process) = status.process
        && status.boot_id == boot_id
        && process.lives()
    {
        return Ok(Some(process.pid));
    }
    let log = folder.file("log");
    process::writer_of(&log).map_err(failed("look for users of", &log))
}
