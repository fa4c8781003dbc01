//! What CLO says, read leniently: fields may be missing or null, unknown ones are ignored, and
//! states are compared without regard to case and dashes (the API has used both).
//!
//! Not so the id, and the name of what is looked for by its name: were it called another way one day,
//! nothing would be found, and everything would be made a second time. (A name may be null: a thing
//! without one is none of ours.)

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::list::Resource;

/// Declares a status enum. The words are CLO's; what we do not know is kept as it came, and
/// callers keep waiting on it.
macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal $(| $alias:literal)*),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            /// A word that is not in our list, in upper case; empty when there was none.
            Other(String),
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                let word = word.trim().to_ascii_uppercase().replace('-', "_");
                match word.as_str() {
                    $($word $(| $alias)* => Self::$variant,)*
                    _ => Self::Other(word),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                })
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Ok(Option::<String>::deserialize(from)?.unwrap_or_default().as_str().into())
            }
        }
    };
}

status! {
    /// Where a server stands. Active does not mean that SSH answers.
    ServerStatus {
        /// Being made.
        Building = "BUILDING",
        /// Up (the reference project has also seen `RUNNING`).
        Active = "ACTIVE" | "RUNNING",
        /// Switched off.
        Stopped = "STOPPED",
        /// Being switched on.
        Starting = "STARTING",
        /// Being switched off.
        Stopping = "STOPPING",
        /// Getting another flavor.
        Resizing = "RESIZING",
        /// Going away.
        Deleting = "DELETING",
        /// Failed for good.
        Error = "ERROR",
    }
}

status! {
    /// Where a volume or local disk stands.
    VolumeStatus {
        /// Being made.
        Creating = "CREATING",
        /// Attached to nothing.
        Available = "AVAILABLE",
        /// Being made larger.
        Resizing = "RESIZING",
        /// On its way to a server.
        Attaching = "ATTACHING",
        /// Attached to a server.
        InUse = "IN_USE",
        /// On its way off a server.
        Detaching = "DETACHING",
        /// Going away.
        Deleting = "DELETING",
        /// Failed for good.
        Error = "ERROR",
    }
}

status! {
    /// Where an address stands.
    AddressStatus {
        /// On its way; it may not even have a number yet.
        Processing = "PROCESSING",
        /// Free.
        Down = "DOWN",
        /// Attached to something.
        Active = "ACTIVE",
    }
}

status! {
    /// Where a load balancer or one of its rules stands.
    BalancerStatus {
        /// Being made.
        Creating = "CREATING",
        /// Working.
        Active = "ACTIVE",
        /// Being switched on.
        Starting = "STARTING",
        /// Being switched off.
        Stopping = "STOPPING",
        /// Switched off.
        Stopped = "STOPPED",
        /// Being changed.
        Changing = "CHANGING",
        /// Being changed.
        Updating = "UPDATING",
        /// Going away.
        Deleting = "DELETING",
        /// Could not be made.
        CreatingError = "CREATING_ERROR",
        /// Failed for good.
        Error = "ERROR",
    }
}

/// A list or object that may also be missing or null.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An id is there and not empty: things are told apart by it.
pub(super) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let id = String::deserialize(from)?;
    match id.is_empty() {
        false => Ok(id),
        true => Err(serde::de::Error::custom("an id is empty")),
    }
}

/// A number that the API may write as `4`, `4.0` or null.
fn whole_number<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number: f64 = or_default(from)?;
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        return Ok(number as u32);
    }
    Err(serde::de::Error::custom(format!(
        "{number} is not a whole number"
    )))
}

macro_rules! resource {
    ($($name:ident),*) => {
        $(impl Resource for $name {
            fn id(&self) -> &str {
                &self.id
            }
        })*
    };
}
resource!(
    Server,
    Volume,
    LocalDisk,
    Address,
    LoadBalancer,
    Rule,
    Keypair,
    Image
);

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

/// A load balancer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct LoadBalancer {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Where it stands.
    #[serde(default)]
    pub status: BalancerStatus,
    /// `ROUND_ROBIN` or `LEAST_CONNECTIONS`.
    pub algorithm: Option<String>,
    /// The same client meets the same backend.
    pub session_persistence: Option<bool>,
    /// Ids of its addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// How many rules it has.
    pub rules_count: Option<u64>,
    /// How it tests its backends.
    pub healthmonitor: Option<HealthMonitor>,
    /// RFC 3339.
    pub created_in: Option<String>,
}

/// How a load balancer tests its backends. Known limits: delay >= 80, timeout >= 15, retries 1..10.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthMonitor {
    /// `PING`, `TCP` or `HTTP`.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
    /// Time between tests, probably seconds.
    #[serde(default, deserialize_with = "whole_number")]
    pub delay: u32,
    /// How long a test may take.
    #[serde(default, deserialize_with = "whole_number")]
    pub timeout: u32,
    /// How many failures make a backend bad.
    #[serde(default, deserialize_with = "whole_number")]
    pub max_retries: u32,
    /// For HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_method: Option<String>,
    /// For HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_path: Option<String>,
    /// For HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_codes: Option<String>,
}

