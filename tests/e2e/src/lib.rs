//! Support for the end-to-end tests: a recovery in a sandbox, and what must hold afterwards.

pub mod history;
pub mod processes;
pub mod recovery;
