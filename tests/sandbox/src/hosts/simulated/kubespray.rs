//! An Ansible in a run of the runner, that plays Kubespray, and the `kubectl` of the masters it makes.
//!
//! A host is reached only if the inventory has its address, `known_hosts` its key, and the lent key
//! opens it; progress is in the file that the callback writes, if there is a callback; what was
//! installed is on the nodes.

use std::collections::BTreeMap;

use russh::keys::PublicKey;
use serde_json::{Value, json};

use super::Inner;
use super::kubernetes;
use super::machine::{Machine, World};
use super::playbooks;
use super::runner::{Ran, Run, log_text, write};
use super::shell::Output;
use super::tree::{Node, file_name};

/// What a node has been made to.
pub(super) const KUBELET: &str = "/etc/kubernetes/kubelet.json";
/// The masters' key to the API.
pub(super) const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// What runs of Kubespray on these hosts come to, from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Play {
    /// A run has ended at so many looks at it.
    pub looks: u32,
    /// So many starts of a run are lost at the first look.
    pub lost: u32,
    /// This host fails with this message.
    pub fails: Option<(String, String)>,
    /// All is well, says the exit code; but this host was left out.
    pub forgets: Option<String>,
    /// The node of this name does not become ready.
    pub not_ready: Option<String>,
    /// The API of the master of this name does not answer.
    pub silent: Option<String>,
    /// The Kubespray in the image is this one.
    pub release: String,
}

impl Default for Play {
    fn default() -> Self {
        Self {
            looks: 3,
            lost: 0,
            fails: None,
            forgets: None,
            not_ready: None,
            silent: None,
            release: "2.29.1".into(),
        }
    }
}

/// What Ansible knows of one host.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) name: String,
    address: String,
    master: bool,
    worker: bool,
    labels: Value,
    taints: Value,
}

