//! The sandbox's own Kubernetes API: small, in this process, and up in a millisecond.
//!
//! It keeps objects and answers as the real one does where our jobs and the sandbox's operators look:
//! discovery, definitions of kinds, reads, lists, writes, server-side apply with its managers and
//! conflicts, statuses, finalizers, client certificates, and refusals in the real one's words. There
//! are no watches, no RBAC beyond `system:masters`, no strategic merge patches, and no controllers but
//! two: a definition is served a moment after it was made, and a deleted namespace is emptied. Pods and
//! statuses are what operators write. What it is asked for and cannot do it refuses with 501.
//! `tests/kube_sim` runs one suite over it and over the real one ([`crate::kube_api`]).

mod access;
mod admit;
mod answer;
mod apply;
mod call;
mod definitions;
mod faults;
mod fields;
mod http;
mod kinds;
mod patch;
mod refusal;
mod select;
mod store;
mod write;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::call::{Call, Target, segments};
use self::http::Door;
use self::kinds::by_name;
use self::store::{Key, Object, State};
use crate::hosts::Stream;
use crate::hosts::simulated::Tap;
use crate::kube_api::{Pair, Pki, Validity, kubeconfig};

pub use self::access::{Tokens, User};
pub use self::faults::{KubeFault, KubeFaults};

/// Where every master finds it.
const ON_MASTER: &str = "https://127.0.0.1:6443";
/// How much may be on its way in one direction of a connection.
const PIPE: usize = 64 << 10;
/// The log is for assertions; a runaway test must not eat the machine.
const LONGEST_LOG: usize = 200_000;

/// One request as it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// Who asked: the name in the certificate.
    pub user: String,
    /// The status of the answer, also when the answer was lost.
    pub code: u16,
    /// It reached the objects; a fault did not keep it from them.
    pub arrived: bool,
    /// It came by the port on this machine and not through a master.
    pub by_port: bool,
}

/// The certificates of a cluster: what a copy of it shares.
#[derive(Debug)]
pub struct Credentials {
    pki: Pki,
    admin: Pair,
    tls: Arc<rustls::ServerConfig>,
}

impl Credentials {
    /// New ones, that nobody knows.
    pub fn create() -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("rekindle-kube-sim-")?;
        let pki = Pki::create(folder.path().join("pki"))?;
        let read = |name: &str| {
            let path = pki.path(name);
            std::fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let certificate = CertificateDer::from_pem_slice(&read("apiserver.crt")?)?;
        let key = PrivateKeyDer::from_pem_slice(&read("apiserver.key")?)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(
            pki.cluster().pem().as_bytes(),
        )?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .allow_unauthenticated()
            .build()?;
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)?;
        let group = Some("system:masters");
        let admin = pki
            .cluster()
            .client("kubernetes-admin", group, Validity::Good)?;
        let tls = Arc::new(tls);
        Ok(Self { pki, admin, tls })
    }
}

/// A Kubernetes API. Dropping the last handle ends it.
pub struct KubeSim {
    inner: Arc<Inner>,
    credentials: Arc<Credentials>,
    port: OnceLock<Port>,
}

/// A loopback port of ours, whether somebody listens on it or not.
struct Port {
    number: u16,
    /// Bound and silent: while we do not listen nobody else gets the port, and clients are refused.
    _held: TcpSocket,
}

struct Inner {
    state: Mutex<State>,
    tls: TlsAcceptor,
    faults: KubeFaults,
    tap: Mutex<Option<Arc<dyn Tap>>>,
    tokens: Mutex<Option<Tokens>>,
    log: Mutex<Vec<Asked>>,
    /// Ends with the process that a restart ends; nothing while it is down.
    life: Mutex<Option<CancellationToken>>,
}

impl KubeSim {
    /// A new cluster's API, listening on a loopback port.
    pub async fn start() -> anyhow::Result<Arc<Self>> {
        let sim = Self::quiet(Arc::new(Credentials::create()?));
        sim.listen()?;
        Ok(sim)
    }

    /// A new cluster's API that is reached by [`KubeSim::connect`] alone until somebody asks it to
    /// listen.
    pub fn quiet(credentials: Arc<Credentials>) -> Arc<Self> {
        Self::with(credentials, State::new())
    }

    fn with(credentials: Arc<Credentials>, state: State) -> Arc<Self> {
        let inner = Inner {
            state: Mutex::new(state),
            tls: TlsAcceptor::from(Arc::clone(&credentials.tls)),
            faults: KubeFaults::default(),
            tap: Mutex::new(None),
            tokens: Mutex::new(None),
            log: Mutex::new(Vec::new()),
            life: Mutex::new(Some(CancellationToken::new())),
        };
        Arc::new(Self {
            inner: Arc::new(inner),
            credentials,
            port: OnceLock::new(),
        })
    }

