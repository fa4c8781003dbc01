//! The simulator seen by a plain HTTP client.

#![expect(clippy::unwrap_used, reason = "a test may stop where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::hosts::{Boot, Hosts, Stream};

/// A hypervisor of lists: says no to what cannot be, and shows what it was told.
#[derive(Debug, Default)]
struct Rack(Mutex<Racked>);

#[derive(Debug, Default)]
struct Racked {
    boots: Vec<Boot>,
    running: BTreeSet<String>,
    building_now: usize,
    built_at_once: usize,
    /// Volume → the server and device it is plugged into.
    disks: BTreeMap<String, Option<(String, String)>>,
}

#[async_trait]
impl Hosts for Rack {
    fn kind(&self) -> &'static str {
        "lists"
    }

    async fn boot(&self, boot: Boot) -> anyhow::Result<()> {
        {
            let mut rack = self.0.lock().unwrap();
            rack.building_now += 1;
            rack.built_at_once = rack.built_at_once.max(rack.building_now);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut rack = self.0.lock().unwrap();
        rack.building_now -= 1;
        for (device, volume) in &boot.disks {
            let slot = rack.disks.get_mut(volume).expect("the disk exists");
            *slot = Some((boot.server.clone(), device.clone()));
        }
        rack.running.insert(boot.server.clone());
        rack.boots.push(boot);
        Ok(())
    }

    async fn destroy(&self, server: &str) -> anyhow::Result<()> {
        let mut rack = self.0.lock().unwrap();
        anyhow::ensure!(rack.running.remove(server), "no such server");
        for slot in rack.disks.values_mut() {
            slot.take_if(|(on, _)| on == server);
        }
        Ok(())
    }

    async fn reboot(&self, server: &str) -> anyhow::Result<()> {
        let rack = self.0.lock().unwrap();
        anyhow::ensure!(rack.running.contains(server), "no such server");
        Ok(())
    }

    async fn create_disk(&self, volume: &str, _size_gb: u64) -> anyhow::Result<()> {
        let before = self.0.lock().unwrap().disks.insert(volume.to_owned(), None);
        anyhow::ensure!(before.is_none(), "disk exists");
        Ok(())
    }

    async fn delete_disk(&self, volume: &str) -> anyhow::Result<()> {
        let slot = self.0.lock().unwrap().disks.remove(volume);
        anyhow::ensure!(slot == Some(None), "disk is plugged in or unknown");
        Ok(())
    }

    async fn attach(&self, server: &str, volume: &str, device: &str) -> anyhow::Result<()> {
        let mut rack = self.0.lock().unwrap();
        anyhow::ensure!(rack.running.contains(server), "no such server");
        let slot = rack.disks.get_mut(volume).expect("the disk exists");
        anyhow::ensure!(slot.is_none(), "plugged in already");
        *slot = Some((server.to_owned(), device.to_owned()));
        Ok(())
    }

    async fn detach(&self, server: &str, volume: &str) -> anyhow::Result<()> {
        let mut rack = self.0.lock().unwrap();
        let slot = rack.disks.get_mut(volume).expect("the disk exists");
        anyhow::ensure!(slot.take_if(|(on, _)| on == server).is_some(), "not there");
        Ok(())
    }

    async fn connect(&self, _to: SocketAddr) -> std::io::Result<Box<dyn Stream>> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }

    async fn shutdown(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The simulator, its rack and a client with a short patience.
struct World {
    clo: CloSim,
    rack: Arc<Rack>,
    http: reqwest::Client,
}

impl World {
    async fn new(options: CloOptions) -> Self {
        let rack = Arc::new(Rack::default());
        let clo = CloSim::start(options, rack.clone()).await.unwrap();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()
            .unwrap();
        Self { clo, rack, http }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/v2/{path}", self.clo.base_url());
        self.http.request(method, url).bearer_auth(self.clo.token())
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let response = self.request(method, path).json(&body).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.request(Method::GET, path).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, body).await
    }

    fn in_project(&self, below: &str) -> String {
        format!("projects/{}/{below}", self.clo.project())
    }

    async fn image(&self) -> String {
        let (_, images) = self.get(&self.in_project("images")).await;
        images["result"][0]["id"].as_str().unwrap().to_owned()
    }

    async fn server_body(&self, name: &str) -> Value {
        json!({
            "name": name,
            "flavor": { "ram": 4, "vcpus": 2 },
            "image": self.image().await,
            "storages": [{ "size": 20, "bootable": true, "storage_type": "storage" }],
            "addresses": [],
        })
    }

    /// Creates a server and waits until it is ACTIVE; returns its id.
    async fn server(&self, name: &str) -> String {
        let body = self.server_body(name).await;
        let (status, answer) = self.post(&self.in_project("servers"), body).await;
        assert!(status.is_success(), "{status} {answer}");
        let id = answer["result"]["id"].as_str().unwrap().to_owned();
        self.server_is(&id, ServerStatus::Active).await;
        id
    }

    async fn server_is(&self, id: &str, status: ServerStatus) {
        self.clo
            .wait_until("the server's status", |s| {
                s.servers.iter().any(|s| s.id == id && s.status == status)
            })
            .await;
    }

    /// Creates a volume and waits until it is AVAILABLE; returns its id.
    async fn volume(&self, name: &str) -> String {
        let body = json!({ "name": name, "size": 10 });
        let (status, answer) = self.post(&self.in_project("volumes"), body).await;
        assert!(status.is_success(), "{status} {answer}");
        let id = answer["result"]["id"].as_str().unwrap().to_owned();
        self.volume_is(&id, VolumeStatus::Available).await;
        id
    }

    async fn volume_is(&self, id: &str, status: VolumeStatus) {
        self.clo
            .wait_until("the volume's status", |s| {
                s.volumes.iter().any(|v| v.id == id && v.status == status)
            })
            .await;
    }

    async fn attach(&self, volume: &str, server: &str) -> String {
        let path = format!("volumes/{volume}/attach");
        let (status, _) = self.post(&path, json!({ "server_id": server })).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        self.volume_is(volume, VolumeStatus::InUse).await;
        self.device(volume).await
    }

    async fn device(&self, volume: &str) -> String {
        let (_, detail) = self.get(&format!("volumes/{volume}/detail")).await;
        assert_eq!(detail["result"]["status"], "in-use");
        let device = &detail["result"]["attached_to_server"]["device"];
        device.as_str().unwrap().to_owned()
    }

    async fn detach(&self, volume: &str) {
        let (status, _) = self
            .post(&format!("volumes/{volume}/detach"), json!({}))
            .await;
        assert_eq!(status, StatusCode::ACCEPTED);
        self.volume_is(volume, VolumeStatus::Available).await;
    }

    fn assert_healthy(&self) {
        assert_eq!(self.clo.troubles(), Vec::<String>::new());
        assert_eq!(self.clo.faults().unused(), Vec::<String>::new());
    }
}

async fn world() -> World {
    World::new(CloOptions::default()).await
}

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
