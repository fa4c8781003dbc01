//! What a recovery would change in the cloud: records and cloud compared with the spec, by the
//! same rules that the jobs follow. Pure, and reads only: what it says holds for this moment.

use jobs::record::{LoadBalancerRecord, NodeRecord, VolumeRecord};
use jobs::spec::{ClusterSpec, Node, Storage};
use serde::Serialize;
use worker::cloud::clo::{
    BalancerStatus, LoadBalancer, Server, ServerStatus, Volume, VolumeStatus,
};

/// What is known: by our records and by the cloud.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) nodes: Vec<NodeRecord>,
    pub(crate) volumes: Vec<VolumeRecord>,
    pub(crate) load_balancer: Option<LoadBalancerRecord>,
    pub(crate) cloud_servers: Vec<Server>,
    pub(crate) cloud_volumes: Vec<Volume>,
    pub(crate) cloud_balancers: Vec<LoadBalancer>,
}

/// One thing, and what would happen to it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) act: Act,
    pub(crate) what: &'static str,
    pub(crate) name: String,
    /// The cloud's id, where there is one thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// What to know about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

/// What would happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Act {
    /// It is there and ours.
    Keep,
    /// It is there under our name, and not on record: it is taken over and never formatted.
    Adopt,
    /// It is made.
    Create,
    /// The job stops and asks.
    Ask,
    /// It is not in the spec; nothing touches it.
    Leave,
}

impl Act {
    /// A mark for people.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Keep => "=",
            Self::Adopt => ">",
            Self::Create => "+",
            Self::Ask => "!",
            Self::Leave => ".",
        }
    }
}

/// Compares.
pub(crate) fn changes(spec: &ClusterSpec, known: &Known) -> Vec<Change> {
    let nodes = spec.nodes();
    let mut found = Vec::new();
    for node in &nodes {
        found.push(server(node, known));
        for disk in node
            .data_disks
            .iter()
            .filter(|disk| disk.storage == Storage::Network)
        {
            found.push(volume(node, &disk.name, disk.size_gb.into(), known));
        }
    }
    if spec.load_balancer.is_some() {
        found.push(load_balancer(&spec.load_balancer_name(), known));
    }
    // Things that look like ours but are not in the spec: switched-off nodes, mostly.
    let ours = format!("{}-", spec.cluster);
    let servers = known
        .cloud_servers
        .iter()
        .filter(|s| s.status != ServerStatus::Deleting);
    // Boot disks come and go with their server.
    let of_server = |volume: &&Volume| {
        let at = volume.attached_to_server.as_ref();
        at.is_some_and(|at| {
            found
                .iter()
                .any(|change| change.id.as_ref() == Some(&at.id))
        })
    };
    let volumes = known.cloud_volumes.iter();
    let volumes = volumes.filter(|v| v.status != VolumeStatus::Deleting && !of_server(v));
    let things = servers
        .map(|s| ("server", &s.name, &s.id))
        .chain(volumes.map(|v| ("volume", &v.name, &v.id)));
    let in_spec = |what: &str, name: &str| {
        let mut all = found.iter();
        all.any(|change| change.what == what && change.name == name)
    };
    let left: Vec<Change> = things
        .filter(|(what, name, _)| name.starts_with(&ours) && !in_spec(what, name))
        .map(|(what, name, id)| change(Act::Leave, what, name, Some(id), "not in the spec"))
        .collect();
    found.extend(left);
    found
}