/// Ansible works on until the next look.
pub(super) fn go_on(
    world: &mut World,
    server: &str,
    run: &mut Run,
    play: &Play,
) -> Result<(), (u32, String)> {
    let mapped = |path: &str| mapped(&run.spec, path);
    let read = |world: &World, path: &str| {
        let machine = world.find(server)?;
        match &machine.root.get(&mapped(path)?)?.node {
            Node::File(bytes) => Some(bytes.clone()),
            _ => None,
        }
    };
    // Several commands are lines of a script; all have the same inventory.
    let argv: Vec<&str> = run.spec["argv"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .flat_map(str::split_whitespace)
        .collect();
    let at = argv.iter().position(|word| *word == "--inventory");
    let inventory = at
        .and_then(|at| argv.get(at + 1))
        .and_then(|path| read(world, path));
    let inventory: Value = inventory
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let extra = argv.iter().find_map(|word| word.strip_prefix('@'));
    let extra = extra.and_then(|path| read(world, path));
    let extra: Value = extra
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let known = option(&run.spec, "UserKnownHostsFile=").and_then(|path| read(world, &path));
    let known = String::from_utf8_lossy(&known.unwrap_or_default()).into_owned();
    let hosts = hosts_of(&inventory);

    let mut events = Vec::new();
    if run.looks == 1 {
        events.push(json!({"event": "start", "ansible": "2.17.14"}));
        events.push(json!({"event": "play", "name": "Prepare", "hosts": hosts.len()}));
    }
    events.push(json!({"event": "task", "n": 300 * run.looks, "of": 300 * play.looks, "name": format!("part {} : of the work", run.looks)}));
    let whole = log_text(run).len();
    let ends = run.looks >= play.looks;
    run.log_end = whole * run.looks.min(play.looks) as usize / play.looks.max(1) as usize;
    let wanted = wanted_release(&argv).filter(|(playbook, _)| read(world, playbook).is_some());
    if let Some((_, wanted)) = wanted
        && *wanted != play.release
    {
        // No host is gone to.
        let message = format!("wanted {wanted}, and the image has {}", play.release);
        events.push(json!({"event": "failed", "host": "localhost", "task": "The image has the one of the spec", "message": message, "ignored": false}));
        events.push(json!({"event": "recap", "hosts": {"localhost": {"ok": 0, "failures": 1, "unreachable": 0}}}));
        run.state = "exited".into();
        run.exit = Some(json!({"code": 2}));
    } else if ends {
        let mut recap = BTreeMap::new();
        let mut bad = 0;
        for host in &hosts {
            let reached = reach(world, host, &known, &run.key);
            let failed = play.fails.as_ref().filter(|(name, _)| *name == host.name);
            let (failures, unreachable) =
                (u32::from(failed.is_some()), u32::from(reached.is_err()));
            if let Err(why) = &reached {
                bad = 4;
                events.push(json!({"event": "unreachable", "host": host.name, "task": "Gather facts", "message": why}));
            } else if let Some((_, message)) = failed {
                bad = 2;
                events.push(json!({"event": "failed", "host": host.name, "task": "download : Download_file", "message": message, "ignored": false}));
            }
            if play.forgets.as_ref() != Some(&host.name) {
                recap.insert(
                    host.name.clone(),
                    json!({"ok": 900, "failures": failures, "unreachable": unreachable}),
                );
            }
        }
        // Ansible ends all hosts with the first one that fails, where Kubespray asks it to.
        if bad == 0 {
            let playbook = argv.last().map_or("", |path| file_name(path));
            let vars = argv.iter().find_map(|word| word.strip_prefix('@'));
            let vars = vars.and_then(|path| read(world, path)).unwrap_or_default();
            let vars: Value = serde_json::from_slice(&vars).unwrap_or_default();
            match playbooks::play(world, playbook, &hosts, &vars) {
                Some(Ok(())) if playbook == "remove-node.yml" => {
                    let node = vars["node"].as_str().unwrap_or_default();
                    kubernetes::removed(world, &hosts, node);
                }
                Some(Ok(())) => {}
                Some(Err((host, task, message))) => {
                    bad = 2;
                    events.push(json!({"event": "failed", "host": host, "task": task, "message": message, "ignored": false}));
                    recap.insert(host, json!({"ok": 1, "failures": 1, "unreachable": 0}));
                }
                None => {
                    for host in &hosts {
                        install(world, host, &inventory, &extra)?;
                    }
                    kubernetes::installed(world, &hosts, play)?;
                }
            }
        }
        events.push(json!({"event": "recap", "hosts": recap}));
        run.state = "exited".into();
        run.exit = Some(json!({"code": bad}));
    }
    // No callback, no events: Ansible finds it by the name of its file.
    let name = environment(&run.spec, "ANSIBLE_CALLBACKS_ENABLED");
    let folder = environment(&run.spec, "ANSIBLE_CALLBACK_PLUGINS");
    let plugin = name
        .zip(folder)
        .map(|(name, folder)| format!("{folder}/{name}.py"));
    let there = plugin.and_then(|path| read(world, &path)).is_some();
    let file = environment(&run.spec, "REKINDLE_EVENTS").and_then(|path| mapped(&path));
    if let (true, Some(file)) = (there, file) {
        let machine = world
            .machines
            .get_mut(server)
            .ok_or((1, "no such server".to_owned()))?;
        let mut bytes = match machine.root.get(&file).map(|e| &e.node) {
            Some(Node::File(bytes)) => bytes.clone(),
            _ => Vec::new(),
        };
        for event in events {
            bytes.extend(format!("{event}\n").into_bytes());
        }
        machine
            .root
            .write(&file, bytes)
            .map_err(|e| (1, e.to_string()))?;
    }
    Ok(())
}

/// The playbook that looks at the image, and the Kubespray that it is to find there.
fn wanted_release<'a>(argv: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let playbook = argv
        .iter()
        .find(|word| file_name(word) == "check-kubespray.yml")?;
    let mut words = argv.iter();
    // Quoted, where it stands in a script.
    let wanted = words.find_map(|word| word.trim_matches('\'').strip_prefix("rekindle_kubespray="));
    Some((playbook, wanted.unwrap_or_default()))
}

