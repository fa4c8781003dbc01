//! One virtual user's HTTP client: HTTP/1.1, over a connection that is kept. It follows no redirects.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request as HttpRequest, StatusCode, Uri, header};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::network::Network;
use crate::samples::Request;

/// After this time k6 gives a request up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Client {
    network: Arc<Network>,
    /// A connection that can be used again: all requests go to one place.
    open: Option<SendRequest<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

/// What became of a request.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The status; nothing when there was no answer.
    pub(crate) status: Option<u16>,
    /// The request as it counts. There is none when the URL is no URL.
    pub(crate) request: Option<Request>,
    /// Why there was no answer.
    pub(crate) error: Option<String>,
}

impl Client {
    pub(crate) fn new(network: Arc<Network>) -> Self {
        let open = None;
        Self { network, open }
    }

    /// Gets a URL. Whatever is not 200 has failed.
    pub(crate) async fn get(&mut self, url: &str) -> Answer {
        let mut answer = Answer::default();
        let parsed = url.parse::<Uri>().ok();
        let of = parsed.and_then(|url| Some((Origin::of(&url)?, url)));
        let Some((origin, url)) = of else {
            answer.error = Some("invalid URL".to_owned());
            return answer;
        };
        let mut request = Request::default();
        let asked = timeout(PATIENCE, self.ask(&origin, &url, &mut request)).await;
        match asked.unwrap_or_else(|_| Err("request timeout".to_owned())) {
            Ok(status) => answer.status = Some(status.as_u16()),
            Err(why) => answer.error = Some(why),
        }
        request.failed = answer.status != Some(200);
        answer.request = Some(request);
        answer
    }

    /// One request. A connection that the server has ended meanwhile is replaced.
    async fn ask(
        &mut self,
        origin: &Origin,
        url: &Uri,
        request: &mut Request,
    ) -> Result<StatusCode, String> {
        if let Some(mut kept) = self.open.take()
            && kept.ready().await.is_ok()
            && let Ok(status) = exchange(&mut kept, origin, url, request).await
        {
            self.open = Some(kept);
            return Ok(status);
        }
        *request = Request::default();
        let mut open = self.connect(origin, request).await?;
        let status = exchange(&mut open, origin, url, request).await?;
        self.open = Some(open);
        Ok(status)
    }

    async fn connect(
        &self,
        origin: &Origin,
        request: &mut Request,
    ) -> Result<SendRequest<String>, String> {
        let Origin { tls, host, port } = origin;
        let began = Instant::now();
        let stream = self.network.connect(host, *port).await;
        let stream = stream.map_err(|why| format!("dial tcp {host}:{port}: {why}"))?;
        request.connecting = milliseconds(began);
        let sender = if *tls {
            let began = Instant::now();
            let name = ServerName::try_from(host.clone()).map_err(|why| why.to_string())?;
            let connector = TlsConnector::from(Arc::clone(&self.network.tls));
            let stream = connector.connect(name, stream).await;
            let stream = stream.map_err(|why| format!("tls: {why}"))?;
            request.tls = milliseconds(began);
            speak(stream).await?
        } else {
            speak(stream).await?
        };
        request.blocked = milliseconds(began);
        Ok(sender)
    }
}

async fn speak<S>(stream: S) -> Result<SendRequest<String>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|why| why.to_string())?;
    // Its error is that of the request, too.
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends a request and reads its answer to the end.
async fn exchange(
    sender: &mut SendRequest<String>,
    origin: &Origin,
    url: &Uri,
    request: &mut Request,
) -> Result<StatusCode, String> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let asked = HttpRequest::get(path)
        .header(header::HOST, origin.authority())
        .header(header::USER_AGENT, "k6/2.2.0 (https://k6.io/)")
        .body(String::new())
        .map_err(|why| why.to_string())?;
    request.sent = head_size(asked.headers()) + path.len() as u64;
    let began = Instant::now();
    let answered = sender.send_request(asked).await;
    request.waiting = milliseconds(began);
    let answered = answered.map_err(|why| why.to_string())?;
    request.received = head_size(answered.headers());
    let status = answered.status();
    let mut body = answered.into_body();
    let began = Instant::now();
    while let Some(piece) = piece(&mut body).await {
        request.received += piece.map_err(|why| why.to_string())?;
    }
    request.receiving = milliseconds(began);
    Ok(status)
}

/// The size of the next piece of a body.
async fn piece(body: &mut Incoming) -> Option<Result<u64, hyper::Error>> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.data_ref().map_or(0, |data| data.len() as u64)))
}

/// What a head takes on the wire, beside its first line.
fn head_size(headers: &http::HeaderMap) -> u64 {
    let lines = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    lines.sum::<usize>() as u64 + 2
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

impl Origin {
    fn of(url: &Uri) -> Option<Self> {
        let tls = match url.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = url.host()?.to_owned();
        Some(Self { tls, host, port })
    }

    /// As the header `Host` names it.
    fn authority(&self) -> String {
        match (self.tls, self.port) {
            (false, 80) | (true, 443) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_port_is_not_named() {
        let authority = |url: &str| Origin::of(&url.parse().expect(url)).map(|o| o.authority());
        assert_eq!(authority("http://a/").as_deref(), Some("a"));
        assert_eq!(authority("https://a:80/").as_deref(), Some("a:80"));
        assert_eq!(authority("ftp://a/"), None);
        assert_eq!(authority("undefined"), None);
    }
}
