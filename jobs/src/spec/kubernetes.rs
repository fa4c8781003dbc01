//! The `kubernetes` section of a spec: what Kubespray installs on the machines, and what of it can
//! be wrong before anything has begun.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::Problem;
use super::versions;
use super::{ClusterSpec, Role};
use crate::images::is_sha256;

/// Kubernetes, installed by Kubespray on every node that is not the bastion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// Version of Kubernetes, for example `1.33.7`; without `v`.
    pub version: String,
    /// Release of Kubespray in the image, for example `2.29.1`.
    pub kubespray: String,
    /// The image that holds Kubespray and its Ansible.
    pub image: ToolImage,
    /// The images that are imported on every node before Kubespray looks for them; the registries are asked when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageBundle>,
    /// The pod network.
    #[serde(default)]
    pub network: Network,
    /// More variables for Kubespray, with their types: they win over everything that Kubespray or
    /// Rekindle would set. What has a field of its own is refused here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_vars: BTreeMap<String, Value>,
}

/// An image for `rekindle-runner`, kept in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolImage {
    /// `sha256:` and 64 digits, as `rekindle-runner image build` prints it.
    pub digest: String,
    /// Its key in the bucket below `artifacts/`; the digits of the digest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The version of ansible-core in it, checked against what Kubespray wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ansible_core: Option<String>,
}

impl ToolImage {
    /// Its key below `artifacts/`.
    pub fn key(&self) -> &str {
        let digits = self.digest.trim_start_matches("sha256:");
        self.key.as_deref().unwrap_or(digits)
    }
}

/// Container images that were mirrored into the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageBundle {
    /// `sha256:` and 64 digits, as the job `mirror-images` proves it.
    pub digest: String,
}

impl ImageBundle {
    /// The digits of the digest, by which the bucket has it.
    pub fn digits(&self) -> &str {
        self.digest.trim_start_matches("sha256:")
    }
}

/// The pod network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// What makes it.
    pub plugin: NetworkPlugin,
    /// Addresses of pods.
    pub pods: String,
    /// Addresses of services.
    pub services: String,
    /// How packets travel between nodes, for calico; VXLAN when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<Encapsulation>,
    /// Whether network policies are enforced. The plugin decides that: calico and cilium always do,
    /// flannel never does. What stands here must agree, so that a spec that counts on policies
    /// cannot lose them with a change of the plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<bool>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            plugin: NetworkPlugin::default(),
            pods: "10.42.0.0/16".into(),
            services: "10.43.0.0/16".into(),
            encapsulation: None,
            policies: None,
        }
    }
}

/// What makes the pod network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkPlugin {
    /// Calico, with its state in the Kubernetes API.
    #[default]
    Calico,
    /// Cilium.
    Cilium,
    /// Flannel.
    Flannel,
}

impl NetworkPlugin {
    /// Its name in Kubespray.
    pub fn name(self) -> &'static str {
        match self {
            NetworkPlugin::Calico => "calico",
            NetworkPlugin::Cilium => "cilium",
            NetworkPlugin::Flannel => "flannel",
        }
    }

    /// Whether it enforces network policies. Calico with its state in the Kubernetes API does so
    /// whatever Kubespray's `enable_network_policy` says: each node reads policies and pods there.
    pub fn enforces_policies(self) -> bool {
        match self {
            NetworkPlugin::Calico | NetworkPlugin::Cilium => true,
            NetworkPlugin::Flannel => false,
        }
    }
}

/// How packets of pods travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// In UDP; works on any network.
    #[default]
    Vxlan,
    /// In IP; needs a network that lets protocol 4 through.
    Ipip,
    /// As they are; needs a network that routes pod addresses.
    None,
}

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    first: u32,
    last: u32,
}

impl Cidr {
    /// Whether an address lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address.to_bits())
    }

    /// Whether two ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many bits its addresses share: 16 of a `/16`.
    pub fn prefix(&self) -> u32 {
        (self.first ^ self.last).leading_zeros()
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a range of IPv4 addresses such as 10.42.0.0/16");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        if !(8..=28).contains(&bits) {
            return Err(format!("`{text}` is not between /8 and /28"));
        }
        let rest = u32::MAX >> bits;
        let first = address.to_bits() & !rest;
        if first != address.to_bits() {
            let right = Ipv4Addr::from_bits(first);
            return Err(format!(
                "`{text}` does not begin at its first address; write {right}/{bits}"
            ));
        }
        let last = first | rest;
        for (reserved_first, reserved_last, what) in RESERVED {
            if first <= reserved_last.to_bits() && reserved_first.to_bits() <= last {
                return Err(format!(
                    "`{text}` has addresses of {reserved_first} to {reserved_last}, {what}"
                ));
            }
        }
        Ok(Self { first, last })
    }
}

