//! The application as its visitors see it: an HTTP server on the loopback that answers as the pods in the cluster would.
//!
//! Every answer comes from a look at the cluster that began after its request; requests that come during a look share
//! the next one. It is 200 only while every Deployment that it stands for is available and the database is up; its body
//! then names the tag that runs and the marker of the data. Otherwise it is 503, as a gateway without a backend says: a
//! frozen application has no Deployment. While the API does not answer, pods run on as they did. [`AppFaults`] make it
//! slow, or fail some requests.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use kube::Client;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::api::{Cluster, namespace};
use super::kubelet::tag;

/// Says whether the database is up: `None` when it is not, else the marker of its data.
pub type Database = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What an application is made of.
#[derive(Clone)]
pub struct AppSettings {
    /// The namespace and the name of each Deployment. The tag is that of the first one.
    pub deployments: Vec<(String, String)>,
    /// The database, beside what its object says.
    pub database: Database,
    /// The PerconaPGCluster that has to be `ready`: namespace and name. Without one only `database` is asked.
    pub cluster: Option<(String, String)>,
}

impl AppSettings {
    /// The storefront of our tree.
    pub fn storefront(database: Database) -> Self {
        let pair = |space: &str, name: &str| (space.to_owned(), name.to_owned());
        Self {
            deployments: vec![pair("dsf", "dsf"), pair("slr", "slr-api")],
            database,
            cluster: Some(pair("pg", "pg-db")),
        }
    }
}

impl fmt::Debug for AppSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppSettings")
            .field("deployments", &self.deployments)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// What is wrong with an application. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct AppFaults(Arc<Mutex<Faults>>);

#[derive(Debug, Default)]
struct Faults {
    slow: Duration,
    failing: f64,
    /// Adds up the share of each request: those at which it passes the next whole number fail.
    sum: f64,
}

impl AppFaults {
    /// Every answer takes this much longer.
    pub fn slow(&self, by: Duration) {
        self.with(|faults| faults.slow = by);
    }

    /// This share of all requests, from 0 to 1, is answered with 500.
    pub fn failing(&self, share: f64) {
        self.with(|faults| faults.failing = share.clamp(0.0, 1.0));
    }

    /// How long the next request takes, and whether it fails.
    fn next(&self) -> (Duration, bool) {
        self.with(|faults| {
            let before = faults.sum.floor();
            faults.sum += faults.failing;
            (faults.slow, faults.sum.floor() > before)
        })
    }

