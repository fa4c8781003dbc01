//! The server: it listens on loopback, and each connection is a task.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::connection::{Target, serve};
use super::data::Disks;
use crate::ca::Signed;

/// A PostgreSQL that listens. Dropping it ends all its connections.
#[derive(Debug)]
pub struct Server {
    port: u16,
    task: JoinHandle<()>,
}

/// Its certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

impl Server {
    /// Serves what lies on a disk, for as long as PostgreSQL runs on it.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(disks: &Disks, disk: &str, tls: Tls) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listen")?;
        let port = listener.local_addr()?.port();
        let target = Target {
            disks: disks.clone(),
            disk: disk.to_owned(),
        };
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(serve(stream, target.clone(), tls.clone()));
                    }
                    // A connection that broke is the client's business.
                    Some(_) = connections.join_next() => {}
                    else => return,
                }
            }
        });
        Ok(Self { port, task })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tls {
    /// Serves with a certificate.
    ///
    /// # Errors
    /// When it is none, or the key is not its own.
    pub fn new(signed: &Signed) -> anyhow::Result<Self> {
        let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self {
            acceptor,
            certificate,
        })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    pub(super) fn certificate(&self) -> &[u8] {
        self.certificate.as_ref()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
