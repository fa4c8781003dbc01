//! What is on record about a run, and what it means now.

use serde::{Deserialize, Serialize};

use super::id::RunId;
use super::process::Process;
use super::request::{Request, Rootfs};
use crate::container::Exit;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The container is being made.
    Starting,
    /// The program runs.
    Running,
    /// The program ended, and its exit is on record.
    Exited,
    /// It does not run, and nobody knows how it ended: its supervisor is gone, the machine was
    /// rebooted, or the record is damaged. Never a success.
    Lost,
}

/// What is on record about the newest attempt of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The run.
    pub id: RunId,
    /// Counts the starts: 2 is the first start after one that was lost.
    pub attempt: u32,
    /// Where it is.
    pub state: State,
    /// How the program ended.
    pub exit: Option<Exit>,
    /// Whether it ended after somebody asked it to stop.
    #[serde(default)]
    pub stopped: bool,
    /// Why it is lost.
    pub reason: Option<String>,
    /// Its root.
    pub rootfs: Rootfs,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Names the arguments.
    pub argv_sha256: String,
    /// When the attempt began, in seconds since 1970.
    pub started_at: Option<u64>,
    /// When the program ended, in seconds since 1970.
    pub ended_at: Option<u64>,
    /// The boot that it began in.
    pub boot_id: String,
    /// Its supervisor.
    pub supervisor: Option<Process>,
    /// The container's first process.
    pub process: Option<Process>,
    /// Where in the log this attempt begins.
    pub log_from: u64,
    /// What the container does without on this host.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What an observer sees beside the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'a> {
    /// Somebody holds the lock of the run.
    pub(crate) held: bool,
    /// The boot that the observer lives in.
    pub(crate) boot_id: &'a str,
    /// The supervisor on record is a process of this boot.
    pub(crate) supervisor_lives: bool,
}

impl Status {
    /// A record of an attempt that nothing is known about yet.
    pub(crate) fn new(id: &RunId, attempt: u32, request: &Request) -> Self {
        Self {
            id: id.clone(),
            attempt,
            state: State::Starting,
            exit: None,
            stopped: false,
            reason: None,
            rootfs: request.rootfs.clone(),
            argv: request.spec.args.clone(),
            argv_sha256: request.argv_sha256.clone(),
            started_at: None,
            ended_at: None,
            boot_id: String::new(),
            supervisor: None,
            process: None,
            log_from: 0,
            notes: Vec::new(),
        }
    }

    /// What the record means to an observer: a run that cannot live any more is lost.
    pub(crate) fn judged(mut self, sight: Sight<'_>) -> Self {
        if !self.is_live() {
            return self;
        }
        let reason = if self.boot_id != sight.boot_id {
            "the machine was rebooted"
        } else if !sight.held || !sight.supervisor_lives {
            "the supervisor is gone and left no exit"
        } else {
            return self;
        };
        self.lose(reason);
        self
    }

    pub(crate) fn lose(&mut self, reason: &str) {
        self.state = State::Lost;
        self.exit = None;
        self.reason = Some(reason.to_owned());
    }

    /// Whether it runs, or is about to.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Starting | State::Running)
    }

    /// The exit code as a shell would show it: 128 and the signal's number for a signal. `None` while
    /// it runs and when it is lost.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match (self.state, self.exit?) {
            // A code that is none is no success.
            (State::Exited, Exit::Code(code)) => Some(u8::try_from(code).unwrap_or(u8::MAX)),
            (State::Exited, Exit::Signal(number)) => {
                Some(u8::try_from(number).map_or(u8::MAX, |number| number.saturating_add(128)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn running() -> Status {
        Status {
            id: "a".parse().unwrap(),
            attempt: 1,
            state: State::Running,
            exit: None,
            stopped: false,
            reason: None,
            rootfs: Rootfs::Tree("/r".into()),
            argv: vec!["/bin/true".to_owned()],
            argv_sha256: String::new(),
            started_at: Some(1),
            ended_at: None,
            boot_id: "this".to_owned(),
            supervisor: None,
            process: None,
            log_from: 0,
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_record_counts_only_with_its_lock_its_supervisor_and_its_boot() {
        fn check(held: bool, boot_id: &str, supervisor_lives: bool, expected: State) {
            let sight = Sight {
                held,
                boot_id,
                supervisor_lives,
            };
            for state in [State::Starting, State::Running] {
                let judged = Status { state, ..running() }.judged(sight);
                let expected = if expected == State::Lost {
                    expected
                } else {
                    state
                };
                assert_eq!(judged.state, expected, "{sight:?}");
                assert_eq!(judged.reason.is_some(), expected == State::Lost);
                assert_eq!(judged.exit_code(), None);
            }
            // What is over stays as it was.
            for state in [State::Exited, State::Lost] {
                let over = Status { state, ..running() };
                assert_eq!(over.clone().judged(sight), over);
            }
        }
        check(true, "this", true, State::Running);
        check(false, "this", true, State::Lost);
        check(true, "other", true, State::Lost);
        check(true, "this", false, State::Lost);
    }

    #[test]
    fn exit_codes_are_those_of_a_shell_and_only_a_recorded_exit_has_one() {
        let check = |state, exit, expected| {
            let status = Status {
                state,
                exit,
                ..running()
            };
            assert_eq!(status.exit_code(), expected, "{status:?}");
        };
        check(State::Exited, Some(Exit::Code(0)), Some(0));
        check(State::Exited, Some(Exit::Code(7)), Some(7));
        check(State::Exited, Some(Exit::Code(256)), Some(255));
        check(State::Exited, Some(Exit::Signal(9)), Some(137));
        check(State::Exited, None, None);
        check(State::Running, None, None);
        check(State::Lost, Some(Exit::Code(0)), None);
    }
}
