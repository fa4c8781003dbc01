//! Clusters.

use std::collections::BTreeMap;

use jobs::spec::Cidr;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::refusal::{Code, Refusal};
use super::super::sim::Inner;
use super::super::world::{Kind, Status, Thing, World};
use super::given::{Int64, check_common, read, required, unique};
use super::network::{blocks_of, check_zone, usable};
use super::{existing, in_folder};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Cluster {
    folder_id: String,
    name: String,
    description: String,
    labels: BTreeMap<String, String>,
    network_id: String,
    master_spec: Option<MasterSpec>,
    ip_allocation_policy: Addresses,
    gateway_ipv4_address: String,
    service_account_id: String,
    node_service_account_id: String,
    release_channel: String,
    network_policy: Value,
    kms_provider: Value,
    cilium: Value,
    workload_identity_federation: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct MasterSpec {
    zonal_master_spec: Option<Zonal>,
    regional_master_spec: Option<Value>,
    locations: Vec<Location>,
    etcd_cluster_size: Int64,
    // Empty and absent are two different wishes.
    external_v4_address_spec: Option<Value>,
    external_v6_address_spec: Option<Value>,
    version: String,
    maintenance_policy: Value,
    security_group_ids: Vec<String>,
    master_logging: Value,
    scale_policy: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Zonal {
    zone_id: String,
    internal_v4_address_spec: Internal,
    external_v4_address_spec: Option<Value>,
    external_v6_address_spec: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Internal {
    subnet_id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Location {
    zone_id: String,
    subnet_id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Addresses {
    cluster_ipv4_cidr_block: String,
    service_ipv4_cidr_block: String,
    node_ipv4_cidr_mask_size: Int64,
    cluster_ipv6_cidr_block: String,
    service_ipv6_cidr_block: String,
}

pub(super) fn create(inner: &Inner, world: &World, body: &Value) -> Result<Thing, Refusal> {
    let given: Cluster = read(body)?;
    in_folder(inner, &given.folder_id)?;
    check_common(
        Kind::Cluster,
        &given.name,
        &given.description,
        &given.labels,
    )?;
    let network = required("networkId", &given.network_id)?;
    let master = given.master_spec.as_ref();
    let master = master.ok_or_else(|| Refusal::invalid("masterSpec: it is required"))?;
    check_accounts(inner, &given)?;
    check_channel(&given.release_channel)?;
    let version = version(inner, &master.version)?;
    let places = places(master)?;
    let network = existing(world, Kind::Network, network)?;
    if network.status != Status::Running {
        let why = format!("Network {} is {}", network.id, network.status.as_str());
        return Err(Refusal::precondition(why));
    }
    let subnets = places
        .iter()
        .map(|place| subnet_of(world, &network.id, place));
    let subnets = subnets.collect::<Result<Vec<String>, Refusal>>()?;
    check_addresses(world, &network.id, &given.ip_allocation_policy)?;
    unique(world, Kind::Cluster, &given.name)?;
    let there = world.of(Kind::Cluster).count();
    if inner.options.max_clusters.is_some_and(|most| there >= most) {
        let why = "Quota limit managed-kubernetes.clusters.count exceeded";
        return Err(Refusal::new(Code::ResourceExhausted, why));
    }
    let zonal = master.zonal_master_spec.as_ref();
    let public = master.external_v4_address_spec.is_some()
        || zonal.is_some_and(|zonal| zonal.external_v4_address_spec.is_some());
    let locations = places.iter().zip(&subnets);
    let locations =
        locations.map(|(place, subnet)| json!({ "zoneId": place.zone_id, "subnetId": subnet }));
    Ok(Thing {
        public,
        network: Some(network.id.clone()),
        detail: json!({
            "master": {
                "zonalMaster": zonal.map(|zonal| json!({ "zoneId": zonal.zone_id })),
                "locations": locations.collect::<Vec<_>>(),
                "etcdClusterSize": master.etcd_cluster_size.0.max(1),
                "version": version,
                "versionInfo": { "currentVersion": version },
            },
            "ipAllocationPolicy": {
                "clusterIpv4CidrBlock": given.ip_allocation_policy.cluster_ipv4_cidr_block,
                "serviceIpv4CidrBlock": given.ip_allocation_policy.service_ipv4_cidr_block,
                "nodeIpv4CidrMaskSize": mask(&given.ip_allocation_policy),
            },
            "serviceAccountId": given.service_account_id,
            "nodeServiceAccountId": given.node_service_account_id,
            "releaseChannel": match given.release_channel.as_str() {
                "" => "REGULAR",
                channel => channel,
            },
            "networkPolicy": given.network_policy,
            "cilium": given.cilium,
        }),
        subnets,
        description: given.description,
        labels: given.labels,
        ..Thing::new(Kind::Cluster, &given.name)
    })
}

/// The right to hand an account over is a right to that account.
fn check_accounts(inner: &Inner, given: &Cluster) -> Result<(), Refusal> {
    for (field, account) in [
        ("serviceAccountId", &given.service_account_id),
        ("nodeServiceAccountId", &given.node_service_account_id),
    ] {
        let account = required(field, account)?;
        if account != inner.options.account && account != inner.iam.account {
            let why = format!("Permission denied to resource-manager service account {account}");
            return Err(Refusal::new(Code::PermissionDenied, why));
        }
    }
    Ok(())
}

fn check_channel(channel: &str) -> Result<(), Refusal> {
    let known = [
        "",
        "RELEASE_CHANNEL_UNSPECIFIED",
        "RAPID",
        "REGULAR",
        "STABLE",
    ];
    match known.contains(&channel) {
        true => Ok(()),
        false => Err(Refusal::invalid(format!(
            "releaseChannel: no channel {channel}"
        ))),
    }
}

fn version(inner: &Inner, asked: &str) -> Result<String, Refusal> {
    let known = &inner.options.versions;
    match asked {
        "" => Ok(known.last().cloned().unwrap_or_default()),
        asked if known.iter().any(|version| version == asked) => Ok(asked.to_owned()),
        asked => Err(Refusal::invalid(format!(
            "masterSpec.version: no version {asked}"
        ))),
    }
}

/// Where the master is to be, said in one of the two ways.
fn places(master: &MasterSpec) -> Result<Vec<Location>, Refusal> {
    if master.regional_master_spec.is_some() {
        let why = "the simulator has no regional masters of the old form; use locations";
        return Err(Refusal::new(Code::Unimplemented, why));
    }
    let places: Vec<Location> = match (&master.zonal_master_spec, master.locations.as_slice()) {
        (Some(zonal), []) => vec![Location {
            zone_id: zonal.zone_id.clone(),
            subnet_id: zonal.internal_v4_address_spec.subnet_id.clone(),
        }],
        (None, locations) if [1, 3].contains(&locations.len()) => {
            let copy = |place: &Location| Location {
                zone_id: place.zone_id.clone(),
                subnet_id: place.subnet_id.clone(),
            };
            locations.iter().map(copy).collect()
        }
        _ => {
            let why = "masterSpec: exactly one of zonalMasterSpec and one or three locations";
            return Err(Refusal::invalid(why));
        }
    };
    if ![0, 1, 3].contains(&master.etcd_cluster_size.0) {
        return Err(Refusal::invalid("masterSpec.etcdClusterSize: 1 or 3"));
    }
    for place in &places {
        check_zone("masterSpec: zoneId", &place.zone_id)?;
    }
    Ok(places)
}

/// The subnet that was asked for, or the first one of the network in the zone.
fn subnet_of(world: &World, network: &str, place: &Location) -> Result<String, Refusal> {
    if !place.subnet_id.is_empty() {
        let subnet = usable(world, &place.subnet_id, network, &place.zone_id)?;
        return Ok(subnet.id.clone());
    }
    let subnets = world.of(Kind::Subnet);
    let mut usable =
        subnets.filter(|subnet| usable(world, &subnet.id, network, &place.zone_id).is_ok());
    let found = usable.next().map(|subnet| subnet.id.clone());
    found.ok_or_else(|| {
        let why = format!("Network {network} has no subnet in {}", place.zone_id);
        Refusal::precondition(why)
    })
}

fn check_addresses(world: &World, network: &str, given: &Addresses) -> Result<(), Refusal> {
    if ![0, 24, 25, 26, 27, 28].contains(&given.node_ipv4_cidr_mask_size.0) {
        let why = "ipAllocationPolicy.nodeIpv4CidrMaskSize: from 24 to 28";
        return Err(Refusal::invalid(why));
    }
    let mut taken = blocks_of(world, network);
    for (field, text) in [
        ("clusterIpv4CidrBlock", &given.cluster_ipv4_cidr_block),
        ("serviceIpv4CidrBlock", &given.service_ipv4_cidr_block),
    ] {
        if text.is_empty() {
            continue;
        }
        let bad = |why: &str| Refusal::invalid(format!("ipAllocationPolicy.{field}: {why}"));
        let block: Cidr = text.parse().map_err(|why: String| bad(&why))?;
        if let Some((other, _)) = taken.iter().find(|(_, taken)| taken.overlaps(&block)) {
            return Err(bad(&format!("it overlaps with {other}")));
        }
        taken.push((field.to_owned(), block));
    }
    Ok(())
}

fn mask(given: &Addresses) -> i64 {
    match given.node_ipv4_cidr_mask_size.0 {
        0 => 24,
        mask => mask,
    }
}