fn server(node: &Node, known: &Known) -> Change {
    let name = node.name.as_str();
    let there = || {
        known
            .cloud_servers
            .iter()
            .filter(|s| s.status != ServerStatus::Deleting)
    };
    let record = known.nodes.iter().find(|record| record.node == node.name);
    if let Some(server) = record.and_then(|r| there().find(|s| s.id == r.server)) {
        if server.name != name {
            let note = format!("on record as ours, but called `{}`", server.name);
            return change(Act::Ask, "server", name, Some(&server.id), &note);
        }
        let note = match &server.flavor {
            Some(is) if (is.vcpus, is.ram) != (node.vcpus, node.ram_gb) => format!(
                "has {} vCPUs and {} GB, the spec says {} and {}; it is not resized",
                is.vcpus, is.ram, node.vcpus, node.ram_gb
            ),
            _ => String::new(),
        };
        return change(Act::Keep, "server", name, Some(&server.id), &note);
    }
    match there().find(|server| server.name == name) {
        Some(stranger) => {
            let note =
                "there is no record of it, so its host key cannot be verified: delete or rename it";
            change(Act::Ask, "server", name, Some(&stranger.id), note)
        }
        None => {
            let note = format!("{} vCPUs, {} GB", node.vcpus, node.ram_gb);
            change(Act::Create, "server", name, None, &note)
        }
    }
}

fn volume(node: &Node, disk: &str, size_gb: u64, known: &Known) -> Change {
    let name = format!("{}-{disk}", node.name);
    let there = || {
        known
            .cloud_volumes
            .iter()
            .filter(|v| v.status != VolumeStatus::Deleting)
    };
    let on_record: Vec<&Volume> = there()
        .filter(|v| {
            known
                .volumes
                .iter()
                .any(|r| r.id == v.id && r.node == node.name && r.disk == disk)
        })
        .collect();
    let named: Vec<&Volume> = there().filter(|v| v.name == name).collect();
    let (act, volume) = match (on_record.as_slice(), named.as_slice()) {
        ([one], _) => (Act::Keep, one),
        ([], [one]) => (Act::Adopt, one),
        ([], []) => {
            let note = format!("{size_gb} GB, blank");
            return change(Act::Create, "volume", &name, None, &note);
        }
        ([], many) | (many, _) => {
            let note = format!(
                "there are {} of them: rename those that are not it",
                many.len()
            );
            return change(Act::Ask, "volume", &name, None, &note);
        }
    };
    let note = if volume.size == size_gb {
        String::new()
    } else {
        format!(
            "has {} GB, the spec says {size_gb}; it is not resized",
            volume.size
        )
    };
    change(act, "volume", &name, Some(&volume.id), &note)
}

fn load_balancer(name: &str, known: &Known) -> Change {
    let there = || {
        known
            .cloud_balancers
            .iter()
            .filter(|lb| lb.status != BalancerStatus::Deleting)
    };
    let record = known.load_balancer.as_ref();
    let ours = record.and_then(|record| there().find(|lb| lb.id == record.id));
    let mut named = there().filter(|lb| lb.name == name);
    match (ours, named.next(), named.next()) {
        (Some(ours), _, _) => change(
            Act::Keep,
            "load balancer",
            name,
            Some(&ours.id),
            "its rules are made right",
        ),
        (None, Some(one), None) => change(
            Act::Adopt,
            "load balancer",
            name,
            Some(&one.id),
            "its rules are made right",
        ),
        (None, None, _) => change(Act::Create, "load balancer", name, None, ""),
        (None, Some(_), Some(_)) => change(
            Act::Ask,
            "load balancer",
            name,
            None,
            "there are several of them",
        ),
    }
}

