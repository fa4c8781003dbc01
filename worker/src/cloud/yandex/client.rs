//! The client itself: it sends calls as who we are, repeats those that got no answer, and reads answers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::Retryable;
use jiff::Timestamp;
use jobs::store::Secret;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::call::{Answer, Call, Service};
use super::error::YandexError;
use super::model::{Cluster, Item, Kind, Resource};
use super::new::New;
use super::operation::{Operation, Progress};
use super::token::{Credentials, Issued, Kept};
use crate::cloud::http::{date, is_id, is_loopback, read};
use crate::cloud::patience::{Patience, retry_after};

/// An answer larger than this is not read; the longest page of a list is far below.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;
/// An error's body is only read this far.
const LARGEST_ERROR: usize = 64 * 1024;
/// A connection attempt that takes longer than this counts as failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are dropped before the server drops them.
const IDLE: Duration = Duration::from_secs(15);

/// The host of each service, as a URL without the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Identity and Access Management.
    pub iam: String,
    /// Virtual Private Cloud.
    pub vpc: String,
    /// Managed Service for Kubernetes.
    pub kubernetes: String,
    /// Operations.
    pub operations: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            iam: "https://iam.api.cloud.yandex.net".into(),
            vpc: "https://vpc.api.cloud.yandex.net".into(),
            kubernetes: "https://mks.api.cloud.yandex.net".into(),
            operations: "https://operation.api.cloud.yandex.net".into(),
        }
    }
}

impl Endpoints {
    /// All services at one place: a simulated cloud.
    pub fn at(url: &str) -> Self {
        let url = || url.to_owned();
        Self {
            iam: url(),
            vpc: url(),
            kubernetes: url(),
            operations: url(),
        }
    }
}

/// What the client is made from.
#[derive(Debug, Clone)]
pub struct YandexConfig {
    /// The folder that everything is made in.
    pub folder: String,
    /// Who we are.
    pub credentials: Credentials,
    /// Where the services are.
    pub endpoints: Endpoints,
    /// How long and how often to try.
    pub patience: Patience,
}

impl YandexConfig {
    /// The real services with the default patience.
    pub fn new(folder: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            folder: folder.into(),
            credentials,
            endpoints: Endpoints::default(),
            patience: Patience::default(),
        }
    }
}

/// A client of one folder. Cheap to clone; clones share their token.
#[derive(Clone)]
pub struct Yandex {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    bases: Bases,
    folder: String,
    credentials: Credentials,
    patience: Patience,
    token: Mutex<Option<Kept>>,
}

struct Bases {
    iam: Url,
    vpc: Url,
    kubernetes: Url,
    operations: Url,
}

impl fmt::Debug for Yandex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yandex")
            .field("kubernetes", &self.inner.bases.kubernetes.as_str())
            .field("folder", &self.inner.folder)
            .finish_non_exhaustive()
    }
}

impl Yandex {
    /// Checks the settings and builds the client. Sends nothing.
    pub fn new(config: YandexConfig) -> Result<Self, YandexError> {
        if !is_id(&config.folder) {
            return Err(invalid(format!(
                "`{}` is not the id of a folder",
                config.folder
            )));
        }
        if let Credentials::Token(token) = &config.credentials {
            bearer(token.reveal()).map_err(|_| {
                invalid("the token has characters that no HTTP header can carry".into())
            })?;
        }
        let bases = Bases {
            iam: base(&config.endpoints.iam)?,
            vpc: base(&config.endpoints.vpc)?,
            kubernetes: base(&config.endpoints.kubernetes)?,
            operations: base(&config.endpoints.operations)?,
        };
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
            .timeout(config.patience.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(config.patience.timeout))
            .pool_idle_timeout(IDLE)
            // Following a redirect would turn a POST into a GET whose 200 reads as "done".
            .redirect(reqwest::redirect::Policy::none())
            // One layer retries, and it is ours.
            .retry(reqwest::retry::never());
        if is_loopback(&bases.iam) {
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|e| invalid(format!("HTTP client: {e}")))?;
        Ok(Self {
            inner: Arc::new(Inner {
                http,
                bases,
                folder: config.folder,
                credentials: config.credentials,
                patience: config.patience,
                token: Mutex::new(None),
            }),
        })
    }

