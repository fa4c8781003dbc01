//! The sandbox's S3 server: the store Rekindle keeps its records in, inside this process.
//!
//! Why not an existing one: the crate `s3s-fs` checks conditions first and acts later, so that
//! dozens of concurrent creators win the same key. Rekindle's locks rest on exactly one winner.
//! Here one decision is made per key, under one lock, after the body has been read.
//!
//! The server can also be made to behave like the stores one meets: to fail, to lose answers
//! ([`S3Faults`]), or to promise conditions that it does not keep ([`Misbehave`]).
//!
//! The way of a request: `front` accepts and applies faults, the crate `s3s` checks the signature
//! and speaks the protocol, `protocol` translates, `store` decides. [`S3Proxy`] puts the same front
//! before any other server.
mod faults;
mod front;
mod list;
mod protocol;
mod proxy;
mod request;
mod server;
mod shape;
mod store;

#[cfg(test)]
mod tests;

pub use faults::{Failure, Gate, Rule, RuleId, S3Faults, What, When};
pub use front::S3Stats;
pub use proxy::S3Proxy;
pub use request::Op;
pub use server::{Misbehave, S3Options, S3Server};
