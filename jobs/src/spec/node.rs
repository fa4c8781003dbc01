//! A node: one switched-on instance of a group, with everything that holds for it.

use std::collections::BTreeMap;

use super::{BootDisk, ClusterSpec, DataDisk, Forward, Group, Instance, InstanceExtra, Role};
use crate::ids::NodeName;

/// One machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `<cluster>-<prefix>-<n>`; also the server's name.
    pub name: NodeName,
    /// The group's prefix.
    pub prefix: String,
    /// What it is in the cluster.
    pub role: Role,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in GB.
    pub ram_gb: u32,
    /// The boot disk.
    pub boot_disk: BootDisk,
    /// Its data disks.
    pub data_disks: Vec<DataDisk>,
    /// Labels of group and instance.
    pub labels: BTreeMap<String, String>,
    /// Taints of group and instance.
    pub taints: Vec<String>,
    /// Load balancer ports that lead here.
    pub forward: Vec<Forward>,
}

impl Node {
    /// The cloud name of the volume behind one of its data disks; unique within the project.
    pub fn volume_name(&self, disk: &DataDisk) -> String {
        format!("{}-{}", self.name, disk.name)
    }
}

impl ClusterSpec {
    /// Every switched-on node, in the order of the file.
    pub fn nodes(&self) -> Vec<Node> {
        let expand = |group: &Group| {
            let on = group
                .instances
                .iter()
                .filter_map(|(n, instance)| match instance {
                    Instance::Enabled(false) => None,
                    Instance::Enabled(true) => Some((*n, None)),
                    Instance::With(extra) => extra.enabled.then_some((*n, Some(extra))),
                });
            on.map(|(n, own)| self.node_of(group, n, own))
                .collect::<Vec<_>>()
        };
        self.groups.iter().flat_map(expand).collect()
    }

    /// One node by name.
    pub fn node(&self, name: &NodeName) -> Option<Node> {
        self.nodes().into_iter().find(|node| node.name == *name)
    }

    fn node_of(&self, group: &Group, n: u32, own: Option<&InstanceExtra>) -> Node {
        let name = format!("{}-{}-{n}", self.cluster, group.prefix);
        let (mut labels, mut taints) = (group.labels.clone(), group.taints.clone());
        if let Some(own) = own {
            labels.extend(own.labels.clone());
            let more = own
                .taints
                .iter()
                .filter(|taint| !group.taints.contains(taint));
            taints.extend(more.cloned());
        }
        Node {
            name: NodeName::new(name)
                .expect("the check made sure that prefix and number make a name"),
            prefix: group.prefix.clone(),
            role: group.role,
            vcpus: group.vcpus,
            ram_gb: group.ram_gb,
            boot_disk: group.boot_disk.clone(),
            data_disks: group.data_disks.clone(),
            labels,
            taints,
            forward: group.forward.clone(),
        }
    }
}
