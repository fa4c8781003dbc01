//! Other people's things: they are there, and whoever touches them is seen.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sandbox::yandex::{Kind, Seed, Thing};
use serde_json::json;

use crate::world::{CLUSTERS, NETWORKS, NODE_GROUPS, SUBNETS, World, world};

fn stranger(w: &World, name: &str, kind: Kind) -> Thing {
    let things = w.sim.things();
    let found = things
        .into_iter()
        .find(|t| t.name == name && t.kind == kind);
    found.unwrap()
}

#[tokio::test]
async fn they_are_there_from_the_start() {
    let w = world().await;
    let things = w.sim.things();
    assert!(things.iter().all(|thing| thing.stranger));
    assert!(w.sim.ours().is_empty());
    let names: BTreeSet<&str> = things.iter().map(|thing| thing.name.as_str()).collect();
    for name in ["default", "netwrk-kman", "panel-man", "rekindle-test"] {
        assert!(names.contains(name), "{name}");
    }
    let live = things
        .iter()
        .filter(|thing| thing.labels.contains_key("rekindle"));
    let live: Vec<&Thing> = live.collect();
    assert_eq!(live.len(), 4);
    for thing in live {
        assert_ne!(thing.labels["rekindle"], "test");
        let until: i64 = thing.labels["rekindle-until"].parse().unwrap();
        assert!(until > Timestamp::now().as_second());
    }
    let kinds: BTreeSet<Kind> = things.iter().map(|thing| thing.kind).collect();
    assert_eq!(kinds.len(), 4);
}

#[tokio::test]
async fn looking_and_working_beside_them_touches_nobody() {
    let w = world().await;
    for (path, field) in [
        (NETWORKS, "networks"),
        (SUBNETS, "subnets"),
        (CLUSTERS, "clusters"),
        (NODE_GROUPS, "nodeGroups"),
    ] {
        for thing in w.list(path, field).await {
            let id = thing["id"].as_str().unwrap();
            assert_eq!(w.get(&format!("{path}/{id}")).await.0, 200);
        }
    }
    let (network, subnet, cluster) = w.cluster().await;
    w.remove(CLUSTERS, &cluster).await;
    w.remove(SUBNETS, &subnet).await;
    w.remove(NETWORKS, &network).await;
    assert_eq!(w.sim.strangers_touched(), 0);
}

#[tokio::test]
async fn every_touch_counts_whether_it_succeeds_or_not() {
    let w = world().await;
    let of = |name: &str, kind| stranger(&w, name, kind).id;
    let network = of("netwrk-kman", Kind::Network);
    let subnet = of("netwrk-kman", Kind::Subnet);
    let cluster = of("panel-man", Kind::Cluster);
    let (ours, our_subnet) = w.network().await;
    let mut expected = 0;
    let mut touched = |status: u16, wanted: u16| {
        assert_eq!(status, wanted);
        expected += 1;
        assert_eq!(w.sim.strangers_touched(), expected, "{:?}", w.sim.touches());
    };
    // It is not empty, and it was meant.
    touched(w.delete(NETWORKS, &network).await.0, 400);
    let label = json!({ "updateMask": "labels", "labels": {} });
    let path = format!("{CLUSTERS}/{cluster}");
    touched(w.patch(&path, &label).await.0, 200);
    let body = w.subnet_body(&network, "10.1.0.0/24");
    touched(w.post(SUBNETS, &body).await.0, 200);
    let body = w.cluster_body(&ours, &subnet);
    touched(w.post(CLUSTERS, &body).await.0, 400);
    let body = w.node_group_body(&cluster, &our_subnet);
    touched(w.post(NODE_GROUPS, &body).await.0, 400);
    w.is(&cluster, sandbox::yandex::Status::Running).await;
    let lonely = of("rekindle-network", Kind::Network);
    touched(w.delete(NETWORKS, &lonely).await.0, 200);
    assert!(w.sim.touches()[0].contains("netwrk-kman"));
    // What was broken stays broken.
    let gone = |things: &[Thing]| things.iter().all(|thing| thing.id != lonely);
    w.sim.wait_until("the delete", gone).await;
    assert_eq!(w.sim.deleted().values().sum::<u64>(), 0, "not ours");
}

#[tokio::test]
async fn a_test_can_put_in_what_it_wants() {
    let w = world().await;
    let old = w.sim.seed(
        Seed::ours("rekindle-old")
            .label("rekindle", "test")
            .label("rekindle-until", "1000000000"),
    );
    let kinds: Vec<Kind> = old.iter().map(|thing| thing.kind).collect();
    let all = [Kind::Network, Kind::Subnet, Kind::Cluster, Kind::NodeGroup];
    assert_eq!(kinds, all);
    w.sim
        .seed(Seed::strangers("rekindle-odd").label("rekindle-until", "soon"));
    assert_eq!(w.sim.ours().len(), 4);
    // It can be taken apart in the right order, and in no other.
    let [network, subnet, cluster, group] = old.as_slice() else {
        panic!("{old:?}");
    };
    assert_eq!(w.delete(NETWORKS, &network.id).await.0, 400);
    assert_eq!(w.delete(SUBNETS, &subnet.id).await.0, 400);
    w.remove(NODE_GROUPS, &group.id).await;
    w.remove(CLUSTERS, &cluster.id).await;
    w.remove(SUBNETS, &subnet.id).await;
    w.remove(NETWORKS, &network.id).await;
    assert_eq!(w.sim.created(), w.sim.deleted());
    w.assert_healthy();
}
