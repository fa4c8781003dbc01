//! Workers die, messages come twice, late or never, operators change their minds: one world.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod messages;
mod operators;
mod turns;
mod workers;

use e2e::lab::quick;
use jobs::record::Owner;
use worker::engine::Options as EngineOptions;

/// A process of this host that is gone for certain.
fn a_dead_process() -> Owner {
    Owner {
        pid: u32::MAX,
        ..worker::engine::here(uuid::Uuid::new_v4())
    }
}

/// No sweep: what is not posted by its own turn stays lying, and a test sees it.
fn unswept() -> EngineOptions {
    EngineOptions {
        sweep: None,
        ..quick()
    }
}
