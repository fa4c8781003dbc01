//! The whole default sandbox as a worker meets it: the cloud's API over HTTP, everything else
//! through the SOCKS proxy, and private hosts through a bastion's SSH.

#![allow(clippy::unwrap_used, missing_docs)] // a test may stop where it fails

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::{
    Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};
use russh::{ChannelMsg, Disconnect};
use sandbox::clo::{
    AddressStatus, BalancerStatus, CloOptions, CloSim, RuleStatus, ServerStatus, VolumeStatus,
};
use sandbox::hosts::Hosts;
use sandbox::hosts::simulated::{CommandFault, Output, Service, SimulatedHosts, Sshd};
use sandbox::net::{Broken, Network};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    clo: Arc<CloSim>,
    hosts: SimulatedHosts,
    network: Network,
    http: reqwest::Client,
    client_key: Arc<PrivateKey>,
    keypair: String,
}

impl World {
    async fn new() -> Self {
        let hosts = SimulatedHosts::new();
        let shared: Arc<dyn Hosts> = Arc::new(hosts.clone());
        let clo = CloSim::start(CloOptions::default(), shared.clone())
            .await
            .unwrap();
        let clo = Arc::new(clo);
        let network = Network::start(clo.clone(), shared).await.unwrap();
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let mut world = Self {
            clo,
            hosts,
            network,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            client_key: Arc::new(key),
            keypair: String::new(),
        };
        let line = world.client_key.public_key().to_openssh().unwrap();
        let body = json!({ "name": "ours", "public_key": line });
        world.keypair = world.create("keypairs", body).await;
        world
    }

    async fn send(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let url = format!("{}/v2/{path}", self.clo.base_url());
        let request = self.http.request(method, url).bearer_auth(self.clo.token());
        let response = request.json(&body).send().await.unwrap();
        assert!(
            response.status().is_success(),
            "{path}: {}",
            response.status()
        );
        serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default()
    }

    async fn create(&self, what: &str, body: Value) -> String {
        let path = format!("projects/{}/{what}", self.clo.project());
        let made = self.send(reqwest::Method::POST, &path, body).await;
        made["result"]["id"].as_str().unwrap().to_owned()
    }

    /// A server with a public address; gives its id and that address.
    async fn public_server(&self, name: &str) -> (String, Ipv4Addr) {
        let id = self
            .server(name, json!([{ "external": true }]), Value::Null)
            .await;
        let addresses = self.clo.snapshot().addresses;
        let owner = Some(sandbox::clo::Entity::Server(id.clone()));
        let mine = addresses
            .iter()
            .find(|a| a.external && a.attached_to == owner);
        (id, mine.unwrap().ip)
    }

    async fn server(&self, name: &str, addresses: Value, user_data: Value) -> String {
        let path = format!("projects/{}/images", self.clo.project());
        let images = self.send(reqwest::Method::GET, &path, Value::Null).await;
        let body = json!({
            "name": name,
            "flavor": { "ram": 4, "vcpus": 2 },
            "image": images["result"][0]["id"],
            "storages": [{ "size": 20, "bootable": true, "storage_type": "storage" }],
            "addresses": addresses,
            "keypairs": [self.keypair],
            "user_data": user_data,
        });
        let id = self.create("servers", body).await;
        self.clo
            .wait_until("an active server", |s| {
                s.servers
                    .iter()
                    .any(|s| s.id == id && s.status == ServerStatus::Active)
            })
            .await;
        id
    }

    async fn volume_on(&self, name: &str, server: &str) -> String {
        let id = self
            .create("volumes", json!({ "name": name, "size": 10 }))
            .await;
        self.volume_is(&id, VolumeStatus::Available).await;
        self.attach(&id, server).await;
        id
    }

    async fn attach(&self, volume: &str, server: &str) {
        let path = format!("volumes/{volume}/attach");
        self.send(reqwest::Method::POST, &path, json!({ "server_id": server }))
            .await;
        self.volume_is(volume, VolumeStatus::InUse).await;
    }

