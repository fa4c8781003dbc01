//! What exists in the project. Plain data; who may change it is decided in `api` and `lifecycle`.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde_json::Value;

/// A set of states with the words the API uses for them.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($state:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names say it all")]
        pub enum $name { $($state,)+ }
        impl $name {
            /// The API's word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$state => $word,)+ }
            }
        }
    };
}

states!(
    /// Of a server.
    ServerStatus {
        Building = "BUILDING",
        Active = "ACTIVE",
        // Not in the documented list: a client treats words it does not know as "keep waiting".
        Rebooting = "REBOOTING",
        Starting = "STARTING",
        Stopping = "STOPPING",
        Stopped = "STOPPED",
        Deleting = "DELETING",
        Error = "ERROR",
    }
);
states!(
    /// Of a volume or local disk.
    VolumeStatus {
        Creating = "CREATING",
        Available = "AVAILABLE",
        Attaching = "ATTACHING",
        InUse = "IN_USE",
        Detaching = "DETACHING",
        Deleting = "DELETING",
    }
);
states!(
    /// Of an address.
    AddressStatus {
        Processing = "PROCESSING",
        Down = "DOWN",
        Active = "ACTIVE",
    }
);
states!(
    /// Of a load balancer.
    BalancerStatus {
        Creating = "CREATING",
        Active = "ACTIVE",
        Deleting = "DELETING",
    }
);
states!(
    /// Of a load balancer's rule. ERROR: its server is gone.
    RuleStatus {
        Creating = "CREATING",
        Active = "ACTIVE",
        Error = "ERROR",
    }
);

/// What an address is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entity {
    /// A server, by id.
    Server(String),
    /// A load balancer, by id.
    Balancer(String),
}

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) status: ServerStatus,
    pub(super) ram: u64,
    pub(super) vcpus: u64,
    pub(super) image: String,
    pub(super) keypairs: Vec<String>,
    pub(super) user_data: Option<String>,
    pub(super) created: Timestamp,
    /// Seeded as somebody else's: no host stands behind it.
    pub(super) foreign: bool,
    /// A host stands behind it (or did not yet, or could not, come up).
    pub(super) booted: bool,
}

/// A network volume or a local disk.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) status: VolumeStatus,
    pub(super) bootable: bool,
    pub(super) local: bool,
    /// Server id and device name without `/dev/`.
    pub(super) attached: Option<(String, String)>,
    pub(super) created: Timestamp,
    pub(super) foreign: bool,
    /// The hypervisor knows it. A boot disk is part of its host.
    pub(super) on_hypervisor: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) id: String,
    pub(super) ip: Ipv4Addr,
    pub(super) status: AddressStatus,
    pub(super) external: bool,
    pub(super) attached: Option<Entity>,
    pub(super) primary: bool,
    pub(super) ddos_protection: bool,
    pub(super) bandwidth: u64,
    pub(super) created: Timestamp,
    pub(super) foreign: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Balancer {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) status: BalancerStatus,
    pub(super) algorithm: String,
    pub(super) session_persistence: bool,
    pub(super) healthmonitor: Value,
    pub(super) created: Timestamp,
    pub(super) foreign: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) balancer: String,
    pub(super) server: String,
    pub(super) address: String,
    pub(super) status: RuleStatus,
    pub(super) external_port: u16,
    pub(super) internal_port: u16,
}

#[derive(Clone, Debug)]
pub(super) struct Keypair {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) public_key: String,
}

#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) distribution: &'static str,
    pub(super) version: &'static str,
}

/// Everything in the project, each list in order of creation.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) servers: Vec<Server>,
    pub(super) volumes: Vec<Volume>,
    pub(super) addresses: Vec<Address>,
    pub(super) balancers: Vec<Balancer>,
    pub(super) rules: Vec<Rule>,
    pub(super) keypairs: Vec<Keypair>,
    pub(super) images: Vec<Image>,
}

