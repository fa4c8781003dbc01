//! Containers, looked at from inside and from the host. These tests need root, and user namespaces for the
//! one without.
#![allow(missing_docs, reason = "these are tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod image;
mod life;
mod rights;
mod rootless;
mod surroundings;
mod world;
