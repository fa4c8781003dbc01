//! Lists: pages, filters, folders, and how things look in them.

use std::time::{Duration, Instant};

use sandbox::yandex::{Kind, Seed, YandexFault, YandexOptions};
use serde_json::json;

use crate::world::{CLUSTERS, NETWORKS, NODE_GROUPS, SUBNETS, World, quick, world};

#[tokio::test]
async fn a_list_read_once_is_cut_at_the_page() {
    let w = world().await;
    let there: Vec<String> = w
        .sim
        .things()
        .into_iter()
        .filter(|thing| thing.kind == Kind::Network)
        .map(|thing| thing.id)
        .collect();
    assert!(there.len() > 4, "{there:?}");
    let (_, first) = w.page(NETWORKS, &[]).await;
    assert_eq!(first["networks"].as_array().unwrap().len(), 3);
    let (_, first) = w.page(NETWORKS, &[("pageSize", "1000")]).await;
    assert_eq!(
        first["networks"].as_array().unwrap().len(),
        4,
        "pages have a ceiling"
    );
    let ids: Vec<String> = w
        .list(NETWORKS, "networks")
        .await
        .iter()
        .map(|network| network["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, there);
    for (size, status) in [("0", 200), ("1001", 400), ("-1", 400), ("many", 400)] {
        assert_eq!(w.page(NETWORKS, &[("pageSize", size)]).await.0, status);
    }
    let (status, error) = w.page(NETWORKS, &[("pageToken", "2")]).await;
    assert_eq!((status, &error["code"]), (400, &json!(3)));
    // The last page has no token at all.
    let (_, all) = w.page(CLUSTERS, &[("filter", "name=\"nobody\"")]).await;
    assert_eq!(all, json!({}));
}

#[tokio::test]
async fn pages_stay_right_while_things_go() {
    let w = World::new(YandexOptions {
        strangers: false,
        ..quick()
    })
    .await;
    let seed = |name: &str| {
        w.sim.seed(Seed::ours(name).up_to(Kind::Network))[0]
            .id
            .clone()
    };
    let ids = ["one", "two", "three", "four"].map(seed);
    let (_, first) = w.page(NETWORKS, &[("pageSize", "2")]).await;
    let token = first["nextPageToken"].as_str().unwrap();
    w.remove(NETWORKS, &ids[0]).await;
    let (_, second) = w
        .page(NETWORKS, &[("pageSize", "2"), ("pageToken", token)])
        .await;
    let found = |n: usize| second["networks"][n]["id"].as_str().unwrap();
    assert_eq!([found(0), found(1)], [&ids[2], &ids[3]]);
    assert_eq!(second.get("nextPageToken"), None);
}

#[tokio::test]
async fn a_filter_finds_a_name_and_only_that() {
    let w = world().await;
    let (_, page) = w.page(CLUSTERS, &[("filter", "name=\"panel-man\"")]).await;
    assert_eq!(page["clusters"].as_array().unwrap().len(), 1);
    assert_eq!(page["clusters"][0]["name"], "panel-man");
    for filter in ["name=panel-man", "labels.rekindle=\"test\"", "id=\"x\""] {
        let (status, error) = w.page(CLUSTERS, &[("filter", filter)]).await;
        assert_eq!((status, &error["code"]), (400, &json!(3)), "{filter}");
    }
}

#[tokio::test]
async fn a_list_wants_its_folder() {
    let w = world().await;
    for path in [NETWORKS, SUBNETS, CLUSTERS, NODE_GROUPS] {
        let (status, error) = w.get(path).await;
        assert_eq!((status, &error["code"]), (400, &json!(3)), "{path}");
        let (status, error) = w.get(&format!("{path}?folderId=b1gother")).await;
        assert_eq!((status, &error["code"]), (403, &json!(7)), "{path}");
    }
}

#[tokio::test]
async fn what_is_below_a_thing_is_listed_by_it() {
    let w = world().await;
    let ours = w.sim.seed(Seed::ours("rekindle-old"));
    let [network, subnet, cluster, group] = ours.as_slice() else {
        panic!("{ours:?}");
    };
    for (path, field, id) in [
        (
            format!("{NETWORKS}/{}/subnets", network.id),
            "subnets",
            subnet,
        ),
        (
            format!("{CLUSTERS}/{}/nodeGroups", cluster.id),
            "nodeGroups",
            group,
        ),
    ] {
        let (status, page) = w.get(&path).await;
        assert_eq!(status, 200);
        let ids: Vec<&str> = page[field]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, [&id.id]);
    }
    for path in [
        format!("{NETWORKS}/{}/subnets", cluster.id),
        format!("{CLUSTERS}/{}/nodeGroups", network.id),
        format!("{CLUSTERS}/{}", network.id),
        "/operations/enp00000000000000000".to_owned(),
    ] {
        let (status, error) = w.get(&path).await;
        assert_eq!((status, &error["code"]), (404, &json!(5)), "{path}");
    }
}

#[tokio::test]
async fn lists_lag_behind_when_they_are_told_to() {
    for (lag, ever) in [
        (Duration::from_hours(1), false),
        (Duration::from_millis(50), true),
    ] {
        let w = World::new(YandexOptions {
            list_lag: lag,
            ..quick()
        })
        .await;
        let network = w.make(NETWORKS, &w.network_body("rekindle-net")).await;
        let listed = || async {
            let all = w.list(NETWORKS, "networks").await;
            all.iter().any(|found| found["id"] == network.as_str())
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while ever && !listed().await {
            assert!(Instant::now() < deadline, "it never shows");
        }
        assert_eq!(listed().await, ever);
        assert_eq!(w.get(&format!("{NETWORKS}/{network}")).await.0, 200);
    }
}

#[tokio::test]
async fn a_page_may_be_empty_and_lead_on() {
    let w = world().await;
    let whole = w.list(NETWORKS, "networks").await;
    w.sim
        .faults()
        .add(YandexFault::on("GET", NETWORKS).skip(1).empty_page());
    let (_, first) = w.page(NETWORKS, &[]).await;
    let token = first["nextPageToken"].as_str().unwrap();
    let (_, empty) = w.page(NETWORKS, &[("pageToken", token)]).await;
    assert_eq!(empty.get("networks"), None);
    // It leads on, and not to itself.
    assert!(empty["nextPageToken"].is_string());
    assert_ne!(empty["nextPageToken"], token);
    w.sim.faults().clear();
    w.sim
        .faults()
        .add(YandexFault::on("GET", NETWORKS).skip(1).empty_page());
    assert_eq!(w.list(NETWORKS, "networks").await, whole);
    w.assert_healthy();
}