    async fn volume_is(&self, id: &str, status: VolumeStatus) {
        self.clo
            .wait_until("the volume's status", |s| {
                s.volumes.iter().any(|v| v.id == id && v.status == status)
            })
            .await;
    }

    fn internal_ip(&self, server: &str) -> Ipv4Addr {
        let servers = self.clo.snapshot().servers;
        let server = servers.iter().find(|s| s.id == server);
        server.unwrap().internal_ip.unwrap()
    }

    async fn dial(
        &self,
        ip: Ipv4Addr,
        port: u16,
    ) -> Result<Socks5Stream<tokio::net::TcpStream>, tokio_socks::Error> {
        let to = (ip.to_string(), port);
        let dial = Socks5Stream::connect(self.network.proxy_address(), to);
        timeout(PATIENCE, dial).await.expect("the proxy answers")
    }

    async fn ssh(&self, ip: Ipv4Addr, port: u16) -> Ssh {
        let stream = self.dial(ip, port).await.unwrap();
        Ssh::over(stream, self.client_key.clone()).await.unwrap()
    }
}

struct Ssh {
    session: Handle<Client>,
    host_key: PublicKey,
}

struct Client(tokio::sync::mpsc::UnboundedSender<PublicKey>);

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = key {
            self.0.send(key.clone()).unwrap();
        }
        Ok(true)
    }
}

impl Ssh {
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        key: Arc<PrivateKey>,
    ) -> Result<Self, russh::Error> {
        let (sender, mut host_keys) = tokio::sync::mpsc::unbounded_channel();
        let config = Arc::new(client::Config::default());
        let connect = client::connect_stream(config, stream, Client(sender));
        let mut session = timeout(PATIENCE, connect).await.expect("sshd answers")?;
        let key = PrivateKeyWithHashAlg::new(key, None);
        let answer = session.authenticate_publickey("root", key).await?;
        if answer != AuthResult::Success {
            return Err(russh::Error::NotAuthenticated);
        }
        let host_key = host_keys.recv().await.expect("a host key was shown");
        Ok(Self { session, host_key })
    }

    /// Runs a command; `None` when the connection broke before its exit status.
    async fn run(&self, line: &str, stdin: &[u8]) -> Option<Output> {
        let run = async {
            let mut channel = self.session.channel_open_session().await.ok()?;
            channel.exec(true, line).await.ok()?;
            channel.data(stdin).await.ok()?;
            channel.eof().await.ok()?;
            let mut output = Output::default();
            let mut status = None;
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => output.stdout.extend_from_slice(&data),
                    ChannelMsg::ExtendedData { data, ext: 1 } => {
                        output.stderr.extend_from_slice(&data);
                    }
                    ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                    _ => {}
                }
            }
            output.status = status?;
            Some(output)
        };
        timeout(PATIENCE, run).await.expect("an answer or an end")
    }

    async fn ok(&self, line: &str) -> String {
        let output = self.run(line, b"").await.expect("the connection holds");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status, 0, "{line}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn banner(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut banner = [0; 8];
    let read = stream.read_exact(&mut banner);
    timeout(PATIENCE, read).await.unwrap().unwrap();
    String::from_utf8_lossy(&banner).into_owned()
}

