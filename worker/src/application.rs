//! Whether an application answers, asked as its users do: by its URL, through the load balancer.
//!
//! The name in the URL need not lead to this cluster (yet): the connection goes to the load balancer's address,
//! and the name is what TLS and HTTP say, like `curl --resolve`. The certificate is verified for it, against the
//! host's authorities or those of REKINDLE_CA_FILE. `${DOMAIN}` is a secret of the recovery, so it is in no record
//! and in no error.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jobs::record::LoadBalancerRecord;
use jobs::spec::Application;
use reqwest::Url;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError};
use crate::sealed;
use crate::world::World;

/// What stands for the domain in a URL, and the name of its secret.
const DOMAIN: &str = "${DOMAIN}";
/// Making the connection.
const CONNECT: Duration = Duration::from_secs(15);
/// The answer, to its end.
const ANSWER: Duration = Duration::from_secs(30);
/// What is read of a body, in bytes: what is expected must stand in the first of them.
const LARGEST: usize = 2 << 20;
/// What an error shows of a body, in bytes.
const SHOWN: usize = 200;

/// An application answered as it should. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The URL as the spec has it.
    pub url: String,
    /// The address that was asked: the load balancer's, or the URL's own host.
    pub through: String,
    /// The HTTP status.
    pub status: u16,
    /// What was found in the body, if anything had to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// Asks an application of the job's cluster; `None` if the spec has no URL for it. What is not right yet is an
/// error that may be tried again: inside `ctx.wait` it counts as "not yet".
pub async fn ask(ctx: &Ctx, application: &Application) -> Result<Option<Answer>, JobError> {
    let Some(url) = &application.url else {
        return Ok(None);
    };
    let domain = match url.contains(DOMAIN) {
        true => Some(sealed::need(&sealed::secrets(ctx).await?, "DOMAIN")?.clone()),
        false => None,
    };
    let domain = domain.as_ref().map(|domain| domain.reveal().trim());
    let lb = Cluster::of(ctx).load_balancer().await?;
    answers(ctx.world(), lb.as_ref(), application, domain).await
}

/// The same with the load balancer (the URL's own host is asked without one) and the domain given.
pub async fn answers(
    world: &World,
    lb: Option<&LoadBalancerRecord>,
    application: &Application,
    domain: Option<&str>,
) -> Result<Option<Answer>, JobError> {
    let Some(template) = &application.url else {
        return Ok(None);
    };
    let shown = |text: String| match domain {
        Some(domain) if !domain.is_empty() => text.replace(domain, DOMAIN),
        _ => text,
    };
    let url = domain.map_or_else(|| template.clone(), |name| template.replace(DOMAIN, name));
    let url = Url::parse(&url).map_err(|error| {
        let name = &application.name;
        JobError::fatal(format!(
            "the url of application {name}, `{template}`: {error}"
        ))
    })?;
    let asked = tokio::time::timeout(CONNECT + ANSWER, get(world, lb, &url)).await;
    let asked = asked.unwrap_or_else(|_| Err(Failure::again("no answer in time".into())));
    let (through, status, body) = asked.map_err(|failure| {
        let text = shown(format!("GET {template}: {}", failure.text));
        match failure.fatal {
            true => JobError::fatal(text),
            false => JobError::retry(text),
        }
    })?;
    let text = String::from_utf8_lossy(&body);
    let wrong = |what: &str| {
        let begin: String = text.chars().take(SHOWN).collect();
        let begin = shown(begin.split_whitespace().collect::<Vec<_>>().join(" "));
        JobError::retry(format!("GET {template} through {through}: {what}: {begin}"))
    };
    if status != 200 {
        return Err(wrong(&format!("status {status} instead of 200")));
    }
    if let Some(expected) = &application.expect
        && !text.contains(expected.as_str())
    {
        return Err(wrong(&format!("`{expected}` is not in the answer")));
    }
    Ok(Some(Answer {
        url: template.clone(),
        through,
        status,
        found: application.expect.clone(),
    }))
}

/// Why nothing came back.
struct Failure {
    text: String,
    fatal: bool,
}

impl Failure {
    fn again(text: String) -> Self {
        Self { text, fatal: false }
    }

    fn fatal(text: String) -> Self {
        Self { text, fatal: true }
    }
}

/// One GET: where it went, the status, and the beginning of the body.
async fn get(
    world: &World,
    lb: Option<&LoadBalancerRecord>,
    url: &Url,
) -> Result<(String, u16, Vec<u8>), Failure> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    let through = lb.map_or_else(|| host.to_owned(), |lb| lb.address.ip.to_string());
    let stream = world.dialer.dial(&through, port, CONNECT).await;
    let stream = stream.map_err(|error| Failure::again(chain(&error)))?;
    let through = match lb {
        Some(_) => format!("{through}:{port}"),
        // It may have a domain in it, which is not to be recorded.
        None => "its own host".to_owned(),
    };
    let (status, body) = if url.scheme() == "https" {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|error| Failure::fatal(error.to_string()))?;
        let tls = TlsConnector::from(Arc::new(trust(world.ca_file.as_deref())?));
        let stream = tls.connect(name, stream).await;
        let stream = stream.map_err(|error| Failure::again(format!("TLS: {}", chain(&error))))?;
        exchange(stream, url).await?
    } else {
        exchange(stream, url).await?
    };
    Ok((through, status, body))
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

/// A request and its answer over a connection that is used for nothing else.
async fn exchange<S>(stream: S, url: &Url) -> Result<(u16, Vec<u8>), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Failure::again(chain(&error));
    let host = url.host_str().unwrap_or_default();
    let host = url
        .port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, "rekindle")
        .header(ACCEPT, "*/*")
        .body(String::new())
        .map_err(|error| Failure::fatal(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        let body = beginning(answer).await.map_err(broken)?;
        Ok((status, body))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // What came before the end is with the answer.
            Ok(()) => answer.await,
            Err(error) => Err(broken(error)),
        },
    }
}

/// The beginning of a body.
async fn beginning(answer: Response<Incoming>) -> Result<Vec<u8>, hyper::Error> {
    let (mut body, mut text) = (answer.into_body(), Vec::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() >= LARGEST {
            break;
        }
    }
    Ok(text)
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

#[cfg(test)]
#[path = "application_tests.rs"]
mod tests;
