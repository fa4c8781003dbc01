//! A [`Client`] that connects our way, and neither retries nor waits for ever.
//!
//! kube's own stack of layers tries a refused request again fifteen times; here the engine alone
//! decides about that, so what the server says about waiting is kept in the error.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::kube::client::{Body, Client, ConfigExt};
use ::kube::config::Config;
use ::kube::core::Status;
use http::Response;
use http::header::RETRY_AFTER;
use hyper::body::{Body as _, Incoming};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use super::connect::Connector;
use super::error::{Busy, KubeError};
use super::kubeconfig::Kubeconfig;
use super::tunnel::{self, Masters, Tunnels, Way};
use crate::engine::JobError;
use crate::net::Dialer;

/// A server that sends nothing for so long is gone. It gives up a request itself after a minute.
const SILENCE: Duration = Duration::from_secs(45);

/// How much of a refusal is read, in bytes.
const LARGEST_REFUSAL: usize = 64 * 1024;

/// A client that goes straight to the server of the kubeconfig.
pub fn direct(config: &Kubeconfig, dialer: Dialer) -> Result<Client, KubeError> {
    let name = config.name_outside();
    let name = name.ok_or_else(|| KubeError::Setting {
        reason: format!("`{}` is no host name or address", config.host()),
    })?;
    let way = Way::Direct {
        dialer,
        host: config.host().to_owned(),
        port: config.port(),
    };
    build(config, way, name)
}

/// A client of the cluster that these masters are of, with the administrator's rights.
pub async fn administrator(masters: Arc<dyn Masters>) -> Result<Client, JobError> {
    let fetched = tunnel::fetch(masters.as_ref()).await?;
    let (config, first) = fetched.map_err(JobError::retry)?;
    Ok(tunnelled(&config, masters, first)?)
}

/// A client that asks the API servers on the loopback of the masters.
pub fn through_masters(
    config: &Kubeconfig,
    masters: Arc<dyn Masters>,
) -> Result<Client, KubeError> {
    tunnelled(config, masters, 0)
}

pub(super) fn tunnelled(
    config: &Kubeconfig,
    masters: Arc<dyn Masters>,
    first: usize,
) -> Result<Client, KubeError> {
    let way = Way::Tunnel(Tunnels::new(masters, first, config.port()));
    build(config, way, config.name_on_master())
}

fn build(config: &Kubeconfig, way: Way, name: ServerName<'static>) -> Result<Client, KubeError> {
    let mut connector = TimeoutConnector::new(Connector::new(way, config.tls(), name));
    connector.set_read_timeout(Some(SILENCE));
    connector.set_write_timeout(Some(SILENCE));
    // A connection that waits in the pool is not silent.
    connector.set_reset_reader_on_write(true);
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let mut settings = Config::new(config.server().clone());
    settings.auth_info.token = config.token().map(|token| token.reveal().to_owned().into());
    let authorization = settings.auth_layer().map_err(KubeError::from)?;
    let service = ServiceBuilder::new()
        .layer(settings.base_uri_layer())
        .option_layer(authorization)
        .service(http.map_err(BoxError::from).and_then(heed));
    Ok(Client::new(service, "default"))
}

/// Turns an answer that says when to come back into an error that says it too: kube keeps only the
/// body of a refusal.
async fn heed(answer: Response<Incoming>) -> Result<Response<Incoming>, BoxError> {
    let (parts, body) = answer.into_parts();
    let busy = parts.status.as_u16() == 429 || parts.status.is_server_error();
    let after = parts.headers.get(RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let Some(after) = after.filter(|_| busy).map(Duration::from_secs) else {
        return Ok(Response::from_parts(parts, body));
    };
    let text = beginning(body).await?;
    let status = serde_json::from_slice::<Status>(&text).map(|status| status.message);
    let message = status.unwrap_or_else(|_| String::from_utf8_lossy(&text).trim().to_owned());
    Err(Box::new(Busy {
        code: parts.status.as_u16(),
        message: message.chars().take(500).collect(),
        after,
    }))
}

/// The beginning of a body.
async fn beginning(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
        if text.len() > LARGEST_REFUSAL {
            break;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::net::Ipv4Addr;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::Again;

    /// A server that answers each connection's first request with `answer` and hangs up; what it was
    /// asked comes out of the channel. The client knows its certificate.
    async fn server(answer: &'static str) -> (Client, mpsc::Receiver<String>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, requests) = mpsc::channel(10);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = tls.accept(stream).await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                asked
                    .send(String::from_utf8(request).unwrap())
                    .await
                    .unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        let authority = BASE64.encode(certificate.pem());
        let text = format!(
            "{{kind: Config, current-context: a, contexts: [{{name: a, context: {{cluster: a, user: a}}}}], \
             clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:{port}', \
             certificate-authority-data: '{authority}'}}}}], users: [{{name: a, user: {{token: hunter2}}}}]}}"
        );
        let config = Kubeconfig::parse(&text, "a test").unwrap();
        (direct(&config, Dialer::direct()).unwrap(), requests)
    }

    async fn ask(client: &Client) -> Result<String, JobError> {
        let request = http::Request::get("/version").body(Vec::new()).unwrap();
        let answer = client.request_text(request).await;
        answer.map_err(|error| JobError::from(KubeError::request("ask", error)))
    }

    async fn fails(answer: &'static str, again: Again, text: &str) {
        let (client, mut requests) = server(answer).await;
        let error = ask(&client).await.unwrap_err();
        assert_eq!(error.again, again, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        // Whether to ask again is the engine's business.
        requests.recv().await.unwrap();
        assert!(requests.try_recv().is_err(), "it was asked twice");
    }

    #[tokio::test]
    async fn a_request_carries_the_token_and_brings_the_answer() {
        let (client, mut requests) =
            server("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine").await;
        assert_eq!(ask(&client).await.unwrap(), "fine");
        let request = requests.recv().await.unwrap();
        assert!(
            request.starts_with("GET /version HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("authorization: Bearer hunter2\r\n"),
            "{request}"
        );
    }

    #[tokio::test]
    async fn a_busy_server_says_when_to_come_back_and_is_not_asked_before() {
        let in_seven = Again::Retry {
            after: Some(Duration::from_secs(7)),
        };
        fails(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\ncontent-length: 17\r\n\r\nToo many requests",
            in_seven.clone(),
            "busy (429): Too many requests",
        )
        .await;
        fails(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\ncontent-length: 23\r\n\r\n{\"message\":\"not ready\"}",
            in_seven,
            "busy (503): not ready",
        )
        .await;
        // Without a time the engine chooses one.
        fails(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy",
            Again::Retry { after: None },
            "not able to (503)",
        )
        .await;
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_none() {
        let later = Again::Retry { after: None };
        fails("", later.clone(), "ask: ").await;
        fails(
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
            later,
            "ask: ",
        )
        .await;
    }
}
