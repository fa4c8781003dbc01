//! Images of registries, with the real binary against a registry that keeps state and fails on request.
#![allow(missing_docs, reason = "these are tests")]
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    reason = "these are tests"
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod attacks;
mod documents;
mod doors;
mod faults;
mod layers;
#[path = "../../../tests/sandbox/src/registry/server.rs"]
#[allow(dead_code, reason = "the sandbox needs more of it")]
mod server;
mod world;
