//! Images of OCI registries: a manifest or an index by its digest, the layers that it names, one tree.
//!
//! ```text
//! index ─platform→ manifest ─→ config (diff IDs)
//!                     └──────→ layers ─digest, size→ decompressor ─diff ID→ tree
//! ```
//!
//! Everything hangs on the digest that was asked for, so a registry can refuse, but not deceive. The
//! configuration is data: nothing in it is run, and none of it reaches a run.

mod challenge;
mod credentials;
mod document;
mod platform;
mod pull;
mod registry;
mod remote;
mod repository;

pub use document::{Blob, Flaw};
pub use platform::{BadPlatform, Platform};
pub(crate) use pull::unpack;
pub use remote::{Described, Remote};
pub use repository::Repository;
