//! Programs that a job runs on the worker's own host. None outlives the right of its job to act.
//!
//! Between the worker and the program stands a supervisor: this same binary, called again. The worker
//! keeps telling it for how long the program may go on, which is as long as the job's lease holds.
//! When that time is over, or the worker is gone (killed, crashed, dropped the step), it kills the
//! program and everything that the program started, also what made itself a daemon. So the programs
//! of a frozen worker are dead before anybody else may take the job over.
//!
//! A parent-death signal (prctl(2)) would not do: it reaches neither grandchildren nor the programs of
//! a process that is only frozen, and it follows the thread that forked, not the process.
//!
//! Secrets go in by [`Program::stdin`]: arguments and environments can be read by others. The
//! environment is empty but for a short list and what [`Program::env`] adds.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::time::{Instant, sleep};

mod supervisor;

pub use supervisor::supervise_if_asked;

/// What a program finds of our environment: nothing of it is secret.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// The first argument of a supervisor.
const SUPERVISE: &str = "--supervise-a-program";

/// How often the supervisor hears from us.
const BEAT: Duration = Duration::from_millis(250);

/// What is kept of each output, unless the caller says otherwise.
const KEPT: usize = 256 * 1024;

/// A program to run.
pub struct Program {
    path: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    stdin: Bytes,
    deadline: Option<Duration>,
    kept: usize,
    supervisor: PathBuf,
}

/// A program that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// What it wrote to its standard output.
    pub stdout: Captured,
    /// What it wrote to its standard error.
    pub stderr: Captured,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Signalled(i32),
}

/// The end of what a program wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captured {
    /// The last bytes.
    pub tail: Bytes,
    /// How many bytes came before them and are not kept.
    pub dropped: u64,
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("run {program}: it could not be started: {reason}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        reason: String,
    },
    /// It was killed because it took too long.
    #[error("run {program}: killed after {after:?}; it last said: {said}")]
    Late {
        /// The program.
        program: String,
        /// The deadline.
        after: Duration,
        /// The end of its standard error.
        said: String,
    },
    /// What stands between us and the program ended first; whatever it had started is dead.
    #[error("run {program}: its supervisor ended without a word of how the program did: {reason}")]
    Unknown {
        /// The program.
        program: String,
        /// What is known.
        reason: String,
    },
}

impl Program {
    /// A program by its path, or by its name on `PATH`.
    pub fn new(path: impl AsRef<OsStr>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            folder: None,
            stdin: Bytes::new(),
            deadline: None,
            kept: KEPT,
            // The very binary that runs, also when it was replaced by a newer one meanwhile.
            supervisor: "/proc/self/exe".into(),
        }
    }

    /// One more argument. Everybody on this host can read it.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let pair = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.env.push(pair);
        self
    }

    /// The folder that it works in.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// What it reads from its standard input, which then ends: the place for secrets.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// It is killed after this time.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Keeps at most so many bytes of each output: the last ones.
    #[must_use]
    pub fn keep(mut self, bytes: usize) -> Self {
        self.kept = bytes;
        self
    }

    /// Another binary that calls [`supervise_if_asked`], for programs that do not.
    #[must_use]
    pub fn supervised_by(mut self, binary: &Path) -> Self {
        self.supervisor = binary.to_owned();
        self
    }

    /// Runs it. `leash` says for how long from now it may go on; it is asked again and again. Dropping
    /// the future kills the program and all that it started.
    pub async fn run(self, leash: impl Fn() -> Duration) -> Result<Finished, ChildError> {
        let program = self.path.to_string_lossy().into_owned();
        let mut command = tokio::process::Command::new(&self.supervisor);
        command
            .arg(SUPERVISE)
            .arg(&self.path)
            .args(&self.args)
            .env_clear()
            .envs(
                PASSED_ON
                    .iter()
                    .filter_map(|name| Some((*name, std::env::var_os(name)?))),
            )
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            // Signals from a terminal are for us; what they mean for the program is our decision.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let start = |reason: String| ChildError::Start {
            program: program.clone(),
            reason,
        };
        let mut child = command.spawn().map_err(|e| start(e.to_string()))?;
        let missing = || start("a pipe is missing".into());
        let lifeline = child.stdin.take().ok_or_else(missing)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = (stdout.ok_or_else(missing)?, stderr.ok_or_else(missing)?);

        let ends = self.deadline.map(|deadline| Instant::now() + deadline);
        let left = || {
            let until_deadline = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
            until_deadline.map_or_else(&leash, |left| left.min(leash()))
        };
        // The last words on standard error are the supervisor's: how it ended.
        let room = self.kept + supervisor::MOST_WORDS;
        let ended = async { tokio::join!(capture(stdout, self.kept), capture(stderr, room)) };
        let (stdout, mut stderr) = tokio::select! {
            both = ended => both,
            never = hold(lifeline, self.stdin.clone(), left) => match never {},
        };
        let _ = child.wait().await;
        let verdict = supervisor::Verdict::take(&mut stderr.tail);
        let said = || String::from_utf8_lossy(&stderr.tail).trim_end().to_owned();
        match verdict {
            Some(supervisor::Verdict::Ended(ended)) => Ok(Finished {
                ended,
                stdout,
                stderr,
            }),
            Some(supervisor::Verdict::NotStarted(reason)) => Err(start(reason)),
            Some(supervisor::Verdict::TimeOver) if ends.is_some_and(|e| e <= Instant::now()) => {
                Err(ChildError::Late {
                    after: self.deadline.unwrap_or_default(),
                    said: said(),
                    program,
                })
            }
            Some(supervisor::Verdict::TimeOver) => Err(ChildError::Unknown {
                program,
                reason: "the lease was over".into(),
            }),
            None => Err(ChildError::Unknown {
                reason: format!("standard error ends with: {}", said()),
                program,
            }),
        }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the environment nor the standard input.
        f.debug_struct("Program")
            .field("path", &self.path)
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}

impl Finished {
    /// Whether it exited with 0.
    pub fn is_success(&self) -> bool {
        self.ended == Ended::Exited(0)
    }
}

/// Gives the supervisor the program's input, then tells it again and again how long the program may
/// go on. Dropping this closes the pipe, by which the supervisor knows that it is over.
async fn hold(
    mut lifeline: ChildStdin,
    stdin: Bytes,
    left: impl Fn() -> Duration,
) -> std::convert::Infallible {
    let millis = || u32::try_from(left().as_millis()).unwrap_or(u32::MAX);
    let mut first = millis().to_be_bytes().to_vec();
    first.extend((stdin.len() as u64).to_be_bytes());
    first.extend(&stdin);
    // A supervisor that does not read any more is about to end; its outputs tell the rest.
    let mut reads = lifeline.write_all(&first).await.is_ok();
    loop {
        sleep(BEAT).await;
        if reads {
            reads = lifeline.write_all(&millis().to_be_bytes()).await.is_ok();
        }
    }
}

/// Reads to the end; keeps the last bytes.
async fn capture(mut from: impl AsyncRead + Unpin, most: usize) -> Captured {
    let mut kept: Vec<u8> = Vec::new();
    let mut dropped = 0;
    let mut buffer = vec![0; 16 * 1024];
    // A pipe that fails has nothing more to say, as one that ends.
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        // Rarely, so that keeping the tail costs little.
        if kept.len() > 2 * most {
            dropped += (kept.len() - most) as u64;
            kept.drain(..kept.len() - most);
        }
    }
    if kept.len() > most {
        dropped += (kept.len() - most) as u64;
        kept.drain(..kept.len() - most);
    }
    Captured {
        tail: kept.into(),
        dropped,
    }
}
