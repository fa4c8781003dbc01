//! The states of a job and the only function that moves between them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Not begun, or put back by an operator.
    Pending,
    /// A worker holds the lease and runs a turn.
    Running,
    /// Between two turns: something outside is not ready yet.
    Waiting,
    /// Between two turns: an attempt failed and will be repeated.
    Retrying,
    /// Done, with its proof.
    Succeeded,
    /// Attempts used up, or a failure that no repetition cures.
    Failed,
    /// The worker process crashed three times at the same step.
    Quarantined,
    /// The record has steps that this build does not know.
    Parked,
    /// Stopped before something only a person may allow.
    NeedsApproval,
    /// Cancelled by an operator.
    Cancelled,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A worker claimed it.
    Claim,
    /// The turn ended in a wait.
    Yield,
    /// The worker shuts down; nothing is wrong with the job.
    Release,
    /// An attempt failed, another one follows.
    Retry,
    /// Every step and proof is there.
    Succeed,
    /// It failed for good.
    Fail,
    /// It crashed its worker too often at the same step.
    Quarantine,
    /// It was begun by another build.
    Park,
    /// It asks for approval.
    AskApproval,
    /// An operator cancelled the recovery.
    Cancel,
    /// An operator put it back (`rekindle retry`).
    Reopen,
}

/// A transition that must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} cannot {event:?}")]
pub struct IllegalTransition {
    /// Where the job stands.
    pub from: Status,
    /// What was to happen.
    pub event: Event,
}

impl Status {
    /// The state after an event.
    pub fn next(self, event: Event) -> Result<Status, IllegalTransition> {
        use Status::{
            Cancelled, Failed, NeedsApproval, Parked, Pending, Quarantined, Retrying, Running,
            Succeeded, Waiting,
        };
        let next = match (self, event) {
            // A record that says Running may be claimed: its owner is dead, or the claim would lose.
            (Pending | Running | Waiting | Retrying, Event::Claim) => Running,
            (Running, Event::Yield) => Waiting,
            (Running, Event::Release) => Waiting,
            (Running, Event::Retry) => Retrying,
            (Running, Event::Succeed) => Succeeded,
            (Running, Event::Fail) => Failed,
            (Running, Event::Quarantine) => Quarantined,
            (Running, Event::Park) => Parked,
            (Running, Event::AskApproval) => NeedsApproval,
            (Pending | Running | Waiting | Retrying, Event::Cancel) => Cancelled,
            (Failed | Quarantined | Parked | NeedsApproval | Waiting | Retrying, Event::Reopen) => {
                Pending
            }
            // A report is written again after a retry of what it reports on.
            (Succeeded, Event::Reopen) => Pending,
            (from, event) => return Err(IllegalTransition { from, event }),
        };
        Ok(next)
    }

    /// Nothing more happens to the job without an operator.
    pub fn is_settled(self) -> bool {
        !matches!(
            self,
            Status::Pending | Status::Running | Status::Waiting | Status::Retrying
        )
    }

    /// Settled, and not well: its successors are blocked until a retry.
    pub fn is_stuck(self) -> bool {
        self.is_settled() && self != Status::Succeeded
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Pending => "pending",
            Status::Running => "running",
            Status::Waiting => "waiting",
            Status::Retrying => "retrying",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Quarantined => "quarantined",
            Status::Parked => "parked",
            Status::NeedsApproval => "needs-approval",
            Status::Cancelled => "cancelled",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_job_can_end_a_turn() {
        use Status::*;
        let ends = [
            Event::Yield,
            Event::Release,
            Event::Retry,
            Event::Succeed,
            Event::Fail,
            Event::Quarantine,
            Event::Park,
            Event::AskApproval,
        ];
        for status in [
            Pending,
            Waiting,
            Retrying,
            Succeeded,
            Failed,
            Quarantined,
            Parked,
            NeedsApproval,
            Cancelled,
        ] {
            for event in ends {
                assert!(status.next(event).is_err(), "{status} {event:?}");
            }
        }
        for event in ends {
            assert!(Running.next(event).is_ok(), "{event:?}");
        }
    }

    #[test]
    fn nothing_settled_is_claimed_and_cancelled_is_final() {
        use Status::*;
        for status in [
            Succeeded,
            Failed,
            Quarantined,
            Parked,
            NeedsApproval,
            Cancelled,
        ] {
            assert!(status.is_settled());
            assert!(status.next(Event::Claim).is_err(), "{status}");
        }
        for event in [Event::Claim, Event::Reopen, Event::Cancel, Event::Succeed] {
            assert!(Cancelled.next(event).is_err(), "{event:?}");
        }
    }
}
