//! The way to the Kubernetes API as workers go it, in one process: a bastion, two masters behind it, and
//! the API that each of them finds on its loopback.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use e2e::harness::kinds::{SPEC, scenario};
use e2e::harness::outcome::Outcome;
use e2e::harness::place::Place;
use e2e::harness::point::Call;
use e2e::harness::tap::{Blow, KubeEar, Tap};
use e2e::recovery::begin;
use jobs::record::{Address, LbRule, LoadBalancerRecord, NodeRecord};
use sandbox::hosts::simulated::{Play, SimulatedHosts};
use sandbox::hosts::{Boot, Hosts};
use sandbox::kube_sim::{KubeFault, KubeSim};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpListener;
use worker::engine::{Again, JobError};
use worker::kube::apply::MANAGER;
use worker::kube::{Force, KubeError, Object, Objects, administrator};
use worker::ssh::keys::{HostKey, generate_host_key, parse_private_key};
use worker::ssh::{Ssh, SshError};
use worker::world::{Entrance, World};

const DEADLINE: Duration = Duration::from_secs(30);

/// What a worker knows of a bastion and two masters, and the Kubernetes on them.
struct Scene {
    hosts: SimulatedHosts,
    api: Arc<KubeSim>,
    nodes: BTreeMap<&'static str, NodeRecord>,
    lb: LoadBalancerRecord,
    key: HostKey,
    way_in: tokio::task::JoinHandle<()>,
}

impl Scene {
    async fn start() -> Self {
        worker::install_crypto();
        let hosts = SimulatedHosts::new();
        let key = generate_host_key().unwrap();
        let mut nodes = BTreeMap::new();
        for (number, name) in [(1, "bastion"), (2, "m1"), (3, "m2"), (4, "w1")] {
            nodes.insert(name, boot(&hosts, &key, number, name).await);
        }
        let api = hosts
            .install_kubernetes(&["m1", "m2"], &["w1"], "1.33.7")
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inside = hosts.clone();
        let way_in = tokio::spawn(async move {
            loop {
                let (mut outside, _) = listener.accept().await.unwrap();
                let hosts = inside.clone();
                tokio::spawn(async move {
                    let sshd = (Ipv4Addr::new(10, 77, 0, 1), 22).into();
                    if let Ok(mut stream) = hosts.connect(sshd).await {
                        let _ = copy_bidirectional(&mut outside, &mut stream).await;
                    }
                });
            }
        });
        let lb = LoadBalancerRecord {
            id: "lb".into(),
            name: "lb".into(),
            address: address(Ipv4Addr::LOCALHOST),
            rules: vec![LbRule {
                port,
                node: "bastion".parse().unwrap(),
                to: 22,
            }],
            recovery: "r1".parse().unwrap(),
        };
        Self {
            hosts,
            api,
            nodes,
            lb,
            key,
            way_in,
        }
    }

    fn world(&self) -> World {
        let mut world = World::default();
        let key = parse_private_key(self.key.private.expose(), "a test").unwrap();
        world.ssh_key = Some(key);
        world
    }

    /// A client of its own, over connections of its own, as [`World::kube`] makes it for a job.
    async fn objects(&self) -> Objects {
        let bastion = Box::new(self.nodes["bastion"].clone());
        let entrance = Entrance::Bastion(bastion, Some(self.lb.clone()));
        let masters = vec![self.nodes["m1"].clone(), self.nodes["m2"].clone()];
        Objects::new(
            administrator(self.world().masters(entrance, masters))
                .await
                .unwrap(),
        )
    }

    async fn ssh(&self, name: &str) -> Ssh {
        let (node, bastion) = (&self.nodes[name], &self.nodes["bastion"]);
        self.world()
            .ssh_to(node, bastion, Some(&self.lb))
            .await
            .unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.way_in.abort();
    }
}

fn address(ip: Ipv4Addr) -> Address {
    Address {
        id: ip.to_string(),
        ip,
    }
}