    /// The folder that everything is made in.
    pub fn folder(&self) -> &str {
        &self.inner.folder
    }

    /// An IAM token that will hold for a while; also good for the API of a cluster.
    pub async fn token(&self) -> Result<Secret, YandexError> {
        (|| self.fresh_token())
            .retry(self.inner.patience.pauses())
            .when(YandexError::is_transient)
            .adjust(|error, planned| self.inner.patience.pause(error.retry_after(), planned))
            .await
    }

    /// Something of a kind, or `None` if the API says that there is none of this id.
    pub async fn get(&self, kind: Kind, id: &str) -> Result<Option<Resource>, YandexError> {
        let item: Option<Item> = self.if_exists(self.one(kind, id)?).await?;
        Ok(item.map(|item| item.of(kind)))
    }

    /// A cluster with the way to its API, or `None` if the API says that there is none of this id.
    pub async fn cluster(&self, id: &str) -> Result<Option<Cluster>, YandexError> {
        self.if_exists(self.one(Kind::Cluster, id)?).await
    }

    /// Begins to make something: gives the operation, and the id of what is made. With the same key the API gives the
    /// same operation again, so the key must be on record before the first call.
    pub async fn create(&self, new: &New, key: Uuid) -> Result<(Operation, String), YandexError> {
        let operation = format!("create {} {}", new.kind.name(), new.name);
        let mut body = new.body.clone();
        // A node group is where its cluster is.
        if new.kind != Kind::NodeGroup {
            body["folderId"] = json!(self.inner.folder);
        }
        let (service, path) = (new.kind.service(), new.kind.path());
        let call = Call::change(Method::POST, service, operation, path, key).json(&body);
        let answer = self.send(call).await?;
        let operation: Operation = answer.decode()?;
        let id = operation.resource(new.kind).map(str::to_owned);
        match (id, operation.progress()) {
            (Some(id), _) => Ok((operation, id)),
            // A quota may be told by an operation that was over before it began.
            (None, Progress::Failed(why)) => Err(YandexError::Invalid {
                operation: answer.asked.operation,
                reason: format!("Yandex Cloud did not make it: {why}"),
            }),
            (None, _) => Err(answer.asked.unexpected("it names nothing that is made")),
        }
    }

    /// Begins to delete something; `None` when it is not there any more.
    pub async fn delete(&self, kind: Kind, id: &str) -> Result<Option<Operation>, YandexError> {
        let operation = format!("delete {} {id}", kind.name());
        let path = format!("{}/{}", kind.path(), self.checked(&operation, id)?);
        let key = Uuid::new_v4();
        let call = Call::change(Method::DELETE, kind.service(), operation, path, key);
        self.if_exists(call).await
    }

    fn one(&self, kind: Kind, id: &str) -> Result<Call, YandexError> {
        let operation = format!("read {} {id}", kind.name());
        let path = format!("{}/{}", kind.path(), self.checked(&operation, id)?);
        Ok(Call::get(kind.service(), operation, path))
    }

    /// Sends a call and decodes its answer; `None` when the API says that it is about nothing that exists.
    pub(super) async fn if_exists<T: DeserializeOwned>(
        &self,
        call: Call,
    ) -> Result<Option<T>, YandexError> {
        match self.send(call).await {
            Ok(answer) => answer.decode().map(Some),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An id as it may stand in a path. An empty one would turn "delete this cluster" into a call on all of them.
    pub(super) fn checked<'a>(&self, operation: &str, id: &'a str) -> Result<&'a str, YandexError> {
        if is_id(id) {
            return Ok(id);
        }
        Err(YandexError::Invalid {
            operation: operation.to_owned(),
            reason: format!("`{id}` is not an id"),
        })
    }

