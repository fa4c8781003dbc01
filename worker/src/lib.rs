//! The worker: the engine that runs jobs, the jobs, and the clients they work with.

pub mod application;
pub mod args;
pub mod child;
pub mod cloud;
pub mod cluster;
pub mod config;
pub mod engine;
#[cfg(test)]
mod fuzz;
pub mod jobs;
pub mod kube;
pub mod load;
pub mod net;
pub mod pgbackrest;
pub mod pinned;
pub mod postgres;
pub mod registries;
mod run;
pub mod sealed;
pub mod sops;
pub mod ssh;
pub mod switch;
pub mod telemetry;
pub mod world;

pub use run::{RunError, run, shutdown_signal};

/// Makes the one TLS provider of this process the default. Call it first in `main`.
pub fn install_crypto() {
    // An error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
