//! The simulator, hosts that note what is done to them, and a plain HTTP client.

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
pub(super) struct Rack(pub(super) Mutex<Racked>);

#[derive(Debug, Default)]
pub(super) struct Racked {
    pub(super) boots: Vec<Boot>,
    pub(super) running: BTreeSet<String>,
    pub(super) building_now: usize,
    pub(super) built_at_once: usize,
    /// Volume → the server and device it is plugged into.
    pub(super) disks: BTreeMap<String, Option<(String, String)>>,
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
pub(super) struct World {
    pub(super) clo: CloSim,
    pub(super) rack: Arc<Rack>,
    pub(super) http: reqwest::Client,
}

impl World {
    pub(super) async fn new(options: CloOptions) -> Self {
        let rack = Arc::new(Rack::default());
        let clo = CloSim::start(options, rack.clone()).await.unwrap();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()
            .unwrap();
        Self { clo, rack, http }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/v2/{path}", self.clo.base_url());
        self.http.request(method, url).bearer_auth(self.clo.token())
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let response = self.request(method, path).json(&body).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.request(Method::GET, path).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, body).await
    }

    pub(super) fn in_project(&self, below: &str) -> String {
        format!("projects/{}/{below}", self.clo.project())
    }

    pub(super) async fn image(&self) -> String {
        let (_, images) = self.get(&self.in_project("images")).await;
        images["result"][0]["id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn server_body(&self, name: &str) -> Value {
        json!({
            "name": name,
            "flavor": { "ram": 4, "vcpus": 2 },
            "image": self.image().await,
            "storages": [{ "size": 20, "bootable": true, "storage_type": "storage" }],
            "addresses": [],
        })
    }

    /// Creates a server and waits until it is ACTIVE; returns its id.
    pub(super) async fn server(&self, name: &str) -> String {
        let body = self.server_body(name).await;
        let (status, answer) = self.post(&self.in_project("servers"), body).await;
        assert!(status.is_success(), "{status} {answer}");
        let id = answer["result"]["id"].as_str().unwrap().to_owned();
        self.server_is(&id, ServerStatus::Active).await;
        id
    }

    pub(super) async fn server_is(&self, id: &str, status: ServerStatus) {
        self.clo
            .wait_until("the server's status", |s| {
                s.servers.iter().any(|s| s.id == id && s.status == status)
            })
            .await;
    }

    /// Creates a volume and waits until it is AVAILABLE; returns its id.
    pub(super) async fn volume(&self, name: &str) -> String {
        let body = json!({ "name": name, "size": 10 });
        let (status, answer) = self.post(&self.in_project("volumes"), body).await;
        assert!(status.is_success(), "{status} {answer}");
        let id = answer["result"]["id"].as_str().unwrap().to_owned();
        self.volume_is(&id, VolumeStatus::Available).await;
        id
    }

    pub(super) async fn volume_is(&self, id: &str, status: VolumeStatus) {
        self.clo
            .wait_until("the volume's status", |s| {
                s.volumes.iter().any(|v| v.id == id && v.status == status)
            })
            .await;
    }

    pub(super) async fn attach(&self, volume: &str, server: &str) -> String {
        let path = format!("volumes/{volume}/attach");
        let (status, _) = self.post(&path, json!({ "server_id": server })).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        self.volume_is(volume, VolumeStatus::InUse).await;
        self.device(volume).await
    }

    pub(super) async fn device(&self, volume: &str) -> String {
        let (_, detail) = self.get(&format!("volumes/{volume}/detail")).await;
        assert_eq!(detail["result"]["status"], "in-use");
        let device = &detail["result"]["attached_to_server"]["device"];
        device.as_str().unwrap().to_owned()
    }

    pub(super) async fn detach(&self, volume: &str) {
        let (status, _) = self
            .post(&format!("volumes/{volume}/detach"), json!({}))
            .await;
        assert_eq!(status, StatusCode::ACCEPTED);
        self.volume_is(volume, VolumeStatus::Available).await;
    }

    pub(super) fn assert_healthy(&self) {
        assert_eq!(self.clo.troubles(), Vec::<String>::new());
        assert_eq!(self.clo.faults().unused(), Vec::<String>::new());
    }
}

pub(super) async fn world() -> World {
    World::new(CloOptions::default()).await
}
