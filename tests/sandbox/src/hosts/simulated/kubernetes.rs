//! The Kubernetes that was installed on simulated machines: one API a cluster, found on the loopback of
//! each of its masters, and the cluster's inside addresses, reached from its nodes.
//!
//! A cluster's objects live as long as one of its masters: a new master that finds none of the old ones
//! begins a new cluster. That etcd wants a majority is not played.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::kubespray::{ADMIN, Host, KUBELET, Play, machine_of};
use super::machine::{Machine, World};
use super::runner::write;
use super::tap::Tap;
use super::tree::Node;
use crate::kube_sim::{Credentials, KubeSim};

/// Where an API server listens.
pub(super) const API_PORT: u16 = 6443;

/// All clusters of a rack.
#[derive(Default)]
pub(super) struct Kubernetes {
    /// Made once for a rack and its copies, so that what is installed on either is the same.
    credentials: Arc<OnceLock<Arc<Credentials>>>,
    /// By server id.
    members: BTreeMap<String, Arc<KubeSim>>,
    /// Addresses that only nodes know, and where they lead to in truth.
    routes: BTreeMap<SocketAddr, SocketAddr>,
    /// Who hears of the requests to all of them.
    tap: Option<Arc<dyn Tap>>,
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kubernetes").field(&self.members).finish()
    }
}

impl Kubernetes {
    /// The same clusters once more. Who serves what on this machine is shared.
    pub(super) fn copy(&self) -> Self {
        let mut copies: Vec<(Arc<KubeSim>, Arc<KubeSim>)> = Vec::new();
        let members = self.members.iter().map(|(id, api)| {
            let known = copies.iter().find(|(old, _)| Arc::ptr_eq(old, api));
            let copy = match known {
                Some((_, copy)) => Arc::clone(copy),
                None => {
                    let copy = api.copy();
                    copies.push((Arc::clone(api), Arc::clone(&copy)));
                    copy
                }
            };
            (id.clone(), copy)
        });
        Self {
            members: members.collect(),
            credentials: Arc::clone(&self.credentials),
            routes: self.routes.clone(),
            tap: None,
        }
    }

    /// A server is no more: its node is not heard of any longer.
    pub(super) fn lost(&mut self, machine: &Machine) {
        let Some(api) = self.members.remove(&machine.id) else {
            return;
        };
        let name =
            kubelet(machine).map(|node| node["name"].as_str().unwrap_or_default().to_owned());
        let Some(mut node) = name.and_then(|name| api.get("Node", "", &name)) else {
            return;
        };
        node["status"]["conditions"] =
            json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]);
        if let Err(error) = api.put(node) {
            tracing::warn!("simulated Kubernetes: a lost node: {error:#}");
        }
    }

    /// Puts a tap on all clusters, those to come too, or takes it off.
    pub(super) fn tap(&mut self, tap: Option<Arc<dyn Tap>>) {
        for api in self.members.values() {
            api.tap(tap.clone());
        }
        self.tap = tap;
    }

    /// Every cluster.
    pub(super) fn all(&self) -> Vec<Arc<KubeSim>> {
        let mut all: Vec<Arc<KubeSim>> = Vec::new();
        for api in self.members.values() {
            if !all.iter().any(|known| Arc::ptr_eq(known, api)) {
                all.push(Arc::clone(api));
            }
        }
        all
    }

    /// The cluster that a server is of.
    pub(super) fn of(&self, server: &str) -> Option<&Arc<KubeSim>> {
        self.members.get(server)
    }

    pub(super) fn route(&mut self, from: SocketAddr, to: SocketAddr) {
        self.routes.insert(from, to);
    }

    /// Where this address leads to from a node.
    pub(super) fn routed(&self, from: SocketAddr) -> Option<SocketAddr> {
        self.routes.get(&from).copied()
    }

    fn begin(&self) -> Result<Arc<KubeSim>, String> {
        let credentials = match self.credentials.get() {
            Some(credentials) => Arc::clone(credentials),
            None => {
                let made = Credentials::create().map_err(|error| format!("{error:#}"))?;
                Arc::clone(self.credentials.get_or_init(|| Arc::new(made)))
            }
        };
        let api = KubeSim::quiet(credentials);
        api.tap(self.tap.clone());
        Ok(api)
    }
}

/// The API that a machine finds on its loopback.
pub(super) fn api_on(world: &World, server: &str, play: &Play) -> Option<Arc<KubeSim>> {
    let machine = world.find(server)?;
    machine.root.get(ADMIN)?;
    if play.silent.as_ref() == Some(&machine.name) {
        return None;
    }
    world.kubernetes.of(&machine.id).cloned()
}

