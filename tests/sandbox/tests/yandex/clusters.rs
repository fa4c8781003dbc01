//! Clusters: what is refused, how they look, what goes with them.

use sandbox::yandex::{Kind, Status, YandexOptions};
use serde_json::{Value, json};

use crate::world::{CLUSTERS, NETWORKS, NODE_GROUPS, SUBNETS, World, quick, refused, with, world};

#[tokio::test]
async fn a_cluster_is_provisioning_and_then_running_with_an_endpoint() {
    let w = world().await;
    let (network, subnet) = w.network().await;
    w.sim.hold(true);
    let (_, operation) = w.post(CLUSTERS, &w.cluster_body(&network, &subnet)).await;
    let id = operation["metadata"]["clusterId"].as_str().unwrap();
    let path = format!("{CLUSTERS}/{id}");
    let (_, seen) = w.get(&path).await;
    assert_eq!(seen["status"], "PROVISIONING");
    assert_eq!(seen["master"].get("endpoints"), None);
    assert_eq!(seen["labels"]["rekindle-until"], "1790000000");
    w.sim.hold(false);
    let done = w.done(&operation).await;
    let (_, seen) = w.get(&path).await;
    assert_eq!(seen["status"], "RUNNING");
    assert_eq!(seen["health"], "HEALTHY");
    assert_eq!(seen["networkId"], network);
    assert_eq!(seen["releaseChannel"], "REGULAR");
    assert_eq!(seen["ipAllocationPolicy"]["nodeIpv4CidrMaskSize"], "24");
    let master = &seen["master"];
    assert_eq!(master["version"], "1.33");
    let endpoint = master["endpoints"]["externalV4Endpoint"].as_str().unwrap();
    assert!(endpoint.starts_with("https://127.0.0.1:"), "{endpoint}");
    let ca = master["masterAuth"]["clusterCaCertificate"]
        .as_str()
        .unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
    let mut response = done["response"].clone();
    assert_eq!(
        response["@type"],
        "type.googleapis.com/yandex.cloud.k8s.v1.Cluster"
    );
    response.as_object_mut().unwrap().remove("@type");
    assert_eq!(response, seen);
    w.assert_healthy();
}

#[tokio::test]
async fn a_cluster_without_an_outer_address_has_only_an_inner_endpoint() {
    let w = world().await;
    let (network, subnet) = w.network().await;
    let at = "/masterSpec/zonalMasterSpec/externalV4AddressSpec";
    let body = with(w.cluster_body(&network, &subnet), at, None);
    let id = w.make(CLUSTERS, &body).await;
    let (_, seen) = w.get(&format!("{CLUSTERS}/{id}")).await;
    let endpoints = &seen["master"]["endpoints"];
    assert_eq!(endpoints.get("externalV4Endpoint"), None);
    assert!(endpoints["internalV4Endpoint"].is_string());
}

#[tokio::test]
async fn the_newer_form_and_snake_case_are_understood() {
    let w = world().await;
    let (network, subnet) = w.network().await;
    let locations = json!({
        "locations": [{ "zoneId": "ru-central1-d", "subnetId": subnet }],
        "etcdClusterSize": "1", "externalV4AddressSpec": {}, "version": "1.32",
    });
    let body = with(
        w.cluster_body(&network, &subnet),
        "/masterSpec",
        Some(locations),
    );
    let first = w.make(CLUSTERS, &body).await;
    let (_, seen) = w.get(&format!("{CLUSTERS}/{first}")).await;
    assert!(seen["master"]["endpoints"]["externalV4Endpoint"].is_string());
    w.remove(CLUSTERS, &first).await;
    let snake = json!({
        "folder_id": w.sim.folder(), "name": "rekindle-snake", "network_id": network,
        "master_spec": { "zonal_master_spec": { "zone_id": "ru-central1-d" } },
        "service_account_id": w.sim.service_account(),
        "node_service_account_id": w.sim.service_account(),
    });
    let second = w.make(CLUSTERS, &snake).await;
    let (_, seen) = w.get(&format!("{CLUSTERS}/{second}")).await;
    assert_eq!(seen["master"]["version"], "1.33", "the newest one");
    assert_eq!(seen["master"]["locations"][0]["subnetId"], subnet);
}

