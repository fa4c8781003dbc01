//! Other people's things in the same folder, which must never be touched, and what tests put in.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::world::{Kind, Status, Thing, World};

/// Things to put in: a network, a subnet in it, a cluster there, and a node group, all with the same name
/// and labels.
#[derive(Clone, Debug)]
pub struct Seed {
    name: String,
    labels: BTreeMap<String, String>,
    stranger: bool,
    last: Kind,
}

impl Seed {
    /// What a recovery of ours left behind. Its cluster has no Kubernetes API.
    pub fn ours(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            stranger: false,
            last: Kind::NodeGroup,
        }
    }

    /// What belongs to somebody else.
    pub fn strangers(name: &str) -> Self {
        Self {
            stranger: true,
            ..Self::ours(name)
        }
    }

    /// Everything carries this label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Nothing after this kind: with [`Kind::Subnet`] there is no cluster.
    pub fn up_to(mut self, kind: Kind) -> Self {
        self.last = kind;
        self
    }

    /// Puts everything in, as it has been for a day.
    pub(super) fn sow(self, world: &mut World) -> Vec<Thing> {
        let (mut network, mut subnet, mut cluster) = (None, None, None);
        let mut ids = Vec::new();
        let kinds = [Kind::Network, Kind::Subnet, Kind::Cluster, Kind::NodeGroup];
        for kind in kinds.into_iter().filter(|kind| *kind <= self.last) {
            let mut thing = Thing {
                labels: self.labels.clone(),
                status: Status::Running,
                stranger: self.stranger,
                created: Timestamp::now() - SignedDuration::from_hours(24),
                detail: detail(kind),
                ..Thing::new(kind, &self.name)
            };
            match kind {
                Kind::Network => {}
                Kind::Subnet => thing.network.clone_from(&network),
                Kind::Cluster => {
                    thing.network.clone_from(&network);
                    thing.subnets.extend(subnet.clone());
                }
                Kind::NodeGroup => {
                    thing.cluster.clone_from(&cluster);
                    thing.subnets.extend(subnet.clone());
                    thing.nodes = vec!["cl1somebodys-node".to_owned()];
                }
            }
            let id = world.add(thing);
            match kind {
                Kind::Network => network = Some(id.clone()),
                Kind::Subnet => subnet = Some(id.clone()),
                Kind::Cluster => cluster = Some(id.clone()),
                Kind::NodeGroup => {}
            }
            ids.push(id);
        }
        let things = ids.iter().filter_map(|id| world.thing(id).cloned());
        things.collect()
    }
}

/// Those who were here before us: the folder's own network, a load test by hand, the panel, a live load
/// test of another cluster of ours, and somebody who likes our names.
pub(super) fn move_in(world: &mut World) {
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    let until = in_an_hour.as_second().to_string();
    let neighbours = [
        Seed::strangers("default").up_to(Kind::Subnet),
        Seed::strangers("netwrk-kman"),
        Seed::strangers("panel-man").label("owner", "panel"),
        Seed::strangers("rekindle-other-1a2b3c4d-0")
            .label("rekindle", "other")
            .label("rekindle-recovery", "other-1a2b3c4d")
            .label("rekindle-until", &until),
        Seed::strangers("rekindle-test"),
        Seed::strangers("rekindle-network").up_to(Kind::Network),
    ];
    for neighbour in neighbours {
        neighbour.sow(world);
    }
}

fn detail(kind: Kind) -> Value {
    match kind {
        Kind::Network => json!({}),
        Kind::Subnet => json!({ "zoneId": "ru-central1-d", "v4CidrBlocks": ["192.168.0.0/16"] }),
        Kind::Cluster => json!({
            "master": {
                "zonalMaster": { "zoneId": "ru-central1-d" },
                "version": "1.32",
                "endpoints": { "internalV4Endpoint": "https://192.168.0.5" },
            },
            "releaseChannel": "STABLE",
        }),
        Kind::NodeGroup => json!({
            "scalePolicy": { "fixedScale": { "size": "1" } },
            "nodeVersion": "1.32",
        }),
    }
}
