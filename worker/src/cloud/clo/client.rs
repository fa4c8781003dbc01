//! The client itself: it sends calls, repeats those that may be repeated, and reads answers.

use std::fmt;
use std::time::{Duration, SystemTime};

use backon::Retryable;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;

use super::call::{Answer, Call};
use super::error::CloError;
use crate::cloud::http::{date, is_id, is_loopback, read};
use crate::cloud::patience::{Patience, retry_after};

/// An answer larger than this is not read; the longest list page is far below.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;
/// An error's body is only read this far.
const LARGEST_ERROR: usize = 64 * 1024;
/// A connection attempt that takes longer than this counts as failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are dropped before the server drops them: a POST on a connection that dies
/// under it is ambiguous, and that is expensive to clear up.
const IDLE: Duration = Duration::from_secs(15);

/// The API token. It has no `Display`, and `Debug` hides it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Wraps the token; surrounding white space (a newline of a secret file) is dropped.
    pub fn new(token: impl AsRef<str>) -> Self {
        Self(token.as_ref().trim().to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// What the client is made from.
#[derive(Debug, Clone)]
pub struct CloConfig {
    /// Where the API is, `https://api.clo.ru` by default. A trailing `/v2` is tolerated.
    pub url: String,
    /// The API token.
    pub token: Token,
    /// The project that everything lives in.
    pub project: String,
    /// How long and how often to try.
    pub patience: Patience,
}

impl CloConfig {
    /// Where the API is unless `CLO_URL` says otherwise.
    pub const DEFAULT_URL: &'static str = "https://api.clo.ru";

    /// The public API with the default patience.
    pub fn new(token: Token, project: impl Into<String>) -> Self {
        Self {
            url: Self::DEFAULT_URL.to_owned(),
            token,
            project: project.into(),
            patience: Patience::default(),
        }
    }
}

/// A client of one CLO project. Cheap to clone.
#[derive(Clone)]
pub struct Clo {
    http: reqwest::Client,
    base: Url,
    token: Token,
    project: String,
    patience: Patience,
}

impl fmt::Debug for Clo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clo")
            .field("base", &self.base.as_str())
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

impl Clo {
    /// Checks the settings and builds the client. Sends nothing.
    pub fn new(config: CloConfig) -> Result<Self, CloError> {
        let invalid = |reason: String| CloError::Invalid {
            operation: "set up the CLO client".to_owned(),
            reason,
        };
        let trimmed = config
            .url
            .trim()
            .trim_end_matches('/')
            .trim_end_matches("/v2");
        let base = Url::parse(trimmed).map_err(|e| invalid(format!("CLO_URL: {e}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(invalid("CLO_URL: expected an http(s) address".to_owned()));
        }
        if base.username() != "" || base.password().is_some() {
            return Err(invalid(
                "CLO_URL: holds a user or password; the token belongs in CLO_AUTH_TOKEN".to_owned(),
            ));
        }
        if config.token.0.is_empty() {
            return Err(invalid("the CLO token is empty".to_owned()));
        }
        if !is_id(&config.project) {
            return Err(invalid(format!(
                "`{}` is not a CLO project id",
                config.project
            )));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", config.token.0))
            .map_err(|_| {
                invalid("the CLO token has characters that no HTTP header can carry".to_owned())
            })?;
        authorization.set_sensitive(true);
        let mut http = reqwest::Client::builder()
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, authorization)]))
            .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
            .timeout(config.patience.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(config.patience.timeout))
            .pool_idle_timeout(IDLE)
            // Following a redirect would turn a POST into a GET whose 200 reads as "done".
            .redirect(reqwest::redirect::Policy::none())
            // One layer retries, and it is ours.
            .retry(reqwest::retry::never());
        if is_loopback(&base) {
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|e| invalid(format!("HTTP client: {e}")))?;
        Ok(Self {
            http,
            base,
            token: config.token,
            project: config.project,
            patience: config.patience,
        })
    }

    /// The project that this client works in.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Sends a call as often as its method allows, and returns the body of the first 2xx answer.
    async fn send(&self, call: Call) -> Result<Answer, CloError> {
        // Once an attempt may have worked, a later failure does not make that undone.
        let mut uncertain = false;
        let result = (|| self.send_once(&call))
            .retry(self.patience.pauses())
            .when(|error| call.may_repeat(error))
            .adjust(|error, planned| self.patience.pause(error.retry_after(), planned))
            .notify(|error, pause| {
                uncertain |= error.is_ambiguous();
                tracing::debug!(%error, ?pause, "call to CLO failed, trying again");
            })
            .await;
        match result {
            Err(error) if uncertain && error.is_unprocessed() => Err(CloError::Ambiguous {
                reason: format!("an earlier attempt got no answer, and then: {error}"),
                retry_after: error.retry_after(),
                source: None,
                operation: call.asked.operation,
            }),
            other => other,
        }
    }

    async fn send_once(&self, call: &Call) -> Result<Answer, CloError> {
        let mut url = self.base.clone();
        url.set_path(&format!(
            "{}{}",
            self.base.path().trim_end_matches('/'),
            call.path
        ));
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self.http.request(call.method.clone(), url);
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(call.asked.transport(error, self.patience.timeout)),
        };
        let status = response.status();
        if status.is_success() {
            let at = date(response.headers());
            return match read(&mut response, LARGEST_ANSWER).await {
                Ok(Some(body)) => Ok(Answer {
                    asked: call.asked.clone(),
                    at,
                    body,
                }),
                Ok(None) => Err(call
                    .asked
                    .unexpected(format!("larger than {LARGEST_ANSWER} bytes"), b"")),
                // Whoever does not need the body has all that matters: the call worked.
                Err(_) if call.body_unused => Ok(Answer {
                    asked: call.asked.clone(),
                    at,
                    body: Vec::new(),
                }),
                Err(error) => Err(call.asked.transport(error, self.patience.timeout)),
            };
        }
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let body = match read(&mut response, LARGEST_ERROR).await {
            Ok(Some(body)) => body,
            // "Not found" counts only when all of it was heard.
            Ok(None) | Err(_) if status == StatusCode::NOT_FOUND => {
                let reason = "status 404 with a body that cannot be read".to_owned();
                return Err(call.asked.unexpected(reason, b""));
            }
            Ok(None) | Err(_) => Vec::new(),
        };
        let body = self.without_secrets(call, &String::from_utf8_lossy(&body));
        Err(call.asked.failed(status, retry_after, &body))
    }

    /// APIs like to repeat the request in their error, and a create's user_data holds a host key.
    fn without_secrets(&self, call: &Call, text: &str) -> String {
        let mut text = text.replace(&self.token.0, "(hidden)");
        for secret in &call.secrets {
            text = text.replace(secret.as_str(), "(hidden)");
        }
        text
    }
}

