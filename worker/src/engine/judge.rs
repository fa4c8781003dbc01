//! What the end of a turn means: for the record, and for when the next one is due.

use std::time::Duration;

use jobs::record::{Event, Failure, JobRecord};

use super::ctx::Proven;
use super::error::{Again, Interrupt, JobError};
use super::service::Engine;

/// A job does not wait for longer than this on anybody's word: a server's clock may be wrong by days.
const LONGEST: Duration = Duration::from_secs(10 * 60);

impl Engine {
    /// What the end of a turn means for the record, and when the next one is due.
    pub(super) fn judge(
        &self,
        record: &mut JobRecord,
        ended: &Result<Proven, JobError>,
    ) -> (Event, Option<Duration>) {
        let error = match ended {
            Ok(_) => return (Event::Succeed, None),
            Err(error) => error,
        };
        match &error.again {
            Again::Interrupted(Interrupt::Yield(delay)) => return (Event::Yield, Some(*delay)),
            Again::Interrupted(Interrupt::Paused) => return (Event::Yield, None),
            Again::Interrupted(Interrupt::Cancelled) => return (Event::Cancel, None),
            Again::Interrupted(Interrupt::Shutdown | Interrupt::LostLease) => {
                return (Event::Release, Some(Duration::ZERO));
            }
            Again::Retry { .. } | Again::Fatal | Again::NeedsApproval => {}
        }
        record.attempts += 1;
        record.failure = Some(Failure {
            step: error.step.clone(),
            chain: error.chain(),
            left_behind: error.left_behind,
            at: self.process.now(),
            host: self.me.host.clone(),
        });
        match &error.again {
            Again::NeedsApproval => (Event::AskApproval, None),
            Again::Retry { after } if record.attempts < self.options.attempts => {
                let pause = self.pause_after(record.attempts);
                (
                    Event::Retry,
                    Some(after.map_or(pause, |least| least.min(LONGEST).max(pause))),
                )
            }
            _ => (Event::Fail, None),
        }
    }

    /// Exponential backoff with full jitter and a cap.
    fn pause_after(&self, attempts: u32) -> Duration {
        let most = self
            .options
            .backoff
            .saturating_mul(1 << attempts.saturating_sub(1).min(16))
            .min(self.options.backoff_cap);
        most.mul_f64(0.1 + 0.9 * self.process.chance())
    }
}