    /// Sends a call until it is answered, and returns the first 2xx answer.
    pub(super) async fn send(&self, call: Call) -> Result<Answer, YandexError> {
        // Once an attempt may have worked, a later failure does not make that undone.
        let mut uncertain = false;
        let patience = &self.inner.patience;
        let result = (|| self.send_as_us(&call))
            .retry(patience.pauses())
            .when(YandexError::is_transient)
            .adjust(|error, planned| patience.pause(error.retry_after(), planned))
            .notify(|error, pause| {
                uncertain |= error.is_ambiguous();
                tracing::debug!(%error, ?pause, "call to Yandex Cloud failed, trying again");
            })
            .await;
        match result {
            // Only the API's own word about this call settles it.
            Err(error)
                if uncertain
                    && !error.is_ambiguous()
                    && !matches!(error.status(), Some(400 | 404 | 409)) =>
            {
                Err(YandexError::Ambiguous {
                    reason: format!("an earlier attempt got no answer, and then: {error}"),
                    retry_after: error.retry_after(),
                    source: None,
                    operation: call.asked.operation,
                })
            }
            other => other,
        }
    }

    async fn send_as_us(&self, call: &Call) -> Result<Answer, YandexError> {
        let token = self.fresh_token().await?;
        match self.send_once(call, Some(&token)).await {
            // It may have been revoked, or our clock may be wrong: one new token is worth a try.
            Err(error) if error.status() == Some(401) && self.forget(&token).await => {
                tracing::debug!("Yandex Cloud takes our token no more, asking for a new one");
                let token = self.fresh_token().await?;
                self.send_once(call, Some(&token)).await
            }
            other => other,
        }
    }

    /// Whether there will be another token than this one.
    async fn forget(&self, token: &Secret) -> bool {
        let Credentials::Key(_) = self.inner.credentials else {
            return false;
        };
        // Others may have got a new one meanwhile.
        self.inner
            .token
            .lock()
            .await
            .take_if(|kept| kept.token == *token);
        true
    }