impl Clo {
    /// Sends a call whose answer carries one object below `result`.
    pub(super) async fn result<T: DeserializeOwned>(&self, call: Call) -> Result<T, CloError> {
        #[derive(serde::Deserialize)]
        struct Envelope<T> {
            result: Option<T>,
        }
        let answer = self.send(call).await?;
        let envelope: Envelope<T> = answer.decode()?;
        envelope.result.ok_or_else(|| {
            answer
                .asked
                .unexpected("it has no `result`".to_owned(), &answer.body)
        })
    }

    /// Sends a call of whose answer only the time matters.
    pub(super) async fn answered_at(&self, call: Call) -> Result<Option<Timestamp>, CloError> {
        Ok(self.send(call.body_unused()).await?.at)
    }

    /// Sends a call and decodes its whole answer.
    pub(super) async fn decoded<T: DeserializeOwned>(&self, call: Call) -> Result<T, CloError> {
        self.send(call).await?.decode()
    }

    /// Like [`Clo::result`] for reading one thing: `None` when the API says that it does not exist.
    pub(super) async fn result_if_exists<T: DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<Option<T>, CloError> {
        match self.result(call).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a create, whose answer carries the new id.
    pub(super) async fn created(&self, call: Call) -> Result<String, CloError> {
        #[derive(serde::Deserialize)]
        struct Created {
            #[serde(deserialize_with = "super::model::id")]
            id: String,
        }
        Ok(self.result::<Created>(call).await?.id)
    }

    /// Sends a call of whose answer only the status matters.
    pub(super) async fn done(&self, call: Call) -> Result<(), CloError> {
        self.send(call.body_unused()).await.map(drop)
    }

    /// Sends a delete; what is not there any more is deleted.
    pub(super) async fn deleted(&self, call: Call) -> Result<(), CloError> {
        match self.done(call).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            other => other,
        }
    }

    /// An id as it may stand in a path. An empty one would turn "delete this server" into a call
    /// on the whole collection.
    pub(super) fn checked<'a>(&self, operation: &str, id: &'a str) -> Result<&'a str, CloError> {
        if is_id(id) {
            return Ok(id);
        }
        Err(CloError::Invalid {
            operation: operation.to_owned(),
            reason: format!("`{id}` is not an id"),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let good = CloConfig::new(Token::new("t0ken-of-the-test"), "p-1");
        for (config, want) in [
            (
                CloConfig {
                    url: "api.clo.ru".into(),
                    ..good.clone()
                },
                "CLO_URL",
            ),
            (
                CloConfig {
                    url: "ftp://api.clo.ru".into(),
                    ..good.clone()
                },
                "CLO_URL",
            ),
            (
                CloConfig {
                    url: "https://u:secret@api.clo.ru".into(),
                    ..good.clone()
                },
                "CLO_AUTH_TOKEN",
            ),
            (
                CloConfig {
                    token: Token::new(" \n"),
                    ..good.clone()
                },
                "token is empty",
            ),
            (
                CloConfig {
                    project: "../p".into(),
                    ..good.clone()
                },
                "project id",
            ),
            (
                CloConfig {
                    project: String::new(),
                    ..good.clone()
                },
                "project id",
            ),
        ] {
            let error = Clo::new(config).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for url in [
            "https://api.clo.ru",
            "https://api.clo.ru/",
            "https://api.clo.ru/v2",
            "https://api.clo.ru/v2/",
        ] {
            let clo = Clo::new(CloConfig {
                url: url.into(),
                ..good.clone()
            })
            .unwrap();
            assert_eq!(clo.base.as_str(), "https://api.clo.ru/");
        }
    }

    #[test]
    fn the_token_is_in_no_debug_output() {
        let config = CloConfig::new(Token::new("t0ken-of-the-test"), "p-1");
        let shown = format!("{config:?} {:?}", Clo::new(config.clone()).unwrap());
        assert!(!shown.contains("t0ken"), "{shown}");
    }
}