/// Addresses that no pod and no service can have, and what they are for.
const RESERVED: [(Ipv4Addr, Ipv4Addr, &str); 4] = [
    (
        Ipv4Addr::new(0, 0, 0, 0),
        Ipv4Addr::new(0, 255, 255, 255),
        "which mean this network",
    ),
    (
        Ipv4Addr::new(127, 0, 0, 0),
        Ipv4Addr::new(127, 255, 255, 255),
        "which never leave a host",
    ),
    (
        Ipv4Addr::new(169, 254, 0, 0),
        Ipv4Addr::new(169, 254, 255, 255),
        "which are link-local",
    ),
    (
        Ipv4Addr::new(224, 0, 0, 0),
        Ipv4Addr::new(255, 255, 255, 255),
        "which are multicast and reserved",
    ),
];

/// Kubeadm takes no larger range of services: /12.
const LARGEST_SERVICES: u32 = 12;
/// Kubespray's `kube_network_node_prefix`: what cilium and flannel give each node is a /24.
const NODE_PREFIX: (&str, u32) = ("kube_network_node_prefix", 24);
/// Kubespray's `calico_pool_blocksize`: calico hands out addresses by the /26.
const CALICO_BLOCK: (&str, u32) = ("calico_pool_blocksize", 26);
/// Kubespray wants 1500 MB of a master and 1024 MB of a worker, as the kernel counts: that is less
/// than what the machine was ordered with, so 1 GB is too little for both.
const LEAST_RAM_GB: u32 = 2;

/// Variables that have a field of their own or come from the records; and why not here.
const TAKEN: [(&str, &str); 19] = [
    ("access_ip", "it comes from the nodes' records"),
    ("bin_dir", "the proof calls `kubectl` where it always is"),
    ("calico_datastore", "it is always `kdd`"),
    ("calico_ipip_mode", "set `network.encapsulation`"),
    ("calico_network_backend", "set `network.encapsulation`"),
    ("calico_vxlan_mode", "set `network.encapsulation`"),
    ("download_localhost", "the image has no container runtime"),
    ("enable_network_policy", "`network.plugin` decides it"),
    ("etcd_member_name", "it is the node's name"),
    ("ip", "it comes from the nodes' records"),
    ("kube_network_plugin", "set `network.plugin`"),
    ("kube_override_hostname", "a node is called as in the spec"),
    ("kube_pods_subnet", "set `network.pods`"),
    ("kube_service_addresses", "set `network.services`"),
    ("kube_version", "set `version`"),
    ("node_labels", "set `labels` of the group"),
    ("node_taints", "set `taints` of the group"),
    ("unsafe_show_logs", "it would write secrets to the log"),
    ("etcd_backup_v2", "Kubespray has no such variable"),
];

/// Kubespray checks that these are real booleans.
const BOOLEANS: [&str; 5] = [
    "deploy_netchecker",
    "download_run_once",
    "download_always_pull",
    "helm_enabled",
    "openstack_lbaas_enabled",
];

