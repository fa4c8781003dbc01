//! A local volume is a path on the nodes that its labels pick. The cluster's spec says which nodes those are, what is
//! mounted there, and how large it is.

use std::collections::BTreeMap;

use jobs::spec::{ClusterSpec, Node};
use serde_json::Value;

use crate::document::{field, keys};
use crate::{Finding, Tree};

/// Of a disk, in percent: what a file system keeps for itself is not for data.
const USABLE: u64 = 90;

/// Every volume is one disk of one node of the spec, fits it, and is the only one there.
pub fn check(tree: &Tree, spec: &ClusterSpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    if spec.cluster.to_string() != tree.cluster {
        let what = format!("the spec is of {}, not {}", spec.cluster, tree.cluster);
        findings.push(Finding::new(&tree.cluster, what));
    }
    let nodes = spec.nodes();
    let mut taken = BTreeMap::new();
    for volume in tree.of_kind("PersistentVolume") {
        let mut say = |what: String| findings.push(Finding::new(volume.id(), what));
        let class = volume.text("/spec/storageClassName");
        if tree.find("StorageClass", "", class).is_none() {
            say(format!("nobody makes its class {class:?}"));
        }
        let terms = volume.items("/spec/nodeAffinity/required/nodeSelectorTerms");
        let picked: Vec<_> = nodes
            .iter()
            .filter(|node| matches_terms(terms, node))
            .collect();
        let [node] = picked[..] else {
            say(format!(
                "its labels pick {} nodes of the spec",
                picked.len()
            ));
            continue;
        };
        // Kubespray's local volume provisioner makes a volume of each disk on nodes without a taint.
        if !node
            .taints
            .iter()
            .any(|taint| taint.ends_with(":NoSchedule"))
        {
            say(format!(
                "{} has no taint: its disk becomes a second volume",
                node.name
            ));
        }
        let path = volume.text("/spec/local/path");
        match node.data_disks.iter().find(|disk| disk.mount == path) {
            None => say(format!("{} mounts nothing at {path:?}", node.name)),
            Some(disk) => {
                let room = u64::from(disk.size_gb) * 1_000_000_000 / 100 * USABLE;
                let capacity = volume.text("/spec/capacity/storage");
                match bytes(capacity) {
                    None => say(format!("its capacity is no size: {capacity:?}")),
                    Some(bytes) if bytes <= room => {}
                    Some(_) => say(format!(
                        "{capacity} do not fit a disk of {} GB",
                        disk.size_gb
                    )),
                }
            }
        }
        if let Some(other) = taken.insert((node.name.clone(), path), volume.name()) {
            say(format!("{other} is the same disk"));
        }
    }
    findings.extend(strange_nodes(tree, &nodes));
    findings
}

/// A node that one of the terms picks. One without expressions picks nothing, as in Kubernetes.
fn matches_terms(terms: &[Value], node: &Node) -> bool {
    terms.iter().any(|term| {
        let expressions = term.get("matchExpressions").and_then(Value::as_array);
        let mut expressions = expressions.into_iter().flatten().peekable();
        expressions.peek().is_some()
            && expressions.all(|e| {
                let label = node.labels.get(field(e, "key")).map(String::as_str);
                let values = e.get("values").and_then(Value::as_array);
                let mut values = values.into_iter().flatten().filter_map(Value::as_str);
                field(e, "operator") == "In" && label.is_some_and(|l| values.any(|v| v == l))
            })
    })
}

fn bytes(quantity: &str) -> Option<u64> {
    let (number, unit) = match quantity {
        q if q.ends_with("Gi") => (q.strip_suffix("Gi")?, 1 << 30),
        q if q.ends_with("Mi") => (q.strip_suffix("Mi")?, 1 << 20),
        q => (q.strip_suffix('G')?, 1_000_000_000),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A selector that picks no node of the spec leaves its pods pending.
fn strange_nodes(tree: &Tree, nodes: &[Node]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for release in tree.releases() {
        for values in tree.values(release) {
            keys(&values, &mut |key, value| {
                let picks_one = match key {
                    "nodeSelector" => nodes.iter().any(|node| has_labels(node, value)),
                    "nodeSelectorTerms" => {
                        let terms = value.as_array().map(Vec::as_slice).unwrap_or_default();
                        nodes.iter().any(|node| matches_terms(terms, node))
                    }
                    _ => true,
                };
                if !picks_one {
                    let what = format!("its {key} {value} picks no node of the spec");
                    findings.push(Finding::new(release.id(), what));
                }
            });
        }
    }
    findings
}

pub(super) fn has_labels(node: &Node, wanted: &Value) -> bool {
    let mut wanted = wanted.as_object().into_iter().flatten();
    wanted.all(|(name, value)| node.labels.get(name).map(String::as_str) == value.as_str())
}
