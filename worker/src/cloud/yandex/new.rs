//! What is asked for when something is made, as the API reads it. Large whole numbers are texts, as its own clients
//! write them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::model::Kind;

/// Bytes of what a spec calls a GB.
const GB: u64 = 1024 * 1024 * 1024;

/// Something to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct New {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    pub(super) body: Value,
}

/// A cluster to be made.
#[derive(Debug, Clone)]
pub struct NewCluster<'a> {
    /// Its network.
    pub network: &'a str,
    /// The subnet of its master.
    pub subnet: &'a str,
    /// The zone of its master.
    pub zone: &'a str,
    /// Version of Kubernetes, `1.33`.
    pub version: &'a str,
    /// `RAPID`, `REGULAR` or `STABLE`.
    pub channel: &'a str,
    /// The service account of the cluster and of its nodes.
    pub service_account: &'a str,
    /// Addresses of Pods.
    pub pods: &'a str,
    /// Addresses of Services.
    pub services: &'a str,
}

/// A node group to be made: nodes of one size, with public addresses, for without these or a NAT gateway they could
/// pull no image.
#[derive(Debug, Clone)]
pub struct NewNodeGroup<'a> {
    /// Its cluster.
    pub cluster: &'a str,
    /// The subnet of its nodes.
    pub subnet: &'a str,
    /// The zone of its nodes.
    pub zone: &'a str,
    /// How many nodes.
    pub nodes: u32,
    /// Cores of each.
    pub cores: u32,
    /// Memory of each, in GB.
    pub ram_gb: u32,
    /// Boot disk of each, in GB.
    pub disk_gb: u32,
    /// The role that the nodes are labelled with in Kubernetes.
    pub role: &'a str,
    /// The value of a taint `dedicated` that lets only its own Pods come, if there is one.
    pub dedicated: Option<&'a str>,
}

impl New {
    /// A network.
    pub fn network(name: String, labels: &BTreeMap<String, String>) -> Self {
        let body = json!({});
        Self::of(Kind::Network, name, labels, body)
    }

    /// A subnet with these addresses.
    pub fn subnet(
        name: String,
        labels: &BTreeMap<String, String>,
        network: &str,
        zone: &str,
        addresses: &str,
    ) -> Self {
        let body = json!({"networkId": network, "zoneId": zone, "v4CidrBlocks": [addresses]});
        Self::of(Kind::Subnet, name, labels, body)
    }

    /// A cluster with a public endpoint.
    pub fn cluster(
        name: String,
        labels: &BTreeMap<String, String>,
        cluster: &NewCluster<'_>,
    ) -> Self {
        let body = json!({
            "networkId": cluster.network,
            "masterSpec": {
                "version": cluster.version,
                "zonalMasterSpec": {
                    "zoneId": cluster.zone,
                    "internalV4AddressSpec": {"subnetId": cluster.subnet},
                    // Empty asks for a public endpoint; without it there is none, now and later.
                    "externalV4AddressSpec": {},
                },
            },
            "ipAllocationPolicy": {
                "clusterIpv4CidrBlock": cluster.pods,
                "serviceIpv4CidrBlock": cluster.services,
            },
            "serviceAccountId": cluster.service_account,
            "nodeServiceAccountId": cluster.service_account,
            "releaseChannel": cluster.channel,
        });
        Self::of(Kind::Cluster, name, labels, body)
    }

    /// A node group.
    pub fn node_group(
        name: String,
        labels: &BTreeMap<String, String>,
        group: &NewNodeGroup<'_>,
    ) -> Self {
        let bytes = |gb: u32| (u64::from(gb) * GB).to_string();
        let mut body = json!({
            "clusterId": group.cluster,
            "nodeTemplate": {
                "platformId": "standard-v3",
                "resourcesSpec": {"memory": bytes(group.ram_gb), "cores": group.cores.to_string()},
                "bootDiskSpec": {"diskTypeId": "network-hdd", "diskSize": bytes(group.disk_gb)},
                "networkInterfaceSpecs": [{
                    "subnetIds": [group.subnet],
                    "primaryV4AddressSpec": {"oneToOneNatSpec": {"ipVersion": "IPV4"}},
                }],
                "containerRuntimeSettings": {"type": "CONTAINERD"},
            },
            "scalePolicy": {"fixedScale": {"size": group.nodes.to_string()}},
            "allocationPolicy": {"locations": [{"zoneId": group.zone}]},
            "nodeLabels": {"role": group.role},
        });
        if let Some(dedicated) = group.dedicated {
            // Not as Kubernetes spells it.
            let taint = json!({"key": "dedicated", "value": dedicated, "effect": "NO_SCHEDULE"});
            body["nodeTaints"] = json!([taint]);
        }
        Self::of(Kind::NodeGroup, name, labels, body)
    }

    fn of(kind: Kind, name: String, labels: &BTreeMap<String, String>, mut body: Value) -> Self {
        body["name"] = json!(name);
        body["labels"] = json!(labels);
        body["description"] = json!("Made by Rekindle for a load test; deleted after it.");
        Self { kind, name, body }
    }
}
