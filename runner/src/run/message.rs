//! What travels between a command and a supervisor: one JSON document a line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::id::RunId;
use super::request::Request;

/// Everything that a new supervisor needs. It comes through a socket, because others can read arguments
/// and the environment.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) store: PathBuf,
    pub(crate) id: RunId,
    pub(crate) attempt: u32,
    pub(crate) request: Request,
    /// Name and contents, in hexadecimal digits.
    pub(crate) secrets: BTreeMap<String, String>,
    /// The most bytes of the log that are kept.
    pub(crate) log_limit: u64,
}

/// What a new supervisor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// It is a process of its own now. Nothing was started yet.
    Here,
    /// The program runs, and that is on record.
    Started,
    /// Nothing runs, and nothing is left.
    Failed(String),
}

/// What a command may ask of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// TERM now, and KILL when it still runs after the time.
    Stop {
        /// How long.
        grace_ms: u64,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is being done.
    Done,
    /// It cannot be done.
    Failed(String),
}
