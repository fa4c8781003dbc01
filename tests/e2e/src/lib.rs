//! Support for the end-to-end tests: a recovery in a sandbox, and what must hold afterwards.

pub mod lab;
pub mod recovery;
