//! Whether an application answers, asked as its users do: by its URL, through the load balancer.
//!
//! The name in the URL need not lead to this cluster (yet): the connection goes to the load balancer's address,
//! and the name is what TLS and HTTP say, like `curl --resolve`. The certificate is verified for it, against the
//! host's authorities or those of REKINDLE_CA_FILE. `${DOMAIN}` is a secret of the recovery, so it is in no record
//! and in no error.

mod connect;
mod target;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use http::Response;
use hyper::body::{Body as _, Incoming};
use jobs::record::LoadBalancerRecord;
use jobs::spec::Application;
use serde::{Deserialize, Serialize};

pub use connect::{CONNECT, Failure, Open, Unanswered, Way};
pub use target::{Target, hide};

use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError};
use crate::world::World;

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
    let domain = target::domain(ctx, url).await?;
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
    let target = Target::new(template, domain).map_err(|error| {
        let name = &application.name;
        JobError::fatal(format!(
            "the url of application {name}, `{template}`: {error}"
        ))
    })?;
    let shown = |text: String| target.hide(text);
    let asked = tokio::time::timeout(CONNECT + ANSWER, get(world, lb, &target)).await;
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

/// One GET: where it went, the status, and the beginning of the body.
async fn get(
    world: &World,
    lb: Option<&LoadBalancerRecord>,
    target: &Target,
) -> Result<(String, u16, Vec<u8>), Failure> {
    let way = Way::new(world, lb, target)?;
    let mut open = way.open().await?;
    let asked = open.ask(way.request(), |answer| async {
        let status = answer.status().as_u16();
        Ok((status, beginning(answer).await?))
    });
    let (status, body) = asked.await.map_err(|broken| Failure::again(broken.text))?;
    Ok((way.through().to_owned(), status, body))
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

#[cfg(test)]
mod tests;