    fn with<T>(&self, at: impl FnOnce(&mut Faults) -> T) -> T {
        at(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running application. It ends when this is dropped, with all its connections.
pub struct App {
    address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    cluster: Cluster,
    settings: AppSettings,
    faults: AppFaults,
    last: tokio::sync::Mutex<Option<Look>>,
    answered: AtomicU64,
    refused: AtomicU64,
}

/// A look at the cluster.
struct Look {
    began: Instant,
    /// What runs, or why nothing does.
    seen: Result<Seen, String>,
}

/// The tag of what runs; nothing when no Deployment is asked for.
type Seen = Option<String>;

impl App {
    /// Starts it on a port of the loopback.
    pub async fn start(client: Client, settings: AppSettings) -> anyhow::Result<Self> {
        Self::with_faults(client, settings, AppFaults::default()).await
    }

    /// The same with what is wrong with it.
    pub async fn with_faults(
        client: Client,
        settings: AppSettings,
        faults: AppFaults,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("listen for the application")?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            cluster: Cluster::new(client),
            settings,
            faults,
            last: tokio::sync::Mutex::default(),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&inner));
        let task = tokio::spawn(serve(listener, router));
        Ok(Self {
            address,
            inner,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// How many requests it answered, and how many it could not.
    pub fn requests(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.inner.answered), count(&self.inner.refused))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("App");
        shown
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Serves until it is dropped; then all its connections end.
async fn serve(listener: TcpListener, router: Router) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let service = TowerToHyperService::new(router.clone());
                    open.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
                Err(error) => {
                    tracing::warn!("the application cannot take a connection: {error}");
                    // Out of files, most likely: some are given back soon.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn answer(State(inner): State<Arc<Inner>>) -> (StatusCode, String) {
    let (slow, fails) = inner.faults.next();
    tokio::time::sleep(slow).await;
    if fails {
        inner.refused.fetch_add(1, Ordering::Relaxed);
        return (StatusCode::INTERNAL_SERVER_ERROR, "it failed\n".to_owned());
    }
    match inner.page().await {
        Ok(page) => {
            inner.answered.fetch_add(1, Ordering::Relaxed);
            (StatusCode::OK, page)
        }
        Err(why) => {
            inner.refused.fetch_add(1, Ordering::Relaxed);
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
        }
    }
}

impl Inner {
    /// The page, or why there is none.
    async fn page(&self) -> Result<String, String> {
        let tag = self.running().await?.unwrap_or_default();
        let marker = (self.settings.database)().ok_or("the database does not answer")?;
        Ok(format!(
            "<html><body data-tag=\"{tag}\" data-marker=\"{marker}\">shop</body></html>\n"
        ))
    }

    /// What runs a moment after this was called.
    async fn running(&self) -> Result<Seen, String> {
        let asked = Instant::now();
        // Whoever comes here while somebody looks waits in line; the first of them looks for all.
        let mut last = self.last.lock().await;
        if let Some(look) = last.as_ref().filter(|look| look.began > asked) {
            return look.seen.clone();
        }
        let began = Instant::now();
        let seen = match (self.look().await, last.take()) {
            (Ok(seen), _) => seen,
            (Err(_), Some(before)) => before.seen,
            (Err(error), None) => Err(error.to_string()),
        };
        *last = Some(Look {
            began,
            seen: seen.clone(),
        });
        seen
    }

    /// What runs, or why nothing does; an error when the API does not say.
    async fn look(&self) -> anyhow::Result<Result<Seen, String>> {
        let mut running = None;
        for (space, own) in &self.settings.deployments {
            let found = self
                .cluster
                .get("apps/v1", "Deployment", space, own)
                .await?;
            let Some(found) = found else {
                return Ok(Err(format!("no healthy upstream: {own} is off")));
            };
            if !is_available(&found) {
                return Ok(Err(format!("no healthy upstream: {own} is not available")));
            }
            if running.is_none() {
                running = self.tag(space, own).await?;
                if running.is_none() {
                    return Ok(Err(format!("no healthy upstream: {own} has no ready pod")));
                }
            }
        }
        if let Some((space, own)) = &self.settings.cluster {
            let kind = ("pgv2.percona.com/v2", "PerconaPGCluster");
            let found = self.cluster.get(kind.0, kind.1, space, own).await?;
            if found.unwrap_or_default()["status"]["state"] != "ready" {
                return Ok(Err("the database is not ready".to_owned()));
            }
        }
        Ok(Ok(running))
    }

    /// The tag of the pods that answer: while an upgrade does not come up these are the old ones.
    async fn tag(&self, space: &str, own: &str) -> anyhow::Result<Option<String>> {
        let pods = self.cluster.list("v1", "Pod").await?;
        let ready = pods.iter().find(|pod| {
            namespace(pod) == space
                && pod["metadata"]["ownerReferences"][0]["name"] == own
                && pod["status"]["conditions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
        });
        Ok(ready.map(|pod| {
            let image = pod["spec"]["containers"][0]["image"].as_str();
            tag(image.unwrap_or_default()).to_owned()
        }))
    }
}

fn is_available(deployment: &Value) -> bool {
    let conditions = deployment["status"]["conditions"].as_array();
    let mut all = conditions.into_iter().flatten();
    let available = all.any(|c| c["type"] == "Available" && c["status"] == "True");
    available && deployment["status"]["availableReplicas"].as_u64() > Some(0)
}