/// A path in the container, on the host.
fn mapped(spec: &Value, path: &str) -> Option<String> {
    let binds = spec["binds"].as_array()?.iter().filter_map(Value::as_str);
    let mut found = binds.filter_map(|bind| {
        let mut parts = bind.split(':');
        let (source, target) = (parts.next()?, parts.next()?);
        Some(format!("{source}{}", path.strip_prefix(target)?))
    });
    found.next()
}

fn environment(spec: &Value, name: &str) -> Option<String> {
    let all = spec["env"].as_array()?.iter().filter_map(Value::as_str);
    let mut found = all
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| *key == name);
    found.next().map(|(_, value)| value.to_owned())
}

/// An option of ssh.
fn option(spec: &Value, name: &str) -> Option<String> {
    let args = environment(spec, "ANSIBLE_SSH_ARGS")?;
    let mut found = args
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(name));
    found.next().map(str::to_owned)
}

fn hosts_of(inventory: &Value) -> Vec<Host> {
    let in_group = |group: &str, name: &str| {
        inventory["all"]["children"][group]["hosts"]
            .get(name)
            .is_some()
    };
    let hosts = inventory["all"]["hosts"].as_object().into_iter().flatten();
    let host = |(name, vars): (&String, &Value)| Host {
        name: name.clone(),
        address: vars["ansible_host"].as_str().unwrap_or_default().to_owned(),
        master: in_group("kube_control_plane", name) && in_group("etcd", name),
        worker: in_group("kube_node", name),
        labels: vars
            .get("node_labels")
            .cloned()
            .unwrap_or_else(|| json!({})),
        taints: vars
            .get("node_taints")
            .cloned()
            .unwrap_or_else(|| json!([])),
    };
    hosts.map(host).collect()
}

pub(super) fn machine_of<'a>(world: &'a World, host: &Host) -> Option<&'a Machine> {
    let mut machines = world.machines.values();
    machines.find(|m| m.address.to_string() == host.address)
}

