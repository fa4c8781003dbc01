//! The API through the masters: hosts with a real sshd behind a bastion, and a real API server that
//! each master finds on its own loopback.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jobs::record::{Address, LbRule, LoadBalancerRecord, NodeRecord};
use sandbox::hosts::real::{Options, RealHosts};
use sandbox::hosts::{Boot, Hosts};
use sandbox::kube_api::{Authority, KubeApi, Validity, kubeconfig};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use worker::engine::{Again, JobError};
use worker::kube::kubeconfig::ADMIN_CONF;
use worker::kube::{Force, KubeError, Kubeconfig, Object, Objects, administrator, through_masters};
use worker::ssh::keys::{HostKey, generate_host_key, parse_private_key};
use worker::ssh::{HostExt, Ssh, SshError};
use worker::world::{Entrance, World};

const DEADLINE: Duration = Duration::from_secs(60);

/// Carries a host's port 6443 to the port in `$1`.
const RELAY: &str = r#"setsid python3 -c '
import asyncio, sys
async def carry(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()
async def serve(source, sink):
    theirs, ours = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(carry(source, ours), carry(theirs, sink))
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 6443) as server:
        await server.serve_forever()
asyncio.run(main())' "$1""#;

/// A bastion and two masters, as workers have them in their records.
struct Scene {
    api: KubeApi,
    hosts: Arc<RealHosts>,
    /// No way to the bastion while this is set.
    closed: Arc<AtomicBool>,
    nodes: BTreeMap<&'static str, NodeRecord>,
    lb: LoadBalancerRecord,
    key: HostKey,
    way_in: tokio::task::JoinHandle<()>,
}

