//! From the SDK's errors to ours. Here it is decided which trouble passes by itself.

use std::time::Duration;

use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::queue::QueueError;

/// SQS purges a queue once in this time.
const BETWEEN_PURGES: Duration = Duration::from_secs(60);

/// A call that failed, in the service's words.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    reason: String,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such queue.
    Absent,
    /// There is such a queue already, with other attributes.
    Exists,
    /// The queue is being purged, or was a moment ago.
    Purging,
    /// The message is not ours any more.
    Stale,
    /// No rights, or nobody knows us.
    Refused,
    /// No answer in this time: the call may have had its effect.
    Late(Duration),
    /// Anything else passes, or has to be waited for.
    Passing,
}

impl Failed {
    /// The error of doing something with our queue. For a publish only, an effect that is not
    /// known makes a difference.
    pub(super) fn during(self, doing: &'static str) -> QueueError {
        let reason = self.reason;
        match self.kind {
            Kind::Refused => QueueError::Refused { doing, reason },
            Kind::Late(after) if doing == "publish" => QueueError::Unconfirmed { doing, after },
            _ => QueueError::Unreachable { doing, reason },
        }
    }

    /// The error of purging the queue `name`.
    pub(super) fn of_purging(self, name: &str) -> QueueError {
        match self.kind {
            Kind::Purging => QueueError::TooSoon {
                queue: name.to_owned(),
                after: BETWEEN_PURGES,
            },
            _ => self.during("purge"),
        }
    }

    /// The error of making the queue `name`.
    pub(super) fn of_making(self, name: &str) -> QueueError {
        match self.kind {
            Kind::Exists => QueueError::Different {
                queue: name.to_owned(),
                reason: self.reason,
            },
            _ => self.during("make the queues"),
        }
    }
}

/// Sorts an error of the SDK. `limit` is how long the call was allowed to take.
pub(super) fn classify<E>(error: SdkError<E>, limit: Duration) -> Failed
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    if matches!(error, SdkError::TimeoutError(_)) {
        let reason = format!("no answer after {limit:?}");
        let kind = Kind::Late(limit);
        return Failed { kind, reason };
    }
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let message = error.message().unwrap_or_default();
    let reason = match status {
        Some(status) => format!("{status} {code} {message}").trim().to_owned(),
        None => short(&DisplayErrorContext(&error).to_string()),
    };
    let kind = match status {
        Some(status) => said(status, &code, message),
        // No credentials to be had is not an outage.
        None if reason.contains("CredentialsNotLoaded")
            || reason.contains("no providers in chain") =>
        {
            Kind::Refused
        }
        None => Kind::Passing,
    };
    Failed { kind, reason }
}

/// The old protocol and the new one have different words for the same.
fn said(status: u16, code: &str, message: &str) -> Kind {
    // A clock that jumped: the SDK learns the difference from the answer.
    if message.contains("Signature expired") || message.contains("not yet current") {
        return Kind::Passing;
    }
    match code.rsplit('.').next().unwrap_or_default() {
        "NonExistentQueue" | "QueueDoesNotExist" => Kind::Absent,
        "QueueAlreadyExists" | "QueueNameExists" => Kind::Exists,
        "PurgeQueueInProgress" => Kind::Purging,
        "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidParameterValue" => Kind::Stale,
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSecurity"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Kind::Refused,
        "OverLimit" | "RequestExpired" | "RequestTimeTooSkewed" => Kind::Passing,
        // Throttling is said with 400 or 403.
        code if code.contains("Throttl") => Kind::Passing,
        _ if matches!(status, 401 | 403) => Kind::Refused,
        _ => Kind::Passing,
    }
}

/// The delivery's time is over, or its consumer is gone.
pub(super) fn gone(doing: &'static str) -> QueueError {
    QueueError::Unreachable {
        doing,
        reason: "this delivery is lost: somebody else may have the message".to_owned(),
    }
}

pub(super) fn settled(doing: &'static str) -> QueueError {
    QueueError::Unreachable {
        doing,
        reason: "the delivery was settled before".to_owned(),
    }
}

/// The first causes of a long chain; the rest is the SDK's innards.
fn short(text: &str) -> String {
    let text = text.split(" (DispatchFailure").next().unwrap_or(text);
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_that_comes_too_soon_says_so() {
        for code in [
            "PurgeQueueInProgress",
            "AWS.SimpleQueueService.PurgeQueueInProgress",
        ] {
            let kind = said(403, code, "only one PurgeQueue operation every 60 seconds");
            let reason = String::new();
            let error = Failed { kind, reason }.of_purging("jobs-dead").to_string();
            assert!(
                error.contains("`jobs-dead` was purged less than 60s ago"),
                "{error}"
            );
        }
    }

    #[test]
    fn words_of_both_protocols_are_known() {
        for (status, code, kind) in [
            (400, "AWS.SimpleQueueService.NonExistentQueue", Kind::Absent),
            (400, "QueueDoesNotExist", Kind::Absent),
            (400, "QueueAlreadyExists", Kind::Exists),
            (404, "ReceiptHandleIsInvalid", Kind::Stale),
            (403, "InvalidClientTokenId", Kind::Refused),
            (400, "AccessDeniedException", Kind::Refused),
            (403, "SomethingNew", Kind::Refused),
            (403, "RequestThrottled", Kind::Passing),
            (400, "ThrottlingException", Kind::Passing),
            (
                400,
                "AWS.SimpleQueueService.QueueDeletedRecently",
                Kind::Passing,
            ),
            (500, "InternalError", Kind::Passing),
            (503, "", Kind::Passing),
        ] {
            assert_eq!(said(status, code, ""), kind, "{status} {code}");
        }
        let late = "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z";
        assert_eq!(said(403, "SignatureDoesNotMatch", late), Kind::Passing);
    }
}
