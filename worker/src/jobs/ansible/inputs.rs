//! What Ansible is given: inventory, variables, the hosts' keys, and our callback, made from spec and
//! records alone, always with the same bytes.
//!
//! The inventory is JSON, which is YAML: Ansible's YAML inventory reads it with its JSON parser, so
//! no value can turn into something else on the way (`no`, `1:30` and `0777` do in YAML 1.1, which
//! Ansible speaks). Extra variables are JSON too: Kubespray wants real booleans.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jobs::record::NodeRecord;
use jobs::spec::Node;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// The folder of these files in the container, read-only.
pub(in crate::jobs) const INPUTS: &str = "/rekindle/in";
/// The folder in the container that the callback writes to.
pub(in crate::jobs) const OUTPUTS: &str = "/rekindle/out";
/// The file that it writes, in there.
pub(in crate::jobs) const EVENTS: &str = "events.jsonl";
/// The name of the SSH key among the secrets.
pub(super) const SSH_KEY: &str = "ssh_key";

/// The callback plugin; Ansible finds it by its file name.
const CALLBACK: &str = include_str!("rekindle_events.py");

/// A node of the inventory, and what is known of its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::jobs) struct Machine {
    pub(in crate::jobs) node: Node,
    pub(in crate::jobs) record: NodeRecord,
}

/// The files by name.
pub(in crate::jobs) type Files = BTreeMap<&'static str, Vec<u8>>;

/// The files that every run has. A playbook of our own comes beside them.
pub(in crate::jobs) fn files<V: Serialize>(
    inventory: &Inventory<V>,
    extra_vars: &BTreeMap<String, Value>,
    machines: &[Machine],
) -> Files {
    Files::from([
        ("inventory.json", pretty(inventory)),
        ("extra_vars.json", pretty(extra_vars)),
        ("known_hosts", known_hosts(machines).into_bytes()),
        ("rekindle_events.py", CALLBACK.as_bytes().to_vec()),
    ])
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("maps with texts as keys");
    bytes.push(b'\n');
    bytes
}

/// The digest of all files, in which their names count too.
pub(in crate::jobs) fn digest(files: &Files) -> String {
    let list: String = files
        .iter()
        .map(|(name, bytes)| format!("{} {name}\n", jobs::digest(bytes)))
        .collect();
    jobs::digest(list.as_bytes())
}

/// The command in the container that plays a playbook.
pub(in crate::jobs) fn playbook(path: &str) -> Vec<String> {
    [
        "ansible-playbook",
        "--inventory",
        &format!("{INPUTS}/inventory.json"),
        "--become",
        "--extra-vars",
        &format!("@{INPUTS}/extra_vars.json"),
        path,
    ]
    .map(str::to_owned)
    .into()
}

/// The settings of Ansible. They win over the `ansible.cfg` that comes with Kubespray, which looks
/// at no host key, waits for a dead host 100 times, and keeps facts in a file for a day.
pub(in crate::jobs) fn environment() -> BTreeMap<&'static str, String> {
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

/// What is wrong with machines, whatever is to be done on them.
pub(in crate::jobs) fn problems(machines: &[Machine]) -> Vec<String> {
    let mut found = Vec::new();
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

/// An inventory: variables for all hosts, the hosts with their own ones, the groups. Hosts and groups are in the
/// order given.
#[derive(Debug, Serialize)]
pub(in crate::jobs) struct Inventory<V> {
    all: All<V>,
}

#[derive(Debug, Serialize)]
struct All<V> {
    vars: BTreeMap<&'static str, Value>,
    hosts: InOrder<V>,
    children: InOrder<Group>,
}

impl<V> Inventory<V> {
    pub(in crate::jobs) fn new(
        vars: BTreeMap<&'static str, Value>,
        hosts: Vec<(String, V)>,
        groups: Vec<(&str, Group)>,
    ) -> Self {
        let groups = groups.into_iter().map(|(name, g)| (name.to_owned(), g));
        Self {
            all: All {
                vars,
                hosts: InOrder(hosts),
                children: InOrder(groups.collect()),
            },
        }
    }
}

/// A group of hosts, or of groups.
#[derive(Debug, Serialize)]
pub(in crate::jobs) struct Group {
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<InOrder<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<InOrder<Value>>,
}

impl Group {
    /// A group of these hosts.
    pub(in crate::jobs) fn of_hosts<'a>(machines: impl Iterator<Item = &'a Machine>) -> Self {
        let names = machines.map(|machine| machine.node.name.to_string());
        Self {
            hosts: Some(InOrder(names.map(|name| (name, json!({}))).collect())),
            children: None,
        }
    }

    /// A group of these groups.
    pub(in crate::jobs) fn of_groups(names: &[&str]) -> Self {
        let names = names.iter().map(|name| ((*name).to_owned(), json!({})));
        Self {
            hosts: None,
            children: Some(InOrder(names.collect())),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ansible_is_told_to_check_host_keys_and_to_fail_without_an_inventory() {
        let environment = environment();
        let lines: Vec<String> = environment
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        insta::assert_snapshot!("environment", lines.join("\n"));
        assert_eq!(
            playbook("cluster.yml").join(" "),
            "ansible-playbook --inventory /rekindle/in/inventory.json --become --extra-vars @/rekindle/in/extra_vars.json cluster.yml"
        );
    }
}
