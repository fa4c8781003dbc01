//! The engine: turns a message into a turn of a job, and nothing else.
//!
//! A worker owns a job only by the lease in the job's record. One turn: read the record, claim it
//! (one more version), run the job function until it ends or the turn's time is used up, write
//! the last version, post what follows, acknowledge. A crash anywhere in between is repaired by
//! redelivery, by the sweep or by `rekindle retry`.
//!
//! Reading order: `decide` (what to do), `wake` (the message), `turn` (do it), `lease` (whose job it is), `judge` and
//! `end` (how it ended), `ctx` (what the job sees), `recorder` (how it becomes durable), `service` (the loop), `watch`
//! and `sweep` (what fell through).

mod ctx;
mod decide;
mod end;
mod error;
mod flags;
mod follow;
mod judge;
mod lease;
mod owner;
mod process;
mod recorder;
mod service;
mod sweep;
mod turn;
mod wake;
mod watch;

pub use ctx::{Ctx, Patience, Poll, Proof, Proven};
pub use error::{Again, Interrupt, JobError};
pub use owner::{here, is_gone};
pub use process::{Process, ThisProcess};
pub use service::{Engine, Options};
