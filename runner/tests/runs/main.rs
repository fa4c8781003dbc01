//! Detached runs with the real binary, in real containers: what survives what, and what is never done
//! twice. Needs root.
#![allow(missing_docs, reason = "these are tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bad_input;
mod chaos;
mod collect;
mod ends;
mod logs;
mod lost;
mod once;
mod secrets;
mod world;
