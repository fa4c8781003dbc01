//! Looks at what Flux would apply (`flux/` and `fluxcd/`) without a cluster, for mistakes that a cluster would only
//! show in the middle of a recovery: a name that leads nowhere, an order that cannot be kept, data that is not
//! protected.
//!
//! `tree` builds everything with kubectl, as Flux' controllers do; each check is pure and gives findings.

pub mod checks;
mod document;
mod given;
mod tree;

pub use document::{Document, Id};
pub use given::{BY_REKINDLE, BY_SOPS, Given};
pub use tree::{Chart, LoadError, Tree};

/// What a check found wrong: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// An object, a folder or a file.
    pub place: String,
    /// The mistake, in words.
    pub what: String,
}

impl Finding {
    /// Something is wrong at `place`.
    pub fn new(place: impl ToString, what: impl Into<String>) -> Self {
        Self {
            place: place.to_string(),
            what: what.into(),
        }
    }
}
