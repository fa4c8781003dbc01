//! The process between the worker and a program. It has one thought: nothing of the program lives
//! longer than it may. No async, no logs, and what it says last is how the program ended.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::{Ended, SUPERVISE};

/// Begins the supervisor's last words. A program that writes this itself only fools its own job.
const WORDS: &[u8] = b"\n\x00rekindle supervisor: ";

/// The last words are at most this long.
pub(super) const MOST_WORDS: usize = 512;

/// How a program did, by its supervisor's last words.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Ended(Ended),
    NotStarted(String),
    /// It was killed because its time was over.
    TimeOver,
}

impl Verdict {
    fn words(&self) -> String {
        match self {
            Verdict::Ended(Ended::Exited(code)) => format!("exited {code}"),
            Verdict::Ended(Ended::Signalled(signal)) => format!("signalled {signal}"),
            Verdict::NotStarted(reason) => format!("not-started {reason}"),
            Verdict::TimeOver => "time-over ".to_owned(),
        }
    }

    /// Takes the last words off a standard error.
    pub(super) fn take(stderr: &mut Bytes) -> Option<Verdict> {
        let at = stderr
            .windows(WORDS.len())
            .rposition(|part| part == WORDS)?;
        let words = stderr.split_off(at);
        let words = std::str::from_utf8(&words[WORDS.len()..]).ok()?;
        let (what, rest) = words.split_once(' ')?;
        Some(match what {
            "exited" => Verdict::Ended(Ended::Exited(rest.parse().ok()?)),
            "signalled" => Verdict::Ended(Ended::Signalled(rest.parse().ok()?)),
            "not-started" => Verdict::NotStarted(rest.to_owned()),
            "time-over" => Verdict::TimeOver,
            _ => return None,
        })
    }
}

/// What happens to a supervisor.
enum Event {
    /// The worker says for how long the program may go on.
    Allowed(Duration),
    /// The worker is gone, or wants this to be over.
    Cut,
    Ended(ExitStatus),
}

/// Becomes a supervisor when the command line asks for one. The first thing in `main`: it wants a
/// process without threads.
pub fn supervise_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != SUPERVISE {
        return None;
    }
    let program = args.next()?;
    let verdict = supervise(program, args);
    let mut words = WORDS.to_vec();
    words.extend(verdict.words().bytes().take(MOST_WORDS - WORDS.len()));
    // Nobody may be listening any more.
    let _ = std::io::stderr().write_all(&words);
    Some(ExitCode::SUCCESS)
}

fn supervise(program: OsString, args: impl Iterator<Item = OsString>) -> Verdict {
    // Kept until the end.
    let heard = hear_signals();
    if let Err(e) = &heard {
        return Verdict::NotStarted(format!("sigaction: {e}"));
    }
    // Whoever of the program's offspring loses its parent becomes our child.
    if let Err(e) = set_child_subreaper(true) {
        return Verdict::NotStarted(format!("prctl: {e}"));
    }
    let mut lifeline = std::io::stdin();
    let Some((allowed, stdin)) = begin(&mut lifeline) else {
        return Verdict::TimeOver;
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .process_group(0)
        .stdin(if stdin.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return Verdict::NotStarted(e.to_string()),
    };
    let group = Pid::from_raw(child.id().cast_signed());
    let (events, inbox) = channel();
    if let Some(mut pipe) = child.stdin.take() {
        std::thread::spawn(move || {
            // A program need not read all of it.
            let _ = pipe.write_all(&stdin);
        });
    }
    let to_main = events.clone();
    std::thread::spawn(move || listen(&mut lifeline, &to_main));
    std::thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = events.send(Event::Ended(status));
        }
    });
    let ended = watch(&inbox, Instant::now() + allowed);
    let _ = killpg(group, Signal::SIGKILL);
    if ended.is_none() {
        // Its own thread reaps it.
        while !matches!(inbox.recv(), Ok(Event::Ended(_)) | Err(_)) {}
    }
    kill_children();
    match ended.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => Verdict::Ended(Ended::Exited(code)),
        Some((None, signal)) => Verdict::Ended(Ended::Signalled(signal.unwrap_or_default())),
        None => Verdict::TimeOver,
    }
}

/// A service manager that ends a whole group would end us before our work is done: its signals are
/// caught, and nothing follows. Neither ignored nor blocked, for that the program would inherit.
fn hear_signals() -> std::io::Result<(Runtime, Vec<tokio::signal::unix::Signal>)> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let all = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    let heard = all.into_iter().map(signal).collect::<Result<_, _>>()?;
    drop(entered);
    Ok((runtime, heard))
}

/// The first that we hear: for how long, and the program's input.
fn begin(lifeline: &mut impl Read) -> Option<(Duration, Vec<u8>)> {
    let allowed = allowance(lifeline)?;
    let mut length = [0; 8];
    lifeline.read_exact(&mut length).ok()?;
    let mut stdin = Vec::new();
    let length = u64::from_be_bytes(length);
    lifeline.take(length).read_to_end(&mut stdin).ok()?;
    (stdin.len() as u64 == length).then_some((allowed, stdin))
}

fn allowance(lifeline: &mut impl Read) -> Option<Duration> {
    let mut millis = [0; 4];
    lifeline.read_exact(&mut millis).ok()?;
    Some(Duration::from_millis(u32::from_be_bytes(millis).into()))
}

fn listen(lifeline: &mut impl Read, events: &Sender<Event>) {
    while let Some(allowed) = allowance(lifeline) {
        if events.send(Event::Allowed(allowed)).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Cut);
}

/// Waits until the program ends by itself, or its time is over.
fn watch(inbox: &Receiver<Event>, mut until: Instant) -> Option<ExitStatus> {
    loop {
        match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Allowed(allowed)) => until = Instant::now() + allowed,
            Ok(Event::Ended(status)) => return Some(status),
            Ok(Event::Cut) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return None;
            }
        }
    }
}

/// Kills and reaps children until there are none. Their children become ours in turn.
fn kill_children() {
    loop {
        for child in children() {
            let _ = kill(child, Signal::SIGKILL);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(nix::sys::wait::WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Processes whose parent we are (proc_pid_stat(5), field 4).
fn children() -> Vec<Pid> {
    let me = std::process::id().to_string();
    let Ok(all) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ours = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest);
        fields.and_then(|rest| rest.split_whitespace().nth(1)) == Some(me.as_str())
    };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(ours)
        .map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_told_from_what_the_program_wrote() {
        for verdict in [
            Verdict::Ended(Ended::Exited(3)),
            Verdict::Ended(Ended::Signalled(9)),
            Verdict::NotStarted("No such file or directory (os error 2)".into()),
            Verdict::TimeOver,
        ] {
            let mut said = b"exited 0\n".to_vec();
            said.extend(WORDS);
            said.extend(verdict.words().bytes());
            let mut said = Bytes::from(said);
            assert_eq!(Verdict::take(&mut said), Some(verdict));
            assert_eq!(said, "exited 0\n");
        }
        assert_eq!(Verdict::take(&mut Bytes::from("exited 0\n")), None);
    }
}
