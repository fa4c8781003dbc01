//! Faults, and lists that lie.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{World, world};
use super::*;

#[tokio::test]
async fn a_list_read_once_is_cut_at_the_page() {
    let w = World::new(CloOptions {
        page_size: 3,
        max_page_size: 4,
        ..CloOptions::default()
    })
    .await;
    let volumes = (0..8).map(|n| (format!("v{n}"), 10)).collect();
    w.clo
        .foreign(Foreign {
            volumes,
            ..Foreign::default()
        })
        .await
        .unwrap();
    let path = w.in_project("volumes");
    let len = |page: &Value| page["result"].as_array().map_or(0, Vec::len);
    let (_, page) = w.get(&path).await;
    assert_eq!((page["count"].as_u64(), len(&page)), (Some(8), 3));
    let (_, page) = w.get(&format!("{path}?limit=100")).await;
    assert_eq!(len(&page), 4, "limit has a ceiling");
    let mut names = BTreeSet::new();
    for offset in (0..8).step_by(4) {
        let (_, page) = w.get(&format!("{path}?limit=4&offset={offset}")).await;
        for volume in page["result"].as_array().unwrap() {
            names.insert(volume["name"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(names.len(), 8);
    let (_, past) = w.get(&format!("{path}?offset=8")).await;
    assert_eq!(past.get("result"), None);
}

#[tokio::test]
async fn a_lost_answer_after_the_effect_leaves_a_duplicate() {
    let w = world().await;
    w.clo.faults().add(
        Fault::on(Operation::CreateServer)
            .named("test-web-1")
            .after()
            .cut(),
    );
    let body = w.server_body("test-web-1").await;
    let path = w.in_project("servers");
    let lost = w.request(Method::POST, &path).json(&body).send().await;
    assert!(lost.is_err(), "the answer is lost");
    let (status, _) = w.post(&path, body).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(w.clo.snapshot().servers_named("test-web-1").count(), 2);
    assert_eq!(w.clo.effects(Operation::CreateServer), 2);
    w.assert_healthy();
}

#[tokio::test]
async fn an_answer_can_be_late_wrong_or_missing_after_the_effect() {
    let w = world().await;
    let faults = w.clo.faults();
    faults.add(Fault::on(Operation::CreateVolume).after().answer(502));
    faults.add(Fault::on(Operation::CreateVolume).after().hang());
    faults.add(Fault::on(Operation::CreateVolume).delay(Duration::from_millis(5)));
    let path = w.in_project("volumes");
    let body = json!({ "name": "data", "size": 10 });
    let (status, _) = w.post(&path, body.clone()).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let call = w.request(Method::POST, &path).json(&body);
    let lost = call.timeout(Duration::from_secs(1)).send().await;
    assert!(lost.unwrap_err().is_timeout());
    let (status, _) = w.post(&path, body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(w.clo.snapshot().volumes_named("data").count(), 3);
    let faulty = w.clo.log().iter().filter(|call| call.faulty).count();
    assert_eq!(faulty, 3);
    w.assert_healthy();
}

#[tokio::test]
async fn a_fault_before_the_effect_changes_nothing() {
    let w = world().await;
    let faults = w.clo.faults();
    faults.add(Fault::on(Operation::CreateVolume).answer(502));
    faults.add(Fault::on(Operation::CreateVolume).too_many(7));
    faults.add(Fault::on(Operation::CreateVolume).cut());
    let path = w.in_project("volumes");
    let body = json!({ "name": "data", "size": 10 });
    let first = w
        .request(Method::POST, &path)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(first.status(), StatusCode::BAD_GATEWAY);
    let second = w
        .request(Method::POST, &path)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(second.headers()["retry-after"], "7");
    assert!(
        w.request(Method::POST, &path)
            .json(&body)
            .send()
            .await
            .is_err()
    );
    assert_eq!(w.clo.snapshot().volumes, []);
    w.volume("data").await;
    assert_eq!(w.clo.snapshot().volumes_named("data").count(), 1);
    assert_eq!(w.clo.calls()[&Operation::CreateVolume], 4);
    w.assert_healthy();
}

#[tokio::test]
async fn a_hanging_call_ends_with_the_clients_patience() {
    let w = world().await;
    w.clo
        .faults()
        .add(Fault::on(Operation::ProjectDetail).hang());
    let call = w.request(Method::GET, &w.in_project("detail"));
    let error = call
        .timeout(Duration::from_millis(500))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_timeout());
    let (status, _) = w.get(&w.in_project("detail")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn lists_can_lie() {
    let w = world().await;
    w.volume("old").await;
    w.volume("new").await;
    let path = w.in_project("volumes");
    w.clo
        .faults()
        .add(Fault::on(Operation::ListVolumes).hide_newest().times(2));
    for _ in 0..2 {
        let (_, page) = w.get(&path).await;
        assert_eq!(
            (page["count"].as_u64(), page["result"][0]["name"].as_str()),
            (Some(1), Some("old"))
        );
    }
    w.clo
        .faults()
        .add(Fault::on(Operation::ListVolumes).empty_page().times(2));
    let (_, page) = w.get(&path).await;
    assert_eq!(page, json!({ "count": 2 }));
    let (_, page) = w.get(&path).await;
    assert_eq!(page, json!({ "count": 2, "result": [] }));
    w.clo
        .faults()
        .add(Fault::on(Operation::ListVolumes).malformed());
    let call = w.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(call.status(), StatusCode::OK);
    assert!(serde_json::from_str::<Value>(&call.text().await.unwrap()).is_err());
    let (_, page) = w.get(&path).await;
    assert_eq!(page["result"].as_array().unwrap().len(), 2);
    w.assert_healthy();
}

#[tokio::test]
async fn faults_strike_every_nth_call_and_by_path() {
    let w = world().await;
    w.clo.faults().add(
        Fault::anywhere()
            .method("get")
            .path("/v2/projects/*/images")
            .answer(503)
            .every(3)
            .skip(1),
    );
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push(w.get(&w.in_project("images")).await.0.as_u16());
    }
    assert_eq!(seen, [200, 200, 200, 503, 200, 200, 503]);
}