fn change(act: Act, what: &'static str, name: &str, id: Option<&String>, note: &str) -> Change {
    Change {
        act,
        what,
        name: name.to_owned(),
        id: id.cloned(),
        note: note.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jobs::ids::{NodeName, RecoveryId};
    use jobs::record::{Address, Origin};
    use std::net::Ipv4Addr;
    use worker::cloud::clo::Flavor;

    use super::*;

    const SPEC: &str = include_str!("../../deploy/examples/cluster.yaml");
    const NODE: &str = "test-cache-1";

    fn server(id: &str, name: &str) -> Server {
        Server {
            id: id.into(),
            name: name.into(),
            status: ServerStatus::Active,
            flavor: Some(Flavor {
                ram: 2,
                vcpus: 2,
                cpu_type: None,
            }),
            ..Server::default()
        }
    }

    fn volume(id: &str, name: &str, size: u64) -> Volume {
        Volume {
            id: id.into(),
            name: name.into(),
            status: VolumeStatus::Available,
            size,
            ..Volume::default()
        }
    }

    fn node_record(server: &str) -> NodeRecord {
        NodeRecord {
            node: NodeName::new(NODE).expect("valid"),
            server: server.into(),
            internal: Address {
                id: "a".into(),
                ip: Ipv4Addr::LOCALHOST,
            },
            external: None,
            host_keys: vec![],
            ssh_user: "root".into(),
            volumes: Default::default(),
            recovery: RecoveryId::new("r-1").expect("valid"),
            epoch: 1,
        }
    }

    fn volume_record(id: &str) -> VolumeRecord {
        VolumeRecord {
            id: id.into(),
            name: format!("{NODE}-data"),
            node: NodeName::new(NODE).expect("valid"),
            disk: "data".into(),
            size_gb: 10,
            storage: Storage::Network,
            origin: Origin::Adopted {
                recovery: RecoveryId::new("r-1").expect("valid"),
            },
            fs_uuid: None,
            formatted: false,
            mount: "/mnt/disks/data".into(),
            protected: false,
        }
    }

    /// What would happen to `test-cache-1` (or its volume).
    #[track_caller]
    fn check(known: &Known, name: &str, act: Act, note: &str) {
        let spec = ClusterSpec::parse(SPEC).expect("valid");
        let all = changes(&spec, known);
        let one = all
            .iter()
            .find(|change| change.name == name)
            .expect("there");
        assert_eq!(one.act, act, "{one:?}");
        assert!(one.note.contains(note), "{one:?}");
    }

    #[test]
    fn servers_are_ours_by_record_only() {
        let mut known = Known::default();
        check(&known, NODE, Act::Create, "2 vCPUs, 2 GB");
        known.cloud_servers = vec![server("s", NODE)];
        check(&known, NODE, Act::Ask, "no record");
        known.nodes = vec![node_record("s")];
        check(&known, NODE, Act::Keep, "");
        known.cloud_servers[0].flavor = None;
        check(&known, NODE, Act::Keep, "");
        known.cloud_servers = vec![server("s", "renamed")];
        check(&known, NODE, Act::Ask, "called `renamed`");
        known.cloud_servers = vec![Server {
            status: ServerStatus::Deleting,
            ..server("s", NODE)
        }];
        check(&known, NODE, Act::Create, "");
        known.cloud_servers = vec![server("x", "test-old-1"), server("y", "other-web-1")];
        check(&known, "test-old-1", Act::Leave, "not in the spec");
        let spec = ClusterSpec::parse(SPEC).expect("valid");
        assert!(
            changes(&spec, &known)
                .iter()
                .all(|change| change.name != "other-web-1")
        );
    }

    #[test]
    fn volumes_are_ours_by_record_or_by_their_one_name() {
        let name = "test-cache-1-data";
        let mut known = Known::default();
        check(&known, name, Act::Create, "10 GB, blank");
        known.cloud_volumes = vec![volume("v", name, 10)];
        check(&known, name, Act::Adopt, "");
        known.volumes = vec![volume_record("v")];
        check(&known, name, Act::Keep, "");
        known.cloud_volumes[0].size = 12;
        check(&known, name, Act::Keep, "has 12 GB, the spec says 10");
        known.cloud_volumes = vec![volume("v", name, 10), volume("w", name, 10)];
        check(&known, name, Act::Keep, "");
        known.volumes.clear();
        check(&known, name, Act::Ask, "there are 2 of them");
    }

    #[test]
    fn the_load_balancer_is_made_once() {
        let name = "test-main-lb";
        let mut known = Known::default();
        check(&known, name, Act::Create, "");
        let lb = LoadBalancer {
            id: "l".into(),
            name: name.into(),
            ..LoadBalancer::default()
        };
        known.cloud_balancers = vec![lb.clone()];
        check(&known, name, Act::Adopt, "rules");
        known.cloud_balancers.push(lb);
        check(&known, name, Act::Ask, "several");
    }
}
