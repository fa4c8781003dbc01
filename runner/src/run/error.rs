//! Why a run cannot be started, seen or stopped.

use std::io;
use std::path::{Path, PathBuf};

use super::id::RunId;
use crate::digest::Digest;
use crate::image::StoreError;

/// What went wrong with a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file cannot be read or written.
    #[error("{operation} {}", path.display())]
    File {
        /// What we were doing.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        #[source]
        /// Why not.
        source: io::Error,
    },
    /// The images cannot be read.
    #[error("look for the image")]
    Store(#[from] StoreError),
    /// The image is not on this host.
    #[error("start {id}: the image {digest} is not on this host")]
    NoImage {
        /// The run.
        id: RunId,
        /// The image.
        digest: Digest,
    },
    /// There is no run of this name.
    #[error("find the run {0}: it does not exist on this host")]
    Unknown(RunId),
    /// The name stands for something else.
    #[error("start {id}: it is there already, with something else: {}", differences.join("; "))]
    Differs {
        /// The run.
        id: RunId,
        /// What differs, in words: the run's own first.
        differences: Vec<String>,
    },
    /// A former attempt is lost, but something of it still runs.
    #[error("start {id} again: process {pid} of the former attempt still runs")]
    StillAlive {
        /// The run.
        id: RunId,
        /// One of its processes.
        pid: u32,
    },
    /// Nobody can say what the folder is.
    #[error("read the run {id}: {why}")]
    Damaged {
        /// The run.
        id: RunId,
        /// What is wrong.
        why: String,
    },
    /// Somebody has the lock and does nothing.
    #[error("start {0}: somebody else has been starting or removing it for too long")]
    Busy(RunId),
    /// The container could not be made, or the program in it not be started. Nothing is left of it.
    #[error("start {id}: {message}")]
    NotStarted {
        /// The run.
        id: RunId,
        /// Why.
        message: String,
    },
    /// The supervisor does not answer.
    #[error("ask the supervisor of {id}")]
    Supervisor {
        /// The run.
        id: RunId,
        #[source]
        /// Why not.
        source: io::Error,
    },
    /// The run goes on although it was stopped.
    #[error("stop {0}: it still runs")]
    NotStopped(RunId),
}

/// Names the operation and the path of an I/O error.
pub(crate) fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> RunError + 'a {
    move |source| RunError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}