    /// The same cluster once more, by itself: its objects and certificates, no connections, faults or
    /// log.
    pub fn copy(&self) -> Arc<Self> {
        let mut state = self.inner.state();
        state.settle();
        Self::with(Arc::clone(&self.credentials), state.clone())
    }

    /// Listens on a loopback port, if it does not yet; that port.
    pub fn listen(&self) -> anyhow::Result<u16> {
        if let Some(port) = self.port.get() {
            return Ok(port.number);
        }
        let held = socket(0)?;
        let number = held.local_addr()?.port();
        let port = Port {
            number,
            _held: held,
        };
        if self.port.set(port).is_err() {
            // Somebody else made it listen just now.
            return Ok(self.port());
        }
        if let Some(life) = self.inner.alive() {
            self.open(number, life)?;
        }
        Ok(number)
    }

    fn open(&self, port: u16, life: CancellationToken) -> io::Result<()> {
        let listener = socket(port)?.listen(1024)?;
        tokio::spawn(http::listen(Arc::clone(&self.inner), listener, life));
        Ok(())
    }

    /// Its port on 127.0.0.1; 0 if it does not listen.
    pub fn port(&self) -> u16 {
        self.port.get().map_or(0, |port| port.number)
    }

    /// Its URL.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port())
    }

    /// Its certificates.
    pub fn pki(&self) -> &Pki {
        &self.credentials.pki
    }

    /// What kubeadm writes to `/etc/kubernetes/admin.conf` of its masters. The same at every call.
    pub fn admin_conf(&self) -> String {
        self.conf_at(ON_MASTER)
    }

    /// The same, for those who come straight to its port, which it listens on from now on: operators, and
    /// tests.
    pub fn direct_conf(&self) -> anyhow::Result<String> {
        self.listen()?;
        Ok(self.conf_at(&self.server()))
    }

    fn conf_at(&self, server: &str) -> String {
        let authority = self.pki().cluster().pem();
        kubeconfig(
            server,
            &authority,
            "kubernetes-admin",
            &self.credentials.admin,
        )
    }

    /// A kubeconfig for a user and their group, for those who come straight to its port; somebody has to
    /// have made it listen.
    pub fn kubeconfig(
        &self,
        user: &str,
        group: Option<&str>,
        validity: Validity,
    ) -> anyhow::Result<String> {
        let cluster = self.pki().cluster();
        let pair = cluster.client(user, group, validity)?;
        Ok(kubeconfig(&self.server(), &cluster.pem(), user, &pair))
    }

    /// Connects without a port.
    pub fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let life = self.inner.alive().ok_or(io::ErrorKind::ConnectionRefused)?;
        let (outside, inside) = tokio::io::duplex(PIPE);
        tokio::spawn(http::serve(
            Arc::clone(&self.inner),
            inside,
            life,
            Door::Stream,
        ));
        Ok(Box::new(outside))
    }

    /// The API server dies and comes back after this time, as etcd goes on: all connections are cut,
    /// new ones refused meanwhile, and nothing is lost.
    pub async fn restart(&self, down: Duration) -> anyhow::Result<()> {
        self.stop();
        tokio::time::sleep(down).await;
        self.resume()
    }

    /// Cuts all connections and refuses new ones.
    pub fn stop(&self) {
        if let Some(life) = self.inner.lock(&self.inner.life).take() {
            life.cancel();
        }
    }

    /// Comes back after [`KubeSim::stop`].
    pub fn resume(&self) -> anyhow::Result<()> {
        let life = CancellationToken::new();
        let before = self.inner.lock(&self.inner.life).replace(life.clone());
        if let Some(before) = before {
            before.cancel();
        }
        match self.port.get() {
            Some(port) => self.open(port.number, life).context("listen again"),
            None => Ok(()),
        }
    }

    /// Cuts all connections; new ones are served.
    pub fn cut_connections(&self) -> anyhow::Result<()> {
        self.stop();
        self.resume()
    }

    /// The switchboard of faults.
    pub fn faults(&self) -> &KubeFaults {
        &self.inner.faults
    }

    /// Lets people in by their bearer tokens too, as a managed cluster does; without it every token is
    /// refused.
    pub fn tokens(&self, tokens: Option<Tokens>) {
        *self.inner.lock(&self.inner.tokens) = tokens;
    }

    /// Puts a tap on all requests that come by a stream or with a token, as those of workers do, or takes
    /// it off. It hears `GET configmaps/pg/x`.
    pub fn tap(&self, tap: Option<Arc<dyn Tap>>) {
        *self.inner.lock(&self.inner.tap) = tap;
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Asked> {
        self.inner.lock(&self.inner.log).clone()
    }

    /// All objects, as they are stored, with who manages them.
    pub fn objects(&self) -> Vec<Value> {
        let mut state = self.inner.state();
        state.settle();
        let show = |(key, object): (&Key, &Object)| {
            let kind = kinds::served(&state).find(|k| key.is_of(&k.group, &k.plural));
            kind.map_or_else(|| object.body.clone(), |kind| object.shown(kind))
        };
        state.objects.iter().map(show).collect()
    }

    /// An object, for tests and operators; `namespace` is empty where there is none.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let mut state = self.inner.state();
        state.settle();
        let mut found = kinds::served(&state)
            .filter(|k| k.kind == kind)
            .filter_map(|kind| {
                let object = state.objects.get(&Key::new(kind, namespace, name))?;
                Some(object.shown(kind))
            });
        found.next()
    }

    /// Puts an object in as it is, status and all, in place of what is there. It counts as a change.
    ///
    /// # Errors
    /// Unless its kind is served and it has a name.
    pub fn put(&self, mut object: Value) -> anyhow::Result<()> {
        let mut state = self.inner.state();
        state.settle();
        let text = |at: &str| {
            let found = object.pointer(at).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let found = by_name(&state, &version, &kind);
        let kind = found.with_context(|| format!("nobody serves {kind} of {version}"))?;
        ensure!(!name.is_empty(), "an object without a name");
        ensure!(
            kind.namespaced != namespace.is_empty(),
            "it is in no place for a {}",
            kind.kind
        );
        let key = Key::new(&kind, &namespace, &name);
        let live = state.objects.get(&key).cloned();
        let metadata = &mut object["metadata"];
        let managed = metadata.as_object_mut();
        managed.and_then(|fields| fields.remove("managedFields"));
        let (uid, created, generation) = match &live {
            Some(live) => {
                let before = &live.body["metadata"];
                let same = live.body.get("spec") == object.get("spec");
                let more = i64::from(!same);
                let next = before["generation"].as_i64().map(|g| g + more);
                (
                    live.meta("uid").to_owned(),
                    live.meta("creationTimestamp").to_owned(),
                    next,
                )
            }
            None => (store::uid(), store::now(), kind.generation.then_some(1)),
        };
        let metadata = &mut object["metadata"];
        metadata["uid"] = uid.into();
        metadata["creationTimestamp"] = created.into();
        if let Some(generation) = generation {
            metadata["generation"] = generation.into();
        }
        let managers = live.map(|live| live.managers).unwrap_or_default();
        let body = object;
        state.insert(key.clone(), Object { body, managers });
        if kind.kind == "CustomResourceDefinition" {
            state.establish_later(&key);
        }
        Ok(())
    }

    /// Takes an object away at once, whatever its finalizers say.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let mut state = self.inner.state();
        let kinds: Vec<_> = kinds::served(&state)
            .filter(|k| k.kind == kind)
            .cloned()
            .collect();
        for kind in &kinds {
            state.remove(&Key::new(kind, namespace, name), false);
        }
    }

    /// Lets nothing happen by itself, or again: while it stands still no definition is established and no
    /// namespace emptied.
    pub fn stand_still(&self, still: bool) {
        self.inner.state().still = still;
    }

    /// What a container says from now on.
    pub fn set_log(&self, namespace: &str, pod: &str, container: &str, text: &str) {
        let of = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        self.inner.state().logs.insert(of, text.to_owned());
    }
}

