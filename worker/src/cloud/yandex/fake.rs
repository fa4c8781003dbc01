//! A loopback HTTP server that plays back scripted answers and records what it was asked. The stateful cloud is the
//! sandbox's; this one exists to misbehave.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, Uri};
use jobs::store::Secret;
use serde_json::{Value, json};

use super::client::{Endpoints, Yandex, YandexConfig};
use super::token::tests::file;
use super::token::{AuthorizedKey, Credentials};
use crate::cloud::patience::Patience;

pub(super) const TOKEN: &str = "t1.secret-of-the-test";

/// One answer of the script.
#[derive(Clone)]
pub(super) enum Say {
    Json(u16, Value),
    Text(u16, String),
    /// With a header.
    With(u16, &'static str, &'static str, Value),
    /// Takes the request and never answers.
    Nothing,
    /// Sends the head and half of the body, then breaks off.
    Cut(u16),
}

/// A token that lives so many seconds.
pub(super) fn token(name: &str, seconds: i64) -> Say {
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    let body = json!({"iamToken": format!("{TOKEN}-{name}"), "expiresAt": end.to_string()});
    Say::Json(200, body)
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Clone, Default)]
pub(super) struct Fake {
    script: Arc<Mutex<VecDeque<Say>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Starts the fake with its script for a client that has a token; a call beyond its end gets a 418.
    pub(super) async fn start(script: impl IntoIterator<Item = Say>) -> (Self, Yandex) {
        let credentials = Credentials::Token(Secret::new(TOKEN));
        Self::start_for(credentials, script).await
    }

    /// The same for a client with an authorized key.
    pub(super) async fn start_for_key(script: impl IntoIterator<Item = Say>) -> (Self, Yandex) {
        let key = AuthorizedKey::parse(&file().to_string()).unwrap();
        Self::start_for(Credentials::Key(key), script).await
    }

    async fn start_for(
        credentials: Credentials,
        script: impl IntoIterator<Item = Say>,
    ) -> (Self, Yandex) {
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
        let config = YandexConfig {
            endpoints: Endpoints::at(&url),
            patience,
            ..YandexConfig::new("b1g", credentials)
        };
        (fake, Yandex::new(config).unwrap())
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Method and path of each call so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
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
            Some(Say::Json(status, body)) => plain(status).body(body.to_string().into()).unwrap(),
            Some(Say::Text(status, text)) => plain(status).body(text.into()).unwrap(),
            Some(Say::With(status, name, value, body)) => plain(status)
                .header(name, value)
                .body(body.to_string().into())
                .unwrap(),
            Some(Say::Nothing) => std::future::pending().await,
            Some(Say::Cut(status)) => {
                let half = futures::stream::iter([Ok(Bytes::from_static(b"{\"id\":"))]);
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
fn impatience() -> Patience {
    Patience {
        timeout: Duration::from_secs(30),
        attempts: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(2),
        longest_retry_after: Duration::from_millis(50),
    }
}
