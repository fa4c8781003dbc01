//! A real Kubernetes API on this machine's loopback: etcd and kube-apiserver as processes, with the
//! certificates that kubeadm would give them, TLS and RBAC on.
//!
//! There is no kube-controller-manager: nothing makes pods of a Deployment or default service
//! accounts, and a deleted namespace stays `Terminating`. Nodes, pods and statuses are what tests
//! write through the API. Hosts of a lab find the API on their own loopback when its port is lent
//! to them ([`crate::hosts::real::RealHosts::lend_port`]).

mod assets;
mod pki;
mod process;

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use self::process::Processes;

pub use self::assets::Assets;
pub use self::pki::{Authority, Pair, Pki, Validity, kubeconfig};

/// A start takes four seconds on a quiet machine.
const READY: Duration = Duration::from_secs(120);

/// A free port may be taken by somebody else before etcd or the API server binds it.
const TRIES: u32 = 3;

/// A Kubernetes API. Dropping it ends its processes and removes its data.
#[derive(Debug)]
pub struct KubeApi {
    // Fields are dropped in this order: the processes end before their data goes.
    processes: Processes,
    pki: Pki,
    assets: Assets,
    ports: Ports,
    folder: TempDir,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    api: u16,
    etcd: u16,
}

impl KubeApi {
    /// Starts one and waits until it is ready. The first one on a machine builds the programs,
    /// which takes minutes: `tests/kube-apiserver install` does it beforehand.
    pub async fn start() -> anyhow::Result<Self> {
        let assets = Assets::find().await?;
        let mut tries = 1;
        loop {
            let mut api = Self::prepare(assets.clone())?;
            let up = match api.start_etcd().await {
                Ok(()) => api.start_api().await,
                Err(error) => Err(error),
            };
            match up {
                Ok(()) => return Ok(api),
                Err(error) if tries == TRIES => return Err(error),
                Err(error) => tracing::warn!("the Kubernetes API did not come up: {error:#}"),
            }
            tries += 1;
        }
    }

    fn prepare(assets: Assets) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("rekindle-kube-").context("make a folder")?;
        let pki = Pki::create(folder.path().join("pki"))?;
        Ok(Self {
            processes: Processes::new(folder.path())?,
            pki,
            assets,
            ports: Ports {
                api: free_port()?,
                etcd: free_port()?,
            },
            folder,
        })
    }

    /// The port of the API on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.ports.api
    }

    /// Its URL.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api)
    }

    /// Its certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// What kubeadm writes to `/etc/kubernetes/admin.conf`.
    pub fn admin_conf(&self) -> anyhow::Result<String> {
        self.kubeconfig("kubernetes-admin", Some("system:masters"), Validity::Good)
    }

    /// A kubeconfig for a user and their group.
    pub fn kubeconfig(
        &self,
        user: &str,
        group: Option<&str>,
        validity: Validity,
    ) -> anyhow::Result<String> {
        let cluster = self.pki.cluster();
        let pair = cluster.client(user, group, validity)?;
        Ok(kubeconfig(&self.server(), &cluster.pem(), user, &pair))
    }

    /// Kills the API server, as the kernel does when memory runs out; etcd goes on.
    pub async fn kill_api(&mut self) -> anyhow::Result<()> {
        self.processes.kill("kube-apiserver").await
    }

    /// Freezes the API server: it accepts connections and says nothing.
    pub fn freeze_api(&self) -> anyhow::Result<()> {
        self.processes.freeze("kube-apiserver", true)
    }

    /// Lets a frozen API server go on.
    pub fn thaw_api(&self) -> anyhow::Result<()> {
        self.processes.freeze("kube-apiserver", false)
    }

    /// Kills the API server if it runs and starts it again: same port, same data.
    pub async fn restart_api(&mut self) -> anyhow::Result<()> {
        self.kill_api().await?;
        self.start_api().await
    }

    /// Kills both and starts them again on the same data, as a reboot of the master does.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill_api().await?;
        self.processes.kill("etcd").await?;
        self.start_etcd().await?;
        self.start_api().await
    }

    /// Ends both and removes their data.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        // The API server first: without etcd it takes a minute to end.
        self.kill_api().await?;
        self.processes.kill("etcd").await?;
        self.folder.close().context("remove the data of etcd")
    }

    async fn start_etcd(&mut self) -> anyhow::Result<()> {
        let url = format!("https://127.0.0.1:{}", self.ports.etcd);
        let path = |name| self.pki.path(name).display().to_string();
        let data = self.folder.path().join("etcd");
        let args = [
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            format!("--cert-file={}", path("etcd/server.crt")),
            format!("--key-file={}", path("etcd/server.key")),
            format!("--trusted-ca-file={}", path("etcd/ca.crt")),
            "--client-cert-auth=true".to_owned(),
            // A power cut of this machine ends the test as well.
            "--unsafe-no-fsync=true".to_owned(),
        ];
        let program = self.assets.program("etcd");
        self.processes.start("etcd", &program, &args).await?;
        let port = self.ports.etcd;
        self.wait("etcd", || async move {
            Ok(tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_ok())
        })
        .await
    }

    async fn start_api(&mut self) -> anyhow::Result<()> {
        let path = |name| self.pki.path(name).display().to_string();
        let args = [
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            // The endpoint of the service `kubernetes` may not be a loopback address.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", self.ports.api),
            "--allow-privileged=true".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            // It wants the default service accounts that a controller manager makes.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--tls-cert-file={}", path("apiserver.crt")),
            format!("--tls-private-key-file={}", path("apiserver.key")),
            format!("--etcd-servers=https://127.0.0.1:{}", self.ports.etcd),
            format!("--etcd-cafile={}", path("etcd/ca.crt")),
            format!("--etcd-certfile={}", path("apiserver-etcd-client.crt")),
            format!("--etcd-keyfile={}", path("apiserver-etcd-client.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", path("sa.pub")),
            format!("--service-account-signing-key-file={}", path("sa.key")),
            format!(
                "--requestheader-client-ca-file={}",
                path("front-proxy-ca.crt")
            ),
            "--requestheader-allowed-names=front-proxy-client".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            format!(
                "--proxy-client-cert-file={}",
                path("front-proxy-client.crt")
            ),
            format!("--proxy-client-key-file={}", path("front-proxy-client.key")),
        ];
        let program = self.assets.program("kube-apiserver");
        self.processes
            .start("kube-apiserver", &program, &args)
            .await?;
        let worker = worker::kube::Kubeconfig::parse(&self.admin_conf()?, "admin.conf")?;
        let client = worker::kube::direct(&worker, worker::net::Dialer::direct())?;
        self.wait("kube-apiserver", || async {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await.is_ok())
        })
        .await
    }

    /// Waits until a process that runs is ready.
    async fn wait<F>(&mut self, name: &str, mut ready: impl FnMut() -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<bool>>,
    {
        let deadline = Instant::now() + READY;
        while !ready().await? {
            if let Some(status) = self.processes.ended(name)? {
                bail!("{name} ended with {status}: {}", self.processes.log(name));
            }
            ensure!(
                Instant::now() < deadline,
                "{name} is not ready after {READY:?}: {}",
                self.processes.log(name)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn free_port() -> anyhow::Result<u16> {
    // Below the ephemeral range, so that no outgoing connection takes it meanwhile.
    for _ in 0..1000 {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}
