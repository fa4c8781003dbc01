//! The network of the load node: how it comes to an address.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

/// Read from `SANDBOX_PROXY` (`socks5h://address:port`; without it there is none), `SANDBOX_HOSTS` (what names lead to:
/// `name=address` or `name=address:port`, by commas) and `SANDBOX_CA` (certificates of those who are trusted, as PEM;
/// without it whom this machine trusts).
#[derive(Debug)]
pub(crate) struct Network {
    proxy: Option<String>,
    hosts: BTreeMap<String, Place>,
    pub(crate) tls: Arc<ClientConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    ip: IpAddr,
    port: Option<u16>,
}

impl Network {
    pub(crate) fn read(environment: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| environment.get(name).filter(|text| !text.is_empty());
        let proxy = text("SANDBOX_PROXY").map(|url| {
            let scheme = url.find("://").map_or(0, |at| at + 3);
            url[scheme..].trim_end_matches('/').to_owned()
        });
        Ok(Self {
            proxy,
            hosts: hosts(text("SANDBOX_HOSTS").map_or("", String::as_str))?,
            tls: Arc::new(tls(text("SANDBOX_CA").map(String::as_str))?),
        })
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let place = self.hosts.get(&host.to_ascii_lowercase());
        let port = place.and_then(|place| place.port).unwrap_or(port);
        let stream = match (&self.proxy, place) {
            (None, Some(place)) => TcpStream::connect(SocketAddr::new(place.ip, port)).await?,
            (None, None) => TcpStream::connect((host, port)).await?,
            (Some(proxy), place) => {
                let host = place.map_or_else(|| host.to_owned(), |place| place.ip.to_string());
                let through = Socks5Stream::connect(proxy.as_str(), (host.as_str(), port)).await;
                through.map_err(io::Error::other)?.into_inner()
            }
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn hosts(text: &str) -> Result<BTreeMap<String, Place>, String> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let places = pairs.map(|pair| {
        let bad = || format!("SANDBOX_HOSTS: {pair:?} is no name=address");
        let (name, at) = pair.split_once('=').ok_or_else(bad)?;
        let place = match (at.parse::<SocketAddr>(), at.parse::<IpAddr>()) {
            (Ok(at), _) => Place {
                ip: at.ip(),
                port: Some(at.port()),
            },
            (_, Ok(ip)) => Place { ip, port: None },
            _ => return Err(bad()),
        };
        Ok((name.to_ascii_lowercase(), place))
    });
    places.collect()
}

fn tls(authorities: Option<&str>) -> Result<ClientConfig, String> {
    let unusable = |error: rustls::Error| format!("set up TLS: {error}");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let Some(pem) = authorities else {
        let builder = builder.with_platform_verifier().map_err(unusable)?;
        return Ok(builder.with_no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("SANDBOX_CA: {error}"))?;
        roots.add(certificate).map_err(unusable)?;
    }
    match roots.is_empty() {
        true => Err("SANDBOX_CA: it holds no certificate in PEM".to_owned()),
        false => Ok(builder.with_root_certificates(roots).with_no_client_auth()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_addresses_with_or_without_a_port() {
        let all = hosts("A.example.org=127.0.0.1:8443,b=203.0.113.7").expect("hosts");
        let local = all["a.example.org"];
        assert_eq!(
            (local.ip, local.port),
            ([127, 0, 0, 1].into(), Some(8443))
        );
        assert_eq!(all["b"].port, None);
        assert!(hosts("a").is_err());
        assert!(hosts("a=b").is_err());
        assert!(hosts("").expect("none").is_empty());
    }
}
