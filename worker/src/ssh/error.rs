//! What can go wrong between us and a host, and whose fault it is.

use std::time::Duration;

use crate::net::DialError;

/// Why talking to a host failed. `host` reads like `root@10.0.0.5:22`.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// No TCP connection came about.
    #[error("reach {host}")]
    Dial {
        /// The host.
        host: String,
        /// Why.
        source: DialError,
    },
    /// Something answered, but SSH did not come about with it.
    #[error("shake hands with {host}")]
    Handshake {
        /// The host.
        host: String,
        /// Why.
        source: russh::Error,
    },
    /// Connecting took too long.
    #[error("connect to {host}: no session within {after:?}")]
    ConnectTimeout {
        /// The host.
        host: String,
        /// How long we waited.
        after: Duration,
    },
    /// The host is not who it should be. Never retried: it is a wrong machine, a machine that was
    /// made anew, or somebody in between.
    #[error(
        "trust {host}: its host key is {got}, expected {}",
        if expected.is_empty() { "one, but none is pinned".to_owned() } else { expected.join(" or ") }
    )]
    HostKeyMismatch {
        /// The host.
        host: String,
        /// Fingerprints of the pinned keys.
        expected: Vec<String>,
        /// Fingerprint of the key that it showed; `unknown` if we did not even ask.
        got: String,
    },
    /// The host does not take our key.
    #[error("log in to {host}: it refused the key {key}")]
    AuthRefused {
        /// The host.
        host: String,
        /// Fingerprint of our key.
        key: String,
    },
    /// The connection broke. What the command did until then is unknown.
    #[error("{doing} on {host}: the connection broke")]
    Cut {
        /// The host.
        host: String,
        /// What we were doing.
        doing: String,
    },
    /// A host does not forward us to the next one.
    #[error("connect to {target} through {host}: {reason}")]
    Forward {
        /// The host in between.
        host: String,
        /// Where we wanted to go.
        target: String,
        /// Its words.
        reason: String,
        /// It tried and the target did not answer (else it does not want to).
        target_down: bool,
    },
    /// The host takes no more commands, or refuses this one before it runs.
    #[error("start `{command}` on {host}: {reason}")]
    NotStarted {
        /// The host.
        host: String,
        /// Name of the command.
        command: String,
        /// Its words.
        reason: String,
    },
    /// A command took too long. It was sent a KILL, but may be running still.
    #[error("run `{command}` on {host}: not finished after {after:?}")]
    CommandTimeout {
        /// The host.
        host: String,
        /// Name of the command.
        command: String,
        /// How long we waited.
        after: Duration,
    },
    /// A command printed more than we keep.
    #[error("run `{command}` on {host}: more than {limit} bytes of output")]
    TooMuchOutput {
        /// The host.
        host: String,
        /// Name of the command.
        command: String,
        /// The limit.
        limit: usize,
    },
    /// A command was killed.
    #[error("run `{command}` on {host}: killed by signal {signal}")]
    Killed {
        /// The host.
        host: String,
        /// Name of the command.
        command: String,
        /// For example `KILL`.
        signal: String,
    },
    /// A command ended and the host did not say how. That is never success.
    #[error("run `{command}` on {host}: it ended without an exit status")]
    NoStatus {
        /// The host.
        host: String,
        /// Name of the command.
        command: String,
    },
    /// A command that had to succeed did not.
    #[error("run `{command}` on {host}: exit status {status}: {stderr}")]
    Failed {
        /// The host.
        host: String,
        /// Name of the command.
        command: String,
        /// Its exit status, not 0.
        status: u32,
        /// The end of what it printed as errors, cut.
        stderr: String,
    },
    /// A command or path that no shell can take.
    #[error("use {what} on {host}: {reason}")]
    BadArgument {
        /// The host.
        host: String,
        /// What it is.
        what: String,
        /// Why not.
        reason: &'static str,
    },
    /// A file that we wrote reads back differently.
    #[error("write {path} on {host}: it reads back differently ({got})")]
    WrittenDifferently {
        /// The host.
        host: String,
        /// The file.
        path: String,
        /// Mode and digest found.
        got: String,
    },
}

impl SshError {
    /// The machine or the way to it is down (at the moment): trying again later may help. What a
    /// command did before the connection broke is unknown.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Dial { source, .. } => !matches!(source, DialError::Setting { .. }),
            Self::Handshake { .. } | Self::ConnectTimeout { .. } | Self::Cut { .. } => true,
            Self::Forward { target_down, .. } => *target_down,
            _ => false,
        }
    }

    /// The host does not know us.
    pub fn is_auth_refused(&self) -> bool {
        matches!(self, Self::AuthRefused { .. })
    }

    /// The host is not the one that we know.
    pub fn is_host_key_mismatch(&self) -> bool {
        matches!(self, Self::HostKeyMismatch { .. })
    }

    /// The command itself went wrong; the connection is fine.
    pub fn is_command_failure(&self) -> bool {
        matches!(
            self,
            Self::Failed { .. }
                | Self::Killed { .. }
                | Self::NoStatus { .. }
                | Self::CommandTimeout { .. }
                | Self::TooMuchOutput { .. }
                | Self::WrittenDifferently { .. }
        )
    }

    /// Exit status of a command that had to succeed.
    pub fn status(&self) -> Option<u32> {
        match self {
            Self::Failed { status, .. } => Some(*status),
            _ => None,
        }
    }
}