/// Boots a host that lets the key in, and writes down what a worker knows of it.
async fn boot(hosts: &SimulatedHosts, key: &HostKey, number: u8, name: &str) -> NodeRecord {
    let ip = Ipv4Addr::new(10, 77, 0, number);
    let boot = Boot {
        server: name.to_owned(),
        name: name.to_owned(),
        address: ip,
        user_data: None,
        authorized_keys: vec![key.public.to_string()],
        disks: BTreeMap::new(),
    };
    hosts.boot(boot).await.unwrap();
    NodeRecord {
        node: name.parse().unwrap(),
        server: name.to_owned(),
        internal: address(ip),
        external: None,
        host_keys: vec![hosts.host_key(name).unwrap().to_openssh().unwrap()],
        ssh_user: "root".to_owned(),
        volumes: BTreeMap::new(),
        recovery: "r1".parse().unwrap(),
        epoch: 1,
    }
}

fn map(value: &str) -> Object {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": value},
        "metadata": {"name": "mine", "namespace": "default"}});
    Object::new(body).unwrap()
}

fn again(error: KubeError) -> (Again, String) {
    let error = JobError::from(error);
    (error.again.clone(), error.to_string())
}

fn is_retried(error: KubeError) -> String {
    let (again, text) = again(error);
    assert!(matches!(again, Again::Retry { .. }), "{text}");
    text
}

