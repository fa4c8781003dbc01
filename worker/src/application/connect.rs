//! Connections to an application, as its users make them: its name in TLS and HTTP, and the load balancer's address.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jobs::record::LoadBalancerRecord;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::Target;
use crate::net::Dialer;
use crate::world::World;

/// Making the connection, without TLS.
pub const CONNECT: Duration = Duration::from_secs(15);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub(super) text: String,
    /// Whether another try is of no use.
    pub(super) fatal: bool,
}

impl Failure {
    pub(super) fn again(text: String) -> Self {
        Self { text, fatal: false }
    }

    fn fatal(text: String) -> Self {
        Self { text, fatal: true }
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Unanswered {
    pub(super) text: String,
    /// Whether it never left: the connection was at its end before. To ask again over another one is to ask once.
    pub unsent: bool,
}

/// The way to an application. Any number of connections may go it.
#[derive(Clone)]
pub struct Way {
    dialer: Dialer,
    /// What is dialled: the load balancer's address, or the URL's own host.
    address: String,
    port: u16,
    through: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    request: Request<String>,
}

impl Way {
    /// The way through the load balancer; to the URL's own host without one.
    pub fn new(
        world: &World,
        lb: Option<&LoadBalancerRecord>,
        target: &Target,
    ) -> Result<Self, Failure> {
        let url = target.url();
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        let address = lb.map_or_else(|| host.to_owned(), |lb| lb.address.ip.to_string());
        let through = match lb {
            Some(_) => format!("{address}:{port}"),
            // It may have a domain in it, which is not to be recorded.
            None => "its own host".to_owned(),
        };
        let tls = match url.scheme() {
            "https" => {
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
                let name = name.map_err(|error| Failure::fatal(error.to_string()))?;
                let mut trust = trust(world.ca_file.as_deref())?;
                // Each connection is that of another visitor.
                trust.resumption = Resumption::disabled();
                Some((TlsConnector::from(Arc::new(trust)), name))
            }
            _ => None,
        };
        let named = url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let request = Request::get(path)
            .header(HOST, named)
            .header(USER_AGENT, "rekindle")
            .header(ACCEPT, "*/*")
            .body(String::new())
            .map_err(|error| Failure::fatal(error.to_string()))?;
        Ok(Self {
            dialer: world.dialer.clone(),
            address,
            port,
            through,
            tls,
            request,
        })
    }

    /// Where it leads, for records: never holds the domain.
    pub fn through(&self) -> &str {
        &self.through
    }

    /// GET of the target.
    pub fn request(&self) -> Request<String> {
        self.request.clone()
    }

    /// Makes a connection.
    pub async fn open(&self) -> Result<Open, Failure> {
        let stream = self.dialer.dial(&self.address, self.port, CONNECT).await;
        let stream = stream.map_err(|error| Failure::again(chain(&error)))?;
        match &self.tls {
            None => Open::over(stream).await,
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await;
                let stream =
                    stream.map_err(|error| Failure::again(format!("TLS: {}", chain(&error))))?;
                Open::over(stream).await
            }
        }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({})", self.through)
    }
}

/// An open connection, that is used as long as it holds.
pub struct Open {
    sender: http1::SendRequest<String>,
    /// What moves the bytes; nothing when it has come to its end.
    moving: Option<Moving>,
}

/// It ends with the connection.
type Moving = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

impl Open {
    async fn over<S>(stream: S) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, moving) = shaken.map_err(|error| Failure::again(chain(&error)))?;
        Ok(Self {
            sender,
            moving: Some(Box::pin(moving)),
        })
    }

    /// Whether another request can go this way, as far as one knows.
    pub fn is_open(&self) -> bool {
        self.moving.is_some() && !self.sender.is_closed()
    }

    /// Sends a request and reads its answer. After an error the connection is of no use any more.
    pub async fn ask<T, F, Fut>(
        &mut self,
        request: Request<String>,
        read: F,
    ) -> Result<T, Unanswered>
    where
        F: FnOnce(Response<Incoming>) -> Fut,
        Fut: Future<Output = Result<T, hyper::Error>>,
    {
        let broken = |error: hyper::Error, unsent| Unanswered {
            text: chain(&error),
            unsent,
        };
        let sent = self.sender.try_send_request(request);
        let answer = async move {
            match sent.await {
                Ok(answer) => read(answer).await.map_err(|error| broken(error, false)),
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    Err(broken(error.into_error(), unsent))
                }
            }
        };
        tokio::pin!(answer);
        let Some(moving) = &mut self.moving else {
            return answer.await;
        };
        let ended = tokio::select! {
            biased;
            answer = &mut answer => return answer,
            ended = moving => ended,
        };
        // What waits for a connection that is gone is told so when it is dropped.
        self.moving = None;
        match ended {
            // What came before the end is with the answer.
            Ok(()) => answer.await,
            Err(error) => Err(broken(error, false)),
        }
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Open");
        shown.field("open", &self.is_open()).finish_non_exhaustive()
    }
}

/// Who is trusted.
fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |error: rustls::Error| Failure::fatal(format!("set up TLS: {error}"));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let Some(file) = ca_file else {
        let builder = builder.with_platform_verifier().map_err(unusable)?;
        return Ok(builder.with_no_client_auth());
    };
    let unreadable = |reason: String| {
        Failure::fatal(format!("REKINDLE_CA_FILE, `{}`: {reason}", file.display()))
    };
    let pem = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unreadable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unreadable("it holds no certificate in PEM".into())),
        false => Ok(builder.with_root_certificates(roots).with_no_client_auth()),
    }
}

/// An error and its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    texts.join(": ")
}
