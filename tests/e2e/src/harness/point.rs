//! The points where something may go wrong, derived from the calls of an undisturbed run.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};

use super::tap::Blow;

/// The `nth` call of its kind, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is called: `s3 put nodes/demo-cache-1/*`, `cloud POST servers`,
    /// `kube PATCH configmaps/pg/x`, `queue ack`.
    pub what: String,
    /// Which one.
    pub nth: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// At a call.
    At(Trouble, Call),
    /// With the deliveries of the job's message.
    Delivered(Often),
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The worker dies before the call has its effect.
    CrashBefore,
    /// The worker dies when it has had its effect, before the answer.
    CrashAfter,
    /// It fails without an effect.
    FailBefore,
    /// It has its effect, and the answer is lost.
    FailAfter,
    /// It hangs for longer than the lease while another worker takes the job over; then it takes
    /// effect after all.
    StolenBefore,
    /// The same, but it took effect before it hung.
    StolenAfter,
    /// Another worker gets the same message at this moment.
    Twin,
    /// The worker dies, another one does the whole job, and only then does the call arrive: a
    /// command that hung on its host runs on there.
    Late,
}

/// How the message comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Often {
    /// Twice, to one worker.
    Twice,
    /// Twice, to two workers at once.
    ToTwo,
    /// Every message once more after its acknowledgement, to two workers.
    AfterAck,
    /// Once more when all is over.
    Late,
}

const TROUBLES: [(Trouble, &str); 8] = [
    (Trouble::CrashBefore, "crash-before"),
    (Trouble::CrashAfter, "crash-after"),
    (Trouble::FailBefore, "fail-before"),
    (Trouble::FailAfter, "fail-after"),
    (Trouble::StolenBefore, "stolen-before"),
    (Trouble::StolenAfter, "stolen-after"),
    (Trouble::Twin, "twin"),
    (Trouble::Late, "late"),
];

const OFTEN: [(Often, &str); 4] = [
    (Often::Twice, "twice"),
    (Often::ToTwo, "to-two"),
    (Often::AfterAck, "after-ack"),
    (Often::Late, "late"),
];

impl Trouble {
    /// What it does to the call.
    pub fn blow(self) -> Blow {
        match self {
            Trouble::CrashBefore | Trouble::StolenBefore | Trouble::Twin | Trouble::Late => {
                Blow::HoldBefore
            }
            Trouble::CrashAfter | Trouble::StolenAfter => Blow::HoldAfter,
            Trouble::FailBefore => Blow::CutBefore,
            Trouble::FailAfter => Blow::CutAfter,
        }
    }
}

/// All points of a job whose undisturbed run makes these calls. Reading leaves nothing behind: dying
/// after it is dying before the next call, and its lost answer is its failure. On a host we cannot
/// tell a look from a deed, so every command counts as a deed.
pub fn all(calls: &[Call], job: &str) -> Vec<Point> {
    use Trouble::*;
    let mut points: Vec<Point> = OFTEN.map(|(often, _)| Point::Delivered(often)).into();
    for call in calls {
        let what = call.what.as_str();
        let reads = [
            "s3 get",
            "s3 list",
            "s3 head",
            "cloud GET",
            "kube GET",
            "ssh connect",
        ];
        let troubles: &[Trouble] = if reads.iter().any(|read| what.starts_with(read)) {
            &[FailBefore]
        } else if what.starts_with("ssh") && what.ends_with(" sh") {
            // A late write leaves its file beside the true one, until the next write clears it away.
            &[FailBefore, FailAfter, CrashAfter]
        } else if what.starts_with("ssh") {
            &[FailBefore, FailAfter, CrashAfter, Late]
        } else if what.starts_with(&format!("s3 put jobs/{job}/")) {
            &[
                CrashBefore,
                CrashAfter,
                FailBefore,
                FailAfter,
                StolenBefore,
                StolenAfter,
                Twin,
            ]
        } else {
            &[CrashBefore, CrashAfter, FailBefore, FailAfter]
        };
        points.extend(
            troubles
                .iter()
                .map(|trouble| Point::At(*trouble, call.clone())),
        );
    }
    points
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.what, self.nth)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::At(trouble, call) => {
                let name = TROUBLES.iter().find(|(t, _)| t == trouble);
                write!(f, "{}: {call}", name.map_or("?", |(_, name)| name))
            }
            Point::Delivered(often) => {
                let name = OFTEN.iter().find(|(o, _)| o == often);
                write!(f, "delivered {}", name.map_or("?", |(_, name)| name))
            }
        }
    }
}

impl FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(name) = text.strip_prefix("delivered ") {
            let often = OFTEN.iter().find(|(_, n)| *n == name);
            return Ok(Point::Delivered(often.context("no such delivery")?.0));
        }
        let Some((name, call)) = text.split_once(": ") else {
            bail!("a point reads `crash-after: queue ack#1`, not `{text}`");
        };
        let trouble = TROUBLES.iter().find(|(_, n)| *n == name);
        let (what, nth) = call.rsplit_once('#').context("which one?")?;
        let call = Call {
            what: what.to_owned(),
            nth: nth.parse()?,
        };
        Ok(Point::At(trouble.context("no such trouble")?.0, call))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_point_is_read_as_it_is_printed() {
        let call = |what: &str| Call {
            what: what.into(),
            nth: 2,
        };
        let calls = [
            call("s3 put jobs/demo/a/*"),
            call("queue ack"),
            call("ssh demo-1 mkfs.ext4"),
        ];
        for point in all(&calls, "demo/a") {
            assert_eq!(point.to_string().parse::<Point>().unwrap(), point);
        }
    }
}
