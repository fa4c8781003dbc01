//! What Ansible is given: inventory, variables, the hosts' keys, and our callback, made from spec and
//! records alone, always with the same bytes.
//!
//! The inventory is JSON, which is YAML: Ansible's YAML inventory reads it with its JSON parser, so
//! no value can turn into something else on the way (`no`, `1:30` and `0777` do in YAML 1.1, which
//! Ansible speaks). Its order is that of the spec: a master that is added comes last, as Kubespray
//! wants, whose first one is special.
//!
//! The bastion stands in no group: Ansible runs on it and comes to all others straight.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jobs::record::NodeRecord;
use jobs::spec::{Cidr, Encapsulation, Kubernetes, NetworkPlugin, Node, Role};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// The folder of these files in the container, read-only.
pub(super) const INPUTS: &str = "/rekindle/in";
/// The folder in the container that the callback writes to.
pub(super) const OUTPUTS: &str = "/rekindle/out";
/// The file that it writes, in there.
pub(super) const EVENTS: &str = "events.jsonl";
/// The name of the SSH key among the secrets.
pub(super) const SSH_KEY: &str = "ssh_key";

/// The callback plugin; Ansible finds it by its file name.
const CALLBACK: &str = include_str!("rekindle_events.py");

/// A node that gets Kubernetes, and what is known of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) node: Node,
    pub(super) record: NodeRecord,
}

/// The files by name.
pub(super) type Files = BTreeMap<&'static str, Vec<u8>>;

/// Makes the files.
///
/// # Errors
/// With everything that Kubespray would not notice, or notice late.
pub(super) fn render(kubernetes: &Kubernetes, machines: &[Machine]) -> Result<Files, String> {
    let problems = problems(kubernetes, machines);
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    Ok(Files::from([
        ("inventory.json", pretty(&inventory(kubernetes, machines))),
        ("extra_vars.json", pretty(&kubernetes.extra_vars)),
        ("known_hosts", known_hosts(machines).into_bytes()),
        ("rekindle_events.py", CALLBACK.as_bytes().to_vec()),
    ]))
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("maps with texts as keys");
    bytes.push(b'\n');
    bytes
}

/// The digest of all files, in which their names count too.
pub(super) fn digest(files: &Files) -> String {
    let list: String = files
        .iter()
        .map(|(name, bytes)| format!("{} {name}\n", jobs::digest(bytes)))
        .collect();
    jobs::digest(list.as_bytes())
}

/// The settings of Ansible. They win over the `ansible.cfg` that comes with Kubespray, which looks
/// at no host key, waits for a dead host 100 times, and keeps facts in a file for a day.
pub(super) fn environment() -> BTreeMap<&'static str, String> {
    let ssh = [
        "-o ControlMaster=auto",
        "-o ControlPersist=30m",
        "-o StrictHostKeyChecking=yes",
        &format!("-o UserKnownHostsFile={INPUTS}/known_hosts"),
        "-o GlobalKnownHostsFile=/dev/null",
        "-o UpdateHostKeys=no",
        "-o IdentitiesOnly=yes",
        "-o PasswordAuthentication=no",
        "-o ConnectionAttempts=3",
        "-o ConnectTimeout=10",
        "-o ServerAliveInterval=15",
        "-o ServerAliveCountMax=4",
    ]
    .join(" ");
    let set = |value: &str| value.to_owned();
    BTreeMap::from([
        ("ANSIBLE_CACHE_PLUGIN", set("memory")),
        ("ANSIBLE_CALLBACK_PLUGINS", set(INPUTS)),
        ("ANSIBLE_CALLBACKS_ENABLED", set("rekindle_events")),
        ("ANSIBLE_FORKS", set("20")),
        ("ANSIBLE_HOST_KEY_CHECKING", set("True")),
        ("ANSIBLE_INVENTORY_ENABLED", set("yaml")),
        ("ANSIBLE_INVENTORY_UNPARSED_FAILED", set("True")),
        ("ANSIBLE_LOCAL_TEMP", set("/tmp/ansible")),
        ("ANSIBLE_NOCOLOR", set("1")),
        ("ANSIBLE_PIPELINING", set("True")),
        (
            "ANSIBLE_PRIVATE_KEY_FILE",
            format!("/run/secrets/{SSH_KEY}"),
        ),
        ("ANSIBLE_RETRY_FILES_ENABLED", set("False")),
        ("ANSIBLE_SSH_ARGS", ssh),
        ("ANSIBLE_SSH_CONTROL_PATH_DIR", set("/tmp/ssh")),
        ("ANSIBLE_SSH_RETRIES", set("3")),
        ("ANSIBLE_TIMEOUT", set("30")),
        ("HOME", set("/root")),
        ("LC_ALL", set("C.UTF-8")),
        ("PYTHONDONTWRITEBYTECODE", set("1")),
        ("PYTHONUNBUFFERED", set("1")),
        ("REKINDLE_EVENTS", format!("{OUTPUTS}/{EVENTS}")),
    ])
}

