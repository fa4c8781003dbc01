//! A deterministic simulation of whole recoveries: the real engine, store client and in-process
//! queue, with machines, network, bucket and cloud that are drawn from a seed and behave badly.
//!
//! Everything runs in one thread on tokio's paused clock, so that minutes take milliseconds and the
//! same seed gives the same run, event by event. [`run`] plays one seed; the laws (`laws`) are
//! checked at each event, and at the end all faults stop and everything must come to its end.
//!
//! What is not simulated: sockets and TLS, the real brokers, processes (all tested elsewhere), and a
//! freeze in the middle of a poll: workers are frozen and killed at awaits.
//!
//! Reading order: `play` (one run), `chaos` (what goes wrong), `laws` (what must hold), `program`
//! (what the jobs do), `operator` (who began it), then the parts of the world: `machine`, `link`, `broker`, `bucket`, `outside`.

mod broker;
mod bucket;
mod chaos;
mod laws;
mod link;
mod machine;
mod operator;
mod outside;
mod play;
mod program;
mod stage;

pub use play::{Ended, Flaw, Options, run};
