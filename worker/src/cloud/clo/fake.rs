//! A loopback HTTP server that plays back scripted answers and records what it was asked. The
//! stateful CLO is the sandbox's; this one exists to misbehave.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, Uri};
use serde_json::Value;

use super::client::{Clo, CloConfig, Token};
use crate::cloud::patience::Patience;

pub(super) const TOKEN: &str = "t0ken-of-the-test";

/// One answer of the script.
#[derive(Clone)]
pub(super) enum Say {
    Json(u16, Value),
    Text(u16, &'static str, String),
    Header(u16, &'static str, &'static str),
    /// Takes the request and never answers.
    Nothing,
    /// Sends the head and half of the body, then breaks off.
    Cut(u16),
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

#[derive(Clone, Default)]
pub(super) struct Fake {
    script: Arc<Mutex<VecDeque<Say>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Starts the fake with its script; a call beyond its end gets a 418.
    pub(super) async fn start(script: impl IntoIterator<Item = Say>) -> (Self, Clo) {
        let script: VecDeque<Say> = script.into_iter().collect();
        let mut patience = impatience();
        if script.iter().any(|say| matches!(say, Say::Nothing)) {
            patience.timeout = Duration::from_secs(1);
        }
        let fake = Self {
            script: Arc::new(Mutex::new(script)),
            asked: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback({
            let fake = fake.clone();
            move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
                fake.answer(method, uri, headers, body).await
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config = CloConfig {
            url,
            patience,
            ..CloConfig::new(Token::new(TOKEN), "p-1")
        };
        (fake, Clo::new(config).unwrap())
    }

    /// Method and path of each call so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(|asked| asked.line.clone())
            .collect()
    }

    pub(super) fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().unwrap().clone()
    }

    async fn answer(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response<Body> {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        self.asked.lock().unwrap().push(Asked {
            line: format!("{method} {uri}"),
            headers,
            body,
        });
        let say = self.script.lock().unwrap().pop_front();
        let plain = |status: u16| Response::builder().status(status);
        match say {
            Some(Say::Json(status, body)) => plain(status)
                .header("content-type", "application/json")
                .body(body.to_string().into())
                .unwrap(),
            Some(Say::Text(status, kind, text)) => plain(status)
                .header("content-type", kind)
                .body(text.into())
                .unwrap(),
            Some(Say::Header(status, name, value)) => plain(status)
                .header(name, value)
                .body(Body::empty())
                .unwrap(),
            Some(Say::Nothing) => std::future::pending().await,
            Some(Say::Cut(status)) => {
                let half = futures::stream::iter([Ok(Bytes::from_static(b"{\"result\":"))]);
                // The pause lets hyper send the first half before it learns of the error.
                let cut = futures::stream::once(async {
                    tokio::task::yield_now().await;
                    Err(std::io::Error::other("cut"))
                });
                plain(status)
                    .body(Body::from_stream(futures::StreamExt::chain(half, cut)))
                    .unwrap()
            }
            None => plain(418).body("the script has ended".into()).unwrap(),
        }
    }
}

/// Retries at once. The timeout is long, so that a busy machine fails no test.
pub(super) fn impatience() -> Patience {
    Patience {
        timeout: Duration::from_secs(30),
        attempts: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(2),
        longest_retry_after: Duration::from_millis(50),
    }
}
