//! The container's process 1: makes the surroundings, starts the program, reaps and forwards signals.
//!
//! It goes on in the process that clone gave, without executing the engine anew: that saves a
//! millisecond, but makes the engine's file the one behind `/proc/1/exe`. So it is made undumpable before
//! anything of the image runs: without SYS_PTRACE, which the program lacks, nobody in the container
//! can open its `exe`, `fd`, `mem` or `root` (CVE-2019-5736). See also `program`.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_dumpable, set_name, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid};

use super::cgroup::Cgroups;
use super::error::{Failure, Reports, errno, failed};
use super::root::Root;
use super::spec::{Secrets, Spec};
use super::start::{Exit, Stdio};
use super::{etc, mounts, payload, privileges};
use crate::sys::process::{
    Close, close_from, default_signals, exit_now, has_no_reader, next_signal, place, reap,
    signal_child, spawn,
};

/// All that init needs, as its own copy.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) rootfs: &'a Path,
    pub(crate) secrets: Secrets,
    pub(crate) stdio: Stdio,
    pub(crate) reports: Reports,
    pub(crate) exited: OwnedFd,
    pub(crate) cgroups: &'a Cgroups,
    /// Who we are on the host, unless that is root.
    pub(crate) user: Option<(Uid, Gid)>,
}

/// A panic must not go on in what the child copied of the caller.
struct ExitOnPanic;

impl Drop for ExitOnPanic {
    fn drop(&mut self) {
        exit_now(1);
    }
}

/// The life of process 1.
pub(crate) fn run(mut init: Init<'_>) -> ! {
    let _guard = ExitOnPanic;
    // All are blocked; and the caller may ignore SIGCHLD, on which we rely.
    default_signals();
    let program = match init.prepare() {
        Ok(program) => program,
        Err(failure) => {
            init.reports.failed(failure);
            exit_now(1);
        }
    };
    match settle(init) {
        Ok(()) => watch(program),
        // Killing init kills the program, and the caller hears of both.
        Err(_) => exit_now(1),
    }
}

impl Init<'_> {
    /// Makes everything and starts the program; gives its process.
    fn prepare(&mut self) -> Result<i32, Failure> {
        self.die_with_the_caller()?;
        self.cgroups.join(&self.reports);
        if let Some((user, group)) = self.user {
            map_user(user, group)?;
        }
        let rootless = self.user.is_some();
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWCGROUP) {
            self.reports.note(format!(
                "no cgroup namespace: the program sees the host's names ({errno})"
            ));
        }
        // Before any mount: what we do must never reach the host.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(failed("make private all mounts below", "/"))?;
        umask(Mode::from_bits_truncate(0o022));

        let root = Root::make(self.rootfs, &self.spec.limits, rootless, &self.reports)?;
        mounts::kernel(&root, self.spec, rootless, &self.reports)?;
        etc::write(&root, &self.spec.hostname, &self.reports)?;
        mounts::secrets(&root, &self.secrets, &self.reports)?;
        // This process lives as long as the program.
        self.secrets.clear();
        mounts::binds(&root, &self.spec.binds)?;
        root.enter()?;

        sethostname(&self.spec.hostname)
            .map_err(failed("set the host name", &self.spec.hostname))?;
        self.become_root()?;
        set_dumpable(false).map_err(failed("make undumpable", "process 1"))?;
        privileges::drop_all(&self.reports)?;
        // Forgotten by the kernel when the user or the capabilities change.
        self.die_with_the_caller()?;

        set_name(c"rekindle-init").map_err(failed("name", "process 1"))?;
        self.reports.ready();
        spawn(&|| {
            self.reports.failed(payload::run(self.spec, &self.stdio));
            exit_now(127)
        })
        .map_err(failed("make the process of", &self.spec.args[0]))
    }

    fn die_with_the_caller(&self) -> Result<(), Failure> {
        set_pdeathsig(Signal::SIGKILL)
            .map_err(failed("ask for the death signal of", "process 1"))?;
        // The caller may have died before. Its number tells nothing, as it is outside of our
        // namespace; but it alone reads our reports.
        if has_no_reader(self.reports.pipe()) {
            exit_now(1);
        }
        Ok(())
    }

    /// No other identity of the caller stays.
    fn become_root(&self) -> Result<(), Failure> {
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        // user_namespaces(7): who maps a group without root cannot leave the others.
        if self.user.is_none() {
            setgroups(&[]).map_err(failed("leave the groups of", "the caller"))?;
        }
        setresgid(group, group, group).map_err(failed("become", "group 0"))?;
        setresuid(user, user, user).map_err(failed("become", "user 0"))
    }
}

/// One user and one group: ours are 0 inside. The kernel takes no others, and in here it does not
/// tell who we were. user_namespaces(7)
fn map_user(user: Uid, group: Gid) -> Result<(), Failure> {
    // The supervisor is not dumpable, and the files of such a process in /proc are not its own. Nothing of
    // the image runs yet.
    set_dumpable(true).map_err(failed("make dumpable", "process 1"))?;
    // Until then we are nobody, and the files of /proc that belong to us are read by number only.
    let write = |path: &str, text: String| {
        fs::write(path, text).map_err(|error| Failure::kernel("write", path, errno(&error)))
    };
    write("/proc/self/uid_map", format!("0 {user} 1"))?;
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Lets go of all descriptors but the one for the last word. Process 1 has /dev/null as input and output,
/// and that one in the place of errors.
fn settle(init: Init<'_>) -> Result<(), Failure> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(failed("open", "/dev/null"))?;
    let exited = above_two(&init.exited)?;
    for (fd, number) in [(null.as_fd(), 0), (null.as_fd(), 1), (exited.as_fd(), 2)] {
        place(fd, number).map_err(failed("place", "a descriptor of process 1"))?;
    }
    // This also tells the caller that we are done, once the program has begun.
    close_from(3, Close::Now).map_err(failed("close the descriptors of", "process 1"))?;
    // They are closed.
    std::mem::forget((init, null, exited));
    Ok(())
}

/// A copy with a number that is not about to be taken by input, output or errors.
pub(crate) fn above_two(fd: impl AsFd) -> Result<OwnedFd, Failure> {
    crate::sys::process::duplicate_from(fd, 3).map_err(failed("copy", "a descriptor"))
}

/// Reaps whoever ends, and forwards signals to the program until that has ended.
fn watch(program: i32) -> ! {
    loop {
        let signal = next_signal();
        if signal != libc::SIGCHLD {
            signal_child(program, signal);
            continue;
        }
        // One signal may stand for many children.
        while let Some((pid, ended)) = reap() {
            if pid == program {
                // When the caller is gone there is nobody to tell. Our end is that of all others.
                let _ = std::io::stderr().write_all(&Exit::from(ended).to_bytes());
                exit_now(0);
            }
        }
    }
}
