//! Networks and subnets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jobs::spec::Cidr;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::refusal::{Code, Refusal};
use super::super::sim::Inner;
use super::super::world::{Kind, Status, Thing, World};
use super::given::{check_common, read, required, unique};
use super::{existing, in_folder};

/// Where things can be. `ru-central1-c` is no more.
pub(super) const ZONES: [&str; 3] = ["ru-central1-a", "ru-central1-b", "ru-central1-d"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Network {
    folder_id: String,
    name: String,
    description: String,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Subnet {
    folder_id: String,
    name: String,
    description: String,
    labels: BTreeMap<String, String>,
    network_id: String,
    zone_id: String,
    v4_cidr_blocks: Vec<String>,
    route_table_id: String,
    dhcp_options: Value,
}

pub(super) fn create(inner: &Inner, world: &World, body: &Value) -> Result<Thing, Refusal> {
    let given: Network = read(body)?;
    in_folder(inner, &given.folder_id)?;
    check_common(
        Kind::Network,
        &given.name,
        &given.description,
        &given.labels,
    )?;
    if inner.options.unique_networks {
        unique(world, Kind::Network, &given.name)?;
    }
    let there = world.of(Kind::Network).count();
    if inner.options.max_networks.is_some_and(|most| there >= most) {
        let why = "Quota limit vpc.networks.count exceeded";
        return Err(Refusal::new(Code::ResourceExhausted, why));
    }
    Ok(Thing {
        description: given.description,
        labels: given.labels,
        ..Thing::new(Kind::Network, &given.name)
    })
}

pub(super) fn create_subnet(inner: &Inner, world: &World, body: &Value) -> Result<Thing, Refusal> {
    let given: Subnet = read(body)?;
    in_folder(inner, &given.folder_id)?;
    check_common(Kind::Subnet, &given.name, &given.description, &given.labels)?;
    let network = required("networkId", &given.network_id)?;
    check_zone("zoneId", &given.zone_id)?;
    if given.v4_cidr_blocks.is_empty() {
        return Err(Refusal::invalid("v4CidrBlocks: it is required"));
    }
    let blocks = given.v4_cidr_blocks.iter().map(|text| block(text));
    let blocks = blocks.collect::<Result<Vec<Cidr>, Refusal>>()?;
    let network = existing(world, Kind::Network, network)?;
    if network.status != Status::Running {
        let why = format!("Network {} is {}", network.id, network.status.as_str());
        return Err(Refusal::precondition(why));
    }
    if inner.options.unique_networks {
        unique(world, Kind::Subnet, &given.name)?;
    }
    let taken = blocks_of(world, &network.id);
    let overlaps = |block: &Cidr| taken.iter().any(|(_, taken)| taken.overlaps(block));
    if blocks.iter().any(overlaps) {
        let why = "v4CidrBlocks: they overlap with those of another subnet of the network";
        return Err(Refusal::precondition(why));
    }
    Ok(Thing {
        description: given.description,
        labels: given.labels,
        network: Some(network.id.clone()),
        detail: json!({
            "zoneId": given.zone_id,
            "v4CidrBlocks": given.v4_cidr_blocks,
            "routeTableId": given.route_table_id,
            "dhcpOptions": given.dhcp_options,
        }),
        ..Thing::new(Kind::Subnet, &given.name)
    })
}

/// A private block of a size that a subnet may have.
fn block(text: &str) -> Result<Cidr, Refusal> {
    let bad = |why: &str| Refusal::invalid(format!("v4CidrBlocks: {text}: {why}"));
    let block: Cidr = text.parse().map_err(|why: String| bad(&why))?;
    if !(16..=28).contains(&block.prefix()) {
        return Err(bad("its size is from /28 to /16"));
    }
    let address = text.split('/').next().unwrap_or_default();
    let address: Option<Ipv4Addr> = address.parse().ok();
    match address.is_some_and(|address| address.is_private()) {
        true => Ok(block),
        false => Err(bad("it is not private")),
    }
}

/// The addresses of a network's subnets, each with its subnet's id.
pub(super) fn blocks_of(world: &World, network: &str) -> Vec<(String, Cidr)> {
    let subnets = world
        .of(Kind::Subnet)
        .filter(|subnet| subnet.network.as_deref() == Some(network));
    let blocks = subnets.flat_map(|subnet| {
        let blocks = subnet.detail["v4CidrBlocks"].as_array().into_iter();
        let blocks = blocks
            .flatten()
            .filter_map(|block| block.as_str()?.parse().ok());
        blocks.map(|block| (subnet.id.clone(), block))
    });
    blocks.collect()
}

pub(super) fn check_zone(field: &str, zone: &str) -> Result<(), Refusal> {
    match ZONES.contains(&required(field, zone)?) {
        true => Ok(()),
        false => Err(Refusal::invalid(format!("{field}: no zone {zone}"))),
    }
}

/// A subnet that can be built in: it is there, in the network and in the zone.
pub(super) fn usable<'w>(
    world: &'w World,
    id: &str,
    network: &str,
    zone: &str,
) -> Result<&'w Thing, Refusal> {
    let subnet = existing(world, Kind::Subnet, id)?;
    if subnet.network.as_deref() != Some(network) {
        let why = format!("Subnet {id} is not in network {network}");
        return Err(Refusal::invalid(why));
    }
    if subnet.detail["zoneId"] != zone {
        return Err(Refusal::invalid(format!("Subnet {id} is not in {zone}")));
    }
    if subnet.status != Status::Running {
        let why = format!("Subnet {id} is {}", subnet.status.as_str());
        return Err(Refusal::precondition(why));
    }
    Ok(subnet)
}
