//! Commands on machines over SSH, in the process: keys stay in memory, host keys are pinned.
//!
//! The reference project ignores host keys everywhere, splices arguments into shell scripts and
//! reads a cut connection as success. Here the pinned keys are a required argument ([`client`]),
//! arguments are quoted by us ([`quote`]), and a command without an exit status has failed.
//! Jobs talk to the [`Host`] seam ([`host`]), so they can be tested without a machine.

pub mod client;
pub mod error;
pub mod host;
pub mod keys;
pub mod quote;

pub use client::{Ssh, SshTarget, Tunnel};
pub use error::SshError;
pub use host::{Command, Host, HostExt, Output};
pub use keys::{HostKey, KeyError, SecretPem};

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;
