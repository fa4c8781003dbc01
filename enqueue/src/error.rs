//! What goes wrong at the edge: one line, what to do next, and an exit code.

use std::fmt::Write as _;

use jobs::queue::QueueError;
use jobs::record::IllegalTransition;
use jobs::spec::Problem;
use jobs::store::StoreError;
use worker::config::SettingError;

use crate::exit::ExitCode;

/// Why a command could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line or a setting is wrong; nothing was changed.
    #[error("{message}")]
    Usage {
        message: String,
        hint: Option<String>,
    },
    /// A spec or a plan is wrong; nothing was changed.
    #[error("{file}: {}", count(.problems))]
    Problems {
        file: String,
        problems: Vec<Problem>,
    },
    /// The state of the world forbids it, or it did not work.
    #[error("{message}")]
    Failed {
        message: String,
        hint: Option<String>,
    },
    #[error("failed to {0}")]
    Store(#[from] StoreError),
    #[error("failed to {0}")]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Transition(#[from] IllegalTransition),
}

impl CliError {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed {
            message: message.into(),
            hint: None,
        }
    }

    /// Adds the next command to a message of our own.
    #[must_use]
    pub(crate) fn hint(mut self, next: impl Into<String>) -> Self {
        if let Self::Usage { hint, .. } | Self::Failed { hint, .. } = &mut self {
            *hint = Some(next.into());
        }
        self
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage { .. } | Self::Problems { .. } => ExitCode::Usage,
            Self::Store(StoreError::Config { .. }) | Self::Queue(QueueError::Config { .. }) => {
                ExitCode::Usage
            }
            Self::Failed { .. } | Self::Store(_) | Self::Queue(_) | Self::Transition(_) => {
                ExitCode::Failed
            }
        }
    }

    /// One line; only the problems of a file get a line each.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Problems { problems, .. } => {
                let mut text = self.to_string();
                for problem in problems {
                    let _ = write!(text, "\n  {problem}");
                }
                text
            }
            // These do not read after "failed to".
            Self::Store(
                error @ (StoreError::Config { .. }
                | StoreError::Unsafe { .. }
                | StoreError::NewerSchema { .. }
                | StoreError::Damaged { .. }),
            ) => error.to_string(),
            Self::Queue(
                error @ (QueueError::Config { .. }
                | QueueError::Different { .. }
                | QueueError::TooSoon { .. }),
            ) => error.to_string(),
            _ => self.to_string(),
        }
    }

    /// What to do next.
    pub(crate) fn next(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::Problems { .. } => {
                Some("mend the file; `rekindle validate` checks it again".into())
            }
            Self::Store(StoreError::Unavailable { .. } | StoreError::Refused { .. }) => {
                Some("`rekindle doctor` checks the connections one by one".into())
            }
            Self::Queue(QueueError::Unreachable { .. } | QueueError::Refused { .. }) => {
                Some("`rekindle doctor` checks the connections one by one".into())
            }
            Self::Store(_) | Self::Queue(_) | Self::Transition(_) => None,
        }
    }
}

impl From<SettingError> for CliError {
    fn from(SettingError { reason, hint }: SettingError) -> Self {
        Self::Usage {
            message: reason,
            hint,
        }
    }
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".into(),
        n => format!("{n} problems"),
    }
}
