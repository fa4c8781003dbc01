//! Servers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::read::{id, or_default, resource, whole_number};
use super::{OperatingSystem, ServerStatus};
use crate::cloud::clo::list::Resource;

resource!(Server);

/// A server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Server {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Its name; CLO has no labels, so ownership hangs on it.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Id of the project.
    #[serde(default, deserialize_with = "or_default")]
    pub project: String,
    /// Where it stands.
    #[serde(default)]
    pub status: ServerStatus,
    /// `ON` or `OFF`.
    pub switch_status: Option<String>,
    /// RFC 3339.
    pub created_in: Option<String>,
    /// Where it stands physically.
    pub datacenter: Option<String>,
    /// Its size.
    pub flavor: Option<Flavor>,
    /// What it was made from.
    pub image: Option<ServerImage>,
    /// Its disks, network volumes and local ones.
    #[serde(default, deserialize_with = "or_default")]
    pub disk_data: Vec<DiskRef>,
    /// Ids of its addresses (not the numbers: join with the addresses of the project).
    #[serde(default, deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Id of the primary address.
    pub primary_address: Option<String>,
}

impl Server {
    /// Ids of the network volumes on it. Everything but `local` counts as network: the API and
    /// its documents use different words for it.
    pub fn network_volumes(&self) -> impl Iterator<Item = &str> {
        self.disk_data
            .iter()
            .filter(|disk| !disk.is_local())
            .map(|disk| disk.id.as_str())
    }
}

/// A server's size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flavor {
    /// GB.
    #[serde(default, deserialize_with = "whole_number")]
    pub ram: u32,
    /// Virtual CPUs.
    #[serde(default, deserialize_with = "whole_number")]
    pub vcpus: u32,
    /// For example `SHARED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_type: Option<String>,
}

/// What a server was made from.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ServerImage {
    /// Its operating system.
    pub operation_system: Option<OperatingSystem>,
}

/// A disk as its server names it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct DiskRef {
    /// Id of a volume or a local disk.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// `volume`, `storage` or `local`.
    #[serde(default, deserialize_with = "or_default")]
    pub storage_type: String,
}

impl DiskRef {
    /// A disk of the machine itself: it goes with the server.
    pub fn is_local(&self) -> bool {
        self.storage_type.eq_ignore_ascii_case("local")
    }
}

/// A server to be made.
#[derive(Clone, Default, PartialEq, Serialize)]
pub struct NewServer {
    /// Its name, unique among ours.
    pub name: String,
    /// Its size.
    pub flavor: Flavor,
    /// Id of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its disks.
    pub storages: Vec<NewDisk>,
    /// Its addresses.
    pub addresses: Vec<NewServerAddress>,
    /// Ids of the key pairs that may log in.
    pub keypairs: Vec<String>,
    /// Given to cloud-init. It holds the host key, so `Debug` and errors hide it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

impl fmt::Debug for NewServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            flavor,
            image,
            storages,
            addresses,
            keypairs,
            user_data,
        } = self;
        f.debug_struct("NewServer")
            .field("name", name)
            .field("flavor", flavor)
            .field("image", image)
            .field("storages", storages)
            .field("addresses", addresses)
            .field("keypairs", keypairs)
            .field(
                "user_data",
                &user_data
                    .as_ref()
                    .map(|text| format!("({} bytes hidden)", text.len())),
            )
            .finish()
    }
}

/// A disk that is made along with its server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewDisk {
    /// GB.
    pub size: u64,
    /// The system is on it.
    pub bootable: bool,
    /// `volume` (network) or `local`.
    pub storage_type: String,
}

/// An address of a new server: an existing one, or a new one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewServerAddress {
    /// Id of an existing address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_id: Option<String>,
    /// A new one, seen from the internet (true) or only inside (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<bool>,
    /// 4 or 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u8>,
    /// Filtered against floods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ddos_protection: Option<bool>,
    /// 100 or 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_max_mbps: Option<u32>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn all_disks_but_local_ones_are_network_volumes() {
        let server: Server = serde_json::from_value(json!({"id": "x", "name": "x", "disk_data": [
            {"id": "a", "storage_type": "LOCAL"}, {"id": "b", "storage_type": "volume"},
            {"id": "c", "storage_type": "storage"}, {"id": "d"},
        ]}))
        .unwrap();
        assert_eq!(
            server.network_volumes().collect::<Vec<_>>(),
            ["b", "c", "d"]
        );
    }

    #[test]
    fn the_user_data_is_in_no_debug_output() {
        let new = NewServer {
            user_data: Some("ssh_keys: {ed25519_private: KEY}".into()),
            ..NewServer::default()
        };
        assert!(!format!("{new:?}").contains("KEY"));
    }
}