#[tokio::test]
async fn a_cluster_with_a_slip_of_the_pen_is_refused() {
    let w = world().await;
    let (network, subnet) = w.network().await;
    let other = w.make(NETWORKS, &w.network_body("rekindle-two")).await;
    let elsewhere = w.make(SUBNETS, &w.subnet_body(&other, "10.7.0.0/16")).await;
    let good = w.cluster_body(&network, &subnet);
    let zonal = good["masterSpec"]["zonalMasterSpec"].clone();
    let both = json!({ "zonalMasterSpec": zonal, "locations": [{ "zoneId": "ru-central1-d" }] });
    let range = |text: &str| Some(json!(text));
    refused(
        &w,
        CLUSTERS,
        &good,
        vec![
            ("/folderId", None, 400, 3, "folderId"),
            ("/folderId", Some(json!("b1gother")), 403, 7, "denied"),
            ("/name", Some(json!("rekindle_a")), 400, 3, "name"),
            ("/labels/a.b", Some(json!("x")), 400, 3, "labels"),
            ("/networkId", None, 400, 3, "networkId"),
            ("/networkId", Some(json!("enp0")), 404, 5, "not found"),
            ("/masterSpec", None, 400, 3, "masterSpec"),
            ("/masterSpec", Some(json!({})), 400, 3, "exactly one"),
            ("/masterSpec", Some(both), 400, 3, "exactly one"),
            (
                "/masterSpec/public_ip",
                Some(json!(true)),
                400,
                3,
                "unknown",
            ),
            (
                "/masterSpec/version",
                Some(json!("1.12")),
                400,
                3,
                "version",
            ),
            (
                "/masterSpec/etcdClusterSize",
                Some(json!(2)),
                400,
                3,
                "etcd",
            ),
            (
                "/masterSpec/zonalMasterSpec/zoneId",
                Some(json!("eu-west-1a")),
                400,
                3,
                "zone",
            ),
            (
                "/masterSpec/zonalMasterSpec/zoneId",
                Some(json!("ru-central1-a")),
                400,
                3,
                "is not in ru-central1-a",
            ),
            (
                "/masterSpec/zonalMasterSpec/internalV4AddressSpec/subnetId",
                Some(json!("fl80")),
                404,
                5,
                "not found",
            ),
            (
                "/masterSpec/zonalMasterSpec/internalV4AddressSpec/subnetId",
                Some(json!(elsewhere)),
                400,
                3,
                "is not in network",
            ),
            ("/serviceAccountId", None, 400, 3, "serviceAccountId"),
            ("/serviceAccountId", Some(json!("aje1")), 403, 7, "denied"),
            ("/nodeServiceAccountId", None, 400, 3, "nodeService"),
            (
                "/nodeServiceAccountId",
                Some(json!("aje1")),
                403,
                7,
                "denied",
            ),
            ("/releaseChannel", Some(json!("Regular")), 400, 3, "channel"),
            (
                "/ipAllocationPolicy/clusterIpv4CidrBlock",
                range("192.168.64.0/18"),
                400,
                3,
                "overlaps",
            ),
            (
                "/ipAllocationPolicy/serviceIpv4CidrBlock",
                range("172.16.5.0/24"),
                400,
                3,
                "overlaps with clusterIpv4CidrBlock",
            ),
            (
                "/ipAllocationPolicy/serviceIpv4CidrBlock",
                range("10.96.0.0"),
                400,
                3,
                "range",
            ),
            (
                "/ipAllocationPolicy/nodeIpv4CidrMaskSize",
                Some(json!("16")),
                400,
                3,
                "MaskSize",
            ),
        ],
    )
    .await;
    w.assert_healthy();
}

