//! Support for the end-to-end tests: a recovery in a sandbox, and what must hold afterwards.

pub mod disks;
pub mod history;
pub mod lab;
pub mod processes;
pub mod recovery;
pub mod site;
pub mod store_conformance;
pub mod store_lab;
