//! Node groups.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::refusal::Refusal;
use super::super::sim::Inner;
use super::super::world::{Kind, Status, Thing, World, new_id};
use super::existing;
use super::given::{Int64, camel, check_common, read, required, unique};
use super::network::{check_zone, usable};

const GIB: i64 = 1 << 30;
const PLATFORMS: [&str; 4] = ["standard-v1", "standard-v2", "standard-v3", "highfreq-v3"];
const DISKS: [&str; 5] = [
    "network-hdd",
    "network-ssd",
    "network-ssd-nonreplicated",
    "network-ssd-io-m3",
    "network-nvme",
];
/// The cloud's words, which are not those of Kubernetes.
const EFFECTS: [&str; 3] = ["NO_SCHEDULE", "PREFER_NO_SCHEDULE", "NO_EXECUTE"];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NodeGroup {
    cluster_id: String,
    name: String,
    description: String,
    labels: BTreeMap<String, String>,
    node_template: Option<Template>,
    scale_policy: Option<Scale>,
    allocation_policy: Allocation,
    deploy_policy: Value,
    version: String,
    maintenance_policy: Value,
    allowed_unsafe_sysctls: Vec<String>,
    node_taints: Vec<Taint>,
    node_labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Template {
    platform_id: String,
    resources_spec: Resources,
    boot_disk_spec: Disk,
    metadata: BTreeMap<String, String>,
    v4_address_spec: Option<Value>,
    scheduling_policy: Value,
    network_interface_specs: Vec<Interface>,
    placement_policy: Value,
    network_settings: Value,
    container_runtime_settings: Value,
    container_network_settings: Value,
    name: String,
    labels: BTreeMap<String, String>,
    gpu_settings: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Resources {
    memory: Int64,
    cores: Int64,
    core_fraction: Int64,
    gpus: Int64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Disk {
    disk_type_id: String,
    disk_size: Int64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Interface {
    subnet_ids: Vec<String>,
    primary_v4_address_spec: Option<Value>,
    primary_v6_address_spec: Option<Value>,
    security_group_ids: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Scale {
    fixed_scale: Option<Fixed>,
    auto_scale: Option<Auto>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Fixed {
    size: Int64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Auto {
    min_size: Int64,
    max_size: Int64,
    initial_size: Int64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Allocation {
    locations: Vec<Location>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Location {
    zone_id: String,
    subnet_id: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Taint {
    key: String,
    value: String,
    effect: String,
}

pub(super) fn create(inner: &Inner, world: &World, body: &Value) -> Result<Thing, Refusal> {
    let given: NodeGroup = read(body)?;
    let cluster = required("clusterId", &given.cluster_id)?;
    check_common(
        Kind::NodeGroup,
        &given.name,
        &given.description,
        &given.labels,
    )?;
    let template = given.node_template.as_ref();
    let template = template.ok_or_else(|| Refusal::invalid("nodeTemplate: it is required"))?;
    let scale = given.scale_policy.as_ref();
    let scale = scale.ok_or_else(|| Refusal::invalid("scalePolicy: it is required"))?;
    check_template(template)?;
    check_taints(&given.node_taints)?;
    let size = size(scale)?;
    let cluster = existing(world, Kind::Cluster, cluster)?;
    if cluster.status != Status::Running {
        let why = format!("Cluster {} is {}", cluster.id, cluster.status.as_str());
        return Err(Refusal::precondition(why));
    }
    if inner.options.groups_one_by_one && world.is_busy(&cluster.id) {
        let why = format!("Cluster {} has another operation in progress", cluster.id);
        return Err(Refusal::precondition(why));
    }
    let version = version(cluster, &given.version)?;
    let subnets = subnets(world, cluster, &given, template)?;
    if scale.auto_scale.is_some() && zones(cluster, &given).len() != 1 {
        let why = "allocationPolicy: a group that scales by itself lives in one zone";
        return Err(Refusal::invalid(why));
    }
    unique(world, Kind::NodeGroup, &given.name)?;
    let shown = camel(body);
    let group = new_id("cl1");
    Ok(Thing {
        cluster: Some(cluster.id.clone()),
        nodes: (0..size).map(|_| node_name(&group)).collect(),
        detail: json!({
            "instanceGroupId": group,
            "nodeTemplate": shown["nodeTemplate"],
            "scalePolicy": shown["scalePolicy"],
            "allocationPolicy": {
                "locations": zones(cluster, &given).iter()
                    .map(|zone| json!({ "zoneId": zone })).collect::<Vec<_>>(),
            },
            "deployPolicy": given.deploy_policy,
            "nodeVersion": version,
            "versionInfo": { "currentVersion": version },
            "nodeTaints": shown["nodeTaints"],
            "nodeLabels": given.node_labels,
        }),
        subnets,
        description: given.description,
        labels: given.labels,
        ..Thing::new(Kind::NodeGroup, &given.name)
    })
}

/// `cl1…-abcd`, as the cloud calls its nodes.
fn node_name(group: &str) -> String {
    let random: [u8; 4] = rand::random();
    let letters = random.map(|byte| char::from(b'a' + byte % 26));
    format!("{group}-{}", letters.iter().collect::<String>())
}

fn check_template(template: &Template) -> Result<(), Refusal> {
    let bad = |why: String| Err(Refusal::invalid(format!("nodeTemplate.{why}")));
    let platform = required("nodeTemplate.platformId", &template.platform_id)?;
    if !PLATFORMS.contains(&platform) {
        return bad(format!("platformId: no platform {platform}"));
    }
    let Resources {
        memory: Int64(memory),
        cores: Int64(cores),
        core_fraction: Int64(fraction),
        gpus: Int64(gpus),
    } = template.resources_spec;
    if cores < 2 || cores % 2 != 0 || cores > 96 {
        return bad(format!(
            "resourcesSpec.cores: {cores} cores are not offered"
        ));
    }
    let is_offered = memory % GIB == 0 && (cores..=16 * cores).contains(&(memory / GIB));
    if !is_offered {
        let why = format!("resourcesSpec.memory: {memory} bytes are not offered for {cores} cores");
        return bad(why);
    }
    if ![0, 20, 50, 100].contains(&fraction) || gpus != 0 {
        return bad("resourcesSpec: such cores are not offered".to_owned());
    }
    let disk = &template.boot_disk_spec;
    let disk_type = required("nodeTemplate.bootDiskSpec.diskTypeId", &disk.disk_type_id)?;
    if !DISKS.contains(&disk_type) {
        return bad(format!("bootDiskSpec.diskTypeId: no type {disk_type}"));
    }
    if !(30 * GIB..=4096 * GIB).contains(&disk.disk_size.0) {
        return bad("bootDiskSpec.diskSize: from 30 GB to 4 TB, in bytes".to_owned());
    }
    if template.v4_address_spec.is_some() && !template.network_interface_specs.is_empty() {
        return bad("v4AddressSpec: it does not go with networkInterfaceSpecs".to_owned());
    }
    if !template.name.is_empty() && !template.name.contains("{instance.") {
        return bad("name: it would be that of all nodes".to_owned());
    }
    Ok(())
}

fn check_taints(taints: &[Taint]) -> Result<(), Refusal> {
    for taint in taints {
        required("nodeTaints.key", &taint.key)?;
        if !EFFECTS.contains(&taint.effect.as_str()) {
            let why = format!("nodeTaints.effect: no effect {:?}", taint.effect);
            return Err(Refusal::invalid(why));
        }
    }
    Ok(())
}

/// How many nodes it begins with.
fn size(scale: &Scale) -> Result<i64, Refusal> {
    match (&scale.fixed_scale, &scale.auto_scale) {
        (Some(fixed), None) if (1..=100).contains(&fixed.size.0) => Ok(fixed.size.0),
        (None, Some(auto))
            if auto.min_size <= auto.initial_size
                && auto.initial_size <= auto.max_size
                && (0..=100).contains(&auto.max_size.0) =>
        {
            Ok(auto.initial_size.0)
        }
        _ => {
            let why = "scalePolicy: exactly one of fixedScale and autoScale, from 1 to 100 nodes";
            Err(Refusal::invalid(why))
        }
    }
}

/// Not newer than the cluster's, and two minor versions older at most.
fn version(cluster: &Thing, asked: &str) -> Result<String, Refusal> {
    let of_cluster = cluster.detail["master"]["version"]
        .as_str()
        .unwrap_or_default();
    if asked.is_empty() {
        return Ok(of_cluster.to_owned());
    }
    let minor = |version: &str| -> Option<i64> { version.strip_prefix("1.")?.parse().ok() };
    let fits = minor(asked)
        .zip(minor(of_cluster))
        .is_some_and(|(asked, most)| (most - 2..=most).contains(&asked));
    match fits {
        true => Ok(asked.to_owned()),
        false => Err(Refusal::invalid(format!(
            "version: {asked} does not go with the cluster's {of_cluster}"
        ))),
    }
}

/// The zones it is to live in; those of the cluster if it does not say.
fn zones(cluster: &Thing, given: &NodeGroup) -> BTreeSet<String> {
    let own = given.allocation_policy.locations.iter();
    let own: BTreeSet<String> = own.map(|place| place.zone_id.clone()).collect();
    if !own.is_empty() {
        return own;
    }
    let locations = cluster.detail["master"]["locations"].as_array();
    let locations = locations.into_iter().flatten();
    let zones = locations.filter_map(|place| place["zoneId"].as_str());
    zones.map(str::to_owned).collect()
}

/// The subnets of its nodes: in the cluster's network, and one in each of its zones.
fn subnets(
    world: &World,
    cluster: &Thing,
    given: &NodeGroup,
    template: &Template,
) -> Result<Vec<String>, Refusal> {
    let zones = zones(cluster, given);
    for zone in &zones {
        check_zone("allocationPolicy.locations.zoneId", zone)?;
    }
    let interfaces = template.network_interface_specs.iter();
    let in_template = interfaces.flat_map(|interface| interface.subnet_ids.iter());
    let in_places = given.allocation_policy.locations.iter();
    let in_places = in_places.map(|place| &place.subnet_id);
    let named: BTreeSet<&String> = in_template
        .chain(in_places)
        .filter(|id| !id.is_empty())
        .collect();
    if named.is_empty() {
        return Ok(cluster.subnets.clone());
    }
    let network = cluster.network.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for id in named {
        let zone = existing(world, Kind::Subnet, id)?.detail["zoneId"].as_str();
        let zone = zone.unwrap_or_default();
        if !zones.contains(zone) {
            let why = format!("Subnet {id} is in {zone}, and the node group is not");
            return Err(Refusal::invalid(why));
        }
        found.push(usable(world, id, network, zone)?.id.clone());
    }
    Ok(found)
}
