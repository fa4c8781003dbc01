//! A cluster whose API is a real kube-apiserver, and which is come to as in the field: through the sshd of a bastion and
//! of a master. What answers for Flux, Helm, the kubelets, Percona's operator and cert-manager are the sandbox's
//! stand-ins; what they say goes through the real API.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use e2e::lab::{LONG, Worker, quick};
use e2e::recovery::{Begun, begin_one};
use jobs::message::Job;
use jobs::queue::InProcess;
use jobs::record::{Address, JobRecord, LbRule, LoadBalancerRecord, NodeRecord, Status};
use jobs::secrets::Identity;
use jobs::spec::{ClusterSpec, Role};
use jobs::store::Store;
use sandbox::hosts::real::{Options as RealOptions, RealHosts};
use sandbox::hosts::{Boot, Hosts};
use sandbox::kube_api::KubeApi;
use sandbox::payload::{Crew, Estate, Surroundings};
use sandbox::world::{Options, Sandbox};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use worker::cluster::Cluster;
use worker::kube::kubeconfig::ADMIN_CONF;
use worker::kube::{Kubeconfig, direct};
use worker::net::Dialer;
use worker::ssh::HostExt;
use worker::ssh::keys::{HostKey, generate_host_key, parse_private_key};
use worker::world::World;

/// The address that the database's Service gets: one of the API's own range.
const PRIMARY: &str = "10.96.0.50";

/// Puts the database's address on a master, as kube-proxy does, and carries it to the port in `$2`.
const RELAY: &str = r#"ip address add "$1/32" dev lo
setsid python3 -c '
import asyncio, sys
async def carry(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()
async def serve(source, sink):
    theirs, ours = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(carry(source, ours), carry(theirs, sink))
async def main():
    async with await asyncio.start_server(serve, sys.argv[1], 5432) as server:
        await server.serve_forever()
asyncio.run(main())' "$1" "$2" </dev/null >/dev/null 2>&1 &
"#;

/// The world of the test.
pub(crate) struct Scene {
    pub(crate) crew: Crew,
    pub(crate) identity: Arc<Identity>,
    pub(crate) store: Store,
    pub(crate) sandbox: Sandbox,
    pub(crate) folder: tempfile::TempDir,
    estate: Estate,
    spec: String,
    queue: InProcess,
    api: KubeApi,
    hosts: Arc<RealHosts>,
    key: HostKey,
    way_in: JoinHandle<()>,
}

impl Scene {
    /// Machines with an API, and nothing on it yet; what is left of the former cluster is in the bucket.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        worker::telemetry::init("e2e");
        worker::install_crypto();
        let sandbox = Sandbox::start(Options::default()).await?;
        let estate = Estate::leave(&sandbox).await?;
        let api = KubeApi::start().await?;
        let conf = api.admin_conf()?;
        let client = direct(&Kubeconfig::parse(&conf, "the sandbox")?, Dialer::direct())?;
        let around = Surroundings::new(&sandbox, &estate);
        let crew = around.begin(client, PRIMARY).await?;

        let hosts = Arc::new(RealHosts::start(RealOptions::from_env()?).await?);
        hosts.lend_port(api.port());
        hosts.lend_port(crew.database().port());
        // Visitors come to the shop by the load balancer's address, which is this machine's.
        let port = format!("${{DOMAIN}}:{}/", crew.shop().port());
        let spec = estate.spec().replace("${DOMAIN}/", &port);
        let (way_in, entrance) = entrance(&hosts).await?;
        let folder = tempfile::tempdir()?;
        let scene = Self {
            crew,
            identity: Arc::new(Identity::generate()),
            store: sandbox.store().await?,
            sandbox,
            folder,
            estate,
            spec,
            queue: InProcess::new(),
            api,
            hosts,
            key: generate_host_key()?,
            way_in,
        };
        scene.boot(entrance).await?;
        std::fs::write(scene.conf(), conf)?;
        Ok(scene)
    }

    /// Boots the bastion and the masters, and writes down what `provision` and `load-balancer` would.
    async fn boot(&self, entrance: u16) -> anyhow::Result<()> {
        let spec = ClusterSpec::parse(&self.spec).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let cluster = Cluster::new(&spec.cluster, &self.store);
        let nodes = spec.nodes();
        let of = |role: Role| nodes.iter().filter(move |node| node.role == role);
        let mut records = Vec::new();
        for (node, number) in of(Role::Bastion).chain(of(Role::Master)).zip(1..) {
            let record = boot(&self.hosts, &self.key, number, node.name.as_str()).await?;
            cluster.put_node(&record).await.map_err(words)?;
            records.push(record);
        }
        let bastion = records.remove(0);
        let lb = LoadBalancerRecord {
            id: "lb".into(),
            name: "lb".into(),
            address: address(Ipv4Addr::LOCALHOST),
            rules: vec![LbRule {
                port: entrance,
                node: bastion.node.clone(),
                to: 22,
            }],
            recovery: "r1".parse()?,
        };
        cluster.put_load_balancer(&lb).await.map_err(words)?;
        let world = self.world()?;
        let conf = self.api.admin_conf()?;
        let port = self.crew.database().port().to_string();
        for master in &records {
            let ssh = world
                .ssh_to(master, &bastion, Some(&lb))
                .await
                .map_err(words)?;
            ssh.run_ok(&["mkdir", "-p", "/etc/kubernetes"]).await?;
            ssh.write_file(ADMIN_CONF, conf.as_bytes(), 0o600).await?;
            ssh.run_ok(&["sh", "-c", RELAY, "sh", PRIMARY, &port])
                .await?;
        }
        Ok(())
    }

    fn world(&self) -> anyhow::Result<World> {
        let mut world = World::default();
        world.ssh_key = Some(parse_private_key(self.key.private.expose(), "a test")?);
        world.identity = Some(Arc::clone(&self.identity));
        world.poll = Some(std::time::Duration::from_millis(200));
        Ok(world)
    }

    /// The files that bootstrap Flux, as `rekindle` packs them.
    pub(crate) fn bootstrap() -> anyhow::Result<String> {
        let mut objects = String::new();
        for name in ["settings", "source", "root", "infra"] {
            let path = Estate::flux_folder().join(format!("{name}.yaml"));
            objects += &format!("---\n{}", std::fs::read_to_string(path)?);
        }
        Ok(objects)
    }

    /// What each recovery is given.
    pub(crate) fn secrets(&self) -> BTreeMap<&'static str, String> {
        self.estate.secrets().into_iter().collect()
    }

    /// Runs one job to its end, by a worker that has to find its way to the API itself.
    pub(crate) async fn done(&self, job: Job) -> anyhow::Result<JobRecord> {
        let name = job.name().to_string();
        let begun: Begun = begin_one(&self.store, &self.queue, &self.spec, job).await?;
        let secrets = self.estate.secrets();
        begun
            .give(&self.identity, &secrets, Some(Self::bootstrap()?))
            .await?;
        let store = self.sandbox.store().await?;
        let worker = Worker::start(store, self.queue.clone(), self.world()?, quick())?;
        let ends = [Status::Succeeded, Status::Failed, Status::NeedsApproval];
        let record = begun.reaches(&name, &ends, 2 * LONG).await;
        let record = record.with_context(|| self.crew.errors())?;
        ensure!(
            record.status == Status::Succeeded,
            "{name}: {:?}\n{}",
            record.failure,
            self.crew.errors()
        );
        begun.finished(LONG).await?;
        worker.stop().await?;
        Ok(record)
    }

    fn conf(&self) -> std::path::PathBuf {
        self.folder.path().join("admin.conf")
    }

    /// What kubectl prints, as JSON.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl_says(args).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What kubectl prints.
    pub(crate) async fn kubectl_says(&self, args: &[&str]) -> anyhow::Result<String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../kubectl");
        let made = output(Command::new(script).arg("install")).await?;
        let mut command = Command::new(format!("{}/kubectl", made.trim()));
        command.arg("--kubeconfig").arg(self.conf()).args(args);
        command.env("HOME", self.folder.path());
        output(&mut command).await
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.way_in.abort();
        drop(self.crew);
        self.hosts.shutdown().await?;
        self.api.stop().await?;
        self.sandbox.stop().await
    }
}