/// A load balancer to be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewLoadBalancer {
    /// Its name, unique among ours.
    pub name: String,
    /// How it tests its backends.
    pub healthmonitor: HealthMonitor,
    /// `ROUND_ROBIN` or `LEAST_CONNECTIONS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// The same client meets the same backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<bool>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<BalancerAddress>,
    /// Its rules. Always sent, also when there are none: CLO fails without the key.
    pub rules: Vec<NewRule>,
}

/// The address of a new load balancer. CLO fails when both are named, so it is one or the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BalancerAddress {
    /// One that we have.
    Existing {
        /// Id of the address.
        id: String,
    },
    /// A new one.
    New {
        /// Filtered against floods.
        ddos_protection: bool,
    },
}

/// A rule of a load balancer: one port to one backend.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Rule {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Id of the load balancer.
    #[serde(default, deserialize_with = "or_default")]
    pub loadbalancer: String,
    /// Id of the backend.
    pub server: Option<String>,
    /// Id of the backend's internal address.
    pub address: Option<String>,
    /// Where it stands.
    #[serde(default)]
    pub status: BalancerStatus,
    /// Port on the load balancer.
    #[serde(default, deserialize_with = "or_default")]
    pub external_protocol_port: u16,
    /// Port on the backend.
    #[serde(default, deserialize_with = "or_default")]
    pub internal_protocol_port: u16,
}

/// A rule to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NewRule {
    /// Id of the backend's internal address.
    pub address_id: String,
    /// Port on the load balancer.
    pub external_protocol_port: u16,
    /// Port on the backend.
    pub internal_protocol_port: u16,
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn states_are_read_without_regard_to_case_and_dashes() {
        for (word, want) in [
            ("IN_USE", VolumeStatus::InUse),
            ("in-use", VolumeStatus::InUse),
            ("Available", VolumeStatus::Available),
            ("frozen", VolumeStatus::Other("FROZEN".into())),
            ("", VolumeStatus::Other(String::new())),
        ] {
            assert_eq!(VolumeStatus::from(word), want, "{word}");
        }
        assert_eq!(ServerStatus::from("running"), ServerStatus::Active);
        assert_eq!(
            BalancerStatus::from("creating-error").to_string(),
            "CREATING_ERROR"
        );
    }

    #[test]
    fn everything_but_id_and_name_may_be_missing_or_null() {
        let little = json!({"id": "x", "name": null, "something": {"new": 1}});
        serde_json::from_value::<Server>(little.clone()).unwrap();
        serde_json::from_value::<Volume>(little.clone()).unwrap();
        serde_json::from_value::<LocalDisk>(little.clone()).unwrap();
        serde_json::from_value::<Address>(little.clone()).unwrap();
        serde_json::from_value::<LoadBalancer>(little.clone()).unwrap();
        serde_json::from_value::<Rule>(little.clone()).unwrap();
        serde_json::from_value::<Keypair>(little.clone()).unwrap();
        serde_json::from_value::<Image>(little.clone()).unwrap();
        serde_json::from_value::<Project>(little).unwrap();
        // What is looked for by its name has one, or nothing would ever be found.
        let nameless = json!({"id": "x", "title": "test-web-1"});
        assert!(serde_json::from_value::<Server>(nameless.clone()).is_err());
        assert!(serde_json::from_value::<Volume>(nameless.clone()).is_err());
        assert!(serde_json::from_value::<LoadBalancer>(nameless.clone()).is_err());
        assert!(serde_json::from_value::<Keypair>(nameless).is_err());
        let empty = json!({"id": "", "name": "test-web-1"});
        assert!(serde_json::from_value::<Server>(empty.clone()).is_err());
        assert!(serde_json::from_value::<Address>(empty).is_err());
        let nulls = json!({"id": "x", "name": null, "status": null, "addresses": null, "disk_data": null, "flavor": null});
        let server: Server = serde_json::from_value(nulls).unwrap();
        assert_eq!(
            server,
            Server {
                id: "x".into(),
                ..Server::default()
            }
        );
        assert!(serde_json::from_value::<Server>(json!({"name": "no id"})).is_err());
        let flavor: Flavor =
            serde_json::from_value(json!({"ram": 4.0, "vcpus": 2, "disk": null})).unwrap();
        assert_eq!(
            serde_json::to_string(&flavor).unwrap(),
            r#"{"ram":4,"vcpus":2}"#
        );
    }

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

    #[test]
    fn a_load_balancer_is_sent_as_clo_wants_it() {
        let new = NewLoadBalancer {
            name: "test-main-lb".into(),
            address: Some(BalancerAddress::Existing { id: "a-1".into() }),
            ..NewLoadBalancer::default()
        };
        let sent = serde_json::to_value(new).unwrap();
        assert_eq!(sent["rules"], json!([]));
        assert_eq!(sent["address"], json!({"id": "a-1"}));
    }
}
