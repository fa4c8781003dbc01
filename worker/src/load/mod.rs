//! Load tests: what runners counted, put together and judged; and a small runner of our own.
//!
//! A result is judged twice: whether its numbers can be trusted at all (`trust`), and whether the application bore the
//! load (`verdict`). What cannot be trusted is no result, however good it looks. Both are pure, as is `tally`, which
//! counts what the virtual users of `users` see.

mod files;
pub mod k6;
mod merge;
mod tally;
mod trust;
pub mod users;
mod verdict;

use jobs::spec::{Driver, Thresholds};

pub use merge::merge;
pub use verdict::{expected, observed, result, why};

/// What a test was to do.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Name of the run.
    pub run: String,
    /// Where the load came from.
    pub driver: Driver,
    /// What was loaded, with `${DOMAIN}` in it.
    pub target: String,
    /// Virtual users, all runners together.
    pub virtual_users: u32,
    /// How often each of them was to go through the script.
    pub iterations: u32,
    /// What the application must bear.
    pub thresholds: &'a Thresholds,
}

impl Asked<'_> {
    /// Iterations of all virtual users together.
    fn iterations_in_all(&self) -> u64 {
        u64::from(self.virtual_users) * u64::from(self.iterations)
    }
}

#[cfg(test)]
mod tests;