#[tokio::test]
async fn a_balancer_leads_to_ssh_and_takes_turns_among_web_nodes() {
    let w = World::new().await;
    let names = ["test-bastion-1", "test-web-1", "test-web-2"];
    let mut ids = Vec::new();
    for name in names {
        ids.push(w.server(name, json!([]), Value::Null).await);
        w.hosts
            .listen(name, 30080, Service::Http("hello".to_owned()));
    }
    let snapshot = w.clo.snapshot();
    let address_of = |server: &String| {
        let owner = Some(sandbox::clo::Entity::Server(server.clone()));
        let addresses = &snapshot.addresses;
        addresses
            .iter()
            .find(|a| a.attached_to == owner)
            .unwrap()
            .id
            .clone()
    };
    let rule = |server: &String, external: u16, internal: u16| {
        json!({
            "address_id": address_of(server),
            "external_protocol_port": external,
            "internal_protocol_port": internal,
        })
    };
    let body = json!({
        "name": "test-main-lb",
        "healthmonitor": { "type": "TCP", "delay": 80, "timeout": 15, "max_retries": 5 },
        "rules": [
            rule(&ids[0], 2205, 22), rule(&ids[1], 80, 30080), rule(&ids[2], 80, 30080),
        ],
    });
    w.create("loadbalancers", body).await;
    let active = |b: &sandbox::clo::BalancerView| {
        b.status == BalancerStatus::Active && b.rules.iter().all(|r| r.status == RuleStatus::Active)
    };
    let snapshot = w
        .clo
        .wait_until("an active balancer", |s| s.balancers.iter().any(active))
        .await;
    let ip = snapshot.balancers[0].ips[0];

    let mut stream = w.dial(ip, 2205).await.unwrap();
    assert_eq!(banner(&mut stream).await, "SSH-2.0-");
    let bastion = w.ssh(ip, 2205).await;
    assert_eq!(bastion.ok("hostname").await, "test-bastion-1\n");

    let mut served = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let mut web = w.dial(ip, 80).await.unwrap();
        web.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        web.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let by = answer.lines().find_map(|l| l.strip_prefix("x-served-by: "));
        served.insert(by.unwrap().to_owned());
    }
    assert_eq!(served.len(), 2, "round robin: {served:?}");
    w.hosts.close("test-web-1", 30080);
    for _ in 0..2 {
        assert!(w.dial(ip, 80).await.is_ok(), "the dead one is passed over");
    }
    assert!(w.dial(ip, 443).await.is_err(), "no rule");
    assert_eq!(w.clo.troubles(), Vec::<String>::new());
}

#[tokio::test]
async fn private_hosts_are_reached_through_a_bastion_only() {
    let w = World::new().await;
    let (_, public) = w.public_server("test-bastion-1").await;
    let inner = w.server("test-pg-1", json!([]), Value::Null).await;
    let private = w.internal_ip(&inner);
    assert!(w.dial(private, 22).await.is_err(), "no way from outside");

    let bastion = w.ssh(public, 22).await;
    let tunnel = bastion
        .session
        .channel_open_direct_tcpip(private.to_string(), 22, "127.0.0.1", 1)
        .await
        .unwrap();
    let pg = Ssh::over(tunnel.into_stream(), w.client_key.clone())
        .await
        .unwrap();
    assert_eq!(pg.ok("hostname").await, "test-pg-1\n");
    assert_eq!(bastion.ok("hostname").await, "test-bastion-1\n");
    let nobody = bastion
        .session
        .channel_open_direct_tcpip("10.77.9.9", 22, "127.0.0.1", 1)
        .await;
    assert!(nobody.is_err());
    pg.session
        .disconnect(Disconnect::ByApplication, "", "")
        .await
        .unwrap();
}

#[tokio::test]
async fn user_data_sets_the_host_key_and_strangers_are_not_let_in() {
    let w = World::new().await;
    let host = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    let pem = host.to_openssh(Default::default()).unwrap();
    let indented: String = pem.lines().map(|l| format!("    {l}\n")).collect();
    let public = host.public_key().to_openssh().unwrap();
    let user_data = format!(
        "#cloud-config\nssh_keys:\n  ed25519_private: |\n{indented}  ed25519_public: {public}\n"
    );
    let addresses = json!([{ "external": true }]);
    w.server("test-bastion-1", addresses, json!(user_data))
        .await;
    let addresses = w.clo.snapshot().addresses;
    let ip = addresses.iter().find(|a| a.external).unwrap().ip;
    let ssh = w.ssh(ip, 22).await;
    assert_eq!(ssh.host_key.key_data(), host.public_key().key_data());
    let stranger = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    let stream = w.dial(ip, 22).await.unwrap();
    assert!(Ssh::over(stream, Arc::new(stranger)).await.is_err());
}