/// Kubernetes was installed on these hosts: they are one cluster, with the nodes that they are.
pub(super) fn installed(
    world: &mut World,
    hosts: &[Host],
    play: &Play,
) -> Result<(), (u32, String)> {
    let members = hosts.iter().filter_map(|host| {
        let machine = machine_of(world, host)?;
        kubelet(machine)?;
        Some((
            host.name.clone(),
            machine.id.clone(),
            machine.root.get(ADMIN).is_some(),
        ))
    });
    let members: Vec<(String, String, bool)> = members.collect();
    let masters = || members.iter().filter(|(_, _, master)| *master);
    if masters().next().is_none() {
        return Ok(());
    }
    let there = masters().find_map(|(_, id, _)| world.kubernetes.of(id).cloned());
    let api = match there {
        Some(api) => api,
        None => world.kubernetes.begin().map_err(|why| (1, why))?,
    };
    for (_, id, _) in masters() {
        write(world, id, ADMIN, api.admin_conf().into_bytes())?;
    }
    for (_, id, _) in &members {
        world
            .kubernetes
            .members
            .insert(id.clone(), Arc::clone(&api));
    }
    show_nodes(world, play);
    Ok(())
}

/// A playbook has ended: a node that it was told to remove is no object any more.
pub(super) fn removed(world: &mut World, hosts: &[Host], node: &str) {
    let ids = hosts
        .iter()
        .filter_map(|host| Some(machine_of(world, host)?.id.clone()));
    let ids: Vec<String> = ids.collect();
    let left = ids.iter().find_map(|id| world.kubernetes.of(id));
    if let Some(api) = left {
        api.remove("Node", "", node);
    }
    let gone = world
        .machines
        .values()
        .filter(|m| ids.contains(&m.id) && kubelet(m).is_none());
    let gone: Vec<String> = gone.map(|m| m.id.clone()).collect();
    for id in gone {
        world.kubernetes.members.remove(&id);
    }
}

/// Writes what the kubelets say of their nodes.
pub(super) fn show_nodes(world: &World, play: &Play) {
    for (id, api) in &world.kubernetes.members {
        let machine = world.machines.get(id);
        let Some((machine, node)) = machine.and_then(|m| Some((m, kubelet(m)?))) else {
            continue;
        };
        let name = node["name"].as_str().unwrap_or_default();
        let object = node_object(machine, name, &node, play, api.get("Node", "", name));
        if let Err(error) = api.put(object) {
            tracing::warn!("simulated Kubernetes: no node {name}: {error:#}");
        }
    }
}

/// A node, with what others have written on it.
fn node_object(
    machine: &Machine,
    name: &str,
    kubelet: &Value,
    play: &Play,
    before: Option<Value>,
) -> Value {
    let ready = match play.not_ready.as_deref() == Some(name) {
        true => "Unknown",
        false => "True",
    };
    let taints = kubelet["taints"].as_array().into_iter().flatten();
    let taint = |text: &Value| {
        let (pair, effect) = text.as_str()?.rsplit_once(':')?;
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some(json!({"key": key, "value": value, "effect": effect}))
    };
    let taints: Vec<Value> = taints.filter_map(taint).collect();
    let mut node = before.unwrap_or_else(|| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {}},
            "spec": {}})
    });
    let labels = &mut node["metadata"]["labels"];
    for (key, value) in kubelet["labels"].as_object().into_iter().flatten() {
        labels[key] = value.clone();
    }
    labels["kubernetes.io/hostname"] = name.into();
    if machine.root.get(ADMIN).is_some() {
        labels["node-role.kubernetes.io/control-plane"] = "".into();
    }
    if taints.is_empty() {
        node["spec"]
            .as_object_mut()
            .and_then(|spec| spec.remove("taints"));
    } else {
        node["spec"]["taints"] = taints.into();
    }
    let version = kubelet["version"].as_str().unwrap_or_default();
    node["status"] = json!({
        "addresses": [
            {"type": "InternalIP", "address": machine.address.to_string()},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [{"type": "Ready", "status": ready}],
        "nodeInfo": {"kubeletVersion": format!("v{version}")},
    });
    node
}

/// What the kubelet of a machine was made to, if it has one.
pub(super) fn kubelet(machine: &Machine) -> Option<Value> {
    match &machine.root.get(KUBELET)?.node {
        Node::File(bytes) => serde_json::from_slice(bytes).ok(),
        _ => None,
    }
}
