//! The wire: one HTTP/1 listener on the loopback interface, and the place where faults strike.
//!
//! hyper is driven by hand instead of through axum's `serve`, because a fault must be able to
//! end a connection without any answer.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::api::{self, Query, Refusal, Reply};
use super::faults::{Action, Hit, Target};
use super::operation::{Route, route};
use super::sim::{Call, Inner};

const LARGEST_BODY: usize = 1 << 20;

/// Accepts until the simulator is dropped.
pub(super) async fn serve(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let for_connection = inner.clone();
        inner.spawn(async move {
            let service = service_fn(|request| answer(for_connection.clone(), request));
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
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut by a fault")
    }
}

impl std::error::Error for Cut {}

async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    sleep(inner.options.latency).await;
    let Ok(body) = to_bytes(Body::new(body), LARGEST_BODY).await else {
        return Err(Cut);
    };
    let authorized = head
        .headers
        .get(header::AUTHORIZATION)
        .is_some_and(|v| v.as_bytes() == format!("Bearer {}", inner.token).as_bytes());
    if !authorized {
        return Ok(refuse(
            &Refusal::new(401, "unauthorized", "Token is wrong or missing"),
            &path,
        ));
    }
    let Some(route) = route(&head.method, &path) else {
        return Ok(refuse(
            &Refusal::new(404, "not_found", "No such operation"),
            &path,
        ));
    };
    inner.count(route.operation);
    let body: Value = match body.len() {
        0 => Value::Null,
        _ => match serde_json::from_slice(&body) {
            Ok(body) => body,
            Err(_) => {
                let refusal = Refusal::new(400, "parse_error", "The body is not JSON");
                return Ok(refuse(&refusal, &path));
            }
        },
    };
    let names = api::names(&inner.world(), &route, &body);
    let hit = inner.faults.hit(&Target {
        operation: route.operation,
        method: head.method.as_str(),
        path: &path,
        names: &names,
    });
    if let Some(Hit { action, .. }) = &hit
        && let Action::Delay(by) = action
    {
        sleep(*by).await;
    }
    if let Some(hit) = hit.as_ref().filter(|hit| hit.before)
        && !matches!(hit.action, Action::Delay(_))
    {
        inner.record(call(&route, names, None, None, true));
        return spoil(hit, Response::new(Body::empty()), &path).await;
    }
    let query = Query::parse(
        head.uri.query().unwrap_or_default(),
        matches!(
            &hit,
            Some(Hit {
                action: Action::HideNewest,
                ..
            })
        ),
    );
    let outcome = api::handle(&inner, &route, &query, body);
    let faulty = hit.is_some();
    let (status, made, response) = match outcome {
        Ok(reply) => (reply.status, reply.made.clone(), respond(&reply)),
        Err(refusal) => (refusal.status, None, refuse(&refusal, &path)),
    };
    inner.record(call(&route, names, made, Some(status), faulty));
    match hit.filter(|hit| !hit.before) {
        Some(hit) => spoil(&hit, response, &path).await,
        None => Ok(response),
    }
}

fn call(
    route: &Route,
    names: Vec<String>,
    made: Option<String>,
    status: Option<u16>,
    faulty: bool,
) -> Call {
    let of_path = Some(route.id.clone()).filter(|id| !id.is_empty());
    // A rule is made below its balancer's path; its own id is worth more.
    let id = made.or(of_path);
    Call {
        operation: route.operation,
        names,
        id,
        status,
        faulty,
    }
}

/// Does to an answer what the fault says. The true one is dropped where it is not needed.
async fn spoil(hit: &Hit, truth: Response<Body>, path: &str) -> Result<Response<Body>, Cut> {
    match &hit.action {
        Action::Answer {
            status,
            retry_after,
        } => {
            let refusal = Refusal::new(*status, "fault", "The sandbox was told to fail here");
            let mut response = refuse(&refusal, path);
            if let Some(seconds) = retry_after {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, (*seconds).into());
            }
            Ok(response)
        }
        Action::Hang => match std::future::pending::<Infallible>().await {},
        Action::Cut => Err(Cut),
        Action::Malformed => {
            let (head, body) = truth.into_parts();
            let bytes = to_bytes(body, usize::MAX).await.map_err(|_| Cut)?;
            let half = bytes.slice(..bytes.len().div_ceil(2));
            let mut response = Response::from_parts(head, Body::from(half));
            response.headers_mut().remove(header::CONTENT_LENGTH);
            Ok(response)
        }
        Action::EmptyPage => {
            let (head, body) = truth.into_parts();
            let bytes = to_bytes(body, usize::MAX).await.map_err(|_| Cut)?;
            let truth: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let mut page = json!({ "count": truth["count"] });
            if hit.nth.is_multiple_of(2) {
                page["result"] = json!([]);
            }
            Ok(Response::from_parts(head, Body::from(page.to_string())))
        }
        Action::HideNewest | Action::Delay(_) => Ok(truth),
    }
}

fn respond(reply: &Reply) -> Response<Body> {
    let body = match &reply.body {
        Some(body) => Body::from(body.to_string()),
        None => Body::empty(),
    };
    json_response(reply.status, body)
}

fn refuse(refusal: &Refusal, path: &str) -> Response<Body> {
    let body = json!({
        "code": refusal.code,
        "message": refusal.message,
        "path": path,
    });
    json_response(refusal.status, Body::from(body.to_string()))
}

fn json_response(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}