#[tokio::test]
async fn exec_gives_stdin_stderr_and_exit_status() {
    let w = World::new().await;
    let (_, ip) = w.public_server("test-web-1").await;
    let ssh = w.ssh(ip, 22).await;
    let big = vec![b'x'; 3 << 20];
    let echoed = ssh.run("tee /tmp/big", &big).await.unwrap();
    assert_eq!((echoed.status, echoed.stdout.len()), (0, big.len()));
    assert_eq!(w.hosts.file("test-web-1", "/tmp/big").unwrap(), big);
    let missing = ssh.run("cat /nope", b"").await.unwrap();
    assert_eq!(missing.status, 1);
    assert_eq!(missing.stderr, b"cat: /nope: No such file or directory\n");
    assert_eq!(ssh.run("frobnicate", b"").await.unwrap().status, 127);
    let script = ssh.run("cat /etc/fstab | grep x", b"").await.unwrap();
    assert_eq!(script.status, 127, "no shell");
}

#[tokio::test]
async fn data_survives_the_disaster() {
    let w = World::new().await;
    let (server, ip) = w.public_server("test-pg-1").await;
    let volume = w.volume_on("test-pg-1-data", &server).await;
    let ssh = w.ssh(ip, 22).await;
    ssh.ok("mkfs.ext4 -q -L pg /dev/vdb").await;
    ssh.ok("mkdir -p /mnt/pg").await;
    ssh.ok("mount /dev/vdb /mnt/pg").await;
    ssh.run("tee /mnt/pg/PG_VERSION", b"17").await.unwrap();
    w.clo.destroy_all_servers().await;
    assert!(
        ssh.run("true", b"").await.is_none(),
        "the connection died with its server"
    );
    w.volume_is(&volume, VolumeStatus::Available).await;

    let (server, ip) = w.public_server("test-pg-1").await;
    let decoy = w.volume_on("decoy", &server).await;
    w.attach(&volume, &server).await;
    let ssh = w.ssh(ip, 22).await;
    let by_id = format!("/dev/disk/by-id/virtio-{}", &volume[..20]);
    assert_eq!(ssh.ok(&format!("readlink -f {by_id}")).await, "/dev/vdc\n");
    ssh.ok("mkdir -p /mnt/pg").await;
    ssh.ok(&format!("mount {by_id} /mnt/pg")).await;
    assert_eq!(ssh.ok("cat /mnt/pg/PG_VERSION").await, "17");
    assert_eq!(w.hosts.disk(&volume).unwrap().formatted, 1);
    assert_eq!(w.hosts.disk(&decoy).unwrap().formatted, 0);
    assert_eq!(w.clo.troubles(), Vec::<String>::new());
}

#[tokio::test]
async fn a_connection_breaks_before_or_after_a_commands_effect() {
    let w = World::new().await;
    let (_, ip) = w.public_server("test-web-1").await;
    w.hosts
        .faults()
        .add(CommandFault::on("tee").argument("/tmp/a").cut());
    w.hosts
        .faults()
        .add(CommandFault::on("tee").argument("/tmp/b").after().cut());
    assert!(w.ssh(ip, 22).await.run("tee /tmp/a", b"a").await.is_none());
    assert_eq!(w.hosts.file("test-web-1", "/tmp/a"), None);
    assert!(w.ssh(ip, 22).await.run("tee /tmp/b", b"b").await.is_none());
    assert_eq!(w.hosts.file("test-web-1", "/tmp/b").unwrap(), b"b");

    let io = "blkid: error: /dev/vdb: Input/output error\n";
    w.hosts
        .faults()
        .add(CommandFault::on("blkid").server("test-web-1").exits(4, io));
    let ssh = w.ssh(ip, 22).await;
    let failed = ssh.run("blkid -p /dev/vda", b"").await.unwrap();
    assert_eq!((failed.status, failed.stderr), (4, io.as_bytes().to_vec()));
    assert_eq!(ssh.run("blkid -p /dev/vda", b"").await.unwrap().status, 0);
    assert_eq!(w.hosts.faults().unused(), Vec::<String>::new());
}

