//! The HTTP client: whom it trusts, and how long it waits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::DownloadError;

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// How to reach servers.
#[derive(Debug, Clone)]
pub struct Network {
    /// Tries in a row that bring not one byte, before we give up.
    pub tries: u32,
    /// Certificate authorities to trust instead of the host's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Who we are for registries, as docker's `config.json` has it.
    pub auth_file: Option<PathBuf>,
}

/// An HTTP client that verifies certificates and follows no redirect.
pub(crate) fn agent(network: &Network) -> Result<Agent, DownloadError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = match &network.ca_file {
        None => RootCerts::PlatformVerifier,
        Some(path) => RootCerts::new_with_certs(&read_certificates(path).map_err(|source| {
            DownloadError::Certificates {
                path: path.clone(),
                source,
            }
        })?),
    };
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(roots)
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("rekindle-runner/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .build();
    Ok(config.new_agent())
}

fn read_certificates(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path)?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
        .collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err(io::Error::other("there is no certificate in it"));
    }
    Ok(certificates)
}
