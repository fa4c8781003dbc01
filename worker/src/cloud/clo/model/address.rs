//! Addresses.

use serde::{Deserialize, Serialize};

use super::AddressStatus;
use super::read::{id, or_default, resource};
use crate::cloud::clo::list::Resource;

resource!(Address);

/// An IP address.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Address {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// The number; missing while the address is processing.
    pub address: Option<String>,
    /// Where it stands.
    #[serde(default)]
    pub status: AddressStatus,
    /// Seen from the internet.
    #[serde(default, deserialize_with = "or_default")]
    pub external: bool,
    /// 4 or 6.
    pub version: Option<u8>,
    /// The first address of its server.
    #[serde(default, deserialize_with = "or_default")]
    pub is_primary: bool,
    /// Filtered against floods.
    #[serde(default, deserialize_with = "or_default")]
    pub ddos_protection: bool,
    /// Network card.
    pub mac_addr: Option<String>,
    /// What it belongs to.
    pub attached_to: Option<AddressOwner>,
    /// RFC 3339.
    pub created_in: Option<String>,
}

impl Address {
    /// It belongs to this server.
    pub fn is_of_server(&self, server: &str) -> bool {
        self.attached_to
            .as_ref()
            .is_some_and(|owner| owner.id == server)
    }
}

/// What an address belongs to.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct AddressOwner {
    /// `server` or `loadbalancer`.
    #[serde(default, deserialize_with = "or_default")]
    pub entity: String,
    /// Its id.
    #[serde(default, deserialize_with = "or_default")]
    pub id: String,
}

/// What an address can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Entity {
    /// A server.
    Server,
    /// A load balancer.
    LoadBalancer,
}
