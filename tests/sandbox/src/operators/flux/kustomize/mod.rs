//! kustomize-controller: folders of sources, built, decrypted, substituted, applied, waited for, pruned.

mod build;
mod controller;
mod prepare;
mod substitute;
mod wanted;

pub use build::{BuildError, Open, build};
pub(super) use controller::Kustomize;
