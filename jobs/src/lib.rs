//! The contract of Rekindle.
//!
//! The model half does no I/O, reads no clock and knows no runtime: [`message`] (what travels
//! through the queue), [`spec`] and [`plan`] (what people write), [`images`] (what is mirrored),
//! [`record`] (what is stored and how it may change), [`secrets`] (what is sealed), [`keys`] (where).
//! The other half are the two ports, [`queue`] and [`store`].

mod cut;
pub mod ids;
pub mod images;
pub mod keys;
pub mod message;
pub mod plan;
pub mod queue;
pub mod record;
pub mod secrets;
pub mod spec;
pub mod store;
pub mod user;
mod yaml;

/// The SHA-256 digest in lower-case hex, by which inputs are named.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}
