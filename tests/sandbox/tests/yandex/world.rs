//! A folder, and somebody who asks.

use std::time::{Duration, Instant};

use reqwest::Method;
use sandbox::yandex::{Status, YandexOptions, YandexSim};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const ZONE: &str = "ru-central1-d";
pub(crate) const NETWORKS: &str = "/vpc/v1/networks";
pub(crate) const SUBNETS: &str = "/vpc/v1/subnets";
pub(crate) const CLUSTERS: &str = "/managed-kubernetes/v1/clusters";
pub(crate) const NODE_GROUPS: &str = "/managed-kubernetes/v1/nodeGroups";

pub(crate) struct World {
    pub(crate) sim: YandexSim,
    pub(crate) http: reqwest::Client,
    pub(crate) token: String,
}

/// Times that are shorter than those of other people's tests.
pub(crate) fn quick() -> YandexOptions {
    YandexOptions {
        pace: 0.1,
        ..YandexOptions::default()
    }
}

pub(crate) async fn world() -> World {
    World::new(quick()).await
}

impl World {
    pub(crate) async fn new(options: YandexOptions) -> Self {
        worker::install_crypto();
        let sim = YandexSim::start(options).await.unwrap();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()
            .unwrap();
        let token = sim.token();
        Self { sim, http, token }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.sim.base_url());
        self.http.request(method, url).bearer_auth(&self.token)
    }

    pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        Self::answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        Self::answer(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> (u16, Value) {
        Self::answer(self.request(Method::PATCH, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str, id: &str) -> (u16, Value) {
        Self::answer(self.request(Method::DELETE, &format!("{path}/{id}"))).await
    }

    /// A page of a list.
    pub(crate) async fn page(&self, path: &str, query: &[(&str, &str)]) -> (u16, Value) {
        let mut all = vec![("folderId", self.sim.folder())];
        all.extend_from_slice(query);
        Self::answer(self.request(Method::GET, path).query(&all)).await
    }

    /// Everything of a list, page by page.
    pub(crate) async fn list(&self, path: &str, field: &str) -> Vec<Value> {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let (status, page) = self.page(path, &[("pageToken", &token)]).await;
            assert_eq!(status, 200, "{page}");
            found.extend(page[field].as_array().into_iter().flatten().cloned());
            match page["nextPageToken"].as_str() {
                Some(next) => token = next.to_owned(),
                None => return found,
            }
        }
    }

    /// Waits until an operation is done; how it is then.
    pub(crate) async fn done(&self, operation: &Value) -> Value {
        let path = format!("/operations/{}", operation["id"].as_str().unwrap());
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (status, now) = self.get(&path).await;
            assert_eq!(status, 200, "{now}");
            if now["done"] == true {
                return now;
            }
            assert!(Instant::now() < deadline, "it is never done: {now}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes something and waits until it is there; its id.
    pub(crate) async fn make(&self, path: &str, body: &Value) -> String {
        let (status, operation) = self.post(path, body).await;
        assert_eq!(status, 200, "{operation}");
        let done = self.done(&operation).await;
        assert_eq!(done.get("error"), None, "{done}");
        done["response"]["id"].as_str().unwrap().to_owned()
    }

    /// Deletes something and waits until it is gone.
    pub(crate) async fn remove(&self, path: &str, id: &str) {
        let (status, operation) = self.delete(path, id).await;
        assert_eq!(status, 200, "{operation}");
        let done = self.done(&operation).await;
        assert_eq!(done.get("error"), None, "{done}");
        assert_eq!(self.get(&format!("{path}/{id}")).await.0, 404);
    }

    pub(crate) fn network_body(&self, name: &str) -> Value {
        json!({ "folderId": self.sim.folder(), "name": name, "labels": { "rekindle": "test" } })
    }

    pub(crate) fn subnet_body(&self, network: &str, block: &str) -> Value {
        json!({
            "folderId": self.sim.folder(), "name": "rekindle-subnet", "networkId": network,
            "zoneId": ZONE, "v4CidrBlocks": [block],
        })
    }

    pub(crate) fn cluster_body(&self, network: &str, subnet: &str) -> Value {
        json!({
            "folderId": self.sim.folder(),
            "name": "rekindle-cluster",
            "labels": { "rekindle": "test", "rekindle-until": "1790000000" },
            "networkId": network,
            "masterSpec": {
                "zonalMasterSpec": {
                    "zoneId": ZONE,
                    "internalV4AddressSpec": { "subnetId": subnet },
                    "externalV4AddressSpec": {},
                },
                "version": "1.33",
            },
            "ipAllocationPolicy": {
                "clusterIpv4CidrBlock": "172.16.0.0/16",
                "serviceIpv4CidrBlock": "10.96.0.0/16",
            },
            "serviceAccountId": "aje00000000000000000",
            "nodeServiceAccountId": "aje00000000000000000",
            "releaseChannel": "REGULAR",
        })
    }

    pub(crate) fn node_group_body(&self, cluster: &str, subnet: &str) -> Value {
        json!({
            "clusterId": cluster,
            "name": "rekindle-runners",
            "nodeTemplate": {
                "platformId": "standard-v3",
                "resourcesSpec": { "memory": "4294967296", "cores": 2, "coreFraction": "100" },
                "bootDiskSpec": { "diskTypeId": "network-hdd", "diskSize": "68719476736" },
                "networkInterfaceSpecs": [{
                    "subnetIds": [subnet],
                    "primaryV4AddressSpec": { "oneToOneNatSpec": { "ipVersion": "IPV4" } },
                }],
                "schedulingPolicy": { "preemptible": false },
                "containerRuntimeSettings": { "type": "CONTAINERD" },
            },
            "scalePolicy": { "fixedScale": { "size": "2" } },
            "allocationPolicy": { "locations": [{ "zoneId": ZONE }] },
            "nodeTaints": [{ "key": "dedicated", "value": "k6", "effect": "NO_SCHEDULE" }],
            "nodeLabels": { "role": "load-generator" },
        })
    }

    /// A network with a subnet: their ids.
    pub(crate) async fn network(&self) -> (String, String) {
        let network = self
            .make(NETWORKS, &self.network_body("rekindle-net"))
            .await;
        let body = self.subnet_body(&network, "192.168.0.0/16");
        let subnet = self.make(SUBNETS, &body).await;
        (network, subnet)
    }

    /// Network, subnet and a cluster that runs: their ids.
    pub(crate) async fn cluster(&self) -> (String, String, String) {
        let (network, subnet) = self.network().await;
        let body = self.cluster_body(&network, &subnet);
        let cluster = self.make(CLUSTERS, &body).await;
        (network, subnet, cluster)
    }

    pub(crate) async fn is(&self, id: &str, status: Status) {
        let has = |id: &str, status| {
            let id = id.to_owned();
            move |things: &[sandbox::yandex::Thing]| {
                things.iter().any(|t| t.id == id && t.status == status)
            }
        };
        self.sim.wait_until("the status", has(id, status)).await;
    }

    /// Nothing of what a test took for granted went wrong.
    pub(crate) fn assert_healthy(&self) {
        assert_eq!(self.sim.troubles(), Vec::<String>::new());
        assert_eq!(self.sim.faults().unused(), Vec::<String>::new());
        assert_eq!(self.sim.touches(), Vec::<String>::new());
        let (made, gone) = (self.sim.created(), self.sim.deleted());
        let (made, gone): (u64, u64) = (made.values().sum(), gone.values().sum());
        assert_eq!(made - gone, self.sim.ours().len() as u64);
    }
}

/// The body with another value at a place; without one the place is taken away.
pub(crate) fn with(mut body: Value, at: &str, value: Option<Value>) -> Value {
    let (parent, field) = at.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap_or_else(|| panic!("{at}"));
    match (parent, value) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(field.to_owned(), value)),
        (Value::Object(fields), None) => drop(fields.remove(field)),
        (Value::Array(items), Some(value)) => items[field.parse::<usize>().unwrap()] = value,
        _ => panic!("{at} is no place"),
    }
    body
}

/// What must be changed in a body, and the refusal that it must meet: HTTP status, code, words.
pub(crate) type Case = (&'static str, Option<Value>, u16, u64, &'static str);

/// Asks for each case and expects its refusal; nothing may come of it.
pub(crate) async fn refused(w: &World, path: &str, good: &Value, cases: Vec<Case>) {
    let before = w.sim.things().len();
    for (at, value, status, code, words) in cases {
        let said = format!("{at} = {value:?}");
        let (answered, error) = w.post(path, &with(good.clone(), at, value)).await;
        assert_eq!(
            (answered, error["code"].as_u64()),
            (status, Some(code)),
            "{said}: {error}"
        );
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words), "{said}: {message}");
        assert!(error["details"].is_array(), "{said}: {error}");
    }
    assert_eq!(w.sim.things().len(), before);
}
