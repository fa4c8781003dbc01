//! The same faults before any S3 server: a proxy that passes requests on as they were signed.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use http::header::CONNECTION;
use http::uri::{Authority, Scheme, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use s3s::{HttpRequest, HttpResponse};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::faults::S3Faults;
use super::front::{Backend, BoxError, Front, S3Stats};

/// Servers close idle connections after a few seconds; a request on such a one would be lost
/// without a fault.
const IDLE: Duration = Duration::from_secs(1);

/// A running proxy. Dropping it ends it too, but does not wait.
pub struct S3Proxy {
    front: Arc<Front<Upstream>>,
    address: SocketAddr,
    _stop_on_drop: DropGuard,
}

impl S3Proxy {
    /// Listens on a free port of the loopback interface, before the server at `upstream`
    /// (`http://HOST:PORT`).
    pub async fn start(upstream: &str) -> anyhow::Result<S3Proxy> {
        let uri: Uri = upstream.parse().context("parse the upstream's URL")?;
        let authority = uri
            .authority()
            .cloned()
            .context("the upstream has a host")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listen on the loopback interface")?;
        let address = listener.local_addr().context("read the address bound")?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        let stop = CancellationToken::new();
        let upstream = Upstream { client, authority };
        Ok(S3Proxy {
            front: Front::start(upstream, listener, stop.clone()),
            address,
            _stop_on_drop: stop.drop_guard(),
        })
    }

    /// The URL for clients; they need path-style addressing.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The switchboard of the faults; clone it freely.
    pub fn faults(&self) -> &S3Faults {
        &self.front.faults
    }

    /// What was counted until now.
    pub fn stats(&self) -> S3Stats {
        self.front.stats()
    }

    /// Cuts all connections, ends held requests and waits until the port is free.
    pub async fn stop(self) {
        self.front.stop().await;
    }
}

impl fmt::Debug for S3Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Proxy")
            .field("address", &self.address)
            .field("upstream", &self.front.backend.authority)
            .finish_non_exhaustive()
    }
}

/// The server behind.
struct Upstream {
    client: Client<HttpConnector, s3s::Body>,
    authority: Authority,
}

#[async_trait]
impl Backend for Upstream {
    async fn answer(&self, mut request: HttpRequest) -> Result<HttpResponse, BoxError> {
        // The header `Host` stays the client's: it is part of the signature.
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts)?;
        request.headers_mut().remove(CONNECTION);
        let mut response = self.client.request(request).await?;
        response.headers_mut().remove(CONNECTION);
        Ok(response.map(s3s::Body::from))
    }
}
