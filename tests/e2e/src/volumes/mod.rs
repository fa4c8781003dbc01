//! Random projects in which two clusters recover side by side, to prove the most important promise:
//! no protected and no foreign volume is ever touched, and no data is ever lost.
//!
//! A [`Scene`] is plain data that follows from a seed: two clusters, the volumes that the project
//! holds before, what the records say about them, and what goes wrong. [`stage`] puts it into a lab,
//! [`play()`] lets the real workers recover in it, and [`judge`] compares what they did, by the logs of
//! cloud and hosts, with what was allowed.

pub mod judge;
pub mod play;
pub mod scene;
pub mod stage;

pub use judge::Tally;
pub use play::play;
pub use scene::Scene;
