//! Exit codes: what scripts and the worker look at.

/// How a command ended. The numbers are an interface; they stand in `rekindle-runner --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Failed on this machine: no space, no permission, no such file.
    Failed = 1,
    /// The command line is wrong. Nothing was changed.
    Usage = 2,
    /// The image did not come. Trying again may help, and continues where it stopped.
    Unavailable = 3,
    /// The image is not what was asked for, broken or hostile. Trying again does not help.
    Refused = 4,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// The end of `rekindle-runner --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed on this machine: no space, no permission, no such file
  2  the command line is wrong; nothing was changed
  3  the image did not come; try again, it continues where it stopped
  4  the image is not what was asked for, broken or hostile; trying again does not help

With --output json, stdout has one JSON document, also for an error.";
