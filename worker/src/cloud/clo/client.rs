//! One call to CLO: how it is sent, how often, and what its answer means.
//!
//! Whether a call may be sent again depends on its method. GET, PUT and DELETE have the same
//! effect however often they run, so they are repeated on 429, 5xx and transport errors. A POST
//! or PATCH is repeated only when it was certainly not processed: 429, or no connection at all.

use std::fmt;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, Retryable};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{CloError, cut, message_in};

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

/// How long and how often the client tries.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Limit for one request, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// How often a call is sent at most.
    pub attempts: usize,
    /// Upper end of the first pause; it doubles from attempt to attempt.
    pub first_pause: Duration,
    /// Upper end of every pause.
    pub longest_pause: Duration,
    /// A `Retry-After` above this is not waited for: the error carries it to the caller, who can
    /// give the turn back meanwhile.
    pub longest_retry_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempts: 4,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(8),
            longest_retry_after: Duration::from_secs(20),
        }
    }
}

impl Patience {
    /// Pauses between attempts: exponential with a cap and full jitter, so that many workers that
    /// failed together do not come back together.
    fn pauses(&self) -> impl Iterator<Item = Duration> + Send + Sync + Unpin + use<> {
        backon::ExponentialBuilder::new()
            .with_min_delay(self.first_pause)
            .with_max_delay(self.longest_pause)
            .with_max_times(self.attempts.saturating_sub(1))
            .build()
            .map(|pause| pause.mul_f64(rand::random()))
    }

    /// The pause before the next attempt, or `None` to give up.
    fn pause(&self, error: &CloError, planned: Option<Duration>) -> Option<Duration> {
        let planned = planned?;
        match error.retry_after() {
            Some(asked) if asked > self.longest_retry_after => None,
            Some(asked) => Some(asked.max(planned)),
            None => Some(planned),
        }
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
                "CLO_URL: holds a user or password; the token belongs in CLO_TOKEN".to_owned(),
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
            .adjust(|error, planned| self.patience.pause(error, planned))
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
            return match read(&mut response, LARGEST_ANSWER).await {
                Ok(Some(body)) => Ok(Answer {
                    asked: call.asked.clone(),
                    body,
                }),
                Ok(None) => Err(call
                    .asked
                    .unexpected(format!("larger than {LARGEST_ANSWER} bytes"), b"")),
                // Whoever does not need the body has all that matters: the call worked.
                Err(_) if call.body_unused => Ok(Answer {
                    asked: call.asked.clone(),
                    body: Vec::new(),
                }),
                Err(error) => Err(call.asked.transport(error, self.patience.timeout)),
            };
        }
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let is_html = response.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes()
                .to_ascii_lowercase()
                .starts_with(b"text/html")
        });
        let body = read(&mut response, LARGEST_ERROR)
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        let body = self.without_secrets(call, &String::from_utf8_lossy(&body));
        Err(call.asked.failed(status, retry_after, is_html, &body))
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

/// One call, ready to be sent any number of times.
pub(super) struct Call {
    asked: Asked,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    body_unused: bool,
    secrets: Vec<String>,
}

impl Call {
    /// A call without a body. `operation` reads like `list servers`; `path` begins with `/v2`.
    pub(super) fn new(
        method: Method,
        operation: impl Into<String>,
        path: impl Into<String>,
    ) -> Self {
        Self {
            asked: Asked {
                operation: operation.into(),
                changes: method != Method::GET,
            },
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            body_unused: false,
            secrets: Vec::new(),
        }
    }

    /// Adds a query parameter.
    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// Adds a JSON body.
    pub(super) fn json(mut self, body: &impl Serialize) -> Self {
        self.body =
            Some(serde_json::to_vec(body).expect("our bodies are plain structs with string keys"));
        self
    }

    /// Any 2xx will do; the body may be empty or cut.
    fn body_unused(mut self) -> Self {
        self.body_unused = true;
        self
    }

    /// Marks a text in the body that must not come back in an error: each line of it by itself,
    /// because JSON writes the line breaks another way.
    pub(super) fn secret(mut self, text: &str) -> Self {
        self.secrets.extend(
            text.lines()
                .map(str::trim)
                .filter(|line| line.len() >= 12)
                .map(str::to_owned),
        );
        self
    }

    fn may_repeat(&self, error: &CloError) -> bool {
        if self.method == Method::POST || self.method == Method::PATCH {
            error.is_unprocessed()
        } else {
            error.is_transient()
        }
    }
}