impl World {
    /// A fresh project: three systems to install and one keypair that is not ours.
    pub(super) fn new() -> Self {
        let image = |name, distribution, version| Image {
            id: new_id(),
            name,
            distribution,
            version,
        };
        Self {
            images: vec![
                image("Debian 12 x64", "Debian", "12"),
                image("Ubuntu 22.04 x64", "Ubuntu", "22.04"),
                image("Ubuntu 24.04 x64", "Ubuntu", "24.04"),
            ],
            keypairs: vec![Keypair {
                id: new_id(),
                name: "somebody-else".to_owned(),
                public_key: "ssh-ed25519 \
                    AAAAC3NzaC1lZDI1NTE5AAAAIFwQ1DwMHUXfS2s3Oc2CpPQk6Uq0zTGNJyTqVeVc1mW1 stranger"
                    .to_owned(),
            }],
            ..Self::default()
        }
    }

    pub(super) fn server(&self, id: &str) -> Option<&Server> {
        self.servers.iter().find(|s| s.id == id)
    }

    pub(super) fn server_mut(&mut self, id: &str) -> Option<&mut Server> {
        self.servers.iter_mut().find(|s| s.id == id)
    }

    pub(super) fn volume(&self, id: &str) -> Option<&Volume> {
        self.volumes.iter().find(|v| v.id == id)
    }

    pub(super) fn volume_mut(&mut self, id: &str) -> Option<&mut Volume> {
        self.volumes.iter_mut().find(|v| v.id == id)
    }

    pub(super) fn address(&self, id: &str) -> Option<&Address> {
        self.addresses.iter().find(|a| a.id == id)
    }

    pub(super) fn address_mut(&mut self, id: &str) -> Option<&mut Address> {
        self.addresses.iter_mut().find(|a| a.id == id)
    }

    pub(super) fn balancer(&self, id: &str) -> Option<&Balancer> {
        self.balancers.iter().find(|b| b.id == id)
    }

    pub(super) fn balancer_mut(&mut self, id: &str) -> Option<&mut Balancer> {
        self.balancers.iter_mut().find(|b| b.id == id)
    }

    /// Disks of a server, in the order of their device names.
    pub(super) fn disks_of(&self, server: &str) -> Vec<&Volume> {
        let of_server = |v: &&Volume| v.attached.as_ref().is_some_and(|(s, _)| s == server);
        let mut disks: Vec<&Volume> = self.volumes.iter().filter(of_server).collect();
        disks.sort_by_key(|v| v.attached.as_ref().map(|(_, device)| device.clone()));
        disks
    }

    pub(super) fn addresses_of(&self, entity: &Entity) -> Vec<&Address> {
        let attached = |a: &&Address| a.attached.as_ref() == Some(entity);
        self.addresses.iter().filter(attached).collect()
    }

    /// The server's address in the private network.
    pub(super) fn internal_ip(&self, server: &str) -> Option<Ipv4Addr> {
        self.addresses_of(&Entity::Server(server.to_owned()))
            .into_iter()
            .find(|a| !a.external)
            .map(|a| a.ip)
    }

    /// The first device name after the boot disk that no disk of the server has.
    pub(super) fn free_device(&self, server: &str) -> Option<String> {
        let taken = self.disks_of(server);
        ('b'..='z')
            .map(|letter| format!("vd{letter}"))
            .find(|name| {
                !taken.iter().any(|v| {
                    v.attached
                        .as_ref()
                        .is_some_and(|(_, device)| device == name)
                })
            })
    }

    /// The lowest free private address: what a dead server had is soon somebody else's.
    pub(super) fn free_internal_ip(&self) -> Option<Ipv4Addr> {
        (1..=250u8)
            .flat_map(|third| (10..=250u8).map(move |fourth| Ipv4Addr::new(10, 77, third, fourth)))
            .find(|ip| self.addresses.iter().all(|a| a.ip != *ip))
    }

    /// The lowest free public address.
    pub(super) fn free_external_ip(&self) -> Option<Ipv4Addr> {
        (10..=250u8)
            .map(|fourth| Ipv4Addr::new(203, 0, 113, fourth))
            .find(|ip| self.addresses.iter().all(|a| a.ip != *ip))
    }
}

/// Ids are random from their first character on: a disk's serial is cut to 20 characters.
pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
