//! Talking to a registry: the pull half of OCI's distribution specification.
//!
//! What keeps the credentials where they belong:
//! - user and password go to the registry itself, and to the token service that it names, by TLS;
//! - a token goes to the registry itself; whoever it redirects to gets none;
//! - from https nothing leads to http.

use std::io::{self, Read};
use std::thread;

use serde::Deserialize;
use ureq::http::{HeaderValue, Response, Uri, header};
use ureq::{Agent, Body};

use super::Repository;
use super::challenge::Challenge;
use super::credentials::Credentials;
use super::document::Blob;
use crate::digest::Digest;
use crate::image::download::{Origin, agent, call, pause, ranged};
use crate::image::{DownloadError, Network, Source, is_loopback};

/// How often a registry may send us elsewhere for one object.
const REDIRECTS: u32 = 5;
/// The longest answer of a token service, in bytes.
const TOKEN_MAX: u64 = 1 << 20;

/// A repository, and how to be let in.
pub(super) struct Registry {
    agent: Agent,
    repository: Repository,
    base: String,
    credentials: Option<Credentials>,
    authorization: Option<HeaderValue>,
    tries: u32,
}

impl Registry {
    pub(super) fn new(repository: &Repository, network: &Network) -> Result<Self, DownloadError> {
        let credentials = match &network.auth_file {
            Some(path) => Credentials::find(path, repository)?,
            None => None,
        };
        Ok(Self {
            agent: agent(network)?,
            base: repository.base(),
            repository: repository.clone(),
            credentials,
            authorization: None,
            tries: network.tries.max(1),
        })
    }

    /// A manifest or an index, by digest or tag: no more than `most` bytes.
    pub(super) fn manifest(
        &mut self,
        reference: &str,
        accept: &str,
        most: u64,
    ) -> Result<Vec<u8>, DownloadError> {
        let url = format!("{}/manifests/{reference}", self.base);
        self.document(&url, accept, most)
    }

    /// A small blob.
    pub(super) fn small(&mut self, blob: &Blob) -> Result<Vec<u8>, DownloadError> {
        let url = self.blob_url(&blob.digest);
        self.document(&url, "*/*", blob.size)
    }

    /// A large blob, to be read as it comes.
    pub(super) fn large(&mut self, digest: &Digest) -> LargeBlob<'_> {
        LargeBlob {
            url: self.blob_url(digest),
            registry: self,
        }
    }

    fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.base)
    }

    fn document(&mut self, url: &str, accept: &str, most: u64) -> Result<Vec<u8>, DownloadError> {
        let mut failures = 0;
        loop {
            let received = self
                .get(url, accept, 0)
                .and_then(|response| whole(response, url, most));
            let source = match received {
                Ok(text) => return Ok(text),
                Err(error) => match error.downcast::<DownloadError>() {
                    Ok(error) => return Err(error),
                    Err(error) => error,
                },
            };
            failures += 1;
            if failures >= self.tries {
                return Err(DownloadError::GaveUp {
                    url: url.to_owned(),
                    tries: failures,
                    source,
                });
            }
            thread::sleep(pause(failures));
        }
    }

    /// Asks, proves who we are if asked, and goes where the registry sends us.
    fn get(&mut self, url: &str, accept: &str, from: u64) -> io::Result<Response<Body>> {
        let home: Uri = url.parse().map_err(io::Error::other)?;
        let mut uri = home.clone();
        let (mut redirects, mut proved) = (0, false);
        loop {
            let mut request = self.agent.get(uri.clone()).header(header::ACCEPT, accept);
            let at_home = same_place(&uri, &home);
            if at_home && let Some(authorization) = &self.authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let response = call(ranged(request, from))?;
            match response.status().as_u16() {
                401 if at_home && !proved => {
                    proved = true;
                    self.prove(&response, url)?;
                }
                status @ (401 | 403) => return Err(denied(url, status)),
                301 | 302 | 303 | 307 | 308 => {
                    redirects += 1;
                    let next = self.follow(&uri, &response);
                    uri = next
                        .filter(|_| redirects <= REDIRECTS)
                        .ok_or_else(|| redirect(url))?;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Where a redirect leads, if we go there.
    fn follow(&self, uri: &Uri, response: &Response<Body>) -> Option<Uri> {
        let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
        let place = format!("{}://{}", uri.scheme_str()?, uri.authority()?);
        let next: Uri = match location {
            // Both name the scheme of the page that they stand on, or its host, too.
            path if path.starts_with("//") => format!("{}:{path}", uri.scheme_str()?),
            path if path.starts_with('/') => format!("{place}{path}"),
            url => url.to_owned(),
        }
        .parse()
        .ok()?;
        self.may_call(&next).then_some(next)
    }

    /// Anything by TLS; without it, only this machine, and only for a registry that has none either.
    fn may_call(&self, uri: &Uri) -> bool {
        let Some(authority) = uri.authority() else {
            return false;
        };
        let allowed = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => !self.repository.is_secure() && is_loopback(authority.host()),
            _ => false,
        };
        allowed && !authority.as_str().contains('@')
    }

    /// Gets what the registry wants to see in the header `Authorization`.
    fn prove(&mut self, response: &Response<Body>, url: &str) -> io::Result<()> {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let proof = match Challenge::choose(headers.filter_map(|value| value.to_str().ok())) {
            None => return Err(denied(url, 401)),
            Some(Challenge::Basic) => match &self.credentials {
                None => return Err(denied(url, 401)),
                Some(credentials) => credentials.basic(),
            },
            Some(Challenge::Bearer { realm, service }) => {
                format!("Bearer {}", self.token(&realm, service.as_deref(), url)?)
            }
        };
        // What may not stand in a header is no token.
        let mut proof = HeaderValue::from_str(&proof).map_err(|_| denied(url, 401))?;
        proof.set_sensitive(true);
        self.authorization = Some(proof);
        Ok(())
    }

    /// Asks a token service for the right to pull from this repository, and for no other.
    fn token(&self, realm: &str, service: Option<&str>, url: &str) -> io::Result<String> {
        let uri: Uri = realm.parse().map_err(|_| denied(url, 401))?;
        if !self.may_call(&uri) {
            return Err(denied(url, 401));
        }
        let shown = Source::Http(uri.clone()).to_string();
        let scope = format!("repository:{}:pull", self.repository.name());
        let mut request = self.agent.get(uri).query("scope", scope);
        if let Some(service) = service {
            request = request.query("service", service);
        }
        if let Some(credentials) = &self.credentials {
            request = request.header(header::AUTHORIZATION, credentials.basic());
        }
        let response = call(request)?;
        match response.status().as_u16() {
            status @ (401 | 403) => return Err(denied(&shown, status)),
            300..=399 => return Err(redirect(&shown)),
            _ => {}
        }
        let text = whole(response, &shown, TOKEN_MAX)?;
        // Its error would repeat the token.
        let token: Token =
            serde_json::from_slice(&text).map_err(|_| io::Error::other("it sent no token"))?;
        let token = token.token.or(token.access_token);
        token.ok_or_else(|| io::Error::other("it sent no token"))
    }
}

/// What a token service answers; older ones have one name, newer ones another.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// A blob of a registry, as a download sees it.
pub(super) struct LargeBlob<'a> {
    registry: &'a mut Registry,
    url: String,
}

impl Origin for LargeBlob<'_> {
    fn get(&mut self, from: u64) -> io::Result<Response<Body>> {
        self.registry.get(&self.url, "*/*", from)
    }

    fn url(&self) -> String {
        self.url.clone()
    }
}

