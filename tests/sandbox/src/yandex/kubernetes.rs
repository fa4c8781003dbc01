//! Inside the clusters: each that runs has a Kubernetes API of its own, with nodes in it.

use std::any::Any;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;

use super::sim::Inner;
use super::world::{Status, Thing, World};
use crate::kube_sim::{KubeSim, User};

/// The API of a cluster, and what was started in it.
pub(super) struct Api {
    pub(super) sim: Arc<KubeSim>,
    _started: Option<Box<dyn Any + Send>>,
}

/// Makes this the API of a cluster: lets the holders of tokens in, starts what is to be started, and shows
/// where it is.
pub(super) fn serve(inner: &Arc<Inner>, cluster: &str, sim: Arc<KubeSim>) -> anyhow::Result<()> {
    sim.listen()?;
    let iam = Arc::clone(&inner.iam);
    let group = match inner.options.administrator {
        true => "system:masters",
        false => "system:authenticated",
    };
    sim.tokens(Some(Arc::new(move |token| {
        iam.knows(token).then(|| User {
            name: iam.account.clone(),
            groups: vec![group.to_owned()],
        })
    })));
    sim.tap(inner.kube_tapped());
    let started = match &inner.options.on_running {
        Some(start) => {
            let config = Kubeconfig::parse(&sim.direct_conf()?, "the sandbox")?;
            Some(start(direct(&config, Dialer::direct())?, Arc::clone(&sim)))
        }
        None => None,
    };
    if let Some(cluster) = inner.world().thing_mut(cluster) {
        let master = &mut cluster.detail["master"];
        // What is inside is reached by the nodes alone.
        master["endpoints"] = json!({ "internalV4Endpoint": "https://10.0.0.3" });
        if cluster.public {
            master["endpoints"]["externalV4Endpoint"] = sim.server().into();
        }
        master["masterAuth"] = json!({ "clusterCaCertificate": sim.pki().cluster().pem() });
    }
    let api = Api {
        sim,
        _started: started,
    };
    inner.clusters().insert(cluster.to_owned(), api);
    if !inner.is_open() {
        forget(inner, cluster);
    }
    Ok(())
}

/// Ends the API of a cluster, if it has one, and what was started in it: that may take its time, and nobody
/// else waits for it.
pub(super) fn forget(inner: &Inner, cluster: &str) {
    let ended = inner.clusters().remove(cluster);
    drop(ended);
}

/// These things are gone: so are the clusters' APIs, and the nodes of the node groups.
pub(super) fn end(inner: &Inner, gone: &[Thing]) {
    for thing in gone {
        forget(inner, &thing.id);
        let of = thing.cluster.as_deref().and_then(|id| api(inner, id));
        if let Some(sim) = of {
            for node in &thing.nodes {
                sim.remove("Node", "", node);
            }
        }
    }
}

/// Writes what the kubelets of a node group say of their nodes, if it is still there.
pub(super) fn show_nodes(inner: &Inner, group: &str, ready: bool) {
    let (nodes, sim) = {
        let world = inner.world();
        let group = world
            .thing(group)
            .filter(|group| group.status == Status::Running);
        let Some(group) = group else { return };
        let cluster = group.cluster.as_deref();
        let Some(sim) = cluster.and_then(|id| api(inner, id)) else {
            return;
        };
        (nodes_of(&world, group, ready), sim)
    };
    for node in nodes {
        if let Err(error) = sim.put(node) {
            inner.trouble("show a node", &error);
        }
    }
}

fn api(inner: &Inner, cluster: &str) -> Option<Arc<KubeSim>> {
    let clusters = inner.clusters();
    clusters.get(cluster).map(|api| Arc::clone(&api.sim))
}

fn nodes_of(world: &World, group: &Thing, ready: bool) -> Vec<Value> {
    let subnet = group.subnets.iter().find_map(|id| world.thing(id));
    let nodes = group.nodes.iter().enumerate();
    nodes
        .map(|(index, name)| node(group, name, address(group, subnet, index), ready))
        .collect()
}

/// An address in the subnet that no other node group's nodes have, as long as they are few.
fn address(group: &Thing, subnet: Option<&Thing>, index: usize) -> Ipv4Addr {
    let first = subnet
        .and_then(|subnet| subnet.detail["v4CidrBlocks"][0].as_str())
        .and_then(|block| block.split('/').next()?.parse::<Ipv4Addr>().ok())
        .unwrap_or(Ipv4Addr::new(10, 0, 0, 0));
    let index = u32::try_from(index).unwrap_or_default();
    let group = u32::try_from(group.number % 16).unwrap_or_default();
    Ipv4Addr::from_bits(first.to_bits() + 4 + group * 8 + index)
}

fn node(group: &Thing, name: &str, address: Ipv4Addr, ready: bool) -> Value {
    let template = &group.detail["nodeTemplate"];
    let zone = &group.detail["allocationPolicy"]["locations"][0]["zoneId"];
    let mut labels = json!({
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": template["platformId"],
        "topology.kubernetes.io/zone": zone,
        "yandex.cloud/node-group-id": group.id,
    });
    for (key, value) in fields(&group.detail["nodeLabels"]) {
        labels[key] = value.clone();
    }
    let taints = group.detail["nodeTaints"].as_array().into_iter().flatten();
    let mut taints: Vec<Value> = taints.map(taint).collect();
    if !ready {
        let unready = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        taints.push(unready);
    }
    let resources = &template["resourcesSpec"];
    let capacity = json!({
        "cpu": text(&resources["cores"]),
        "memory": text(&resources["memory"]),
        "pods": "110",
    });
    let version = group.detail["nodeVersion"].as_str().unwrap_or_default();
    let (status, reason) = match ready {
        true => ("True", "KubeletReady"),
        false => ("False", "KubeletNotReady"),
    };
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": labels },
        "spec": { "providerID": format!("yandex://{name}") },
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": address.to_string()},
                {"type": "Hostname", "address": name},
            ],
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": status, "reason": reason}],
            "nodeInfo": {"kubeletVersion": format!("v{version}.4")},
        },
    });
    if !taints.is_empty() {
        node["spec"]["taints"] = taints.into();
    }
    node
}

/// A taint in the words of Kubernetes.
fn taint(given: &Value) -> Value {
    let effect = match given["effect"].as_str().unwrap_or_default() {
        "NO_SCHEDULE" => "NoSchedule",
        "PREFER_NO_SCHEDULE" => "PreferNoSchedule",
        _ => "NoExecute",
    };
    let mut taint = json!({ "key": given["key"], "effect": effect });
    if let Some(value) = given["value"].as_str().filter(|value| !value.is_empty()) {
        taint["value"] = value.into();
    }
    taint
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A number that was given as a number or as text.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
