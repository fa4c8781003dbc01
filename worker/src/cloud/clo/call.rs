//! One call as data: what is sent, whether it may be sent again, and what an answer to it means.
//!
//! Whether a call may be sent again depends on its method. GET, PUT and DELETE have the same
//! effect however often they run, so they are repeated on 429, 5xx and transport errors. A POST
//! or PATCH is repeated only when it was certainly not processed: 429, or no connection at all.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{CloError, message_in};
use crate::cloud::http::cut;

/// One call, ready to be sent any number of times.
pub(super) struct Call {
    pub(super) asked: Asked,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) body_unused: bool,
    pub(super) secrets: Vec<String>,
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
    pub(super) fn body_unused(mut self) -> Self {
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

    pub(super) fn may_repeat(&self, error: &CloError) -> bool {
        if self.method == Method::POST || self.method == Method::PATCH {
            error.is_unprocessed()
        } else {
            error.is_transient()
        }
    }
}

/// What was asked: enough to explain an answer, or the lack of one.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) operation: String,
    pub(super) changes: bool,
}

impl Asked {
    pub(super) fn transport(&self, error: reqwest::Error, timeout: Duration) -> CloError {
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
    pub(super) fn unexpected(&self, reason: String, body: &[u8]) -> CloError {
        // serde repeats a text that is of the wrong type, however long it is.
        let reason = cut(&reason);
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

    pub(super) fn failed(
        &self,
        status: StatusCode,
        retry_after: Option<Duration>,
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
        if status == StatusCode::NOT_FOUND && !is_of_the_api(body) {
            // A web page or a line of text means that a proxy or a wrong CLO_URL answered, and that
            // must not read as "this server does not exist".
            let reason =
                "status 404 without a JSON body: this is not the API (see CLO_URL)".to_owned();
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

/// The API answers in JSON, or with nothing at all.
fn is_of_the_api(body: &str) -> bool {
    body.trim().is_empty()
        || serde_json::from_str::<serde_json::Value>(body).is_ok_and(|v| v.is_object())
}

/// A 2xx answer.
pub(super) struct Answer {
    pub(super) asked: Asked,
    /// When it was given, by the cloud's own clock.
    pub(super) at: Option<Timestamp>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, CloError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.asked.unexpected(error.to_string(), &self.body))
    }
}
