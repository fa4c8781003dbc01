//! What can go wrong with a call to Yandex Cloud, and what the caller may conclude from it.

use std::time::Duration;

use serde::Deserialize;

use crate::cloud::http::cut;

/// Why a call failed. `operation` always reads like `create cluster rekindle-test-r-1-0`.
#[derive(Debug, thiserror::Error)]
pub enum YandexError {
    /// A setting of the client or an argument of the call makes no sense; nothing was sent.
    #[error("{operation}: {reason}")]
    Invalid {
        /// What was asked for.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The API said no: it understood the call and did nothing.
    #[error("{operation}: Yandex Cloud refused with status {status}: {message}")]
    Refused {
        /// What was asked for.
        operation: String,
        /// The HTTP status, 3xx or 4xx.
        status: u16,
        /// The code of google.rpc, when the answer has one.
        code: Option<i64>,
        /// The API's own words.
        message: String,
    },
    /// The API does not take more calls right now, or a quota is used up (429); this one was not processed.
    #[error("{operation}: Yandex Cloud is busy, or a quota is used up (429): {message}")]
    Busy {
        /// What was asked for.
        operation: String,
        /// The API's words.
        message: String,
        /// How long the API asked us to wait.
        retry_after: Option<Duration>,
    },
    /// It cannot be reached: no connection came about, so nothing was processed.
    #[error("{operation}: Yandex Cloud is not reachable")]
    Unreachable {
        /// What was asked for.
        operation: String,
        /// The connection's error.
        source: reqwest::Error,
    },
    /// A read got no usable answer (5xx, timeout, cut connection). It says nothing about the world.
    #[error("{operation}: no answer from Yandex Cloud: {reason}")]
    NoAnswer {
        /// What was asked for.
        operation: String,
        /// For example `status 502: bad gateway`.
        reason: String,
        /// How long the API asked us to wait.
        retry_after: Option<Duration>,
        /// The transport's error, if it was one.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// A change was sent and its outcome is unknown. It may be sent again with the same idempotency key.
    #[error("{operation}: Yandex Cloud may or may not have done it: {reason}")]
    Ambiguous {
        /// What was asked for.
        operation: String,
        /// For example `no answer within 30s`.
        reason: String,
        /// How long the API asked us to wait.
        retry_after: Option<Duration>,
        /// The transport's error, if it was one.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The answer to a read is not what the API promises.
    #[error("{operation}: unexpected answer: {reason}")]
    Unexpected {
        /// What was asked for.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A list broke off before its end: what is missing in it may exist all the same.
    #[error("{operation}: incomplete list: {reason}")]
    IncompleteList {
        /// What was asked for.
        operation: String,
        /// How it broke off.
        reason: &'static str,
    },
}

/// `FAILED_PRECONDITION`: not in this state of things, which may change.
const FAILED_PRECONDITION: i64 = 9;

impl YandexError {
    /// A change was sent and nobody knows whether it happened.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Ambiguous { .. })
    }

    /// Trying again later may help; a change with the same idempotency key.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::Unreachable { .. }
                | Self::NoAnswer { .. }
                | Self::Ambiguous { .. }
                | Self::IncompleteList { .. }
        )
    }

    /// The same call will get the same answer, whatever happens meanwhile: our settings, rights or arguments are
    /// wrong.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::Invalid { .. } => true,
            Self::Refused { status, code, .. } => match status {
                401..=403 => true,
                // The state of other things is called a bad request too.
                400 => *code != Some(FAILED_PRECONDITION),
                _ => false,
            },
            _ => false,
        }
    }

    /// HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Busy { .. } => Some(429),
            _ => None,
        }
    }

    /// How long the API asked us to wait before the next call.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. }
            | Self::NoAnswer { retry_after, .. }
            | Self::Ambiguous { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// An error as the API writes it: `google.rpc.Status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Rpc {
    #[serde(default, deserialize_with = "super::model::maybe_int")]
    pub(super) code: Option<i64>,
    #[serde(default, deserialize_with = "super::model::or_default")]
    pub(super) message: String,
}

impl Rpc {
    /// Reads an error's body; what is none of the API's is cut and taken as the message.
    pub(super) fn of(body: &str) -> Self {
        let found: Option<Self> = serde_json::from_str(body).ok();
        let words = |text: &str| match text.trim() {
            "" => "(no words)".to_owned(),
            text => cut(text),
        };
        match found {
            Some(rpc) if rpc != Self::default() => Self {
                message: words(&rpc.message),
                ..rpc
            },
            _ => Self {
                code: None,
                message: words(body),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> YandexError {
        let Rpc { code, message } = Rpc::of(body);
        YandexError::Refused {
            operation: "create network n".into(),
            status,
            code,
            message,
        }
    }

    #[test]
    fn only_what_is_certainly_wrong_is_hopeless() {
        for (status, body, hopeless) in [
            (400, r#"{"code":3,"message":"name: bad"}"#, true),
            (400, r#"{"code":"3","message":"name: bad"}"#, true),
            (400, r#"{"code":9,"message":"network has subnets"}"#, false),
            (400, "<html>", true),
            (401, r#"{"code":16,"message":"token has expired"}"#, true),
            (403, r#"{"code":7,"message":"Permission denied"}"#, true),
            (
                404,
                r#"{"code":5,"message":"Network enp1 not found"}"#,
                false,
            ),
            (409, r#"{"code":6,"message":"already exists"}"#, false),
        ] {
            let error = refused(status, body);
            assert_eq!(error.is_hopeless(), hopeless, "{status} {body}");
            assert!(!error.is_transient() && !error.is_ambiguous());
        }
    }

    #[test]
    fn the_words_of_the_api_are_found_and_cut() {
        for (body, want) in [
            (
                r#"{"code":3,"message":" name: bad ","details":[]}"#,
                "name: bad",
            ),
            (r#"{"code":13}"#, "(no words)"),
            (r#"{"error":"x"}"#, r#"{"error":"x"}"#),
            ("<html>bad gateway</html>", "<html>bad gateway</html>"),
            ("", "(no words)"),
        ] {
            assert_eq!(Rpc::of(body).message, want, "{body}");
        }
        assert!(Rpc::of(&"x".repeat(5000)).message.chars().count() <= 501);
    }
}