/// Asks until there is an answer; until then every error has to be one that is worth another try.
async fn answers(objects: &Objects) {
    let answered = tokio::time::timeout(DEADLINE, async {
        while let Err(error) = objects.get(&map("1")).await {
            is_retried(error);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    answered.await.expect("there is no answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_comes_to_the_api_through_any_master_that_leads_to_it() {
    let scene = Scene::start().await;
    let objects = scene.objects().await;
    let applied = objects.apply(&map("1"), Force::No).await.unwrap();
    assert_eq!(applied["metadata"]["managedFields"][0]["manager"], MANAGER);
    let there = scene.api.get("ConfigMap", "default", "mine").unwrap();
    assert_eq!(there, applied);
    for node in ["m1", "m2", "w1"] {
        let node = scene.api.get("Node", "", node).unwrap();
        assert_eq!(node["status"]["conditions"][0]["status"], "True");
        assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.33.7");
    }

    // The API server is gone for a while, and its objects are not.
    scene.api.stop();
    // The first call finds its connection cut, the second one nobody to connect to.
    is_retried(objects.get(&map("1")).await.unwrap_err());
    let text = is_retried(objects.get(&map("1")).await.unwrap_err());
    assert!(text.contains("m1: ") && text.contains("m2: "), "{text}");
    scene.api.resume().unwrap();
    answers(&objects).await;
    scene.api.restart(Duration::from_millis(5)).await.unwrap();
    answers(&objects).await;

    // The connection to the first master is cut: the next call goes over a new one.
    scene.hosts.cut_connections("m1");
    answers(&objects).await;
    scene.hosts.cut_connections("bastion");
    answers(&objects).await;

    // The first master has no API any more; then it is no more itself.
    let silent = Some("m1".to_owned());
    scene.hosts.kubespray(Play {
        silent,
        ..Play::default()
    });
    scene.hosts.cut_connections("m1");
    answers(&objects).await;
    scene.hosts.kubespray(Play::default());
    scene.hosts.destroy("m1").await.unwrap();
    answers(&objects).await;
    let ready = |node: &str| {
        let node = scene.api.get("Node", "", node).unwrap();
        node["status"]["conditions"][0]["status"].clone()
    };
    assert_eq!([ready("m1"), ready("m2")], ["Unknown", "True"]);
    scene.objects().await.get(&map("1")).await.unwrap().unwrap();

    // Whoever is no master leads nowhere.
    let worker = scene.ssh("w1").await;
    let refused = worker.tunnel("127.0.0.1", 6443, DEADLINE).await;
    assert!(matches!(
        refused,
        Err(SshError::Forward {
            target_down: true,
            ..
        })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kubespray_installs_is_a_cluster_and_a_removed_node_is_none_of_it_any_more() {
    worker::install_crypto();
    let place = Place::new().await.unwrap();
    let lease = Duration::from_secs(10);
    let worker = place.worker(&Tap::listening(), lease, None).await.unwrap();
    let plan = scenario("remove-node").unwrap().plan;
    let store = place.store().await.unwrap();
    let begun = begin(&store, &place.queue, SPEC, Some(plan)).await.unwrap();
    begun.finished(DEADLINE * 4).await.unwrap();
    worker.kill();
    let [api] = &place.hosts.kubes()[..] else {
        panic!("there is one cluster");
    };
    let master = api.get("Node", "", "demo-master-1").unwrap();
    let role = "node-role.kubernetes.io/control-plane";
    assert_eq!(master["metadata"]["labels"][role], "");
    assert_eq!(master["status"]["nodeInfo"]["kubeletVersion"], "v1.33.7");
    let worker = api.get("Node", "", "demo-cache-1").unwrap();
    assert_eq!(worker["metadata"]["labels"]["cachenode"], "yes");
    let taint = json!([{"key": "cachetaint", "value": "yes", "effect": "NoSchedule"}]);
    assert_eq!(worker["spec"]["taints"], taint);
    assert_eq!(api.get("Node", "", "demo-spare-1"), None);
    assert!(place.hosts.kube("demo-spare-1").is_none());
    let conf = place
        .hosts
        .file("demo-master-1", "/etc/kubernetes/admin.conf");
    assert_eq!(conf.unwrap(), api.admin_conf().into_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_world_of_the_harness_is_given_kubernetes_without_kubespray_and_copied_with_it() {
    worker::install_crypto();
    let place = Place::new().await.unwrap();
    let lease = Duration::from_secs(10);
    let worker = place.worker(&Tap::listening(), lease, None).await.unwrap();
    let plan = scenario("add-user").unwrap().plan;
    let store = place.store().await.unwrap();
    let begun = begin(&store, &place.queue, SPEC, Some(plan)).await.unwrap();
    begun.finished(DEADLINE * 4).await.unwrap();
    worker.kill();
    assert!(place.hosts.kubes().is_empty());
    let api = place.install_kubernetes(SPEC).unwrap();
    for node in ["demo-master-1", "demo-cache-1", "demo-spare-1"] {
        assert!(api.get("Node", "", node).is_some(), "{node}");
        assert!(Arc::ptr_eq(&place.hosts.kube(node).unwrap(), &api));
    }
    assert!(place.hosts.kube("demo-bastion-1").is_none());
    let before = Outcome::of(&place).unwrap();
    let copy = place.copy().await.unwrap();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "x", "namespace": "default"}});
    copy.hosts.kubes()[0].put(object).unwrap();
    assert_eq!(Outcome::of(&place).unwrap(), before);
    let more = Outcome::of(&copy).unwrap().difference(&before);
    let made = more
        .iter()
        .any(|line| line.starts_with("+ kube: ConfigMap default/x"));
    assert!(made, "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_that_finds_no_old_one_begins_a_new_cluster() {
    let mut scene = Scene::start().await;
    scene
        .objects()
        .await
        .apply(&map("1"), Force::No)
        .await
        .unwrap();
    scene.hosts.destroy("m1").await.unwrap();
    let record = boot(&scene.hosts, &scene.key, 2, "m1").await;
    scene.nodes.insert("m1", record);
    let joined = scene
        .hosts
        .install_kubernetes(&["m1", "m2"], &["w1"], "1.33.7")
        .unwrap();
    assert!(Arc::ptr_eq(&joined, &scene.api));
    for name in ["m1", "m2"] {
        scene.hosts.destroy(name).await.unwrap();
        let number = if name == "m1" { 2 } else { 3 };
        let record = boot(&scene.hosts, &scene.key, number, name).await;
        scene.nodes.insert(name, record);
    }
    scene
        .hosts
        .install_kubernetes(&["m1", "m2"], &["w1"], "1.33.7")
        .unwrap();
    let found = scene.objects().await.get(&map("1")).await.unwrap();
    assert_eq!(found, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_with_the_api_comes_to_the_job_as_what_it_is() {
    let scene = Scene::start().await;
    let objects = scene.objects().await;
    let path = "/api/v1/namespaces/default/configmaps/*";
    let faults = scene.api.faults();
    let arm = |fault: KubeFault| {
        faults.clear();
        faults.add(fault);
    };
    let there = || scene.api.get("ConfigMap", "default", "mine").is_some();

    arm(KubeFault::on("PATCH", path).busy(7));
    let (later, text) = again(objects.apply(&map("1"), Force::No).await.unwrap_err());
    let seven = Some(Duration::from_secs(7));
    assert_eq!(later, Again::Retry { after: seven }, "{text}");
    for fault in [
        KubeFault::on("PATCH", path),
        KubeFault::on("PATCH", path).unavailable(),
        KubeFault::on("PATCH", path).conflict(),
        KubeFault::on("PATCH", path).cut(),
    ] {
        arm(fault);
        is_retried(objects.apply(&map("1"), Force::No).await.unwrap_err());
        assert!(!there());
        assert_eq!(faults.unused(), Vec::<String>::new());
    }
    // The answer is lost, and what was asked for is done.
    arm(KubeFault::on("PATCH", path).after().cut());
    is_retried(objects.apply(&map("1"), Force::No).await.unwrap_err());
    assert!(there());
    // No answer at all is the client's to end; here the test does.
    arm(KubeFault::on("GET", path).hang());
    let hangs = tokio::time::timeout(Duration::from_millis(50), objects.get(&map("1"))).await;
    assert!(hangs.is_err());
    arm(KubeFault::on("GET", path)
        .slow(Duration::from_millis(5))
        .skip(1));
    answers(&objects).await;
    answers(&objects).await;
    assert_eq!(faults.unused(), Vec::<String>::new());
    let asked = scene.api.log();
    let patches = asked.iter().filter(|a| a.method == "PATCH" && a.arrived);
    assert_eq!(patches.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_harness_hears_every_request_and_strikes_the_one_it_means() {
    let scene = Scene::start().await;
    let listening = Tap::listening();
    scene
        .hosts
        .tap_kubes(Some(Arc::new(KubeEar(listening.clone()))));
    let objects = scene.objects().await;
    objects.apply(&map("1"), Force::No).await.unwrap();
    objects.get(&map("1")).await.unwrap().unwrap();
    let heard: Vec<String> = listening.log().iter().map(ToString::to_string).collect();
    let (write, read) = (
        "kube PATCH configmaps/default/mine#1",
        "kube GET configmaps/default/mine#1",
    );
    assert_eq!(heard[heard.len() - 2..], [write, read]);
    assert!(
        heard.iter().all(|call| call.starts_with("kube ")),
        "{heard:?}"
    );

    for (blow, effect) in [(Blow::CutBefore, "1"), (Blow::CutAfter, "2")] {
        let what = "kube PATCH configmaps/default/mine".to_owned();
        let tap = Tap::armed(Call { what, nth: 1 }, blow);
        scene.hosts.tap_kubes(Some(Arc::new(KubeEar(tap.clone()))));
        is_retried(objects.apply(&map("2"), Force::No).await.unwrap_err());
        assert!(tap.has_struck());
        let there = scene.api.get("ConfigMap", "default", "mine").unwrap();
        assert_eq!(there["data"]["a"], effect);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_inside_the_cluster_is_reached_from_its_nodes_only() {
    let scene = Scene::start().await;
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inside = "10.233.0.20:5432".parse().unwrap();
    scene.hosts.route(inside, database.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = database.accept().await.unwrap();
        stream.write_all(b"hello").await.unwrap();
    });
    let node = scene.ssh("w1").await;
    let mut tunnel = node.tunnel("10.233.0.20", 5432, DEADLINE).await.unwrap();
    let mut said = [0; 5];
    tunnel.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
    serving.await.unwrap();
    // The bastion has no Kubernetes.
    let bastion = scene.ssh("bastion").await;
    assert!(bastion.tunnel("10.233.0.20", 5432, DEADLINE).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_rack_has_clusters_of_its_own() {
    let scene = Scene::start().await;
    scene
        .objects()
        .await
        .apply(&map("1"), Force::No)
        .await
        .unwrap();
    let copy = scene.hosts.copy();
    scene
        .objects()
        .await
        .apply(&map("2"), Force::No)
        .await
        .unwrap();
    let of = |hosts: &SimulatedHosts| {
        let api = hosts.kube("m2").unwrap();
        assert_eq!(hosts.kubes().len(), 1);
        api.get("ConfigMap", "default", "mine").unwrap()["data"]["a"].clone()
    };
    assert_eq!(of(&scene.hosts), "2");
    assert_eq!(of(&copy), "1");
    let conf = |hosts: &SimulatedHosts| hosts.file("m1", "/etc/kubernetes/admin.conf");
    assert_eq!(conf(&copy), conf(&scene.hosts));
}
