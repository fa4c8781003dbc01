//! Node groups: what is refused, how they look.

use sandbox::yandex::{YandexOptions, YandexSim};
use serde_json::{Value, json};

use crate::world::{CLUSTERS, NODE_GROUPS, SUBNETS, World, quick, refused, with, world};

#[tokio::test]
async fn a_node_group_shows_its_numbers_as_texts() {
    let w = world().await;
    let (_, subnet, cluster) = w.cluster().await;
    let id = w
        .make(NODE_GROUPS, &w.node_group_body(&cluster, &subnet))
        .await;
    let (_, seen) = w.get(&format!("{NODE_GROUPS}/{id}")).await;
    assert_eq!(seen["status"], "RUNNING");
    assert_eq!(seen["clusterId"], cluster);
    assert_eq!(seen.get("folderId"), None);
    assert_eq!(seen["scalePolicy"]["fixedScale"]["size"], "2");
    let template = &seen["nodeTemplate"];
    assert_eq!(template["resourcesSpec"]["cores"], "2");
    assert_eq!(template["bootDiskSpec"]["diskSize"], "68719476736");
    assert_eq!(template.get("schedulingPolicy").unwrap(), &json!({}));
    assert_eq!(seen["nodeLabels"], json!({ "role": "load-generator" }));
    assert_eq!(seen["nodeTaints"][0]["effect"], "NO_SCHEDULE");
    let (_, nodes) = w.get(&format!("{CLUSTERS}/{cluster}/nodes")).await;
    let nodes = nodes["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2);
    assert_eq!(nodes[0]["status"], "READY");
    w.assert_healthy();
}

#[tokio::test]
async fn a_node_group_with_a_slip_of_the_pen_is_refused() {
    let w = world().await;
    let (network, subnet, cluster) = w.cluster().await;
    let body = w.subnet_body(&network, "10.7.0.0/16");
    let body = with(body, "/zoneId", Some(json!("ru-central1-a")));
    let elsewhere = w.make(SUBNETS, &body).await;
    let good = w.node_group_body(&cluster, &subnet);
    let template = |field: &str| -> &'static str { format!("/nodeTemplate/{field}").leak() };
    let memory = template("resourcesSpec/memory");
    let cores = template("resourcesSpec/cores");
    let disk = template("bootDiskSpec/diskSize");
    let subnets = template("networkInterfaceSpecs/0/subnetIds");
    let scale = |value: Value| Some(value);
    refused(
        &w,
        NODE_GROUPS,
        &good,
        vec![
            ("/clusterId", None, 400, 3, "clusterId"),
            ("/clusterId", Some(json!("cat0")), 404, 5, "not found"),
            ("/clusterId", Some(json!(network)), 404, 5, "not found"),
            ("/folderId", Some(json!("b1g")), 400, 3, "unknown field"),
            ("/name", Some(json!("no")), 400, 3, "name"),
            ("/nodeTemplate", None, 400, 3, "nodeTemplate"),
            (template("platformId"), None, 400, 3, "platformId"),
            (
                template("platformId"),
                Some(json!("standard-v9")),
                400,
                3,
                "platform",
            ),
            (cores, Some(json!("3")), 400, 3, "cores"),
            (cores, Some(json!("two")), 400, 3, "64-bit"),
            // Bytes, and not gigabytes.
            (memory, Some(json!("4")), 400, 3, "memory"),
            (memory, Some(json!("1073741824")), 400, 3, "memory"),
            (disk, Some(json!(64)), 400, 3, "diskSize"),
            (
                template("bootDiskSpec/diskTypeId"),
                Some(json!("hdd")),
                400,
                3,
                "diskTypeId",
            ),
            (template("v4AddressSpec"), Some(json!({})), 400, 3, "v4A"),
            (template("name"), Some(json!("node")), 400, 3, "name"),
            (subnets, Some(json!(["fl80"])), 404, 5, "not found"),
            (subnets, Some(json!([elsewhere])), 400, 3, "is in"),
            (
                "/allocationPolicy/locations/0/zoneId",
                Some(json!("mars")),
                400,
                3,
                "zone",
            ),
            ("/scalePolicy", None, 400, 3, "scalePolicy"),
            ("/scalePolicy", scale(json!({})), 400, 3, "exactly one"),
            (
                "/scalePolicy/autoScale",
                Some(json!({ "minSize": 1, "maxSize": 2, "initialSize": 1 })),
                400,
                3,
                "exactly one",
            ),
            (
                "/scalePolicy/fixedScale/size",
                Some(json!("0")),
                400,
                3,
                "from 1",
            ),
            (
                "/nodeTaints/0/effect",
                Some(json!("NoSchedule")),
                400,
                3,
                "effect",
            ),
            ("/nodeTaints/0/key", None, 400, 3, "key"),
            ("/version", Some(json!("1.34")), 400, 3, "version"),
            ("/version", Some(json!("1.30")), 400, 3, "version"),
        ],
    )
    .await;
    let auto = json!({ "autoScale": { "minSize": 0, "maxSize": 2, "initialSize": 1 } });
    let body = with(good.clone(), "/scalePolicy", Some(auto));
    w.make(NODE_GROUPS, &body).await;
    let (status, error) = w.post(NODE_GROUPS, &good).await;
    assert_eq!((status, &error["code"]), (409, &json!(6)), "{error}");
    w.assert_healthy();
}

#[tokio::test]
async fn a_node_group_wants_a_cluster_that_runs() {
    let w = world().await;
    let (network, subnet) = w.network().await;
    w.sim.hold(true);
    let (_, operation) = w.post(CLUSTERS, &w.cluster_body(&network, &subnet)).await;
    let cluster = operation["metadata"]["clusterId"].as_str().unwrap();
    let body = w.node_group_body(cluster, &subnet);
    let (status, error) = w.post(NODE_GROUPS, &body).await;
    assert_eq!((status, &error["code"]), (400, &json!(9)), "{error}");
    w.sim.hold(false);
    w.done(&operation).await;
    // Two of them side by side.
    let other = with(body.clone(), "/name", Some(json!("rekindle-system")));
    let (_, first) = w.post(NODE_GROUPS, &body).await;
    let (_, second) = w.post(NODE_GROUPS, &other).await;
    for operation in [first, second] {
        assert_eq!(w.done(&operation).await.get("error"), None);
    }
    w.assert_healthy();
}

#[tokio::test]
async fn a_cluster_may_make_its_node_groups_one_by_one() {
    let w = World::new(YandexOptions {
        groups_one_by_one: true,
        ..quick()
    })
    .await;
    let (_, subnet, cluster) = w.cluster().await;
    w.sim.hold(true);
    let body = w.node_group_body(&cluster, &subnet);
    let other = with(body.clone(), "/name", Some(json!("rekindle-system")));
    let (_, first) = w.post(NODE_GROUPS, &body).await;
    let (status, error) = w.post(NODE_GROUPS, &other).await;
    assert_eq!((status, &error["code"]), (400, &json!(9)), "{error}");
    w.sim.hold(false);
    w.done(&first).await;
    w.make(NODE_GROUPS, &other).await;
    w.assert_healthy();
}

#[tokio::test]
async fn a_quota_of_nodes_is_told_by_the_operation() {
    let there = |sim: &YandexSim| sim.ours().len();
    let w = World::new(YandexOptions {
        max_nodes: Some(1),
        strangers: false,
        ..quick()
    })
    .await;
    let (_, subnet, cluster) = w.cluster().await;
    let before = there(&w.sim);
    let body = w.node_group_body(&cluster, &subnet);
    let (status, operation) = w.post(NODE_GROUPS, &body).await;
    assert_eq!(status, 200, "{operation}");
    let done = w.done(&operation).await;
    assert_eq!(done["error"]["code"], 8, "{done}");
    assert_eq!(there(&w.sim), before, "nothing stays of it");
    w.assert_healthy();
}
