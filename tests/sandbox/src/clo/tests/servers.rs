//! Servers, what belongs to them, and what does not.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{World, world};
use super::*;

#[tokio::test]
async fn a_server_is_built_and_then_tells_its_disks_and_addresses() {
    let w = world().await;
    let (_, answer) = w
        .post(&w.in_project("servers"), w.server_body("test-web-1").await)
        .await;
    let id = answer["result"]["id"].as_str().unwrap();
    assert_eq!(answer, json!({ "result": { "id": id } }));
    w.server_is(id, ServerStatus::Active).await;
    let (_, detail) = w.get(&format!("servers/{id}/detail")).await;
    let detail = &detail["result"];
    assert_eq!(detail["disk_data"][0]["storage_type"], "volume");
    let address = detail["addresses"][0].as_str().unwrap();
    let (_, address) = w.get(&format!("addresses/{address}/detail")).await;
    assert_eq!(address["result"]["external"], false);
    let ip = address["result"]["address"].as_str().unwrap();
    assert!(ip.starts_with("10.77."), "{ip}");
    assert_eq!(
        address["result"]["attached_to"],
        json!({ "entity": "server", "id": id })
    );
    w.assert_healthy();
}

#[tokio::test]
async fn user_data_and_keypairs_reach_the_host() {
    let w = world().await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBXqOGTJ63TtWSkVR4ARJLhfV6KBL0KmjyznFHPDVZDC me";
    let (status, keypair) = w
        .post(
            &w.in_project("keypairs"),
            json!({ "name": "ours", "public_key": key }),
        )
        .await;
    assert!(status.is_success(), "{keypair}");
    let mut body = w.server_body("test-web-1").await;
    body["keypairs"] = json!([keypair["result"]["id"]]);
    body["user_data"] = json!("#cloud-config\n");
    let (_, made) = w.post(&w.in_project("servers"), body).await;
    w.server_is(made["result"]["id"].as_str().unwrap(), ServerStatus::Active)
        .await;
    let boots = w.rack.0.lock().unwrap().boots.clone();
    assert_eq!(boots[0].authorized_keys, [key]);
    assert_eq!(boots[0].user_data.as_deref(), Some("#cloud-config\n"));
    assert_eq!(boots[0].name, "test-web-1");
}

#[tokio::test]
async fn strangers_requests_are_refused() {
    let w = world().await;
    let url = format!("{}/v2/projects", w.clo.base_url());
    let anonymous = w.http.get(&url).send().await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    let (status, body) = w.get("projects/another/servers").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["path"], "/v2/projects/another/servers");
    assert!(body["code"].is_string() && body["message"].is_string());
    let (status, _) = w.get("servers/nope/detail").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn builds_can_stick_or_fail() {
    let w = world().await;
    w.clo.faults().stuck_building("slow", 1);
    w.clo.faults().build_error("bad", 1);
    let path = w.in_project("servers");
    let (_, slow) = w.post(&path, w.server_body("slow").await).await;
    let (_, bad) = w.post(&path, w.server_body("bad").await).await;
    w.server_is(bad["result"]["id"].as_str().unwrap(), ServerStatus::Error)
        .await;
    w.server("slow").await;
    let slow = slow["result"]["id"].as_str().unwrap();
    w.server_is(slow, ServerStatus::Building).await;
    for id in [slow, bad["result"]["id"].as_str().unwrap()] {
        let (status, _) = w
            .send(Method::DELETE, &format!("servers/{id}"), json!({}))
            .await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    w.clo
        .wait_until("their end", |s| s.servers.len() == 1)
        .await;
    w.assert_healthy();
}

#[tokio::test]
async fn few_servers_are_built_at_once() {
    let w = World::new(CloOptions {
        max_building: 2,
        boot_time: Duration::ZERO,
        ..CloOptions::default()
    })
    .await;
    for n in 0..6 {
        let body = w.server_body(&format!("s{n}")).await;
        w.post(&w.in_project("servers"), body).await;
    }
    w.clo
        .wait_until("all servers", |s| {
            s.servers.iter().all(|s| s.status == ServerStatus::Active)
        })
        .await;
    assert!(w.rack.0.lock().unwrap().built_at_once <= 2);
}

#[tokio::test]
async fn a_balancer_wants_rules_and_leads_to_its_servers() {
    let w = world().await;
    let server = w.server("test-bastion-1").await;
    let (_, addresses) = w.get(&w.in_project("addresses")).await;
    let internal = &addresses["result"][0]["id"];
    let (_, free) = w.post(&w.in_project("addresses"), json!({})).await;
    let free = free["result"]["id"].as_str().unwrap();
    let free_is_down = |s: &Snapshot| {
        let mut addresses = s.addresses.iter();
        addresses.any(|a| a.id == free && a.status == AddressStatus::Down)
    };
    w.clo.wait_until("a free address", free_is_down).await;
    let path = w.in_project("loadbalancers");
    let mut body = json!({
        "name": "test-main-lb",
        "algorithm": "ROUND_ROBIN",
        "healthmonitor": { "type": "TCP", "delay": 80, "timeout": 15, "max_retries": 5 },
        "address": { "id": free },
    });
    assert_eq!(
        w.post(&path, body.clone()).await.0,
        StatusCode::BAD_REQUEST,
        "no rules"
    );
    body["rules"] = json!([]);
    let (status, made) = w.post(&path, body.clone()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        w.post(&path, body).await.0,
        StatusCode::CONFLICT,
        "address is taken"
    );
    let active = |s: &Snapshot| {
        s.balancers
            .iter()
            .any(|b| b.status == BalancerStatus::Active)
    };
    let ip = w.clo.wait_until("a balancer", active).await.balancers[0].ips[0];
    assert_eq!(w.clo.destinations(ip, 2205), Some(vec![]));

    let id = made["result"]["id"].as_str().unwrap();
    let rule = json!({
        "address_id": internal,
        "external_protocol_port": 2205,
        "internal_protocol_port": 22,
    });
    let (status, rule) = w.post(&format!("loadbalancers/{id}/rules"), rule).await;
    assert!(status.is_success(), "{rule}");
    let active = |s: &Snapshot| {
        s.balancers[0]
            .rules
            .iter()
            .any(|r| r.status == RuleStatus::Active)
    };
    let snapshot = w.clo.wait_until("a rule", active).await;
    let inside = snapshot.servers[0].internal_ip.unwrap();
    assert_eq!(
        w.clo.destinations(ip, 2205),
        Some(vec![SocketAddr::from((inside, 22))])
    );
    assert_eq!(w.clo.destinations(ip, 80), Some(vec![]));
    assert_eq!(w.clo.destinations([203, 0, 113, 99].into(), 80), None);
    let (_, all) = w.get(&w.in_project("loadbalancers/rules")).await;
    assert_eq!(all["result"][0]["server"], server);

    w.clo.destroy_all_servers().await;
    let snapshot = w.clo.snapshot();
    assert_eq!(snapshot.balancers[0].rules[0].status, RuleStatus::Error);
    assert_eq!(w.clo.destinations(ip, 2205), Some(vec![]));
    let rule = rule["result"]["id"].as_str().unwrap();
    let path = format!("loadbalancers/rules/{rule}");
    assert_eq!(
        w.send(Method::DELETE, &path, Value::Null).await.0,
        StatusCode::NO_CONTENT
    );
    w.assert_healthy();
}
