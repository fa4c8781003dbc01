//! Why a container was not started, and how its processes tell.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// Why a container was not started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This process has threads, or cannot tell: a new process would inherit their locks.
    #[error("start a container from a process with threads")]
    Threads,
    /// The spec asks for something that cannot be.
    #[error("accept the spec: {0}")]
    Spec(String),
    /// The image has no such program.
    #[error("find the program `{command}` in the image")]
    NotFound {
        /// What was looked for.
        command: String,
    },
    /// It is there, but cannot or may not be run.
    #[error("run the program `{command}`: {reason}")]
    NotExecutable {
        /// What was to be run.
        command: String,
        /// Why not.
        reason: String,
    },
    /// The image, or the host, has something in a place that we need, which is not what it should be.
    #[error("use `{path}`: {reason}")]
    Refused {
        /// Where.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The host refused something that a container cannot do without.
    #[error("{operation} `{path}`")]
    Kernel {
        /// What we were doing.
        operation: String,
        /// To what.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Its first process ended and did not say why: it was killed.
    #[error("start a container: its first process was killed")]
    Killed,
}

/// The same, as it goes through the pipe from the container to the caller of `start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    NotFound {
        command: String,
    },
    NotExecutable {
        command: String,
        reason: String,
    },
    Refused {
        path: String,
        reason: String,
    },
    Kernel {
        operation: String,
        path: String,
        errno: i32,
    },
}

impl Failure {
    pub(crate) fn kernel(operation: &str, path: impl AsRef<Path>, errno: Errno) -> Self {
        Self::Kernel {
            operation: operation.to_owned(),
            path: path.as_ref().display().to_string(),
            errno: errno as i32,
        }
    }

    pub(crate) fn refused(path: impl AsRef<Path>, reason: &str) -> Self {
        Self::Refused {
            path: path.as_ref().display().to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// Makes what the kernel said a failure.
pub(crate) fn failed(operation: &str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::kernel(operation, path, errno)
}

/// What the standard library says about the kernel, as a number.
pub(crate) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound { command } => Self::NotFound { command },
            Failure::NotExecutable { command, reason } => Self::NotExecutable { command, reason },
            Failure::Refused { path, reason } => Self::Refused { path, reason },
            Failure::Kernel {
                operation,
                path,
                errno,
            } => Self::Kernel {
                operation,
                path,
                source: io::Error::from_raw_os_error(errno),
            },
        }
    }
}

/// What a container tells while it starts: one JSON document a line.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Note(String),
    Failed(Failure),
    /// All is made; what follows is the program.
    Ready,
}

/// The end of the pipe that the container writes to. It is closed when the program begins.
#[derive(Debug)]
pub(crate) struct Reports(File);

impl Reports {
    pub(crate) fn new(pipe: impl Into<File>) -> Self {
        Self(pipe.into())
    }

    /// A part that the host refuses, and what is done instead.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.send(&Report::Note(text.into()));
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.send(&Report::Failed(failure));
    }

    pub(crate) fn ready(&self) {
        self.send(&Report::Ready);
    }

    pub(crate) fn pipe(&self) -> &File {
        &self.0
    }

    fn send(&self, report: &Report) {
        let mut line = serde_json::to_vec(report).expect("a report is plain data");
        line.push(b'\n');
        // When the reader is gone, so is the reason to go on: the caller looks after itself.
        let _ = (&self.0).write_all(&line);
    }
}

/// What a container told until its program began.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) notes: Vec<String>,
    pub(crate) failure: Option<Failure>,
    pub(crate) ready: bool,
}

impl Told {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut told = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Report::Note(note)) => told.notes.push(note),
                // The first is the cause of those that follow.
                Ok(Report::Failed(first)) => told.failure = told.failure.or(Some(first)),
                Ok(Report::Ready) => told.ready = true,
                // A line without its end: the writer was killed.
                Err(_) => {}
            }
        }
        told
    }
}
