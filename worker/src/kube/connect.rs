//! A connection to the API server: the way there, and TLS verified at its end.
//!
//! This is what hyper asks for a new connection when it has none that is open, so a connection that
//! ended is dialled again with the next request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::tunnel::{CONNECT, Way};
use crate::engine::JobError;
use crate::net::{DialError, at};

/// Why there is no connection to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server of a kubeconfig cannot be reached.
    #[error("reach the Kubernetes API")]
    Dial(#[source] DialError),
    /// Something is wrong on the way to a master, and another master is no answer to it.
    #[error("reach the Kubernetes API through {master}: {error}")]
    Master {
        /// The master.
        master: String,
        /// What is wrong, and whether another try may help.
        error: JobError,
    },
    /// No master leads to an API server at the moment.
    #[error("reach the Kubernetes API: {}", if tried.is_empty() { "the cluster has no master".to_owned() } else { tried.join("; ") })]
    NoMaster {
        /// The masters, and what each one said.
        tried: Vec<String>,
    },
    /// The server is not the one of this cluster. Never retried.
    #[error("trust the Kubernetes API at {target}")]
    Untrusted {
        /// Where it is.
        target: String,
        /// What is wrong with its certificate.
        source: rustls::Error,
    },
    /// TLS did not come about.
    #[error("begin TLS with the Kubernetes API at {target}")]
    Tls {
        /// Where it is.
        target: String,
        /// Why.
        source: io::Error,
    },
}

impl ConnectError {
    /// A person has to look: the server is somebody else.
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Untrusted { .. })
    }
}

/// Makes connections for hyper.
#[derive(Clone)]
pub(super) struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    way: Way,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Connector {
    pub(super) fn new(way: Way, tls: Arc<rustls::ClientConfig>, name: ServerName<'static>) -> Self {
        let tls = TlsConnector::from(tls);
        Self {
            inner: Arc::new(Inner { way, tls, name }),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Channel>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.connect().await.map(TokioIo::new) })
    }
}

impl Inner {
    async fn connect(&self) -> Result<Channel, ConnectError> {
        let tunnels = match &self.way {
            Way::Direct { dialer, host, port } => {
                let stream = dialer.dial(host, *port, CONNECT).await;
                let stream = stream.map_err(ConnectError::Dial)?;
                return self.secure(Box::new(stream), at(host, *port)).await;
            }
            Way::Tunnel(tunnels) => tunnels,
        };
        let mut tried = Vec::new();
        for master in tunnels.candidates() {
            let channel = match tunnels.open(&master).await? {
                Ok(channel) => channel,
                Err(silent) => {
                    tried.push(format!("{}: {}", master.name, chain(&silent)));
                    continue;
                }
            };
            match self.secure(Box::new(channel), master.name.clone()).await {
                Ok(channel) => {
                    tunnels.worked(&master);
                    return Ok(channel);
                }
                // A server that hangs up or says nothing is one that is just starting or dying.
                Err(ConnectError::Tls { source, .. }) => {
                    tried.push(format!("{}: begin TLS: {source}", master.name));
                }
                Err(wrong) => return Err(wrong),
            }
        }
        Err(ConnectError::NoMaster { tried })
    }

    async fn secure(
        &self,
        stream: Box<dyn Stream>,
        target: String,
    ) -> Result<Channel, ConnectError> {
        let handshake = self.tls.connect(self.name.clone(), stream);
        match tokio::time::timeout(CONNECT, handshake).await {
            Ok(Ok(tls)) => Ok(Channel(tls)),
            Ok(Err(source)) => Err(match wrong_certificate(&source) {
                Some(source) => ConnectError::Untrusted { target, source },
                None => ConnectError::Tls { target, source },
            }),
            Err(_) => {
                let source = io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {CONNECT:?}"),
                );
                Err(ConnectError::Tls { target, source })
            }
        }
    }
}

/// What rustls has against the server's certificate, if that is what went wrong.
fn wrong_certificate(error: &io::Error) -> Option<rustls::Error> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let wrong = matches!(
        tls,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
    );
    wrong.then(|| tls.clone())
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What bytes flow through below TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A secured connection. The SSH connection below it lives as long as it does.
pub(super) struct Channel(TlsStream<Box<dyn Stream>>);

impl Connection for Channel {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
