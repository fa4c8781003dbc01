//! Container images for installs without the registries: the list that people give, what must be on it
//! for the Kubernetes of a spec, and the bundle that is made of it.

mod bundle;
mod list;
mod needed;
mod platform;
mod reference;

pub use bundle::{Bundle, BundleError, Mirrored};
pub use list::List;
pub use needed::missing;
pub use platform::{BadPlatform, Platform};
pub use reference::{BadReference, Reference};

/// Whether a text is the 64 digits of a SHA-256 digest, in lower case.
pub(crate) fn is_sha256(digits: &str) -> bool {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    digits.len() == 64 && digits.bytes().all(lower_hex)
}
