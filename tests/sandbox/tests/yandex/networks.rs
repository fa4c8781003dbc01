//! Networks and subnets: what is refused.

use sandbox::yandex::{Kind, YandexOptions};
use serde_json::{Value, json};

use crate::world::{NETWORKS, SUBNETS, World, quick, refused, world};

#[tokio::test]
async fn a_network_and_its_subnet_look_as_they_do_there() {
    let w = world().await;
    let (network, subnet) = w.network().await;
    let (_, seen) = w.get(&format!("{NETWORKS}/{network}")).await;
    let created = seen["createdAt"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.len() == 20, "{created}");
    let expected = json!({
        "id": network, "folderId": w.sim.folder(), "createdAt": created,
        "name": "rekindle-net", "labels": { "rekindle": "test" },
    });
    assert_eq!(seen, expected);
    let (_, seen) = w.get(&format!("{SUBNETS}/{subnet}")).await;
    let expected = json!({
        "id": subnet, "folderId": w.sim.folder(), "createdAt": seen["createdAt"],
        "name": "rekindle-subnet", "networkId": network, "zoneId": "ru-central1-d",
        "v4CidrBlocks": ["192.168.0.0/16"],
    });
    assert_eq!(seen, expected, "what is empty is left out");
    w.assert_healthy();
}

#[tokio::test]
async fn a_network_with_a_slip_of_the_pen_is_refused() {
    let w = world().await;
    let good = w.network_body("rekindle-net");
    refused(
        &w,
        NETWORKS,
        &good,
        vec![
            ("/folderId", None, 400, 3, "folderId"),
            ("/folderId", Some(json!("b1gother")), 403, 7, "denied"),
            ("/name", Some(json!("Rekindle")), 400, 3, "name"),
            ("/name", Some(json!("a-")), 400, 3, "name"),
            ("/labels", Some(json!({ "Key": "a" })), 400, 3, "labels"),
            ("/labels", Some(json!({ "key": "A" })), 400, 3, "labels"),
            ("/labels", Some(json!({ "key": 1 })), 400, 3, "string"),
            ("/label", Some(json!({})), 400, 3, "unknown field"),
        ],
    )
    .await;
    let (status, error) = w.post(NETWORKS, &Value::Null).await;
    assert_eq!((status, &error["code"]), (400, &json!(3)));
}

#[tokio::test]
async fn a_subnet_must_fit_into_its_network() {
    let w = world().await;
    let (network, _) = w.network().await;
    let good = w.subnet_body(&network, "10.1.0.0/24");
    let block = |text: &str| Some(json!([text]));
    refused(
        &w,
        SUBNETS,
        &good,
        vec![
            ("/folderId", None, 400, 3, "folderId"),
            ("/networkId", None, 400, 3, "networkId"),
            ("/networkId", Some(json!("enp0")), 404, 5, "not found"),
            ("/zoneId", None, 400, 3, "zoneId"),
            ("/zoneId", Some(json!("ru-central1-c")), 400, 3, "zone"),
            ("/v4CidrBlocks", None, 400, 3, "v4CidrBlocks"),
            ("/v4CidrBlocks", block("10.1.0.0/29"), 400, 3, "v4Cidr"),
            ("/v4CidrBlocks", block("10.0.0.0/15"), 400, 3, "size"),
            ("/v4CidrBlocks", block("10.1.0.1/24"), 400, 3, "first"),
            ("/v4CidrBlocks", block("8.8.8.0/24"), 400, 3, "private"),
            ("/v4CidrBlocks", block("192.168.7.0/24"), 400, 9, "overlap"),
        ],
    )
    .await;
    w.make(SUBNETS, &good).await;
    // The same addresses in another network are fine.
    let other = w.make(NETWORKS, &w.network_body("rekindle-two")).await;
    w.make(SUBNETS, &w.subnet_body(&other, "192.168.0.0/16"))
        .await;
    w.assert_healthy();
}

#[tokio::test]
async fn names_of_networks_are_unique_only_if_so_wanted() {
    for (unique, status) in [(false, 200), (true, 409)] {
        let w = World::new(YandexOptions {
            unique_networks: unique,
            ..quick()
        })
        .await;
        w.make(NETWORKS, &w.network_body("rekindle-net")).await;
        let (answered, answer) = w.post(NETWORKS, &w.network_body("rekindle-net")).await;
        assert_eq!(answered, status, "{answer}");
    }
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted() {
    let w = world().await;
    let (network, subnet, cluster) = w.cluster().await;
    for (path, id) in [(NETWORKS, &network), (SUBNETS, &subnet)] {
        let (status, error) = w.delete(path, id).await;
        assert_eq!((status, &error["code"]), (400, &json!(9)), "{path} {error}");
    }
    w.remove(crate::world::CLUSTERS, &cluster).await;
    let (status, error) = w.delete(NETWORKS, &network).await;
    assert_eq!((status, &error["code"]), (400, &json!(9)), "{error}");
    w.remove(SUBNETS, &subnet).await;
    w.remove(NETWORKS, &network).await;
    assert_eq!(w.sim.ours().len(), 0);
    assert_eq!(w.sim.created(), w.sim.deleted());
    assert_eq!(w.sim.created()[&Kind::Network], 1);
    let (status, error) = w.delete(NETWORKS, &network).await;
    assert_eq!((status, &error["code"]), (404, &json!(5)));
    w.assert_healthy();
}

#[tokio::test]
async fn nobody_builds_in_a_network_that_is_still_being_made() {
    let w = world().await;
    w.sim.hold(true);
    let (_, operation) = w.post(NETWORKS, &w.network_body("rekindle-net")).await;
    let network = operation["metadata"]["networkId"].as_str().unwrap();
    let body = w.subnet_body(network, "10.1.0.0/24");
    let (status, error) = w.post(SUBNETS, &body).await;
    assert_eq!((status, &error["code"]), (400, &json!(9)), "{error}");
    w.sim.hold(false);
    w.done(&operation).await;
    w.make(SUBNETS, &body).await;
}

#[tokio::test]
async fn a_quota_counts_strangers_too() {
    let w = world().await;
    let there = w
        .sim
        .things()
        .iter()
        .filter(|thing| thing.kind == Kind::Network)
        .count();
    drop(w);
    let w = World::new(YandexOptions {
        max_networks: Some(there + 1),
        ..quick()
    })
    .await;
    w.make(NETWORKS, &w.network_body("rekindle-one")).await;
    let (status, error) = w.post(NETWORKS, &w.network_body("rekindle-two")).await;
    assert_eq!((status, &error["code"]), (429, &json!(8)), "{error}");
}
