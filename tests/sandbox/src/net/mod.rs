//! The sandbox's network as a client outside the cloud sees it: public addresses only.
//!
//! Workers reach it through a SOCKS5 proxy ([`Network::proxy_url`]). A public address leads to
//! what the simulated cloud has attached it to, see [`CloSim::destinations`]; the private network
//! behind is reached through a bastion's SSH or not at all. Destinations can be refused or made
//! to hang, and all open connections can be cut.

mod socks;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clo::CloSim;
use crate::hosts::{Hosts, Stream};
use socks::{Reply, Wanted};

/// No step towards a connection may take longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a destination is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Connections are refused.
    Refused,
    /// There is no route.
    Unreachable,
    /// Packets vanish: no answer at all.
    Silent,
}

/// What became of one attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What the client asked for.
    pub wanted: String,
    /// Where it was led inside; `None` if nowhere.
    pub reached: Option<SocketAddr>,
}

/// The way in. Dropping it ends all connections.
#[derive(Debug)]
pub struct Network {
    proxy: SocketAddr,
    inner: Arc<Inner>,
}

impl Network {
    /// Opens the proxy on a loopback port of its own.
    pub async fn start(clo: Arc<CloSim>, hosts: Arc<dyn Hosts>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = listener.local_addr()?;
        let inner = Arc::new(Inner {
            clo,
            hosts,
            state: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let accepting = inner.clone();
        let stop = inner.stop.clone();
        inner.tasks.spawn(async move {
            let work = accept(accepting, listener);
            stop.run_until_cancelled_owned(work).await;
        });
        Ok(Self { proxy, inner })
    }

    /// For `REKINDLE_PROXY`.
    pub fn proxy_url(&self) -> String {
        format!("socks5h://{}", self.proxy)
    }

    /// The proxy itself.
    pub fn proxy_address(&self) -> SocketAddr {
        self.proxy
    }

    /// Gives a public address a host name.
    pub fn name(&self, name: &str, ip: Ipv4Addr) {
        let name = name.to_ascii_lowercase();
        self.inner.state().names.insert(name, ip);
    }

    /// Breaks a destination; without a port, all ports of the address.
    pub fn break_destination(&self, ip: Ipv4Addr, port: Option<u16>, how: Broken) {
        self.inner.state().broken.insert((ip, port), how);
    }

    /// Makes all destinations whole again.
    pub fn heal(&self) {
        self.inner.state().broken.clear();
    }

    /// Cuts all open connections; new ones are not affected. Says how many there were.
    pub fn cut_open_connections(&self) -> usize {
        let mut state = self.inner.state();
        let open = state.open;
        std::mem::take(&mut state.cut).cancel();
        open
    }

    /// All attempts to connect, in order.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.inner.state().attempts.clone()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

#[derive(Debug)]
struct Inner {
    clo: Arc<CloSim>,
    hosts: Arc<dyn Hosts>,
    state: Mutex<State>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, Ipv4Addr>,
    broken: HashMap<(Ipv4Addr, Option<u16>), Broken>,
    /// Whose turn it is behind a public address and port.
    turns: HashMap<(Ipv4Addr, u16), usize>,
    attempts: Vec<Attempt>,
    open: usize,
    /// Cancelled to cut what is open now.
    cut: CancellationToken,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolve(&self, wanted: &Wanted) -> Option<Ipv4Addr> {
        match wanted {
            Wanted::Address(ip, _) => Some(*ip),
            Wanted::Name(name, _) => match name.parse() {
                Ok(ip) => Some(ip),
                Err(_) => self.state().names.get(&name.to_ascii_lowercase()).copied(),
            },
        }
    }

    fn broken(&self, ip: Ipv4Addr, port: u16) -> Option<Broken> {
        let state = self.state();
        let one = state.broken.get(&(ip, Some(port)));
        one.or_else(|| state.broken.get(&(ip, None))).copied()
    }

    /// The candidates behind a public address, beginning with the one whose turn it is.
    fn candidates(&self, ip: Ipv4Addr, port: u16) -> Option<Vec<SocketAddr>> {
        let mut candidates = self.clo.destinations(ip, port)?;
        let mut state = self.state();
        let turn = state.turns.entry((ip, port)).or_default();
        if !candidates.is_empty() {
            let first = *turn % candidates.len();
            candidates.rotate_left(first);
        }
        *turn = turn.wrapping_add(1);
        Some(candidates)
    }
}

async fn accept(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let stop = inner.stop.clone();
        let connection = serve(inner.clone(), client);
        inner.tasks.spawn(async move {
            let ended = stop.run_until_cancelled_owned(connection).await;
            if let Some(Err(error)) = ended {
                tracing::debug!("sandbox network: connection ended: {error}");
            }
        });
    }
}

/// One connection from the SOCKS greeting to its end.
async fn serve(inner: Arc<Inner>, mut client: TcpStream) -> io::Result<()> {
    let wanted = timeout(PATIENCE, socks::greet(&mut client)).await??;
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let outcome = connect(&inner, &wanted).await;
    inner.state().attempts.push(Attempt {
        wanted: wanted.to_string(),
        reached: outcome.as_ref().ok().map(|(at, _)| *at),
    });
    let mut inside = match outcome {
        Ok((_, stream)) => stream,
        Err(reply) => return socks::reply(&mut client, reply).await,
    };
    let cut = {
        let mut state = inner.state();
        state.open += 1;
        state.cut.clone()
    };
    let relay = async {
        socks::reply(&mut client, Reply::Succeeded).await?;
        copy_bidirectional(&mut client, &mut inside).await.map(drop)
    };
    let ended = cut.run_until_cancelled(relay).await;
    inner.state().open -= 1;
    ended.unwrap_or(Ok(()))
}

async fn connect(inner: &Inner, wanted: &Wanted) -> Result<(SocketAddr, Box<dyn Stream>), Reply> {
    let ip = inner.resolve(wanted).ok_or(Reply::HostUnreachable)?;
    let port = wanted.port();
    match inner.broken(ip, port) {
        Some(Broken::Refused) => return Err(Reply::Refused),
        Some(Broken::Unreachable) => return Err(Reply::HostUnreachable),
        Some(Broken::Silent) => std::future::pending().await,
        None => {}
    }
    // Private addresses have no destinations: there is no way to them from here.
    let candidates = inner.candidates(ip, port).ok_or(Reply::HostUnreachable)?;
    for candidate in candidates {
        // The health monitor of a balancer, in short: who does not answer is passed over.
        if let Ok(Ok(stream)) = timeout(PATIENCE, inner.hosts.connect(candidate)).await {
            return Ok((candidate, stream));
        }
    }
    Err(Reply::Refused)
}