/// What was asked: enough to explain an answer, or the lack of one.
#[derive(Clone)]
struct Asked {
    operation: String,
    changes: bool,
}

impl Asked {
    fn transport(&self, error: reqwest::Error, timeout: Duration) -> CloError {
        let error = error.without_url();
        if error.is_connect() {
            return CloError::Unreachable {
                operation: self.operation.clone(),
                source: error,
            };
        }
        let reason = match error.is_timeout() {
            true => format!("no answer within {timeout:?}"),
            false => "the connection broke".to_owned(),
        };
        self.unanswered(reason, None, Some(error))
    }

    fn unanswered(
        &self,
        reason: String,
        retry_after: Option<Duration>,
        source: Option<reqwest::Error>,
    ) -> CloError {
        let operation = self.operation.clone();
        if self.changes {
            CloError::Ambiguous {
                operation,
                reason,
                retry_after,
                source,
            }
        } else {
            CloError::NoAnswer {
                operation,
                reason,
                retry_after,
                source,
            }
        }
    }

    /// A 2xx answer that cannot be understood: a change has happened then, but which?
    fn unexpected(&self, reason: String, body: &[u8]) -> CloError {
        if self.changes {
            return self.unanswered(format!("unexpected answer: {reason}"), None, None);
        }
        let body = cut(&String::from_utf8_lossy(body));
        CloError::Unexpected {
            operation: self.operation.clone(),
            reason,
            body,
        }
    }

    fn failed(
        &self,
        status: StatusCode,
        retry_after: Option<Duration>,
        is_html: bool,
        body: &str,
    ) -> CloError {
        let operation = self.operation.clone();
        let message = message_in(body);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return CloError::Busy {
                operation,
                message,
                retry_after,
            };
        }
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            return self.unanswered(
                format!("status {}: {message}", status.as_u16()),
                retry_after,
                None,
            );
        }
        if status == StatusCode::NOT_FOUND && is_html {
            // The API answers in JSON. A web page means that a proxy or a wrong CLO_URL answered,
            // and that must not read as "this server does not exist".
            let reason = "status 404 with a web page: this is not the API (see CLO_URL)".to_owned();
            return CloError::Unexpected {
                operation,
                reason,
                body: cut(body),
            };
        }
        CloError::Refused {
            operation,
            status: status.as_u16(),
            message,
            body: cut(body),
        }
    }
}

/// A 2xx answer.
struct Answer {
    asked: Asked,
    body: Vec<u8>,
}

impl Answer {
    fn decode<T: DeserializeOwned>(&self) -> Result<T, CloError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.asked.unexpected(error.to_string(), &self.body))
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

fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The whole body, or `None` when it is larger than `limit`.
async fn read(
    response: &mut reqwest::Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// `Retry-After` is a number of seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(
        SystemTime::from(at.timestamp())
            .duration_since(now)
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn busy(retry_after: Option<Duration>) -> CloError {
        CloError::Busy {
            operation: String::new(),
            message: String::new(),
            retry_after,
        }
    }

    #[test]
    fn retry_after_is_waited_for_unless_it_is_too_long() {
        let patience = Patience {
            longest_retry_after: Duration::from_secs(20),
            ..Patience::default()
        };
        let second = Duration::from_secs(1);
        for (asked, planned, want) in [
            (None, Some(second), Some(second)),
            (Some(5 * second), Some(second), Some(5 * second)),
            (Some(Duration::ZERO), Some(second), Some(second)),
            (Some(21 * second), Some(second), None),
            (Some(5 * second), None, None),
        ] {
            assert_eq!(
                patience.pause(&busy(asked), planned),
                want,
                "asked {asked:?}, planned {planned:?}"
            );
        }
    }

    #[test]
    fn pauses_are_bounded_in_number_and_length() {
        let patience = Patience {
            attempts: 6,
            longest_pause: Duration::from_secs(2),
            ..Patience::default()
        };
        for _ in 0..100 {
            let pauses: Vec<_> = patience.pauses().collect();
            assert_eq!(pauses.len(), 5);
            assert!(
                pauses.iter().all(|pause| *pause <= patience.longest_pause),
                "{pauses:?}"
            );
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, want) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("soon", None),
        ] {
            let headers =
                HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(
                retry_after(&headers, now),
                want.map(Duration::from_secs),
                "{text}"
            );
        }
    }

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
                "CLO_URL",
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