    /// The token that we have, or a new one. Asks once.
    async fn fresh_token(&self) -> Result<Secret, YandexError> {
        let key = match &self.inner.credentials {
            Credentials::Token(token) => return Ok(token.clone()),
            Credentials::Key(key) => key,
        };
        // Held while we ask: one new token is enough for all who wait.
        let mut kept = self.inner.token.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_fresh()) {
            return Ok(kept.token.clone());
        }
        let operation = "get an IAM token";
        let wall = Timestamp::now();
        let jwt = key.jwt(wall).map_err(|error| YandexError::Invalid {
            operation: operation.into(),
            reason: error.to_string(),
        })?;
        let call = Call::exchange(operation, "/iam/v1/tokens", &jwt, &json!({"jwt": jwt}));
        let issued = match self.send_once(&call, None).await {
            Ok(answer) => {
                let issued: Option<Issued> = serde_json::from_slice(&answer.body).ok();
                let issued = issued.and_then(|issued| Kept::of(issued, wall));
                // Not even why: the reason may show some of it.
                issued.ok_or_else(|| answer.asked.unexpected("it holds no usable token"))
            }
            Err(error) => Err(error),
        };
        match (issued, kept.as_ref()) {
            (Ok(issued), _) => Ok(kept.insert(issued).token.clone()),
            (Err(error), Some(old)) if old.is_valid() => {
                tracing::warn!(%error, "the IAM token could not be renewed in time, using the old one");
                Ok(old.token.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn send_once(&self, call: &Call, token: Option<&Secret>) -> Result<Answer, YandexError> {
        let base = self.inner.bases.of(call.service);
        let mut url = base.clone();
        url.set_path(&format!(
            "{}{}",
            base.path().trim_end_matches('/'),
            call.path
        ));
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self.inner.http.request(call.method.clone(), url);
        if let Some(token) = token {
            let value = bearer(token.reveal())
                .map_err(|_| invalid("the token cannot be sent".to_owned()))?;
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(key) = call.key {
            request = request.header("Idempotency-Key", key.to_string());
        }
        if let Some(body) = &call.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        let timeout = self.inner.patience.timeout;
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(call.asked.transport(error, timeout)),
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
                    .unexpected(&format!("larger than {LARGEST_ANSWER} bytes"))),
                Err(error) => Err(call.asked.transport(error, timeout)),
            };
        }
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let body = match read(&mut response, LARGEST_ERROR).await {
            Ok(Some(body)) => body,
            // "Not found" counts only when all of it was heard.
            Ok(None) | Err(_) if status == StatusCode::NOT_FOUND => {
                let reason = "status 404 with a body that cannot be read";
                return Err(call.asked.unexpected(reason));
            }
            Ok(None) | Err(_) => Vec::new(),
        };
        // APIs like to repeat the request in their error.
        let mut body = String::from_utf8_lossy(&body).into_owned();
        let token = token.map(|token| token.reveal());
        for secret in call.secrets.iter().map(String::as_str).chain(token) {
            body = body.replace(secret, "(hidden)");
        }
        Err(call.asked.failed(status, retry_after, &body))
    }
}

impl Bases {
    fn of(&self, service: Service) -> &Url {
        match service {
            Service::Iam => &self.iam,
            Service::Vpc => &self.vpc,
            Service::Kubernetes => &self.kubernetes,
            Service::Operations => &self.operations,
        }
    }
}

fn invalid(reason: String) -> YandexError {
    YandexError::Invalid {
        operation: "set up the client of Yandex Cloud".to_owned(),
        reason,
    }
}

fn base(text: &str) -> Result<Url, YandexError> {
    let trimmed = text.trim().trim_end_matches('/');
    let url = Url::parse(trimmed).map_err(|e| invalid(format!("YC_URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        return Err(invalid("YC_URL: expected an http(s) address".into()));
    }
    if url.username() != "" || url.password().is_some() {
        return Err(invalid("YC_URL: holds a user or password".into()));
    }
    // A token that goes over the wire as it is belongs to whoever listens.
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(invalid("YC_URL: http leads to this machine only".into()));
    }
    Ok(url)
}

/// The header that says who we are.
fn bearer(token: &str) -> Result<HeaderValue, reqwest::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn bad_settings_are_named_and_secrets_are_not() {
        let good = YandexConfig::new("b1gfolder", Credentials::Token(Secret::new("t1.hunter2")));
        let at = |url: &str| YandexConfig {
            endpoints: Endpoints::at(url),
            ..good.clone()
        };
        let folder = |folder: &str| YandexConfig {
            folder: folder.into(),
            ..good.clone()
        };
        let token = Credentials::Token(Secret::new("hunter2\nx"));
        for (config, want) in [
            (at("api.cloud.yandex.net"), "YC_URL"),
            (at("ftp://api.cloud.yandex.net"), "expected an http(s)"),
            (at("https://u:hunter2@api.example"), "user or password"),
            (at("http://api.example"), "this machine only"),
            (folder(""), "folder"),
            (folder("../b1g"), "folder"),
            (YandexConfig::new("b1gfolder", token), "HTTP header"),
        ] {
            let error = Yandex::new(config).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(want), "no `{want}` in {shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let client = Yandex::new(good.clone()).unwrap();
        let shown = format!("{client:?} {good:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn each_service_has_its_own_host() {
        let token = Credentials::Token(Secret::new("t1"));
        let client = Yandex::new(YandexConfig::new("b1gfolder", token)).unwrap();
        let host = |service| client.inner.bases.of(service).host_str().unwrap();
        assert_eq!(host(Service::Iam), "iam.api.cloud.yandex.net");
        assert_eq!(host(Service::Vpc), "vpc.api.cloud.yandex.net");
        assert_eq!(host(Service::Kubernetes), "mks.api.cloud.yandex.net");
        assert_eq!(host(Service::Operations), "operation.api.cloud.yandex.net");
    }
}