/// Everything wrong with the section, and with the cluster as Kubespray needs it.
pub(super) fn check(spec: &ClusterSpec, found: &mut Vec<Problem>) {
    let Some(kubernetes) = &spec.kubernetes else {
        return;
    };
    let mut bad = |field: &str, reason: String| {
        found.push(Problem::new(format!("kubernetes.{field}"), reason));
    };
    let image = &kubernetes.image;
    let misfits = versions::check(
        &kubernetes.kubespray,
        &kubernetes.version,
        image.ansible_core.as_deref(),
    );
    for misfit in misfits {
        let field = match misfit.field {
            "ansible_core" => "image.ansible_core",
            field => field,
        };
        bad(field, misfit.reason);
    }
    let sound = |digest: &str| digest.strip_prefix("sha256:").is_some_and(is_sha256);
    if let Some(images) = kubernetes
        .images
        .as_ref()
        .filter(|images| !sound(&images.digest))
    {
        let reason = format!(
            "`{}` is not `sha256:` and 64 lower-case digits, as the job `mirror-images` proves it",
            images.digest
        );
        bad("images.digest", reason);
    }
    if !sound(&image.digest) {
        let reason = format!(
            "`{}` is not `sha256:` and 64 lower-case digits, as `rekindle-runner image build` prints it",
            image.digest
        );
        bad("image.digest", reason);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    let key = image.key();
    if key.is_empty()
        || key.len() > 512
        || !key.chars().all(plain)
        || key
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
    {
        let reason =
            format!("`{key}` is not a key of letters, digits, `.`, `_`, `-`, `+` and single `/`");
        bad("image.key", reason);
    }
    check_network(kubernetes, &mut bad);
    check_vars(&kubernetes.extra_vars, &mut bad);

    if spec.servers.ssh_user != "root" {
        let reason = format!(
            "`{}` is not `root`, which the runner on the bastion and the masters' kubectl want",
            spec.servers.ssh_user
        );
        found.push(Problem::new("servers.ssh_user", reason));
    }
    for (i, group) in spec.groups.iter().enumerate() {
        if group.role != Role::Bastion && (1..LEAST_RAM_GB).contains(&group.ram_gb) {
            let reason = format!(
                "{} is less than {LEAST_RAM_GB}, the least that Kubespray takes for a node",
                group.ram_gb
            );
            found.push(Problem::new(format!("groups[{i}].ram_gb"), reason));
        }
    }
    let count = |role: Role| spec.nodes().iter().filter(|n| n.role == role).count();
    // Only when the names are fine: `nodes` makes names of them.
    if found
        .iter()
        .any(|p| p.path.contains(".prefix") || p.path.contains(".instances"))
    {
        return;
    }
    let (masters, workers) = (count(Role::Master), count(Role::Worker));
    if let Some(reason) = too_few_pods(kubernetes, masters + workers) {
        found.push(Problem::new("kubernetes.network.pods", reason));
    }
    let mut bad = |reason: String| found.push(Problem::new("groups", reason));
    if masters == 0 {
        bad(
            "no node with role `master` is switched on; Kubernetes needs one, three or five".into(),
        );
    } else if masters.is_multiple_of(2) {
        bad(format!(
            "{masters} masters are switched on; etcd runs on them and needs an odd number"
        ));
    }
    if workers == 0 {
        bad("no node with role `worker` is switched on: nothing would run in the cluster".into());
    }
    if count(Role::Bastion) == 0 {
        bad("no bastion is switched on: Kubespray runs there".into());
    }
}

fn check_network(kubernetes: &Kubernetes, bad: &mut impl FnMut(&str, String)) {
    let network = &kubernetes.network;
    let mut read = |field: &str, text: &str| match text.parse::<Cidr>() {
        Ok(range) => Some(range),
        Err(reason) => {
            bad(field, reason);
            None
        }
    };
    let pods = read("network.pods", &network.pods);
    let services = read("network.services", &network.services);
    if let (Some(pods), Some(services)) = (pods, services)
        && pods.overlaps(&services)
    {
        let reason = format!(
            "{} overlaps network.pods, {}",
            network.services, network.pods
        );
        bad("network.services", reason);
    }
    if services.is_some_and(|range| range.prefix() < LARGEST_SERVICES) {
        let reason = format!(
            "{} is larger than /{LARGEST_SERVICES}, the largest range of services that kubeadm takes",
            network.services
        );
        bad("network.services", reason);
    }
    let block = number(&kubernetes.extra_vars, CALICO_BLOCK);
    if network.plugin == NetworkPlugin::Calico && pods.is_some_and(|range| range.prefix() > block) {
        let reason = format!(
            "{} is smaller than /{block}, one of calico's blocks of addresses",
            network.pods
        );
        bad("network.pods", reason);
    }
    let (plugin, enforced) = (network.plugin.name(), network.plugin.enforces_policies());
    match network.policies {
        Some(true) if !enforced => {
            let reason = format!("{plugin} enforces none; calico and cilium do");
            bad("network.policies", reason);
        }
        Some(false) if enforced => {
            let reason = format!("{plugin} always enforces them; leave it out or write `true`");
            bad("network.policies", reason);
        }
        _ => {}
    }
    if network.encapsulation.is_some() && network.plugin != NetworkPlugin::Calico {
        let reason = format!("only calico has it, not {}", network.plugin.name());
        bad("network.encapsulation", reason);
    }
}

/// Kubespray wants a range of pods in which each node can have one of its own. Calico shares one
/// range out as it is needed.
fn too_few_pods(kubernetes: &Kubernetes, nodes: usize) -> Option<String> {
    let network = &kubernetes.network;
    if network.plugin == NetworkPlugin::Calico {
        return None;
    }
    let each = number(&kubernetes.extra_vars, NODE_PREFIX);
    let bits = each.checked_sub(network.pods.parse::<Cidr>().ok()?.prefix());
    let room = bits.map_or(0, |bits| 1_usize << bits);
    (room < nodes).then(|| {
        format!(
            "{} has room for a /{each} of {room} nodes, and {nodes} are switched on",
            network.pods
        )
    })
}

/// A variable that is the length of a prefix, or what Kubespray has when it is not set.
fn number(vars: &BTreeMap<String, Value>, (name, default): (&str, u32)) -> u32 {
    let set = vars.get(name).and_then(Value::as_u64);
    set.and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n <= 32)
        .unwrap_or(default)
}

fn check_vars(vars: &BTreeMap<String, Value>, bad: &mut impl FnMut(&str, String)) {
    for (name, value) in vars {
        let at = format!("extra_vars.{name}");
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(word)
        {
            bad(&at, "a variable has letters, digits and `_` only".into());
        } else if let Some((_, why)) = TAKEN.iter().find(|(taken, _)| taken == name) {
            bad(&at, format!("not here: {why}"));
        } else if name.starts_with("ansible_") {
            bad(
                &at,
                "how Ansible reaches the nodes is not for the spec".into(),
            );
        } else if BOOLEANS.contains(&name.as_str()) && !value.is_boolean() {
            bad(&at, format!("{value} is not `true` or `false`"));
        } else if [NODE_PREFIX.0, CALICO_BLOCK.0].contains(&name.as_str())
            && value.as_u64().is_none_or(|length| length > 32)
        {
            bad(&at, format!("{value} is not a number up to 32"));
        }
    }
}
