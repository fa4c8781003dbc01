//! Images: how they are made, fetched, checked and kept. `docs/runner.md` has the format.

mod build;
pub(crate) mod download;
mod frames;
mod pack;
mod pull;
mod source;
mod store;
mod tree;

pub use crate::oci::{Flaw, Repository};
pub use build::{BuildError, Built, Options, build};
pub use download::{DownloadError, Network};
pub use pull::{PullError, Pulled, pull, unpack_file, verify_file};
pub(crate) use source::is_loopback;
pub use source::{BadUrl, Source};
pub(crate) use store::seconds;
pub use store::{Collected, Image, Listed, Manifest, Store, StoreError};
