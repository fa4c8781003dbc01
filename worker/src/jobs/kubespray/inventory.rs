//! Kubespray's inventory: its groups and variables, made from spec and records.
//!
//! Its order is that of the spec: a master that is added comes last, as Kubespray wants, whose first one is
//! special. The bastion stands in no group: Ansible runs on it and comes to all others straight.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jobs::ids::NodeName;
use jobs::spec::{Cidr, Encapsulation, Kubernetes, NetworkPlugin, Role};
use serde::Serialize;
use serde_json::{Value, json};

use super::release;
use crate::jobs::ansible::inputs::{self, Files, Group, Inventory, Machine};

/// Makes the files. A master whose member etcd has lost already is `not_in_etcd`.
///
/// # Errors
/// With everything that Kubespray would not notice, or notice late.
pub(in crate::jobs) fn render(
    kubernetes: &Kubernetes,
    machines: &[Machine],
    not_in_etcd: Option<&NodeName>,
) -> Result<Files, String> {
    let problems = problems(kubernetes, machines);
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let inventory = inventory(kubernetes, machines, not_in_etcd);
    let mut files = inputs::files(&inventory, &kubernetes.extra_vars, machines);
    files.extend(release::files());
    Ok(files)
}

/// What is wrong although every part of the spec is fine.
fn problems(kubernetes: &Kubernetes, machines: &[Machine]) -> Vec<String> {
    let mut found = inputs::problems(machines);
    let count = |role: Role| machines.iter().filter(|m| m.node.role == role).count();
    // With an empty inventory Ansible does nothing and ends with 0.
    if count(Role::Master).is_multiple_of(2) {
        let masters = count(Role::Master);
        found.push(format!("{masters} masters: etcd needs an odd number"));
    }
    if count(Role::Worker) == 0 {
        found.push("no workers".into());
    }
    let range = |text: &str| text.parse::<Cidr>().ok();
    let network = &kubernetes.network;
    let ranges = [
        ("pods", range(&network.pods)),
        ("services", range(&network.services)),
    ];
    for machine in machines {
        let (name, ip) = (&machine.node.name, machine.record.internal.ip);
        for (what, range) in &ranges {
            if range.is_some_and(|range| range.contains(ip)) {
                found.push(format!(
                    "the address of {name}, {ip}, lies in the range of the {what}"
                ));
            }
        }
    }
    found
}

/// What Kubespray is told for the whole cluster.
fn settings(kubernetes: &Kubernetes) -> BTreeMap<&'static str, Value> {
    let network = &kubernetes.network;
    let mut all = BTreeMap::from([
        ("kube_version", json!(kubernetes.version)),
        ("kube_network_plugin", json!(network.plugin.name())),
        ("kube_pods_subnet", json!(network.pods)),
        ("kube_service_addresses", json!(network.services)),
        (
            "enable_network_policy",
            json!(network.plugin.enforces_policies()),
        ),
        // Each node downloads for itself: one alone would be a bottleneck that can fail all.
        ("download_run_once", json!(false)),
        ("download_localhost", json!(false)),
        ("kube_proxy_metrics_bind_address", json!("0.0.0.0:10249")),
        ("metrics_server_enabled", json!(true)),
        // A volume for each file system below /mnt/disks, where data disks are mounted.
        ("local_volume_provisioner_enabled", json!(true)),
        (
            "local_volume_provisioner_storage_classes",
            json!({"local-storage": {
                "host_dir": "/mnt/disks",
                "mount_dir": "/mnt/disks",
                "volume_mode": "Filesystem",
                "fs_type": "ext4",
                "reclaim_policy": "Retain",
            }}),
        ),
    ]);
    if network.plugin == NetworkPlugin::Calico {
        let (vxlan, ipip, backend) = match network.encapsulation.unwrap_or_default() {
            Encapsulation::Vxlan => ("Always", "Never", "vxlan"),
            Encapsulation::Ipip => ("Never", "Always", "bird"),
            Encapsulation::None => ("Never", "Never", "bird"),
        };
        all.extend([
            ("calico_datastore", json!("kdd")),
            ("calico_ip_auto_method", json!("kubernetes-internal-ip")),
            ("calico_vxlan_mode", json!(vxlan)),
            ("calico_ipip_mode", json!(ipip)),
            ("calico_network_backend", json!(backend)),
        ]);
    }
    all
}

#[derive(Debug, Serialize)]
struct HostVars {
    /// Where Ansible connects to.
    ansible_host: Ipv4Addr,
    ansible_user: String,
    /// Where its services listen, and where other nodes find them.
    ip: Ipv4Addr,
    access_ip: Ipv4Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_member_name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    node_labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    node_taints: Vec<String>,
}

fn inventory(
    kubernetes: &Kubernetes,
    machines: &[Machine],
    not_in_etcd: Option<&NodeName>,
) -> Inventory<HostVars> {
    let host = |machine: &Machine| {
        let (node, ip) = (&machine.node, machine.record.internal.ip);
        let vars = HostVars {
            ansible_host: ip,
            ansible_user: machine.record.ssh_user.clone(),
            ip,
            access_ip: ip,
            // Not by position, as Kubespray's own: a member keeps its name when others come or go.
            etcd_member_name: (node.role == Role::Master).then(|| node.name.to_string()),
            node_labels: node.labels.clone(),
            node_taints: node.taints.clone(),
        };
        (node.name.to_string(), vars)
    };
    let of = |role: Role| machines.iter().filter(move |m| m.node.role == role);
    let members = of(Role::Master).filter(|m| Some(&m.node.name) != not_in_etcd);
    let cluster = ["kube_control_plane", "kube_node", "calico_rr"];
    Inventory::new(
        settings(kubernetes),
        machines.iter().map(host).collect(),
        vec![
            ("kube_control_plane", Group::of_hosts(of(Role::Master))),
            ("etcd", Group::of_hosts(members)),
            ("kube_node", Group::of_hosts(of(Role::Worker))),
            ("calico_rr", Group::of_hosts(std::iter::empty())),
            ("k8s_cluster", Group::of_groups(&cluster)),
        ],
    )
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
