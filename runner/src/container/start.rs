//! Starting a container and waiting for it, as seen from the host.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid, pipe2};
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroups;
use super::error::{Failure, Reports, StartError, Told, errno};
use super::init::{self, Init};
use super::spec::{Secrets, Spec};
use crate::sys::process::{
    BlockedSignals, Born, CloneError, Ended, clone, duplicate_from, send_signal, wait_pidfd,
    wait_readable,
};

/// What the program reads from and writes to.
#[derive(Debug)]
pub struct Stdio {
    /// Its input.
    pub stdin: OwnedFd,
    /// Its output.
    pub stdout: OwnedFd,
    /// Its errors.
    pub stderr: OwnedFd,
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Starts a program in an image: returns when it has begun.
///
/// `rootfs` is never written to. The secrets are in the container's memory then, and wiped here. The container ends with this process, however that ends. Call it from
/// a process with one thread.
///
/// # Errors
/// When the program did not begin; nothing is left of the container then.
pub fn start(
    spec: &Spec,
    rootfs: &Path,
    secrets: Secrets,
    stdio: Stdio,
) -> Result<Container, StartError> {
    spec.check(&secrets).map_err(StartError::Spec)?;
    let user = (!geteuid().is_root()).then(|| (geteuid(), getegid()));
    let (reports, report) = pipe()?;
    let (exit, exited) = pipe()?;
    let mut notes = Vec::new();
    let cgroups = Cgroups::make(&spec.limits, &mut notes);
    let mut namespaces =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    if user.is_some() {
        namespaces |= libc::CLONE_NEWUSER;
    }

    // Init must not lose a signal before it waits for them, so it is born with all blocked.
    let blocked = BlockedSignals::all();
    let mut born = clone(namespaces, cgroups.born_in());
    if let (Err(CloneError::Kernel(errno)), Some(_)) = (&born, cgroups.born_in()) {
        notes.push(format!(
            "no limits: the control group takes no process ({errno})"
        ));
        born = clone(namespaces, None);
    }
    let born = born.map_err(|error| match error {
        CloneError::Threads => StartError::Threads,
        CloneError::Kernel(errno) => {
            Failure::kernel("make namespaces for", &spec.args[0], errno).into()
        }
    })?;
    let (pid, pidfd) = match born {
        Born::Parent { pid, pidfd } => (pid, pidfd),
        Born::Child => {
            // Init must see when nobody reads its reports any more.
            drop((reports, exit));
            init::run(Init {
                spec,
                rootfs,
                secrets,
                stdio,
                reports: Reports::new(report),
                exited,
                cgroups: &cgroups,
                user,
            })
        }
    };
    drop(blocked);
    drop((report, exited, stdio, secrets));

    let mut container = Container {
        pid,
        pidfd,
        exit: exit.into(),
        notes,
        cgroups,
        ended: OnceLock::new(),
    };
    // The pipe ends when the program begins, or when all of the container is gone.
    let mut told = Vec::new();
    File::from(reports)
        .read_to_end(&mut told)
        .map_err(|error| Failure::kernel("read the reports of", &spec.args[0], errno(&error)))?;
    let told = Told::read(&told);
    container.notes.extend(told.notes);
    match told.failure {
        Some(failure) => Err(failure.into()),
        None if !told.ready => Err(StartError::Killed),
        None => Ok(container),
    }
}

/// Neither end has the number of input, output or errors, where the program's own come.
fn pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    let high = |fd: OwnedFd| match fd.as_raw_fd() {
        0..=2 => duplicate_from(fd, 3),
        _ => Ok(fd),
    };
    pipe2(OFlag::O_CLOEXEC)
        .and_then(|(from, to)| Ok((high(from)?, high(to)?)))
        .map_err(|errno| Failure::kernel("make", "a pipe", errno).into())
}

/// A running container. It ends when this is dropped.
#[derive(Debug)]
pub struct Container {
    pid: i32,
    pidfd: OwnedFd,
    /// How the program ended, from init; or nothing, when init was killed.
    exit: File,
    notes: Vec<String>,
    cgroups: Cgroups,
    ended: OnceLock<Exit>,
}

impl Container {
    /// The container's first process, as the host numbers it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Can be read from when the container has ended: for poll(2).
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Which optional parts the host refused, and what was done instead.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Sends a signal to the program; `KILL` ends all processes of the container.
    ///
    /// # Errors
    /// When the kernel refuses it, or for `STOP`, which would stop process 1 instead of the program. That
    /// the container has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if signal == Signal::SIGSTOP {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match send_signal(&self.pidfd, signal as i32) {
            Err(Errno::ESRCH) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Waits until all processes of the container are gone, and tells how its program ended. May be
    /// called again.
    ///
    /// # Errors
    /// When nobody tells how the program ended, for example because somebody else waited for all children.
    pub fn wait(&self) -> io::Result<Exit> {
        if let Some(exit) = self.ended.get() {
            return Ok(*exit);
        }
        wait_readable(&self.pidfd)?;
        let init = wait_pidfd(&self.pidfd);
        let mut told = Vec::new();
        (&self.exit).read_to_end(&mut told)?;
        self.cgroups.remove();
        let exit = match Exit::from_bytes(&told) {
            Some(exit) => exit,
            None => untold(init?)?,
        };
        Ok(*self.ended.get_or_init(|| exit))
    }
}

/// How the program ended when init did not tell: by the signal that killed init, and all others with it.
/// What init itself exits with is no program's.
fn untold(init: Ended) -> io::Result<Exit> {
    match init {
        Ended::Signal(signal) => Ok(Exit::Signal(signal)),
        Ended::Code(_) => Err(io::Error::other("process 1 did not tell how it ended")),
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.ended.get().is_none() {
            // Both fail only when it is gone already.
            let _ = self.signal(Signal::SIGKILL);
            let _ = self.wait();
        }
    }
}

impl Exit {
    /// As init writes it.
    pub(crate) fn to_bytes(self) -> [u8; 5] {
        let (kind, number) = match self {
            Self::Code(code) => (b'C', code),
            Self::Signal(signal) => (b'S', signal),
        };
        let [a, b, c, d] = number.to_ne_bytes();
        [kind, a, b, c, d]
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, number) = bytes.split_first()?;
        let number = i32::from_ne_bytes(number.try_into().ok()?);
        match kind {
            b'C' => Some(Self::Code(number)),
            b'S' => Some(Self::Signal(number)),
            _ => None,
        }
    }
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(code) => Self::Code(code),
            Ended::Signal(signal) => Self::Signal(signal),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_nobody_told_is_no_success() {
        assert_eq!(untold(Ended::Signal(9)).unwrap(), Exit::Signal(9));
        for code in [0, 1] {
            untold(Ended::Code(code)).unwrap_err();
        }
    }

    #[test]
    fn an_exit_arrives_as_it_was_sent() {
        for exit in [Exit::Code(0), Exit::Code(255), Exit::Signal(15)] {
            assert_eq!(Exit::from_bytes(&exit.to_bytes()), Some(exit));
            assert_eq!(Exit::from_bytes(&exit.to_bytes()[..4]), None);
        }
    }
}