impl Drop for KubeSim {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for KubeSim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KubeSim({})", self.server())
    }
}

impl Inner {
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.lock(&self.state)
    }

    fn alive(&self) -> Option<CancellationToken> {
        self.lock(&self.life).clone()
    }

    fn tapped(&self) -> Option<Arc<dyn Tap>> {
        self.lock(&self.tap).clone()
    }

    /// Whose token this is.
    fn holder(&self, token: &str) -> Option<User> {
        let tokens = self.lock(&self.tokens).clone();
        tokens?(token)
    }

    /// How a tap hears of a request: `PATCH configmaps/pg/x`.
    fn name(&self, call: &Call) -> String {
        let parts = segments(&call.path);
        let words: Vec<&str> = parts.iter().map(String::as_str).collect();
        let target = match words.as_slice() {
            ["api", version, _, ..] => Target::read("", version, &parts[2..]),
            ["apis", group, version, _, ..] => Target::read(group, version, &parts[3..]),
            _ => None,
        };
        let what = match target {
            Some(target) => {
                let parts = [
                    Some(target.plural),
                    target.namespace,
                    target.name,
                    target.sub,
                ];
                parts.into_iter().flatten().collect::<Vec<_>>().join("/")
            }
            None => call.path.clone(),
        };
        format!("{} {what}", call.method)
    }

    fn note(&self, call: &Call, code: u16, arrived: bool, door: Door) {
        let mut log = self.lock(&self.log);
        if log.len() < LONGEST_LOG {
            log.push(Asked {
                method: call.method.to_string(),
                path: call.path.clone(),
                user: call.user.name.clone(),
                code,
                arrived,
                by_port: door == Door::Port,
            });
        }
    }
}

/// A loopback socket that shares its port with other sockets of ours.
fn socket(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}
