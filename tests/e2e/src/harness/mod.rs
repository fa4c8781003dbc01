//! The job harness: every kind of job, disturbed at every point, must leave the same world.
//!
//! One undisturbed run of a job on a small world is listened to (`tap`), and every outside call that
//! it makes is a point where something may go wrong (`point`): the worker dies, the call fails or
//! its answer is lost, another worker takes the lease, the message comes again. Nothing of this is
//! enumerated by hand; a job that gains a step gains its points. Then the job runs once for every
//! point, each time on a fresh copy of the same world (`place`), and what is there in the end
//! (`outcome`) must equal what the undisturbed run left: clouds, disks, records, proofs, and how
//! often anything was made.
//!
//! `REKINDLE_HARNESS=full` tries every point; without it a sample of fixed size is tried, spread by
//! `REKINDLE_SEED`. `REKINDLE_POINT=<point>` tries one alone, as a failure prints it.

pub mod kinds;
pub mod outcome;
pub mod place;
pub mod point;
pub mod queue;
pub mod run;
pub mod tap;
pub mod wire;

pub use run::check;
