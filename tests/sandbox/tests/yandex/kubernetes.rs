//! Inside the clusters: the API, who is let in, the nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sandbox::hosts::simulated::{Cut, Tap};
use sandbox::operators::Cluster;
use sandbox::yandex::YandexOptions;
use serde_json::{Value, json};
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;

use crate::world::{CLUSTERS, NETWORKS, NODE_GROUPS, World, quick, world};

/// The way a client comes there: endpoint and authority from the cloud, and an IAM token.
async fn objects(w: &World, cluster: &str) -> Cluster {
    let (_, seen) = w.get(&format!("{CLUSTERS}/{cluster}")).await;
    let master = &seen["master"];
    let ca = master["masterAuth"]["clusterCaCertificate"]
        .as_str()
        .unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": {
            "server": master["endpoints"]["externalV4Endpoint"],
            "certificate-authority-data": BASE64.encode(ca),
        }}],
        "users": [{ "name": "u", "user": { "token": w.token } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    let config = Kubeconfig::parse(&config.to_string(), "the test").unwrap();
    Cluster::new(direct(&config, Dialer::direct()).unwrap())
}

fn code(refused: kube::Result<Vec<Value>>) -> Option<u16> {
    match refused {
        Err(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

async fn nodes_until(cluster: &Cluster, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let nodes = cluster.list("v1", "Node").await.unwrap();
        if holds(&nodes) {
            return nodes;
        }
        assert!(Instant::now() < deadline, "{nodes:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ready(node: &Value) -> bool {
    node["status"]["conditions"][0]["status"] == "True"
}

#[tokio::test]
async fn a_token_of_the_cloud_opens_the_cluster_as_long_as_it_is_good() {
    let mut w = world().await;
    let (_, _, cluster) = w.cluster().await;
    let inside = objects(&w, &cluster).await;
    assert_eq!(
        inside.list("v1", "Node").await.unwrap(),
        Vec::<Value>::new()
    );
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "default"}, "data": {"a": "b"}});
    inside.apply("test", &map).await.unwrap();
    let api = w.sim.kube(&cluster).unwrap();
    let last = api.log().pop().unwrap();
    assert_eq!(
        (last.user.as_str(), last.code),
        (w.sim.service_account(), 201)
    );
    w.sim.expire_tokens();
    assert_eq!(code(inside.list("v1", "Node").await), Some(401));
    w.token = w.sim.token();
    let inside = objects(&w, &cluster).await;
    assert!(inside.list("v1", "Node").await.is_ok());
    w.assert_healthy();
}

#[tokio::test]
async fn without_the_role_a_token_is_known_and_may_do_nothing() {
    let w = World::new(YandexOptions {
        administrator: false,
        ..quick()
    })
    .await;
    let (_, _, cluster) = w.cluster().await;
    let inside = objects(&w, &cluster).await;
    assert_eq!(code(inside.list("v1", "Node").await), Some(403));
}

#[tokio::test]
async fn nodes_of_a_group_that_runs_need_not_be_ready() {
    let w = World::new(YandexOptions {
        node_time: Duration::from_hours(100),
        ..quick()
    })
    .await;
    let (_, subnet, cluster) = w.cluster().await;
    let inside = objects(&w, &cluster).await;
    w.make(NODE_GROUPS, &w.node_group_body(&cluster, &subnet))
        .await;
    let nodes = nodes_until(&inside, |nodes| nodes.len() == 2).await;
    assert!(!nodes.iter().any(ready));
}

#[tokio::test]
async fn nodes_come_and_go_with_their_group() {
    let w = world().await;
    let (_, subnet, cluster) = w.cluster().await;
    let inside = objects(&w, &cluster).await;
    let group = w
        .make(NODE_GROUPS, &w.node_group_body(&cluster, &subnet))
        .await;
    let all_ready = |nodes: &[Value]| nodes.len() == 2 && nodes.iter().all(ready);
    let nodes = nodes_until(&inside, all_ready).await;
    let mut names = Vec::new();
    for node in &nodes {
        let labels = &node["metadata"]["labels"];
        assert_eq!(labels["role"], "load-generator");
        assert_eq!(labels["yandex.cloud/node-group-id"], group);
        assert_eq!(labels["topology.kubernetes.io/zone"], "ru-central1-d");
        let taint = json!([{"key": "dedicated", "value": "k6", "effect": "NoSchedule"}]);
        assert_eq!(node["spec"]["taints"], taint);
        assert_eq!(node["status"]["capacity"]["cpu"], "2");
        names.push(node["status"]["addresses"][0]["address"].as_str().unwrap());
    }
    assert_ne!(names[0], names[1]);
    assert!(names[0].starts_with("192.168."), "{names:?}");
    w.remove(NODE_GROUPS, &group).await;
    nodes_until(&inside, <[Value]>::is_empty).await;
    w.assert_healthy();
}

/// Says when it goes.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn what_is_started_in_a_cluster_ends_with_it() {
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&begun), Arc::clone(&ended));
    let w = World::new(YandexOptions {
        on_running: Some(Arc::new(move |client, _| {
            counts.0.fetch_add(1, Ordering::SeqCst);
            // It has an administrator's rights.
            tokio::spawn(async move {
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": "operator", "namespace": "default"}});
                Cluster::new(client).apply("operator", &map).await.unwrap();
            });
            Box::new(Guard(Arc::clone(&counts.1)))
        })),
        ..quick()
    })
    .await;
    let counted = || (begun.load(Ordering::SeqCst), ended.load(Ordering::SeqCst));
    let (network, subnet, cluster) = w.cluster().await;
    assert_eq!(counted(), (1, 0));
    let inside = objects(&w, &cluster).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while inside
        .get("v1", "ConfigMap", "default", "operator")
        .await
        .unwrap()
        .is_none()
    {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    w.remove(CLUSTERS, &cluster).await;
    assert_eq!(counted(), (1, 1));
    assert!(inside.list("v1", "Node").await.is_err(), "nobody is there");
    // And with the simulator.
    w.make(CLUSTERS, &w.cluster_body(&network, &subnet)).await;
    assert_eq!(counted(), (2, 1));
    drop(w);
    assert_eq!(counted(), (2, 2));
}

