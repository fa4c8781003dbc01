//! The whole project as plain data, for assertions.

use std::net::Ipv4Addr;

use super::world::{
    AddressStatus, BalancerStatus, Entity, RuleStatus, ServerStatus, VolumeStatus, World,
};

/// Everything that exists at one moment, each list in order of creation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain data")]
pub struct Snapshot {
    pub servers: Vec<ServerView>,
    /// Network volumes and local disks.
    pub volumes: Vec<VolumeView>,
    pub addresses: Vec<AddressView>,
    pub balancers: Vec<BalancerView>,
    pub keypairs: Vec<KeypairView>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain data")]
pub struct ServerView {
    pub id: String,
    pub name: String,
    pub status: ServerStatus,
    pub foreign: bool,
    pub internal_ip: Option<Ipv4Addr>,
    pub keypairs: Vec<String>,
}

/// A network volume or local disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain data")]
pub struct VolumeView {
    pub id: String,
    pub name: String,
    pub size: u64,
    pub status: VolumeStatus,
    pub bootable: bool,
    pub local: bool,
    pub foreign: bool,
    /// Server id.
    pub attached_to: Option<String>,
    /// Device name without `/dev/`.
    pub device: Option<String>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain data")]
pub struct AddressView {
    pub id: String,
    pub ip: Ipv4Addr,
    pub status: AddressStatus,
    pub external: bool,
    pub foreign: bool,
    pub attached_to: Option<Entity>,
}

/// A load balancer with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain data")]
pub struct BalancerView {
    pub id: String,
    pub name: String,
    pub status: BalancerStatus,
    pub foreign: bool,
    pub ips: Vec<Ipv4Addr>,
    pub rules: Vec<RuleView>,
}

/// A rule: external port → internal port of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain data")]
pub struct RuleView {
    pub id: String,
    pub status: RuleStatus,
    pub server: String,
    pub address: String,
    pub external_port: u16,
    pub internal_port: u16,
}

/// A keypair.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "plain data")]
pub struct KeypairView {
    pub id: String,
    pub name: String,
    pub public_key: String,
}

impl Snapshot {
    /// Servers of this name, however many there are.
    pub fn servers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ServerView> {
        self.servers.iter().filter(move |s| s.name == name)
    }

    /// Volumes of this name, however many there are.
    pub fn volumes_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a VolumeView> {
        self.volumes.iter().filter(move |v| v.name == name)
    }

    pub(super) fn of(world: &World) -> Self {
        Self {
            servers: world
                .servers
                .iter()
                .map(|s| ServerView {
                    id: s.id.clone(),
                    name: s.name.clone(),
                    status: s.status,
                    foreign: s.foreign,
                    internal_ip: world.internal_ip(&s.id),
                    keypairs: s.keypairs.clone(),
                })
                .collect(),
            volumes: world
                .volumes
                .iter()
                .map(|v| VolumeView {
                    id: v.id.clone(),
                    name: v.name.clone(),
                    size: v.size,
                    status: v.status,
                    bootable: v.bootable,
                    local: v.local,
                    foreign: v.foreign,
                    attached_to: v.attached.as_ref().map(|(server, _)| server.clone()),
                    device: v.attached.as_ref().map(|(_, device)| device.clone()),
                })
                .collect(),
            addresses: world
                .addresses
                .iter()
                .map(|a| AddressView {
                    id: a.id.clone(),
                    ip: a.ip,
                    status: a.status,
                    external: a.external,
                    foreign: a.foreign,
                    attached_to: a.attached.clone(),
                })
                .collect(),
            balancers: world
                .balancers
                .iter()
                .map(|b| BalancerView {
                    id: b.id.clone(),
                    name: b.name.clone(),
                    status: b.status,
                    foreign: b.foreign,
                    ips: world
                        .addresses_of(&Entity::Balancer(b.id.clone()))
                        .into_iter()
                        .map(|a| a.ip)
                        .collect(),
                    rules: rules_of(world, &b.id),
                })
                .collect(),
            keypairs: world
                .keypairs
                .iter()
                .map(|k| KeypairView {
                    id: k.id.clone(),
                    name: k.name.clone(),
                    public_key: k.public_key.clone(),
                })
                .collect(),
        }
    }
}

fn rules_of(world: &World, balancer: &str) -> Vec<RuleView> {
    world
        .rules
        .iter()
        .filter(|r| r.balancer == balancer)
        .map(|r| RuleView {
            id: r.id.clone(),
            status: r.status,
            server: r.server.clone(),
            address: r.address.clone(),
            external_port: r.external_port,
            internal_port: r.internal_port,
        })
        .collect()
}
