//! The project, its key pairs, and the images that it offers.

use serde::Deserialize;

use super::read::{id, or_default, resource};
use crate::cloud::clo::list::Resource;

resource!(Keypair, Image);

/// The project.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Project {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its name for people.
    pub display_name: Option<String>,
    /// `ACTIVE` when all is well.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// Why it was stopped.
    pub stopping_reason: Option<String>,
}

/// A public key that new servers can be made with.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Keypair {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// OpenSSH line.
    pub public_key: Option<String>,
    /// For comparing with our key.
    pub fingerprint: Option<String>,
}

/// An image that servers are made from.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Image {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What is on it.
    pub operation_system: Option<OperatingSystem>,
}

/// An operating system.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct OperatingSystem {
    /// For example `Debian`.
    pub distribution: Option<String>,
    /// For example `linux`.
    pub os_family: Option<String>,
    /// For example `12`.
    pub version: Option<String>,
}