/// Whether ssh comes to a host: by its address, with a host key that is known, and with our key.
fn reach(world: &World, host: &Host, known: &str, key: &str) -> Result<(), String> {
    let machine = machine_of(world, host).ok_or("ssh: connect: No route to host")?;
    let shown = machine.host_key.public_key().key_data();
    let mut pinned = known
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{} ", host.address)));
    let same = |line: &str, data| PublicKey::from_openssh(line).is_ok_and(|k| k.key_data() == data);
    if !pinned.any(|line| same(line, shown)) {
        return Err("Host key verification failed.".into());
    }
    let authorized = match machine
        .root
        .get("/root/.ssh/authorized_keys")
        .map(|e| &e.node)
    {
        Some(Node::File(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    let ours = PublicKey::from_openssh(key).map_err(|e| e.to_string())?;
    match authorized.lines().any(|line| same(line, ours.key_data())) {
        true => Ok(()),
        false => Err("Permission denied (publickey).".into()),
    }
}

/// Makes a node of a host; what is on it already is counted.
fn install(
    world: &mut World,
    host: &Host,
    inventory: &Value,
    extra: &Value,
) -> Result<(), (u32, String)> {
    let machine = machine_of(world, host).ok_or((1, "no such host".to_owned()))?;
    let before = match machine.root.get(KUBELET).map(|e| &e.node) {
        Some(Node::File(bytes)) => serde_json::from_slice(bytes).unwrap_or_default(),
        _ => Value::Null,
    };
    let id = machine.id.clone();
    if !host.master && !host.worker {
        return Ok(());
    }
    let version = &inventory["all"]["vars"]["kube_version"];
    let node = json!({
        "name": host.name,
        "version": version,
        "labels": host.labels,
        "taints": host.taints,
        "installed": before["installed"].as_u64().unwrap_or(0) + 1,
        // What runs stays as it is unless it is told to change.
        "api_server": match extra["upgrade_cluster_setup"].as_bool() {
            Some(true) => version,
            _ => before.get("api_server").unwrap_or(version),
        },
    });
    write(world, &id, KUBELET, node.to_string().into_bytes())?;
    if host.master {
        playbooks::join_etcd(world, &id, &host.name)?;
        // What is in it is written when all hosts are there.
        write(world, &id, ADMIN, Vec::new())?;
    }
    Ok(())
}

/// Kubernetes as after a run of Kubespray over all servers that are not bastions, without the run: the
/// names of masters and workers, and the version.
pub(super) fn plant(
    world: &mut World,
    masters: &[&str],
    workers: &[&str],
    version: &str,
    play: &Play,
) -> Result<(), (u32, String)> {
    let mut hosts = Vec::new();
    for name in masters.iter().chain(workers) {
        let machine = world.find(name);
        let machine = machine.ok_or_else(|| (1, format!("there is no server {name}")))?;
        hosts.push(Host {
            name: (*name).to_owned(),
            address: machine.address.to_string(),
            master: masters.contains(name),
            worker: workers.contains(name),
            labels: json!({}),
            taints: json!([]),
        });
    }
    let inventory = json!({"all": {"vars": {"kube_version": version}}});
    for host in &hosts {
        install(world, host, &inventory, &Value::Null)?;
    }
    kubernetes::installed(world, &hosts, play)
}

/// `kubectl get nodes` and `kubectl version`, on a master.
pub(super) fn kubectl(inner: &Inner, server: &str, args: &[&str]) -> Ran {
    let play = inner.lock(&inner.kubespray).clone();
    let world = inner.world();
    let machine = world.find(server).ok_or((1, "no such server".to_owned()))?;
    if machine.root.get(ADMIN).is_none() || play.silent.as_ref() == Some(&machine.name) {
        return Err((1, "The connection to the server was refused".into()));
    }
    let words: Vec<&&str> = args.iter().filter(|a| !a.starts_with("--")).collect();
    if words == [&"version"] && args.contains(&"--output=json") {
        let node = match machine.root.get(KUBELET).map(|e| &e.node) {
            Some(Node::File(bytes)) => serde_json::from_slice(bytes).unwrap_or_default(),
            _ => Value::Null,
        };
        let version = format!("v{}", node["api_server"].as_str().unwrap_or_default());
        let versions = json!({"serverVersion": {"gitVersion": version}});
        return Ok(Output::ok(versions.to_string()));
    }
    if words != [&"get", &"nodes"] || !args.contains(&"--output=json") {
        return Err((
            1,
            format!("error: the sandbox does not know kubectl {args:?}"),
        ));
    }
    let nodes = world.machines.values().filter_map(|machine| {
        let Node::File(bytes) = &machine.root.get(KUBELET)?.node else {
            return None;
        };
        let node: Value = serde_json::from_slice(bytes).ok()?;
        let ready = play.not_ready.as_deref() != node["name"].as_str();
        let taints = node["taints"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let taint = |text: &str| {
            let (pair, effect) = text.rsplit_once(':')?;
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some(json!({"key": key, "value": value, "effect": effect}))
        };
        Some(json!({
            "metadata": {"name": node["name"], "labels": node["labels"]},
            "spec": {"taints": taints.filter_map(taint).collect::<Vec<_>>()},
            "status": {
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "Unknown" }}],
                "nodeInfo": {"kubeletVersion": format!("v{}", node["version"].as_str().unwrap_or_default())},
            },
        }))
    });
    let list = json!({"kind": "List", "items": nodes.collect::<Vec<_>>()});
    Ok(Output::ok(list.to_string()))
}