/// The body of an answer, of at most so many bytes.
fn whole(response: Response<Body>, url: &str, most: u64) -> io::Result<Vec<u8>> {
    let url = url.to_owned();
    match response.status().as_u16() {
        200 => {}
        status @ (408 | 429 | 500..=599) => {
            return Err(io::Error::other(format!("the server says {status}")));
        }
        status => return Err(io::Error::other(DownloadError::Status { url, status })),
    }
    let expected = response.body().content_length();
    let mut text = Vec::new();
    let mut body = response.into_body().into_reader().take(most + 1);
    body.read_to_end(&mut text)?;
    let length = text.len() as u64;
    if length > most {
        let bytes = most;
        return Err(io::Error::other(DownloadError::Size { url, bytes }));
    }
    match expected {
        Some(expected) if length < expected => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(text),
    }
}

fn denied(url: &str, status: u16) -> io::Error {
    let url = url.to_owned();
    io::Error::other(DownloadError::Denied { url, status })
}

fn redirect(url: &str) -> io::Error {
    let url = url.to_owned();
    io::Error::other(DownloadError::Redirect { url })
}

/// Whether two URLs are of one host, by one scheme and port.
fn same_place(a: &Uri, b: &Uri) -> bool {
    let place = |uri: &Uri| {
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        (secure, uri.host().map(str::to_ascii_lowercase), port)
    };
    place(a) == place(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(url: &str) -> Registry {
        let network = Network {
            tries: 1,
            ca_file: None,
            auth_file: None,
        };
        let repository = url.parse().expect("a repository");
        Registry::new(&repository, &network).expect("an agent")
    }

    fn uri(text: &str) -> Uri {
        text.parse().expect("a URI")
    }

    #[test]
    fn from_tls_nothing_leads_to_http() {
        let secure = registry("oci://127.0.0.1/a");
        assert!(secure.may_call(&uri("https://storage.example/x?y=z")));
        assert!(!secure.may_call(&uri("http://127.0.0.1/x")));
        assert!(!secure.may_call(&uri("http://storage.example/x")));
        let local = registry("oci+http://127.0.0.1:5000/a");
        assert!(local.may_call(&uri("https://storage.example/x")));
        assert!(local.may_call(&uri("http://localhost/x")));
        assert!(!local.may_call(&uri("http://storage.example/x")));
        assert!(!local.may_call(&uri("https://user@storage.example/x")));
        assert!(!local.may_call(&uri("/x")));
    }

    #[test]
    fn a_place_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_place(&uri(a), &uri(b));
        assert!(same("https://r.example/a", "https://R.example:443/b?c"));
        assert!(same("http://r.example:80/a", "http://r.example/"));
        assert!(!same("https://r.example/a", "http://r.example/a"));
        assert!(!same("https://r.example/a", "https://r.example:8443/a"));
        assert!(!same("https://r.example/a", "https://s.r.example/a"));
        assert!(!same(
            "https://r.example/a",
            "https://r.example.evil.example/a"
        ));
    }
}
