//! What all parts of a simulation share: the dice, the trace, the weather, and the first law broken.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::bucket::Bucket;
use super::laws::Laws;
use super::outside::Outside;

/// As many lines of the trace are kept for a report.
const KEPT: usize = 400;

/// How the world behaves towards everybody; per worker there is more ([`super::link`]).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Of a hundred requests to the store or the cloud, so many go wrong.
    pub(crate) store: u8,
    /// Of a hundred calls to the broker, so many go wrong.
    pub(crate) queue: u8,
    /// Of a hundred messages published, so many arrive twice.
    pub(crate) twice: u8,
}

/// The stage on which everything happens.
#[derive(Debug)]
pub(crate) struct Stage {
    dice: Mutex<Rng>,
    trace: Mutex<Trace>,
    weather: Mutex<Weather>,
    laws: Mutex<Laws>,
    broken: Mutex<Option<String>>,
    began: Instant,
    /// Fires when a law was broken.
    pub(crate) over: CancellationToken,
    /// The bucket.
    pub(crate) bucket: Bucket,
    /// The cloud that the programs work on.
    pub(crate) outside: Outside,
}

/// What happened: the last lines, and a digest of all of them.
#[derive(Debug, Default)]
struct Trace {
    last: VecDeque<String>,
    digest: u64,
    events: u64,
}

impl Stage {
    pub(crate) fn new(seed: u64, bucket: Bucket) -> Self {
        Self {
            dice: Mutex::new(Rng::with_seed(seed)),
            trace: Mutex::default(),
            weather: Mutex::default(),
            laws: Mutex::default(),
            broken: Mutex::default(),
            began: Instant::now(),
            over: CancellationToken::new(),
            bucket,
            outside: Outside::default(),
        }
    }

    /// Virtual time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Writes an event into the trace.
    pub(crate) fn note(&self, event: fmt::Arguments<'_>) {
        let line = format!("{:10.3} {event}", self.elapsed().as_secs_f64());
        let mut trace = lock(&self.trace);
        // FNV-1a: not for secrets, the same on every machine.
        for byte in line.bytes() {
            trace.digest = (trace.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        trace.events += 1;
        if trace.last.len() == KEPT {
            trace.last.pop_front();
        }
        trace.last.push_back(line);
    }

    /// Events so far and the digest of all of them.
    pub(crate) fn digest(&self) -> (u64, u64) {
        let trace = lock(&self.trace);
        (trace.events, trace.digest)
    }

    /// The last lines of the trace.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        lock(&self.trace).last.iter().cloned().collect()
    }

    /// The laws, to tell them what happens; what they object to ends the simulation.
    pub(crate) fn law<T: Default>(&self, tell: impl FnOnce(&mut Laws) -> Result<T, String>) -> T {
        let verdict = tell(&mut lock(&self.laws));
        verdict.unwrap_or_else(|law| {
            self.object(law);
            T::default()
        })
    }

    /// Ends the simulation.
    pub(crate) fn object(&self, law: String) {
        self.note(format_args!("BROKEN {law}"));
        lock(&self.broken).get_or_insert(law);
        self.over.cancel();
    }

    /// The first law that was broken.
    pub(crate) fn broken(&self) -> Option<String> {
        lock(&self.broken).clone()
    }

    pub(crate) fn weather(&self) -> Weather {
        *lock(&self.weather)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        *lock(&self.weather) = weather;
    }

    /// Throws: whether something of this probability in percent happens.
    pub(crate) fn chance(&self, percent: u8) -> bool {
        percent > 0 && self.below(100) < u64::from(percent)
    }

    /// A number below `most`.
    pub(crate) fn below(&self, most: u64) -> u64 {
        lock(&self.dice).u64(..most.max(1))
    }

    /// A number from 0 to 1.
    pub(crate) fn fraction(&self) -> f64 {
        lock(&self.dice).f64()
    }

    /// A time between two others, in milliseconds.
    pub(crate) fn between(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }
}

/// Nothing that is locked here is left half-changed by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
