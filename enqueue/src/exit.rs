//! Exit codes: what CI scripts look at.

/// How a command ended. The numbers are an interface; they stand in `rekindle --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done; with `--wait` and `watch`: the recovery succeeded.
    Done = 0,
    /// Failed, or the recovery failed or was cancelled.
    Failed = 1,
    /// The command line, a setting, the spec or the plan is wrong. Nothing was changed.
    Usage = 2,
    /// `--timeout` passed while waiting. The recovery goes on.
    TimedOut = 3,
    /// A job waits for somebody's approval.
    NeedsApproval = 4,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// The end of `rekindle --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done; with --wait, --here and `watch`: the recovery succeeded
  1  failed, or the recovery failed or was cancelled
  2  the command line, a setting, the spec or the plan is wrong; nothing was changed
  3  --timeout passed while waiting; the recovery goes on
  4  a job waits for approval; look with `status`, allow with `retry`

Settings come from flags, then the environment, then defaults; `rekindle COMMAND --help` names them.";