#[tokio::test]
async fn names_of_clusters_are_unique_in_the_folder() {
    let w = world().await;
    let (network, subnet, _) = w.cluster().await;
    let (status, error) = w.post(CLUSTERS, &w.cluster_body(&network, &subnet)).await;
    assert_eq!((status, &error["code"]), (409, &json!(6)), "{error}");
    // Strangers' names count too.
    let body = w.cluster_body(&network, &subnet);
    let body = with(body, "/name", Some(json!("panel-man")));
    assert_eq!(w.post(CLUSTERS, &body).await.0, 409);
    w.assert_healthy();
}

#[tokio::test]
async fn a_cluster_takes_its_node_groups_along() {
    let w = world().await;
    let (_, subnet, cluster) = w.cluster().await;
    let group = w
        .make(NODE_GROUPS, &w.node_group_body(&cluster, &subnet))
        .await;
    assert_eq!(w.sim.ours().len(), 4);
    w.remove(CLUSTERS, &cluster).await;
    assert_eq!(w.get(&format!("{NODE_GROUPS}/{group}")).await.0, 404);
    let left: Vec<Kind> = w.sim.ours().iter().map(|thing| thing.kind).collect();
    assert_eq!(left, [Kind::Network, Kind::Subnet]);
    assert_eq!(w.sim.deleted()[&Kind::NodeGroup], 1);
    w.assert_healthy();
}

#[tokio::test]
async fn a_cluster_that_is_being_made_is_not_deleted_unless_that_is_allowed() {
    for refused in [true, false] {
        let w = World::new(YandexOptions {
            busy_is_refused: refused,
            ..quick()
        })
        .await;
        let (network, subnet) = w.network().await;
        w.sim.hold(true);
        let (_, create) = w.post(CLUSTERS, &w.cluster_body(&network, &subnet)).await;
        let id = create["metadata"]["clusterId"].as_str().unwrap();
        let (status, delete) = w.delete(CLUSTERS, id).await;
        if refused {
            assert_eq!((status, &delete["code"]), (400, &json!(9)), "{delete}");
            w.sim.hold(false);
            w.done(&create).await;
            w.remove(CLUSTERS, id).await;
        } else {
            assert_eq!(status, 200, "{delete}");
            w.is(id, Status::Deleting).await;
            w.sim.hold(false);
            assert_eq!(w.done(&create).await["error"]["code"], 10);
            assert_eq!(w.done(&delete).await.get("error"), None::<&Value>);
        }
        assert_eq!(w.get(&format!("{CLUSTERS}/{id}")).await.0, 404);
        assert!(w.sim.kube(id).is_none());
        w.assert_healthy();
    }
}

#[tokio::test]
async fn a_cluster_that_is_being_deleted_says_so_and_takes_no_second_delete() {
    let w = world().await;
    let (_, subnet, cluster) = w.cluster().await;
    w.sim.hold(true);
    let (_, operation) = w.delete(CLUSTERS, &cluster).await;
    let (_, seen) = w.get(&format!("{CLUSTERS}/{cluster}")).await;
    assert_eq!(seen["status"], "DELETING");
    let (status, error) = w.delete(CLUSTERS, &cluster).await;
    assert_eq!((status, &error["code"]), (400, &json!(9)), "{error}");
    let body = w.node_group_body(&cluster, &subnet);
    let (status, error) = w.post(NODE_GROUPS, &body).await;
    assert_eq!((status, &error["code"]), (400, &json!(9)), "{error}");
    w.sim.hold(false);
    let done = w.done(&operation).await;
    assert_eq!(
        done["response"]["@type"],
        "type.googleapis.com/google.protobuf.Empty"
    );
    w.assert_healthy();
}

#[tokio::test]
async fn a_quota_of_clusters_is_refused_at_once() {
    let w = World::new(YandexOptions {
        max_clusters: Some(1),
        strangers: false,
        ..quick()
    })
    .await;
    let (network, subnet, _) = w.cluster().await;
    let body = w.cluster_body(&network, &subnet);
    let body = with(body, "/name", Some(json!("rekindle-two")));
    let (status, error) = w.post(CLUSTERS, &body).await;
    assert_eq!((status, &error["code"]), (429, &json!(8)), "{error}");
}
