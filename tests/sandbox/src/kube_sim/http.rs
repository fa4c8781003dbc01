//! The wire: TLS with client certificates, HTTP/1 by hand, and the place where faults strike and a tap
//! listens.

use std::fmt;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Query;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::access::User;
use super::answer::{Answer, answer};
use super::call::Call;
use super::faults::Strike;
use super::refusal::Refusal;
use crate::hosts::simulated::Cut;

/// As the real one: more is refused.
const LARGEST_BODY: usize = 3 << 20;

/// How somebody came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// By the port on this machine, as operators and tests do.
    Port,
    /// By a stream of its own, as workers do through a master. A tap listens here, and to those who come
    /// with a token: what operators do is no call of a job.
    Stream,
}

/// Accepts connections until `life` ends.
pub(super) async fn listen(inner: Arc<Inner>, listener: TcpListener, life: CancellationToken) {
    life.clone()
        .run_until_cancelled_owned(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                tokio::spawn(serve(inner.clone(), stream, life.clone(), Door::Port));
            }
        })
        .await;
}

/// Serves one connection until it or `life` ends.
pub(super) async fn serve<S>(inner: Arc<Inner>, stream: S, life: CancellationToken, door: Door)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let serving = async {
        let stream = match inner.tls.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!("simulated Kubernetes: no TLS: {error}"),
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let user = certificates
            .first()
            .and_then(|der| User::of_certificate(der));
        let user = user.unwrap_or_else(User::anonymous);
        let service = service_fn(|request| one(inner.clone(), user.clone(), door, request));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!("simulated Kubernetes: connection ended: {error}");
        }
    };
    life.run_until_cancelled(serving).await;
}

/// Ends the connection without an answer.
#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut by a fault")
    }
}

impl std::error::Error for Broken {}

impl From<Cut> for Broken {
    fn from(_: Cut) -> Self {
        Self
    }
}

async fn one(
    inner: Arc<Inner>,
    user: User,
    door: Door,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let header = |name| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let query = Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
    let query = query.map(|query| query.0).unwrap_or_default();
    let path = head.uri.path().to_owned();
    let Ok(body) = to_bytes(Body::new(body), LARGEST_BODY).await else {
        let text = format!("limit is {LARGEST_BODY}");
        return Ok(render(
            Refusal::new(413, "RequestEntityTooLarge", text).into(),
        ));
    };
    // A token says more than a certificate does, and one that nobody knows is refused.
    let authorization = header(AUTHORIZATION);
    let holder = authorization
        .strip_prefix("Bearer ")
        .and_then(|token| inner.holder(token));
    let by_token = holder.is_some();
    if !authorization.is_empty() && !by_token {
        return Ok(render(
            Refusal::new(401, "Unauthorized", "Unauthorized").into(),
        ));
    }
    let user = holder.unwrap_or(user);
    let call = Call {
        method: head.method.clone(),
        query,
        content_type: header(CONTENT_TYPE),
        agent: header(USER_AGENT),
        user,
        body,
        path,
    };
    let tapped = door == Door::Stream || by_token;
    let tap = inner.tapped().filter(|_| tapped);
    let ticket = match &tap {
        Some(tap) => tap.before(&inner.name(&call)).await?,
        None => 0,
    };
    let answer = perform(&inner, &call, door).await?;
    if let Some(tap) = &tap {
        tap.after(ticket).await?;
    }
    Ok(render(answer))
}

/// What is asked, with what goes wrong before or after it.
async fn perform(inner: &Inner, call: &Call, door: Door) -> Result<Answer, Broken> {
    let strike = inner.faults.strike(call.method.as_str(), &call.path);
    let suffered = match &strike {
        Some((strike, false)) => suffer(strike).await?,
        _ => None,
    };
    if let Some(refusal) = suffered {
        inner.note(call, refusal.code, false, door);
        return Ok(refusal);
    }
    let done = answer(&mut inner.state(), call);
    inner.note(call, done.code, true, door);
    let suffered = match &strike {
        Some((strike, true)) => suffer(strike).await?,
        _ => None,
    };
    Ok(suffered.unwrap_or(done))
}

async fn suffer(strike: &Strike) -> Result<Option<Answer>, Broken> {
    match strike {
        Strike::Refuse(refusal) => Ok(Some(refusal.clone().into())),
        Strike::Cut => Err(Broken),
        Strike::Hang => std::future::pending().await,
        Strike::Slow(so_long) => {
            tokio::time::sleep(*so_long).await;
            Ok(None)
        }
    }
}

fn render(answer: Answer) -> Response<Body> {
    let mut response = Response::builder()
        .status(answer.code)
        .header(CONTENT_TYPE, answer.content_type);
    if let Some(seconds) = answer.retry_after {
        response = response.header(RETRY_AFTER, seconds);
    }
    response
        .body(Body::from(answer.body))
        .expect("the parts are fixed texts and numbers")
}
