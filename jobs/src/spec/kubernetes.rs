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
    /// Whether network policies are enforced.
    pub policies: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            plugin: NetworkPlugin::default(),
            pods: "10.42.0.0/16".into(),
            services: "10.43.0.0/16".into(),
            encapsulation: None,
            policies: true,
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
        Ok(Self {
            first,
            last: first | rest,
        })
    }
}

/// Variables that have a field of their own or come from the records; and why not here.
const TAKEN: [(&str, &str); 16] = [
    ("access_ip", "it comes from the nodes' records"),
    ("calico_datastore", "it is always `kdd`"),
    ("calico_ipip_mode", "set `network.encapsulation`"),
    ("calico_network_backend", "set `network.encapsulation`"),
    ("calico_vxlan_mode", "set `network.encapsulation`"),
    ("enable_network_policy", "set `network.policies`"),
    ("etcd_member_name", "it is the node's name"),
    ("ip", "it comes from the nodes' records"),
    ("kube_network_plugin", "set `network.plugin`"),
    ("kube_override_hostname", "a node is called as in the spec"),
    ("kube_pods_subnet", "set `network.pods`"),
    ("kube_service_addresses", "set `network.services`"),
    ("kube_version", "set `version`"),
    ("node_labels", "set `labels` of the group"),
    ("node_taints", "set `taints` of the group"),
    ("etcd_backup_v2", "Kubespray has no such variable"),
];

/// Kubespray checks that these are real booleans.
const BOOLEANS: [&str; 5] = [
    "download_run_once",
    "download_localhost",
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
    check_network(&kubernetes.network, &mut bad);
    check_vars(&kubernetes.extra_vars, &mut bad);

    if spec.servers.ssh_user != "root" {
        let reason = format!(
            "`{}` is not `root`, which the runner on the bastion and the masters' kubectl want",
            spec.servers.ssh_user
        );
        found.push(Problem::new("servers.ssh_user", reason));
    }
    let count = |role: Role| spec.nodes().iter().filter(|n| n.role == role).count();
    // Only when the names are fine: `nodes` makes names of them.
    if found
        .iter()
        .any(|p| p.path.contains(".prefix") || p.path.contains(".instances"))
    {
        return;
    }
    let mut bad = |reason: String| found.push(Problem::new("groups", reason));
    let masters = count(Role::Master);
    if masters == 0 {
        bad(
            "no node with role `master` is switched on; Kubernetes needs one, three or five".into(),
        );
    } else if masters.is_multiple_of(2) {
        bad(format!(
            "{masters} masters are switched on; etcd runs on them and needs an odd number"
        ));
    }
    if count(Role::Worker) == 0 {
        bad("no node with role `worker` is switched on: nothing would run in the cluster".into());
    }
    if count(Role::Bastion) == 0 {
        bad("no bastion is switched on: Kubespray runs there".into());
    }
}

fn check_network(network: &Network, bad: &mut impl FnMut(&str, String)) {
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
    if network.encapsulation.is_some() && network.plugin != NetworkPlugin::Calico {
        let reason = format!("only calico has it, not {}", network.plugin.name());
        bad("network.encapsulation", reason);
    }
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
        }
    }
    let on = |name: &str| vars.get(name) == Some(&Value::Bool(true));
    if on("download_localhost") && !on("download_run_once") {
        let reason = "Kubespray wants download_run_once with it".to_owned();
        bad("extra_vars.download_localhost", reason);
    }
}
