//! The simulator seen by a plain HTTP client.

#![expect(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod faults;
mod servers;
mod volumes;
mod world;

use super::*;
