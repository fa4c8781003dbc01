//! The wire: one HTTP/1 listener on the loopback interface, and the place where faults strike and a tap
//! listens.
//!
//! hyper is driven by hand, because a fault must be able to end a connection without any answer.

use std::fmt;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Query;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::api::{self, Call};
use super::faults::{Action, Hit};
use super::refusal::{Code, Refusal};
use super::route::{Route, call_name, route};
use super::sim::{Asked, Inner};
use crate::hosts::simulated::Cut;

const LARGEST_BODY: usize = 1 << 20;

/// Accepts until the simulator is dropped.
pub(super) async fn serve(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let for_connection = inner.clone();
        inner.spawn(async move {
            let service = service_fn(|request| one(for_connection.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("simulated cloud: connection ended: {error}");
            }
        });
    }
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

async fn one(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), LARGEST_BODY).await else {
        return Err(Broken);
    };
    let tap = inner.tapped();
    let name = call_name(head.method.as_str(), head.uri.path());
    let ticket = match &tap {
        Some(tap) => tap.before(&name).await?,
        None => 0,
    };
    sleep(inner.options.latency).await;
    let text = |name: &str| Some(head.headers.get(name)?.to_str().ok()?.to_owned());
    let mut asked = Asked {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        key: text("idempotency-key"),
        status: None,
        faulty: false,
    };
    let query = Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
    let call = Call {
        method: asked.method.clone(),
        path: asked.path.clone(),
        query: query.map(|query| query.0).unwrap_or_default(),
        key: asked.key.clone(),
        body: Value::Null,
        hide_newest: false,
        empty_page: false,
    };
    let route = route(&head.method, head.uri.path());
    let let_in = let_in(&inner, route, text(AUTHORIZATION.as_str()));
    let answered = match let_in {
        Ok(route) => perform(&inner, &route, call, &body, &mut asked).await,
        Err(refusal) => {
            asked.status = Some(refusal.status);
            Ok(refuse(&refusal))
        }
    };
    inner.note(asked);
    if let Some(tap) = &tap {
        tap.after(ticket).await?;
    }
    answered
}

/// Everything but the way to a token wants a token.
fn let_in(
    inner: &Inner,
    route: Option<Route>,
    authorization: Option<String>,
) -> Result<Route, Refusal> {
    let token = authorization
        .as_deref()
        .and_then(|header| header.strip_prefix("Bearer "));
    let is_known = token.is_some_and(|token| inner.iam.knows(token));
    if !is_known && route != Some(Route::Token) {
        let why = "The token is invalid or has expired";
        return Err(Refusal::new(Code::Unauthenticated, why));
    }
    route.ok_or_else(|| Refusal::new(Code::NotFound, "Not Found"))
}

/// What is asked, with what goes wrong before or after it.
async fn perform(
    inner: &Arc<Inner>,
    route: &Route,
    mut call: Call,
    body: &[u8],
    asked: &mut Asked,
) -> Result<Response<Body>, Broken> {
    let hit = inner.faults.hit(&call.method, &call.path);
    asked.faulty = hit.is_some();
    let action = hit.as_ref().map(|hit| &hit.action);
    call.hide_newest = matches!(action, Some(Action::HideNewest));
    call.empty_page = matches!(action, Some(Action::EmptyPage));
    if let Some(Action::Delay(by)) = action {
        sleep(*by).await;
    }
    let (before, after): (Option<Hit>, Option<Hit>) = match hit {
        Some(hit) if hit.after => (None, Some(hit)),
        hit => (hit, None),
    };
    if let Some(Hit { action, .. }) = before
        && !matches!(action, Action::Delay(_))
    {
        return spoil(&action, Response::new(Body::empty())).await;
    }
    let answer = match parse(body) {
        Ok(body) => api::handle(inner, route, &Call { body, ..call }),
        Err(refusal) => Err(refusal),
    };
    let truth = match answer {
        Ok(body) => respond(200, &body),
        Err(refusal) => refuse(&refusal),
    };
    asked.status = Some(truth.status().as_u16());
    match after {
        Some(hit) => spoil(&hit.action, truth).await,
        None => Ok(truth),
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let parsed = serde_json::from_slice(body);
    parsed.map_err(|error| Refusal::invalid(format!("The body is no JSON: {error}")))
}

/// Does to an answer what the fault says.
async fn spoil(action: &Action, truth: Response<Body>) -> Result<Response<Body>, Broken> {
    match action {
        Action::Refuse(refusal) => Ok(refuse(refusal)),
        Action::Hang => std::future::pending().await,
        Action::Cut => Err(Broken),
        Action::Malformed => {
            let (head, body) = truth.into_parts();
            let bytes = to_bytes(body, usize::MAX).await.map_err(|_| Broken)?;
            let half = bytes.slice(..bytes.len().div_ceil(2));
            Ok(Response::from_parts(head, Body::from(half)))
        }
        Action::EmptyPage | Action::HideNewest | Action::Delay(_) => Ok(truth),
    }
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = respond(refusal.status, &refusal.body());
    if let Some(seconds) = refusal.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn respond(status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
