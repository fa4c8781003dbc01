//! Processes: made with namespaces, held by a descriptor, and what they may not inherit.
#![expect(unsafe_code, reason = "libc has no safe call for these")]

use std::convert::Infallible;
use std::mem::{self, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{self, CloneFlags};

/// Who we are after a process was made.
#[derive(Debug)]
pub(crate) enum Born {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// Why no process was made.
#[derive(Debug)]
pub(crate) enum CloneError {
    Threads,
    Kernel(Errno),
}

/// Makes a process with its own namespaces, as fork would, and gives its descriptor. clone3(2).
///
/// `into` is the cgroup (version 2) that it begins in.
///
/// # Errors
/// When this process has threads: the child would inherit their locks and never get them. When the
/// kernel refuses it.
pub(crate) fn clone(
    namespaces: libc::c_int,
    into: Option<BorrowedFd<'_>>,
) -> Result<Born, CloneError> {
    if threads() != Some(1) {
        return Err(CloneError::Threads);
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: all of it is numbers, of which zero means "not used".
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = (namespaces | libc::CLONE_PIDFD) as u32 as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = into {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the structure and `pidfd` live through the call. The memory is not shared (no CLONE_VM),
    // so the child goes on with its own copy of this stack; this process has one thread, so no lock
    // is held by somebody whom the child does not have.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    match Errno::result(pid).map_err(CloneError::Kernel)? {
        0 => Ok(Born::Child),
        pid => Ok(Born::Parent {
            pid: i32::try_from(pid).expect("numbers of processes are small"),
            // SAFETY: the kernel wrote a new descriptor there, which nobody else knows.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How many threads this process has; `None` when it cannot be known.
pub(crate) fn threads() -> Option<u64> {
    // A directory has a link for itself, for its name above, and for each directory in it.
    let metadata = std::fs::metadata("/proc/self/task").ok()?;
    std::os::unix::fs::MetadataExt::nlink(&metadata).checked_sub(2)
}

/// When the process that has this number now began, in ticks since the host did: field 22 of
/// /proc/PID/stat. `None` when there is none, or only its zombie.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    start_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in field 2 may hold blanks and brackets, so what follows the last bracket counts.
fn start_in(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    fields.nth(18)?.parse().ok().filter(|_| !ended)
}

/// Makes a process that runs `child`, which must become another program or end, and gives its number.
/// This process goes on when it has. As with vfork(2), memory is shared until then, not copied.
///
/// # Errors
/// What clone(2) says.
pub(crate) fn spawn(child: &dyn Fn() -> Infallible) -> Result<i32, Errno> {
    // Large enough for what is done before execve; only pages that are used cost anything.
    let mut stack = vec![0; 1 << 18];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    let run = Box::new(|| match child() {});
    // SAFETY: the child has a stack of its own. It shares the memory, but this process stands still
    // until it is gone from there, and has no other thread: so nobody sees what is half changed, and
    // no lock is held by somebody who does not run.
    let pid = unsafe { sched::clone(run, &mut stack, flags, Some(libc::SIGCHLD)) }?;
    Ok(pid.as_raw())
}

/// Ends this process at once, without running what others registered for its end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number and does not come back.
    unsafe { libc::_exit(code) }
}

/// Sends a signal to the process behind a descriptor, never to one that has got its number since.
pub(crate) fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    // SAFETY: only numbers go in, and null for the details that the kernel then fills in.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Waits until a descriptor has something to read, or its other end is gone.
pub(crate) fn wait_readable(fd: impl AsFd) -> Result<(), Errno> {
    let mut poll = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        // SAFETY: one structure, which lives through the call.
        match Errno::result(unsafe { libc::poll(&raw mut poll, 1, -1) }) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

/// Whether nobody has the reading end of a pipe any more.
pub(crate) fn has_no_reader(pipe: impl AsFd) -> bool {
    let mut poll = libc::pollfd {
        fd: pipe.as_fd().as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one structure, which lives through the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLERR != 0
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

/// Waits for the child behind a descriptor, and forgets it.
///
/// # Errors
/// `ECHILD` when this process ignores SIGCHLD: then the kernel has forgotten it already.
pub(crate) fn wait_pidfd(pidfd: impl AsFd) -> Result<Ended, Errno> {
    // SAFETY: all of it is numbers.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let fd = pidfd.as_fd().as_raw_fd();
    loop {
        // SAFETY: the structure lives through the call, which fills it in.
        let result = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                fd as libc::id_t,
                &raw mut info,
                libc::WEXITED,
            )
        };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    // SAFETY: waitid filled in the fields of a child.
    let status = unsafe { info.si_status() };
    Ok(if info.si_code == libc::CLD_EXITED {
        Ended::Code(status)
    } else {
        Ended::Signal(status)
    })
}

/// A child of this process that has ended, if there is one.
pub(crate) fn reap() -> Option<(i32, Ended)> {
    let mut status = 0;
    // SAFETY: the number lives through the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let ended = if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else {
        Ended::Code(libc::WEXITSTATUS(status))
    };
    Some((pid, ended))
}

/// The signals that wait until somebody asks for them. Puts the old ones back when it is dropped.
#[derive(Debug)]
pub(crate) struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    /// Blocks all signals of this thread.
    pub(crate) fn all() -> Self {
        let all = every_signal();
        let mut before = every_signal();
        // SAFETY: both sets live through the call. It fails for a wrong first argument only.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        Self { before }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set lives through the call; nobody asks for the old one.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

fn every_signal() -> libc::sigset_t {
    // SAFETY: sigfillset writes all of the set, which is numbers.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}

/// Waits for the next signal; all of them must be blocked.
pub(crate) fn next_signal() -> i32 {
    let all = every_signal();
    loop {
        // SAFETY: the set lives through the call; nobody asks for the details.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, ptr::null_mut()) };
        if signal > 0 {
            return signal;
        }
    }
}

/// No signal is ignored or handled: how a program expects to begin. Rust ignores SIGPIPE, and what is
/// ignored stays so in a new program; who ignores SIGCHLD cannot wait for a child.
pub(crate) fn default_signals() {
    // The kernel's structure, which is at most so large; zero is the default in each field. The C
    // library would keep two signals for itself, which may be ignored where we come from.
    let default = [0_u64; 8];
    for signal in 1..=64 {
        // SAFETY: the structure lives through the call, and no handler is set. KILL and STOP cannot be
        // changed: these fail, as they should.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
}

/// Lets signals through that were blocked.
pub(crate) fn unblock_signals() {
    // SAFETY: an empty set, which lives through the call.
    unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Sends a signal to a child that was not waited for yet, so its number is its own.
pub(crate) fn signal_child(pid: i32, signal: i32) {
    // SAFETY: only numbers go in. It fails when the child has just ended, which is fine.
    unsafe { libc::kill(pid, signal) };
}

/// Makes a descriptor also known by a number of our choice, and open in the next program.
pub(crate) fn place(fd: impl AsFd, number: RawFd) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: only numbers go in. Used for 0, 1 and 2, by a process that drops no descriptor any more: what
    // had these numbers before was copied.
    let result = unsafe {
        if fd == number {
            libc::fcntl(fd, libc::F_SETFD, 0)
        } else {
            libc::dup2(fd, number)
        }
    };
    Errno::result(result).map(drop)
}

/// What happens to descriptors from a number on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Close {
    Now,
    /// When the next program begins.
    OnExec,
}

/// Closes all descriptors from a number on. close_range(2).
pub(crate) fn close_from(first: u32, when: Close) -> Result<(), Errno> {
    let flags = match when {
        Close::Now => 0,
        Close::OnExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: only numbers go in. `Now` is for a process that uses none of its descriptors again and
    // ends without running destructors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    Errno::result(result).map(drop)
}

/// Takes a terminal as the one of this session, unless it is another one's. No terminal is no error.
pub(crate) fn take_terminal(fd: impl AsFd) {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: only numbers go in; 0 means never to take it from others.
    unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) };
}

/// No core dumps of this process and its children: they would hold secrets, and the host's pattern may be a
/// program.
pub(crate) fn no_core_dumps() -> Result<(), Errno> {
    set_limit(libc::RLIMIT_CORE, |_| (0, 0))
}

/// Sets the limits that a program should not inherit by accident.
pub(crate) fn default_limits() -> Result<(), Errno> {
    no_core_dumps()?;
    // What systemd gives its services: programs that use select() break above 1,024.
    set_limit(libc::RLIMIT_NOFILE, |hard| {
        (hard.min(1024), hard.min(524_288))
    })?;
    set_limit(libc::RLIMIT_STACK, |hard| (hard.min(8 << 20), hard))?;
    for limit in [
        libc::RLIMIT_CPU,
        libc::RLIMIT_FSIZE,
        libc::RLIMIT_DATA,
        libc::RLIMIT_AS,
    ] {
        set_limit(limit, |hard| (hard, hard))?;
    }
    Ok(())
}

/// `choose` gets the hard limit, and gives the soft and the hard one.
fn set_limit(
    limit: libc::__rlimit_resource_t,
    choose: impl FnOnce(u64) -> (u64, u64),
) -> Result<(), Errno> {
    let mut value = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives through the call.
    Errno::result(unsafe { libc::getrlimit(limit, &raw mut value) })?;
    (value.rlim_cur, value.rlim_max) = choose(value.rlim_max);
    // SAFETY: the structure lives through the call.
    Errno::result(unsafe { libc::setrlimit(limit, &raw const value) }).map(drop)
}

/// A copy of a descriptor whose number is at least `first`, closed in the next program.
pub(crate) fn duplicate_from(fd: impl AsFd, first: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: only numbers go in.
    let copy = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, first) };
    let copy = Errno::result(copy)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_pipe_knows_whether_it_has_a_reader() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let copy = reader.try_clone().expect("a copy");
        assert!(!has_no_reader(&writer));
        drop(reader);
        assert!(!has_no_reader(&writer));
        drop(copy);
        assert!(has_no_reader(&writer));
    }

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let rest = "1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(start_in(&format!("7 (a) S (b) R {rest}")), Some(4242));
        assert_eq!(start_in(&format!("7 (a) Z {rest}")), None);
        assert_eq!(start_in("7 (a) R 1"), None);
        assert_eq!(start_in(""), None);
    }

    #[test]
    fn we_know_when_we_began() {
        assert!(start_time(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(u32::MAX), None);
    }

    #[test]
    fn threads_are_counted() {
        let before = threads().expect("/proc is there");
        let (wait, go) = io::pipe().expect("a pipe");
        let thread = std::thread::spawn(move || io::read_to_string(wait));
        assert!(threads() > Some(1), "{before}");
        drop(go);
        thread.join().expect("it ends").expect("it read");
    }
}