#[tokio::test]
async fn a_copy_has_everything_and_goes_its_own_way() {
    let w = world().await;
    let (_, subnet, cluster) = w.cluster().await;
    w.make(NODE_GROUPS, &w.node_group_body(&cluster, &subnet))
        .await;
    let inside = objects(&w, &cluster).await;
    nodes_until(&inside, |nodes| nodes.len() == 2 && nodes.iter().all(ready)).await;
    let copy = World {
        sim: w.sim.copy().await.unwrap(),
        http: w.http.clone(),
        token: w.token.clone(),
    };
    assert_ne!(copy.sim.address(), w.sim.address());
    let ids = |w: &World| -> Vec<String> { w.sim.things().into_iter().map(|t| t.id).collect() };
    assert_eq!(ids(&copy), ids(&w));
    let there = objects(&copy, &cluster).await;
    assert_eq!(there.list("v1", "Node").await.unwrap().len(), 2);
    copy.remove(CLUSTERS, &cluster).await;
    assert_eq!(inside.list("v1", "Node").await.unwrap().len(), 2);
    assert_eq!(w.sim.ours().len(), 4);
    assert_eq!(copy.sim.ours().len(), 2);
}

/// Hears everything, and lets nothing through that is called so.
struct Ear {
    heard: std::sync::Mutex<Vec<String>>,
    before: Option<&'static str>,
    after: Option<&'static str>,
}

#[async_trait]
impl Tap for Ear {
    async fn before(&self, what: &str) -> Result<u64, Cut> {
        let mut heard = self.heard.lock().unwrap();
        heard.push(what.to_owned());
        match self.before == Some(what) {
            true => Err(Cut),
            false => Ok(heard.len() as u64 - 1),
        }
    }

    async fn after(&self, ticket: u64) -> Result<(), Cut> {
        let heard = self.heard.lock().unwrap();
        let what = heard[usize::try_from(ticket).unwrap()].as_str();
        match self.after == Some(what) {
            true => Err(Cut),
            false => Ok(()),
        }
    }
}

fn ear(before: Option<&'static str>, after: Option<&'static str>) -> Arc<Ear> {
    Arc::new(Ear {
        heard: std::sync::Mutex::default(),
        before,
        after,
    })
}

#[tokio::test]
async fn a_tap_hears_every_call_and_can_cut_it_before_and_after() {
    let w = world().await;
    let body = w.network_body("rekindle-net");
    let send = || async {
        let request = w.request(reqwest::Method::POST, NETWORKS);
        request.json(&body).send().await
    };
    let name = "yandex POST networks";
    w.sim.tap(Some(ear(Some(name), None)));
    assert!(send().await.is_err());
    assert_eq!(w.sim.ours().len(), 0);
    w.sim.tap(Some(ear(None, Some(name))));
    assert!(send().await.is_err());
    assert_eq!(w.sim.ours().len(), 1);
    let listening = ear(None, None);
    w.sim.tap(Some(listening.clone()));
    let network = w.sim.ours()[0].id.clone();
    let running = |things: &[sandbox::yandex::Thing]| {
        let ours = things.iter().find(|thing| thing.id == network);
        ours.is_some_and(|thing| thing.status == sandbox::yandex::Status::Running)
    };
    w.sim.wait_until("the network", running).await;
    w.get(&format!("{NETWORKS}/{network}")).await;
    w.sim.tap(None);
    w.get(&format!("{NETWORKS}/{network}")).await;
    let heard = listening.heard.lock().unwrap().clone();
    assert_eq!(heard, ["yandex GET networks/*"]);
}

#[tokio::test]
async fn a_tap_hears_what_workers_ask_a_cluster_and_not_what_operators_do() {
    let w = world().await;
    let listening = ear(None, None);
    w.sim.kube_tap(Some(listening.clone()));
    let (_, _, cluster) = w.cluster().await;
    let inside = objects(&w, &cluster).await;
    inside.list("v1", "Node").await.unwrap();
    let config = w.sim.kube(&cluster).unwrap().direct_conf().unwrap();
    let config = Kubeconfig::parse(&config, "the test").unwrap();
    let operator = Cluster::new(direct(&config, Dialer::direct()).unwrap());
    operator.list("v1", "Pod").await.unwrap();
    let heard = listening.heard.lock().unwrap().clone();
    assert!(heard.contains(&"GET nodes".to_owned()), "{heard:?}");
    assert!(!heard.contains(&"GET pods".to_owned()), "{heard:?}");
}
