//! What can go wrong with a call to CLO, and what the caller may conclude from it.

use std::time::Duration;

use crate::cloud::http::cut;

/// Why a call failed. `operation` always reads like `create server test-web-1`.
#[derive(Debug, thiserror::Error)]
pub enum CloError {
    /// A setting of the client or an argument of the call makes no sense; nothing was sent.
    #[error("{operation}: {reason}")]
    Invalid {
        /// What was asked for.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The API said no: it understood the call and did nothing.
    #[error("{operation}: CLO refused with status {status}: {message}")]
    Refused {
        /// What was asked for.
        operation: String,
        /// The HTTP status, 3xx or 4xx.
        status: u16,
        /// The API's own words, as far as they could be found in the body.
        message: String,
        /// The raw body, cut; for the log.
        body: String,
    },
    /// The API does not take more calls right now (429); this one was not processed.
    #[error("{operation}: CLO is busy (429): {message}")]
    Busy {
        /// What was asked for.
        operation: String,
        /// The API's words.
        message: String,
        /// How long the API asked us to wait.
        retry_after: Option<Duration>,
    },
    /// CLO cannot be reached: no connection came about, so nothing was processed.
    #[error("{operation}: CLO is not reachable")]
    Unreachable {
        /// What was asked for.
        operation: String,
        /// The connection's error.
        source: reqwest::Error,
    },
    /// A read got no usable answer (5xx, timeout, cut connection). It says nothing about the world.
    #[error("{operation}: no answer from CLO: {reason}")]
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
    /// A change was sent and its outcome is unknown: CLO may or may not have done it.
    #[error("{operation}: CLO may or may not have done it: {reason}")]
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
        /// The raw body, cut; for the log.
        body: String,
    },
    /// A list broke off before its end: what is missing in it may exist all the same.
    #[error("{operation}: incomplete list: {reason} (got {got} of {count})")]
    IncompleteList {
        /// What was asked for.
        operation: String,
        /// How it broke off.
        reason: &'static str,
        /// How many different items arrived.
        got: usize,
        /// How many there are, says CLO.
        count: u64,
    },
    /// More than one resource bears a name that only we give, so an earlier create ran twice.
    #[error("{what}: {} of them exist: {}; delete the wrong ones", ids.len(), ids.join(", "))]
    Several {
        /// Kind and name.
        what: String,
        /// Ids of all that bear the name.
        ids: Vec<String>,
    },
}

impl CloError {
    /// A change was sent and nobody knows whether it happened. Look before doing anything else.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Ambiguous { .. })
    }

    /// Trying again later may help. For an ambiguous change that means: look first.
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

    /// The API understood and said no; the same call will get the same answer.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
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

    /// The call was certainly not processed, so even a create may be sent again.
    pub(super) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable { .. })
    }
}

/// Finds the API's own words in an error body. The schemas of the SDK, of its older version and of
/// the v1 API differ, and real bodies differ from all of them.
pub(super) fn message_in(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let places = [
        &value["message"],
        &value["error"]["message"],
        &value["description"],
        &value["title"],
        &value["error"],
        &value["detail"],
    ];
    let words = places
        .iter()
        .filter_map(|place| place.as_str())
        .find(|text| !text.trim().is_empty());
    match words {
        Some(text) => cut(text.trim()),
        None if body.trim().is_empty() => "(no body)".to_owned(),
        None => cut(body.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_api_are_found_wherever_it_puts_them() {
        for (body, want) in [
            (r#"{"code":400,"message":"name is taken"}"#, "name is taken"),
            (
                r#"{"code":400,"title":"Bad Request","error":{"message":"must be in-use"}}"#,
                "must be in-use",
            ),
            (r#"{"description":"no such flavor"}"#, "no such flavor"),
            (r#"{"title":"Forbidden","message":""}"#, "Forbidden"),
            (r#"{"error":"quota"}"#, "quota"),
            (r#"{"ram":["too big"]}"#, r#"{"ram":["too big"]}"#),
            ("<html>bad gateway</html>", "<html>bad gateway</html>"),
            ("", "(no body)"),
        ] {
            assert_eq!(message_in(body), want, "body {body}");
        }
    }
}
