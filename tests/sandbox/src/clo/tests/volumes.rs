//! Volumes outlive their servers.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::world;
use super::*;

#[tokio::test]
async fn devices_are_the_first_free_letter_unless_told_otherwise() {
    let w = world().await;
    let server = w.server("test-pg-1").await;
    let (one, two) = (w.volume("one").await, w.volume("two").await);
    assert_eq!(w.attach(&one, &server).await, "/dev/vdb");
    assert_eq!(w.attach(&two, &server).await, "/dev/vdc");
    w.detach(&one).await;
    w.detach(&two).await;
    assert_eq!(w.attach(&two, &server).await, "/dev/vdb", "names changed");
    w.clo.faults().next_device("test-pg-1", "vdf");
    assert_eq!(w.attach(&one, &server).await, "/dev/vdf");
    w.clo.faults().shuffle_on_reboot("test-pg-1");
    let (status, _) = w
        .post(&format!("servers/{server}/reboot"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    w.server_is(&server, ServerStatus::Active).await;
    assert_eq!(w.device(&one).await, "/dev/vdb");
    assert_eq!(w.device(&two).await, "/dev/vdf");
    let slots = w.rack.0.lock().unwrap().disks.clone();
    assert_eq!(slots[&one], Some((server.clone(), "vdb".to_owned())));
    w.assert_healthy();
}

#[tokio::test]
async fn an_attached_volume_is_neither_attached_again_nor_deleted() {
    let w = world().await;
    let (a, b) = (w.server("a").await, w.server("b").await);
    let volume = w.volume("data").await;
    w.attach(&volume, &a).await;
    for server in [&a, &b] {
        let path = format!("volumes/{volume}/attach");
        let (status, body) = w.post(&path, json!({ "server_id": server })).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(body["message"], "volume must be in status: available");
    }
    let path = format!("volumes/{volume}");
    let (status, _) = w
        .send(Method::DELETE, &path, json!({ "force": true }))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    w.assert_healthy();
}

#[tokio::test]
async fn a_deleted_server_leaves_its_volumes_unless_they_are_named() {
    let w = world().await;
    let mut body = w.server_body("test-pg-1").await;
    body["storages"] = json!([
        { "size": 20, "bootable": true, "storage_type": "storage" },
        { "size": 5, "storage_type": "local" },
        { "size": 10, "storage_type": "storage" },
    ]);
    let (_, made) = w.post(&w.in_project("servers"), body).await;
    let server = made["result"]["id"].as_str().unwrap();
    w.server_is(server, ServerStatus::Active).await;
    let (kept, doomed) = (w.volume("kept").await, w.volume("doomed").await);
    w.attach(&kept, server).await;
    w.attach(&doomed, server).await;
    let (_, disks) = w.get(&w.in_project("local-disks")).await;
    assert_eq!(disks["count"], 1);
    let (_, volumes) = w.get(&w.in_project("volumes")).await;
    assert_eq!(volumes["count"], 4, "boot, network storage and two of ours");

    let path = format!("servers/{server}");
    let wrong = json!({ "delete_volumes": "all" });
    assert_eq!(
        w.send(Method::DELETE, &path, wrong).await.0,
        StatusCode::BAD_REQUEST
    );
    let body = json!({ "delete_volumes": [doomed], "delete_addresses": [] });
    assert_eq!(
        w.send(Method::DELETE, &path, body).await.0,
        StatusCode::NO_CONTENT
    );
    let left = w
        .clo
        .wait_until("the server's end", |s| s.servers.is_empty())
        .await;
    let mut left: Vec<(u64, VolumeStatus)> =
        left.volumes.iter().map(|v| (v.size, v.status)).collect();
    left.sort_by_key(|v| v.0);
    assert_eq!(
        left,
        [(10, VolumeStatus::Available), (10, VolumeStatus::Available)]
    );
    assert_eq!(
        w.get(&format!("volumes/{kept}/detail")).await.0,
        StatusCode::OK
    );
    assert_eq!(
        w.get(&format!("volumes/{doomed}/detail")).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        w.get(&format!("servers/{server}/detail")).await.0,
        StatusCode::NOT_FOUND
    );
    w.assert_healthy();
}

#[tokio::test]
async fn the_disaster_takes_our_servers_and_leaves_all_volumes() {
    let w = world().await;
    w.clo
        .foreign(Foreign {
            servers: vec!["other-web-1".to_owned()],
            volumes: vec![("other-pg-data".to_owned(), 10)],
            boot_disks: vec![("left-over".to_owned(), 20)],
            addresses: 2,
        })
        .await
        .unwrap();
    let server = w.server("test-pg-1").await;
    let data = w.volume("data").await;
    w.attach(&data, &server).await;
    w.clo.destroy_all_servers().await;
    let after = w.clo.snapshot();
    let names = |views: &[ServerView]| views.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&after.servers), ["other-web-1"]);
    let available = after
        .volumes
        .iter()
        .filter(|v| v.status == VolumeStatus::Available);
    let available: BTreeSet<&str> = available.map(|v| v.name.as_str()).collect();
    assert_eq!(
        available,
        BTreeSet::from(["data", "left-over", "other-pg-data"])
    );
    assert_eq!(
        after
            .addresses
            .iter()
            .filter(|a| a.external && a.foreign)
            .count(),
        2
    );
    w.assert_healthy();
}
