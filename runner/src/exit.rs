//! Exit codes: what scripts and the worker look at.

use serde::{Serialize, Serializer};

/// How a command ended. The numbers are an interface; they stand in `rekindle-runner --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Done,
    /// Failed on this machine: no space, no permission, no such file.
    Failed,
    /// The command line is wrong. Nothing was changed.
    Usage,
    /// The image did not come. Trying again may help, and continues where it stopped.
    Unavailable,
    /// The image is not what was asked for, broken or hostile; or the name of the run stands for
    /// something else. Trying again does not help.
    Refused,
    /// There is no such run, or no such image.
    Unknown,
    /// `run` and `attach` have no program's exit to pass on.
    NotRun,
    /// `run` and `attach`: how the program ended.
    Program(u8),
}

impl ExitCode {
    /// The number that the shell sees.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
            Self::Refused => 4,
            Self::Unknown => 5,
            Self::NotRun => 125,
            Self::Program(code) => code,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::NotRun => "not_run",
            Self::Program(_) => "program",
        }
    }
}

/// As a word, where the number may be 125.
impl Serialize for ExitCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// The end of `rekindle-runner --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed on this machine: no space, no permission, no such file; something of a former attempt still runs; bytes of a log are gone
  2  the command line is wrong; nothing was changed
  3  the image did not come; try again, it continues where it stopped
  4  the image is not what was asked for, broken or hostile, or the run's name stands for something else; \
trying again does not help
  5  there is no such run, or the image is not on this host
`run` (without --detach) and `attach` exit as the program did, and with 125 for everything else.

With --output json, stdout has one JSON document, also for an error; but none when the command line cannot be \
read, and none when `run` or `attach` is interrupted.";
