//! Faults of single calls.

use std::time::Duration;

use reqwest::Method;
use sandbox::yandex::{Thing, YandexFault};
use serde_json::json;

use crate::world::{NETWORKS, World, world};

#[tokio::test]
async fn a_fault_before_the_effect_changes_nothing() {
    let w = world().await;
    let faults = w.sim.faults();
    let post = || YandexFault::on("POST", NETWORKS);
    let body = w.network_body("rekindle-net");
    for (fault, status, code) in [
        (post(), 500, 13),
        (post().answer(503), 503, 14),
        (post().answer(401), 401, 16),
        (post().answer(403), 403, 7),
        (post().answer(409), 409, 6),
        (post().too_many(7), 429, 8),
    ] {
        faults.add(fault);
        let response = w.request(Method::POST, NETWORKS).json(&body);
        let response = response.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let after = response.headers().get("retry-after").cloned();
        assert_eq!(after.is_some(), status == 429);
        assert!(after.is_none_or(|after| after == "7"));
        let error: serde_json::Value = response.json().await.unwrap();
        assert_eq!(error["code"], code);
    }
    faults.add(post().cut());
    let request = w.request(Method::POST, NETWORKS).json(&body);
    assert!(request.send().await.is_err());
    assert_eq!(w.sim.ours().len(), 0);
    let log = w.sim.log();
    assert_eq!(log.len(), 7);
    assert!(
        log.iter()
            .all(|asked| asked.faulty && asked.status.is_none())
    );
    // Each of them met one call.
    w.make(NETWORKS, &body).await;
    w.assert_healthy();
}

#[tokio::test]
async fn a_fault_after_the_effect_spoils_only_the_answer() {
    let w = world().await;
    let faults = w.sim.faults();
    let post = || YandexFault::on("POST", NETWORKS);
    let body = w.network_body("rekindle-net");
    faults.add(post().after().answer(502));
    assert_eq!(w.post(NETWORKS, &body).await.0, 502);
    faults.add(post().malformed());
    let response = w.request(Method::POST, NETWORKS).json(&body);
    let response = response.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert!(response.json::<serde_json::Value>().await.is_err());
    faults.add(post().after().hang());
    let request = w.request(Method::POST, NETWORKS).json(&body);
    let lost = request.timeout(Duration::from_millis(500)).send().await;
    assert!(lost.unwrap_err().is_timeout());
    let third = |things: &[Thing]| things.iter().filter(|thing| !thing.stranger).count() == 3;
    w.sim.wait_until("the effect", third).await;
    faults.add(post().delay(Duration::from_millis(20)));
    assert_eq!(w.post(NETWORKS, &body).await.0, 200);
    assert_eq!(w.sim.ours().len(), 4);
    w.assert_healthy();
}

#[tokio::test]
async fn a_token_may_be_refused_once() {
    let w = world().await;
    let fault = YandexFault::on("*", "/**").skip(1).answer(401);
    w.sim.faults().add(fault);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(w.page(NETWORKS, &[]).await.0);
    }
    assert_eq!(seen, [200, 401, 200]);
    w.assert_healthy();
}

#[tokio::test]
async fn asking_for_a_token_may_fail_too() {
    let w = world().await;
    w.sim.faults().add(
        YandexFault::on("POST", "/iam/v1/tokens")
            .answer(503)
            .times(2),
    );
    let url = format!("{}/iam/v1/tokens", w.sim.base_url());
    for status in [503, 503, 400] {
        let (answered, _) = World::answer(w.http.post(&url).json(&json!({}))).await;
        assert_eq!(answered, status);
    }
    w.assert_healthy();
}

#[tokio::test]
async fn polling_may_be_answered_with_anything() {
    let w = world().await;
    let faults = w.sim.faults();
    for fault in [
        YandexFault::on("GET", "/operations/*").answer(503),
        YandexFault::on("GET", "/operations/*").too_many(1),
        YandexFault::on("GET", "/operations/*").malformed(),
    ] {
        faults.add(fault);
    }
    let (_, operation) = w.post(NETWORKS, &w.network_body("rekindle-net")).await;
    let path = format!("/operations/{}", operation["id"].as_str().unwrap());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let response = w.request(Method::GET, &path).send().await.unwrap();
        seen.push(response.status().as_u16());
    }
    assert_eq!(seen, [503, 429, 200]);
    assert_eq!(w.done(&operation).await.get("error"), None);
    w.assert_healthy();
}

#[tokio::test]
async fn a_list_may_hide_what_is_new() {
    let w = world().await;
    let network = w.make(NETWORKS, &w.network_body("rekindle-net")).await;
    let fault = YandexFault::on("GET", NETWORKS).hide_newest().always();
    w.sim.faults().add(fault);
    let listed = || async {
        let all = w.list(NETWORKS, "networks").await;
        all.iter().any(|found| found["id"] == network.as_str())
    };
    assert!(!listed().await);
    let (_, page) = w
        .page(NETWORKS, &[("filter", "name=\"rekindle-net\"")])
        .await;
    assert_eq!(page, json!({}), "a filter does not help");
    assert_eq!(w.get(&format!("{NETWORKS}/{network}")).await.0, 200);
    w.assert_healthy();
    w.sim.faults().clear();
    assert!(listed().await);
}
