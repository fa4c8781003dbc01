//! Volumes, and the disks of a machine itself.

use serde::Deserialize;

use super::VolumeStatus;
use super::read::{id, or_default, resource};
use crate::cloud::clo::list::Resource;

resource!(Volume, LocalDisk);

/// A network volume.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Volume {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Free text.
    #[serde(default, deserialize_with = "or_default")]
    pub description: String,
    /// Where it stands.
    #[serde(default)]
    pub status: VolumeStatus,
    /// GB.
    #[serde(default, deserialize_with = "or_default")]
    pub size: u64,
    /// A system can start from it.
    #[serde(default, deserialize_with = "or_default")]
    pub bootable: bool,
    /// RFC 3339.
    pub created_in: Option<String>,
    /// It cannot be taken off its server.
    pub undetachable: Option<bool>,
    /// The server it is on.
    pub attached_to_server: Option<AttachedTo>,
}

/// The server that a disk is on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct AttachedTo {
    /// Id of the server.
    #[serde(default, deserialize_with = "or_default")]
    pub id: String,
    /// Device name as the cloud sees it. It is a hint: letters change at a reboot.
    pub device: Option<String>,
}

/// A disk of the machine itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct LocalDisk {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Where it stands.
    #[serde(default)]
    pub status: VolumeStatus,
    /// GB.
    #[serde(default, deserialize_with = "or_default")]
    pub size: u64,
    /// The system is on it.
    #[serde(default, deserialize_with = "or_default")]
    pub bootable: bool,
    /// RFC 3339.
    pub created_in: Option<String>,
    /// The server it is in.
    pub attached_to_server: Option<AttachedTo>,
}