impl Scene {
    async fn start() -> Self {
        worker::install_crypto();
        let api = KubeApi::start().await.unwrap();
        let hosts = RealHosts::start(Options::from_env().unwrap())
            .await
            .unwrap();
        hosts.lend_port(api.port());
        let hosts = Arc::new(hosts);
        let key = generate_host_key().unwrap();
        let mut nodes = BTreeMap::new();
        for (number, name) in [(1, "bastion"), (2, "m1"), (3, "m2")] {
            nodes.insert(name, boot(&hosts, &key, number, name).await);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let closed = Arc::new(AtomicBool::new(false));
        let (inside, gate) = (Arc::clone(&hosts), Arc::clone(&closed));
        let way_in = tokio::spawn(async move {
            loop {
                let (mut outside, _) = listener.accept().await.unwrap();
                if gate.load(Ordering::Relaxed) {
                    continue;
                }
                let hosts = Arc::clone(&inside);
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
        let scene = Self {
            api,
            hosts,
            closed,
            nodes,
            lb,
            key,
            way_in,
        };
        // The second one joined first.
        let conf = scene.api.admin_conf().unwrap();
        let m2 = scene.ssh("m2").await;
        m2.run_ok(&["mkdir", "-p", "/etc/kubernetes"])
            .await
            .unwrap();
        m2.write_file(ADMIN_CONF, conf.as_bytes(), 0o600)
            .await
            .unwrap();
        scene
    }

    fn world(&self) -> World {
        let mut world = World::default();
        let key = parse_private_key(self.key.private.expose(), "a test").unwrap();
        world.ssh_key = Some(key);
        world
    }

    fn entrance(&self) -> Entrance {
        let bastion = Box::new(self.nodes["bastion"].clone());
        Entrance::Bastion(bastion, Some(self.lb.clone()))
    }

    fn masters(&self) -> Vec<NodeRecord> {
        vec![self.nodes["m1"].clone(), self.nodes["m2"].clone()]
    }

    async fn ssh(&self, name: &str) -> Ssh {
        let (node, bastion) = (&self.nodes[name], &self.nodes["bastion"]);
        let ssh = self.world().ssh_to(node, bastion, Some(&self.lb)).await;
        ssh.unwrap()
    }

    /// A client of its own, over connections of its own.
    async fn objects(&self) -> Objects {
        let masters = self.world().masters(self.entrance(), self.masters());
        Objects::new(administrator(masters).await.unwrap())
    }

    async fn stop(self) {
        self.way_in.abort();
        self.hosts.shutdown().await.unwrap();
        self.api.stop().await.unwrap();
    }
}

fn address(ip: Ipv4Addr) -> Address {
    Address {
        id: ip.to_string(),
        ip,
    }
}

/// Boots a host that lets the key in, and writes down what a worker knows of it.
async fn boot(hosts: &RealHosts, key: &HostKey, number: u8, name: &str) -> NodeRecord {
    let host_key = generate_host_key().unwrap();
    let private: String = host_key
        .private
        .expose()
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let public = &host_key.public;
    let user_data = format!(
        "#cloud-config\nssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: {public}\n"
    );
    let ip = Ipv4Addr::new(10, 77, 0, number);
    let boot = Boot {
        server: name.to_owned(),
        name: name.to_owned(),
        address: ip,
        user_data: Some(user_data),
        authorized_keys: vec![key.public.to_string()],
        disks: BTreeMap::new(),
    };
    hosts.boot(boot).await.unwrap();
    NodeRecord {
        node: name.parse().unwrap(),
        server: name.to_owned(),
        internal: address(ip),
        external: None,
        host_keys: vec![public.to_string()],
        ssh_user: "root".to_owned(),
        volumes: BTreeMap::new(),
        recovery: "r1".parse().unwrap(),
        epoch: 1,
    }
}

fn map() -> Object {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"},
        "metadata": {"name": "mine", "namespace": "default"}});
    Object::new(body).unwrap()
}

fn job(error: KubeError) -> (Again, String) {
    let error = JobError::from(error);
    (error.again.clone(), error.to_string())
}

/// Asks until there is an answer; until then every error has to be one that is worth another try.
async fn answers(objects: &Objects) {
    let answered = tokio::time::timeout(DEADLINE, async {
        while let Err(error) = objects.get(&map()).await {
            let (again, text) = job(error);
            assert!(matches!(again, Again::Retry { .. }), "{text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    answered.await.expect("there is no answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_the_api_is_asked_through_any_master_that_answers() {
    let mut scene = Scene::start().await;
    let objects = scene.objects().await;
    objects.apply(&map(), Force::No).await.unwrap();

    // The bastion's sshd is killed while a call is on its way: the call fails, the next one goes.
    scene.api.freeze_api().unwrap();
    let call = tokio::spawn({
        let objects = objects.clone();
        async move { objects.get(&map()).await }
    });
    // Time for it to leave; one that had not left would be the easier case.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!call.is_finished(), "a frozen server answers");
    let bastion = scene.ssh("bastion").await;
    let sessions = r#"for pid in $(cat /proc/[0-9]*/stat | awk '$2 == "(sshd)" && $1 != 1 {print $1}'); do kill -KILL "$pid"; done"#;
    // Its own session is among them.
    let killed = bastion.run(&["sh", "-c", sessions]).await;
    assert!(matches!(killed, Err(SshError::Cut { .. })), "{killed:?}");
    scene.closed.store(true, Ordering::Relaxed);
    let (again, text) = job(call.await.unwrap().unwrap_err());
    assert!(matches!(again, Again::Retry { .. }), "{text}");
    scene.api.thaw_api().unwrap();
    // Nobody lets us in: both masters are tried, and nothing is taken for absent.
    let (again, text) = job(objects.get(&map()).await.unwrap_err());
    assert!(matches!(again, Again::Retry { .. }), "{text}");
    assert!(text.contains("m1: ") && text.contains("m2: "), "{text}");
    scene.closed.store(false, Ordering::Relaxed);
    answers(&objects).await;

    // The API server is restarted below us.
    scene.api.kill_api().await.unwrap();
    let (again, text) = job(objects.get(&map()).await.unwrap_err());
    assert!(matches!(again, Again::Retry { .. }), "{text}");
    scene.api.restart_api().await.unwrap();
    answers(&objects).await;

    // A master whose own API server is down leads to nothing; the other one does.
    let m1 = scene.ssh("m1").await;
    m1.run_ok(&["ip", "link", "set", "lo", "down"])
        .await
        .unwrap();
    scene.objects().await.get(&map()).await.unwrap().unwrap();
    objects.get(&map()).await.unwrap().unwrap();

    // The kubeconfig names a load balancer; on the masters the API has kubeadm's port.
    let m2 = scene.ssh("m2").await;
    let relay = format!("{RELAY} </dev/null >/dev/null 2>&1 &");
    let port = scene.api.port().to_string();
    m2.run_ok(&["sh", "-c", &relay, "sh", &port]).await.unwrap();
    let elsewhere = scene.api.admin_conf().unwrap();
    let elsewhere = elsewhere.replace(&scene.api.server(), "https://203.0.113.9:1");
    let elsewhere = Kubeconfig::parse(&elsewhere, "a test").unwrap();
    let masters = scene.world().masters(scene.entrance(), scene.masters());
    answers(&Objects::new(through_masters(&elsewhere, masters).unwrap())).await;

    // A master that is gone is passed over; the one that is left is enough.
    scene.hosts.destroy("m1").await.unwrap();
    answers(&objects).await;
    let fresh = scene.objects().await;
    fresh.get(&map()).await.unwrap().unwrap();
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_master_that_is_somebody_else_is_not_passed_over() {
    let scene = Scene::start().await;
    let conf = scene.api.admin_conf().unwrap();
    let config = Kubeconfig::parse(&conf, "a test").unwrap();
    let through = |config: &Kubeconfig, masters: Vec<NodeRecord>| {
        let masters = scene.world().masters(scene.entrance(), masters);
        Objects::new(through_masters(config, masters).unwrap())
    };
    answers(&through(&config, scene.masters())).await;

    // The first master shows a host key that is not pinned; the second one would do.
    let mut masters = scene.masters();
    masters[0].host_keys = vec![generate_host_key().unwrap().public.to_string()];
    let (again, text) = job(through(&config, masters.clone())
        .get(&map())
        .await
        .unwrap_err());
    assert_eq!(again, Again::NeedsApproval, "{text}");
    assert!(
        text.contains("through m1") && text.contains("its host key is"),
        "{text}"
    );
    let kept = scene.world().masters(scene.entrance(), masters);
    let error = administrator(kept)
        .await
        .err()
        .expect("it must not be asked");
    assert_eq!(error.again, Again::NeedsApproval, "{error}");

    // Whoever has the port on the master is not the API server of this cluster.
    let other = Authority::new("kubernetes").unwrap();
    let group = Some("system:masters");
    let pair = scene
        .api
        .pki()
        .cluster()
        .client("kubernetes-admin", group, Validity::Good);
    let wrong = kubeconfig(
        &scene.api.server(),
        &other.pem(),
        "kubernetes-admin",
        &pair.unwrap(),
    );
    let wrong = Kubeconfig::parse(&wrong, "a test").unwrap();
    let error = through(&wrong, scene.masters())
        .get(&map())
        .await
        .unwrap_err();
    assert!(error.is_untrusted(), "{error:?}");
    let (again, text) = job(error);
    assert_eq!(again, Again::NeedsApproval, "{text}");
    assert!(text.contains("trust the Kubernetes API at m1"), "{text}");
    scene.stop().await;
}