/// A port of this machine that leads to the bastion's sshd.
async fn entrance(hosts: &Arc<RealHosts>) -> anyhow::Result<(JoinHandle<()>, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let hosts = Arc::clone(hosts);
    let way_in = tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            let hosts = Arc::clone(&hosts);
            tokio::spawn(async move {
                let sshd = (Ipv4Addr::new(10, 77, 0, 1), 22).into();
                if let Ok(mut stream) = hosts.connect(sshd).await {
                    let _ = copy_bidirectional(&mut outside, &mut stream).await;
                }
            });
        }
    });
    Ok((way_in, port))
}

fn address(ip: Ipv4Addr) -> Address {
    Address {
        id: ip.to_string(),
        ip,
    }
}

/// Boots a host that lets the key in; what a worker knows of it.
async fn boot(
    hosts: &RealHosts,
    key: &HostKey,
    number: u8,
    name: &str,
) -> anyhow::Result<NodeRecord> {
    let host_key = generate_host_key()?;
    let lines = host_key.private.expose().lines();
    let private: String = lines.map(|line| format!("    {line}\n")).collect();
    let public = &host_key.public;
    let user_data = format!(
        "#cloud-config\nssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: {public}\n"
    );
    let ip = Ipv4Addr::new(10, 77, 0, number);
    hosts
        .boot(Boot {
            server: name.to_owned(),
            name: name.to_owned(),
            address: ip,
            user_data: Some(user_data),
            authorized_keys: vec![key.public.to_string()],
            disks: BTreeMap::new(),
        })
        .await?;
    Ok(NodeRecord {
        node: name.parse()?,
        server: name.to_owned(),
        internal: address(ip),
        external: None,
        host_keys: vec![public.to_string()],
        ssh_user: "root".to_owned(),
        volumes: BTreeMap::new(),
        recovery: "r1".parse()?,
        epoch: 1,
    })
}

fn words(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

/// What a program prints that has to succeed.
async fn output(command: &mut Command) -> anyhow::Result<String> {
    let said = command
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .output()
        .await;
    let said = said.with_context(|| format!("run {command:?}"))?;
    let error = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8(said.stdout)?)
}