#[tokio::test]
async fn a_hanging_command_does_not_block_another_channel() {
    let w = World::new().await;
    let (_, ip) = w.public_server("test-web-1").await;
    let ssh = w.ssh(ip, 22).await;
    w.hosts.faults().add(CommandFault::on("sync").hang());
    let hanging = ssh.run("sync", b"");
    tokio::pin!(hanging);
    tokio::select! {
        _ = &mut hanging => panic!("it hangs"),
        name = ssh.ok("hostname") => assert_eq!(name, "test-web-1\n"),
    }
}

#[tokio::test]
async fn sshd_can_refuse_close_or_say_nothing() {
    let w = World::new().await;
    let (_, ip) = w.public_server("test-web-1").await;
    let sshd = |how| w.hosts.faults().sshd("test-web-1", how);
    sshd(Some(Sshd::Refused));
    assert!(w.dial(ip, 22).await.is_err());
    sshd(Some(Sshd::Closed));
    let mut stream = w.dial(ip, 22).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    sshd(Some(Sshd::Silent));
    let mut stream = w.dial(ip, 22).await.unwrap();
    let quiet = timeout(Duration::from_millis(50), stream.read_u8()).await;
    assert!(quiet.is_err(), "no banner");
    sshd(None);
    w.ssh(ip, 22).await;
}

#[tokio::test]
async fn the_network_breaks_and_heals() {
    let w = World::new().await;
    let (_, ip) = w.public_server("test-bastion-1").await;
    w.network.break_destination(ip, Some(22), Broken::Refused);
    assert!(w.dial(ip, 22).await.is_err());
    w.network.break_destination(ip, None, Broken::Unreachable);
    assert!(w.dial(ip, 30080).await.is_err());
    w.network.break_destination(ip, Some(22), Broken::Silent);
    let dial = timeout(Duration::from_millis(50), w.dial(ip, 22)).await;
    assert!(dial.is_err(), "no answer");
    w.network.heal();

    w.network.name("bastion.example.org", ip);
    let to = ("bastion.example.org", 22);
    let stream = Socks5Stream::connect(w.network.proxy_address(), to)
        .await
        .unwrap();
    let ssh = Ssh::over(stream, w.client_key.clone()).await.unwrap();
    ssh.ok("true").await;
    assert_eq!(w.network.cut_open_connections(), 1);
    assert!(ssh.run("true", b"").await.is_none());
    w.ssh(ip, 22).await.ok("true").await;
    let reached = w.network.attempts();
    assert_eq!(reached.last().unwrap().reached.unwrap().port(), 22);
}

#[tokio::test]
async fn a_stopped_server_is_out_of_reach_until_it_is_started() {
    let w = World::new().await;
    let (server, ip) = w.public_server("test-web-1").await;
    let is = |status| move |s: &sandbox::clo::Snapshot| s.servers[0].status == status;
    let post = reqwest::Method::POST;
    w.send(post.clone(), &format!("servers/{server}/stop"), Value::Null)
        .await;
    w.clo.wait_until("a stop", is(ServerStatus::Stopped)).await;
    assert!(w.dial(ip, 22).await.is_err());
    w.send(post, &format!("servers/{server}/start"), Value::Null)
        .await;
    w.clo.wait_until("a start", is(ServerStatus::Active)).await;
    w.ssh(ip, 22).await;
    let addresses = w.clo.snapshot().addresses;
    assert!(addresses.iter().all(|a| a.status == AddressStatus::Active));
}
