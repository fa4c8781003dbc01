//! What goes wrong with load tests.

use std::time::Duration;

use crate::operators::troubles::Troubles;

/// Something that goes wrong in every test. Runners are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This runner's script throws before it listens: its Pod never runs, and the test never starts.
    DiesAtOnce(u32),
    /// This runner is killed for want of memory, after its first iterations.
    OutOfMemory(u32),
    /// This runner is killed by somebody, after its first iterations.
    Killed(u32),
    /// No node has room for this runner.
    NeverScheduled(u32),
    /// The image of this runner cannot be pulled.
    ImagePullFails(u32),
    /// This runner prints no summary.
    NoSummary(u32),
    /// Each iteration of this runner takes so much longer.
    Slow(u32, Duration),
    /// This runner's Pod vanishes with its node while the test runs.
    Vanishes(u32),
    /// The starter fails: the runners wait for ever.
    StarterFails,
    /// The initializer fails.
    InitializerFails,
}

/// The faults of an operator.
pub type Faults = Troubles<Fault>;

impl Fault {
    /// How the stand-in for k6 plays it, if it is the one to do that.
    pub(super) fn for_runner(&self, runner: u32) -> Option<String> {
        match self {
            Self::DiesAtOnce(of) if *of == runner => Some("throw".to_owned()),
            Self::OutOfMemory(of) | Self::Killed(of) if *of == runner => Some("kill".to_owned()),
            Self::NoSummary(of) if *of == runner => Some("silent".to_owned()),
            Self::Slow(of, pause) if *of == runner => Some(format!("slow:{}", pause.as_millis())),
            _ => None,
        }
    }
}
