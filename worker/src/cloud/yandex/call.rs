//! One call as data: where it goes, whether it may be sent again, and what an answer to it means.
//!
//! A read may be sent again whenever it got no answer. So may a change: it carries an idempotency key, by which the
//! API knows it again and gives the operation that is under way already.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::error::{Rpc, YandexError};
use crate::cloud::http::cut;

/// The services that we talk to; each has a host of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Identity and Access Management: tokens.
    Iam,
    /// Virtual Private Cloud: networks and subnets.
    Vpc,
    /// Managed Service for Kubernetes.
    Kubernetes,
    /// Operations of all services.
    Operations,
}

/// One call, ready to be sent any number of times.
pub(super) struct Call {
    pub(super) asked: Asked,
    pub(super) service: Service,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) key: Option<Uuid>,
    /// Texts that must not come back in an error.
    pub(super) secrets: Vec<String>,
}

impl Call {
    /// A read. `operation` reads like `list networks`; `path` begins with the version's folder.
    pub(super) fn get(
        service: Service,
        operation: impl Into<String>,
        path: impl Into<String>,
    ) -> Self {
        Self::new(Method::GET, service, operation, path)
    }

    /// A change, with the key that it has whenever it is sent.
    pub(super) fn change(
        method: Method,
        service: Service,
        operation: impl Into<String>,
        path: impl Into<String>,
        key: Uuid,
    ) -> Self {
        let mut call = Self::new(method, service, operation, path);
        call.asked.changes = true;
        call.key = Some(key);
        call
    }

    /// A POST that changes nothing: a token is asked for.
    pub(super) fn exchange(operation: &str, path: &str, secret: &str, body: &Value) -> Self {
        let mut call = Self::new(Method::POST, Service::Iam, operation, path).json(body);
        call.secrets.push(secret.to_owned());
        call
    }

    fn new(
        method: Method,
        service: Service,
        operation: impl Into<String>,
        path: impl Into<String>,
    ) -> Self {
        Self {
            asked: Asked {
                operation: operation.into(),
                changes: false,
            },
            service,
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            key: None,
            secrets: Vec::new(),
        }
    }

    /// Adds a query parameter.
    pub(super) fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// Adds a JSON body.
    pub(super) fn json(mut self, body: &Value) -> Self {
        self.body = Some(body.to_string().into_bytes());
        self
    }
}

/// What was asked: enough to explain an answer, or the lack of one.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) operation: String,
    pub(super) changes: bool,
}

impl Asked {
    pub(super) fn transport(&self, error: reqwest::Error, timeout: Duration) -> YandexError {
        let error = error.without_url();
        if error.is_connect() {
            return YandexError::Unreachable {
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
    ) -> YandexError {
        let operation = self.operation.clone();
        if self.changes {
            YandexError::Ambiguous {
                operation,
                reason,
                retry_after,
                source,
            }
        } else {
            YandexError::NoAnswer {
                operation,
                reason,
                retry_after,
                source,
            }
        }
    }

    /// A 2xx answer that cannot be understood: a change has happened then, but which? `reason` holds nothing of the
    /// answer that may be a secret.
    pub(super) fn unexpected(&self, reason: &str) -> YandexError {
        let reason = cut(reason);
        if self.changes {
            return self.unanswered(format!("unexpected answer: {reason}"), None, None);
        }
        YandexError::Unexpected {
            operation: self.operation.clone(),
            reason,
        }
    }

    pub(super) fn failed(
        &self,
        status: StatusCode,
        retry_after: Option<Duration>,
        body: &str,
    ) -> YandexError {
        let operation = self.operation.clone();
        let Rpc { code, message } = Rpc::of(body);
        if status == StatusCode::TOO_MANY_REQUESTS {
            return YandexError::Busy {
                operation,
                message,
                retry_after,
            };
        }
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            let reason = format!("status {}: {message}", status.as_u16());
            return self.unanswered(reason, retry_after, None);
        }
        if status == StatusCode::NOT_FOUND && !is_of_the_api(body) {
            // A web page or a line of text means that a proxy or a wrong address answered, and that must not read as
            // "this cluster does not exist".
            return YandexError::Unexpected {
                operation,
                reason: "status 404 without an error of the API: this is not Yandex Cloud".into(),
            };
        }
        YandexError::Refused {
            operation,
            status: status.as_u16(),
            code,
            message,
        }
    }
}

/// The API's errors are objects with a code or a message.
fn is_of_the_api(body: &str) -> bool {
    let value: Value = serde_json::from_str(body).unwrap_or_default();
    value.is_object() && (value["code"].is_number() || value["message"].is_string())
}

/// A 2xx answer.
pub(super) struct Answer {
    pub(super) asked: Asked,
    /// When it was given, by the cloud's own clock.
    pub(super) at: Option<Timestamp>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, YandexError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.asked.unexpected(&error.to_string()))
    }
}