/// The command in the container.
pub(super) fn command() -> Vec<String> {
    [
        "ansible-playbook",
        "--inventory",
        &format!("{INPUTS}/inventory.json"),
        "--become",
        "--extra-vars",
        &format!("@{INPUTS}/extra_vars.json"),
        "cluster.yml",
    ]
    .map(str::to_owned)
    .into()
}

/// What is wrong although every part of the spec is fine.
fn problems(kubernetes: &Kubernetes, machines: &[Machine]) -> Vec<String> {
    let mut found = Vec::new();
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
    let mut seen: BTreeMap<Ipv4Addr, &Machine> = BTreeMap::new();
    for machine in machines {
        let (name, ip) = (&machine.node.name, machine.record.internal.ip);
        if machine.record.node != *name {
            found.push(format!(
                "the record of {name} is that of {}",
                machine.record.node
            ));
        }
        if let Some(other) = seen.insert(ip, machine) {
            found.push(format!(
                "{name} has the address of {}, {ip}",
                other.node.name
            ));
        }
        for (what, range) in &ranges {
            if range.is_some_and(|range| range.contains(ip)) {
                found.push(format!(
                    "the address of {name}, {ip}, lies in the range of the {what}"
                ));
            }
        }
        if host_keys(&machine.record).is_empty() {
            found.push(format!("{name} has no SSH host key on record"));
        }
        if machine.record.ssh_user.is_empty() {
            found.push(format!("{name} has no user to log in as on record"));
        }
    }
    found
}

/// Type and key of each line; what follows is a comment.
fn host_keys(record: &NodeRecord) -> Vec<String> {
    let pair = |line: &String| {
        let mut words = line.split_whitespace();
        Some(format!("{} {}", words.next()?, words.next()?))
    };
    record.host_keys.iter().filter_map(pair).collect()
}

fn known_hosts(machines: &[Machine]) -> String {
    let lines = machines.iter().flat_map(|machine| {
        let ip = machine.record.internal.ip;
        let keys = host_keys(&machine.record).into_iter();
        keys.map(move |key| format!("{ip} {key}\n"))
    });
    lines.collect()
}

/// What Kubespray is told for the whole cluster.
fn settings(kubernetes: &Kubernetes) -> BTreeMap<&'static str, Value> {
    let network = &kubernetes.network;
    let mut all = BTreeMap::from([
        ("kube_version", json!(kubernetes.version)),
        ("kube_network_plugin", json!(network.plugin.name())),
        ("kube_pods_subnet", json!(network.pods)),
        ("kube_service_addresses", json!(network.services)),
        ("enable_network_policy", json!(network.plugin.enforces_policies())),
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
struct Inventory {
    all: All,
}

#[derive(Debug, Serialize)]
struct All {
    vars: BTreeMap<&'static str, Value>,
    hosts: InOrder<HostVars>,
    children: InOrder<Group>,
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

#[derive(Debug, Serialize)]
struct Group {
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<InOrder<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<InOrder<Value>>,
}

/// A map in the order given: Ansible keeps it, and the first host of a group is special.
#[derive(Debug)]
struct InOrder<T>(Vec<(String, T)>);

impl<T: Serialize> Serialize for InOrder<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn inventory(kubernetes: &Kubernetes, machines: &[Machine]) -> Inventory {
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
    let of = |role: Option<Role>| {
        let chosen = machines.iter().filter(|m| Some(m.node.role) == role);
        Group {
            hosts: Some(InOrder(
                chosen
                    .map(|m| (m.node.name.to_string(), json!({})))
                    .collect(),
            )),
            children: None,
        }
    };
    let cluster = ["kube_control_plane", "kube_node", "calico_rr"];
    let cluster = Group {
        hosts: None,
        children: Some(InOrder(
            cluster.map(|name| (name.to_owned(), json!({}))).into(),
        )),
    };
    let children = [
        ("kube_control_plane", of(Some(Role::Master))),
        ("etcd", of(Some(Role::Master))),
        ("kube_node", of(Some(Role::Worker))),
        ("calico_rr", of(None)),
        ("k8s_cluster", cluster),
    ];
    Inventory {
        all: All {
            vars: settings(kubernetes),
            hosts: InOrder(machines.iter().map(host).collect()),
            children: InOrder(
                children
                    .map(|(name, group)| (name.to_owned(), group))
                    .into(),
            ),
        },
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
