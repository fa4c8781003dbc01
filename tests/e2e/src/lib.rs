//! Support for the end-to-end tests: a recovery in a sandbox, and what must hold afterwards.

pub mod cost;
pub mod disks;
pub mod harness;
pub mod history;
pub mod lab;
pub mod load;
pub mod processes;
pub mod recovery;
pub mod scanner;
mod script;
pub mod site;
pub mod sqs;
pub mod store_conformance;
pub mod store_lab;
pub mod tap;
pub mod tools;
pub mod volumes;
pub mod writers;
