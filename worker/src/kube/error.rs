//! What can go wrong with the Kubernetes API, and whether to try again.
//!
//! The server's own words decide: a request that it refuses for good is fatal, everything that says
//! "not now" is not. No answer at all is never "absent": the next try looks before it acts.

use std::error::Error;
use std::io;
use std::time::Duration;

use ::kube::core::Status;
use rustls::AlertDescription;

use super::connect::ConnectError;
use super::kubeconfig::KubeconfigError;
use super::manifest::ManifestError;
use crate::engine::{Again, JobError};

/// Why something did not work at the Kubernetes API.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// A client cannot be made.
    #[error("make a client for the Kubernetes API: {reason}")]
    Setting {
        /// Why not.
        reason: String,
    },
    /// A request failed.
    #[error("{doing}: {}", words(error))]
    Request {
        /// What we were doing, and to what.
        doing: String,
        /// What came back, if anything.
        error: Box<::kube::Error>,
    },
    /// Somebody else manages fields that we want to set.
    #[error("apply {object}: {}", conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Conflict {
        /// The object.
        object: String,
        /// Who, and which fields.
        conflicts: Vec<FieldConflict>,
    },
    /// The API server does not know a field of an object.
    #[error(
        "apply {object}: the API server is of a version that does not know all of its fields: {message}"
    )]
    UnknownField {
        /// The object.
        object: String,
        /// The server's words.
        message: String,
    },
    /// The API server does not serve a kind, or not yet.
    #[error("find the kind {kind} of {api_version}: the API server does not serve it")]
    UnknownKind {
        /// For example `apps/v1`.
        api_version: String,
        /// For example `Deployment`.
        kind: String,
    },
    /// An object's namespace is missing or too much.
    #[error("place {object}: {reason}")]
    Namespace {
        /// The object.
        object: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// One field that is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is managed by {manager}")]
pub struct FieldConflict {
    /// The field manager.
    pub manager: String,
    /// The field's path.
    pub field: String,
}

/// The server says when to come back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the API server is busy ({code}): {message}")]
pub struct Busy {
    /// The HTTP status.
    pub code: u16,
    /// Its words.
    pub message: String,
    /// When to come back.
    pub after: Duration,
}

impl KubeError {
    /// A failed request, and what it was for.
    pub fn request(doing: impl Into<String>, error: ::kube::Error) -> Self {
        Self::Request {
            doing: doing.into(),
            error: Box::new(error),
        }
    }

    /// The server has somebody else's certificate.
    pub fn is_untrusted(&self) -> bool {
        match self {
            Self::Request { error, .. } => {
                find::<ConnectError>(error.as_ref()).is_some_and(ConnectError::is_untrusted)
            }
            _ => false,
        }
    }

    /// The HTTP status that the server answered with.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Request { error, .. } => match error.as_ref() {
                ::kube::Error::Api(status) => Some(status.code),
                other => find::<Busy>(other).map(|busy| busy.code),
            },
            Self::Conflict { .. } => Some(409),
            _ => None,
        }
    }
}

impl From<::kube::Error> for KubeError {
    fn from(error: ::kube::Error) -> Self {
        Self::request("ask the Kubernetes API", error)
    }
}

impl From<KubeError> for JobError {
    fn from(error: KubeError) -> Self {
        let again = match &error {
            KubeError::Request { error, .. } => again(error),
            // A kind whose definition was just applied is served some moments later.
            KubeError::UnknownKind { .. } => Again::Retry { after: None },
            KubeError::Setting { .. }
            | KubeError::Conflict { .. }
            | KubeError::UnknownField { .. }
            | KubeError::Namespace { .. } => Again::Fatal,
        };
        match again {
            Again::Retry { .. } => Self {
                again,
                ..Self::retry(error)
            },
            Again::NeedsApproval => Self::needs_approval(error),
            Again::Fatal | Again::Interrupted(_) => Self::fatal(error),
        }
    }
}

impl From<KubeconfigError> for JobError {
    fn from(error: KubeconfigError) -> Self {
        match error {
            // Whether the host may be asked again it knows best.
            KubeconfigError::Fetch(ssh) => {
                let doing = format!("fetch {}", super::kubeconfig::ADMIN_CONF);
                Self::from(ssh).while_doing(doing)
            }
            other => Self::fatal(other),
        }
    }
}

impl From<ManifestError> for JobError {
    fn from(error: ManifestError) -> Self {
        Self::fatal(error)
    }
}

/// Whether to repeat a request that failed.
fn again(error: &::kube::Error) -> Again {
    use ::kube::Error as E;
    let retry = Again::Retry { after: None };
    match error {
        E::Api(status) => refused(status),
        // What we wanted to send, or what we expected back, is wrong.
        E::BuildRequest(_) | E::HttpError(_) | E::SerdeError(_) | E::Auth(_) => Again::Fatal,
        other => match (find::<ConnectError>(other), find::<Busy>(other)) {
            (Some(connect), _) => no_connection(connect),
            (None, Some(busy)) => Again::Retry {
                after: Some(busy.after),
            },
            (None, None) if our_certificate_is_refused(other) => Again::NeedsApproval,
            // The connection ended before the answer was there: what came of it is unknown.
            (None, None) => retry,
        },
    }
}

fn refused(status: &Status) -> Again {
    let after = status.details.as_ref().map(|d| d.retry_after_seconds);
    let after = after.filter(|seconds| *seconds > 0);
    let after = after.map(|seconds| Duration::from_secs(seconds.into()));
    match status.code {
        // Wrong whenever it is asked: malformed, not logged in, not allowed, not valid.
        400 | 401 | 403 | 405 | 406 | 413 | 415 | 422 => Again::Fatal,
        // Not there (yet), changed meanwhile, too many requests, the server's own trouble.
        _ => Again::Retry { after },
    }
}

fn no_connection(error: &ConnectError) -> Again {
    match error {
        ConnectError::Untrusted { .. } => Again::NeedsApproval,
        ConnectError::Master { error, .. } => error.again.clone(),
        ConnectError::Dial(_) | ConnectError::NoMaster { .. } | ConnectError::Tls { .. } => {
            Again::Retry { after: None }
        }
    }
}

/// With TLS 1.3 a server may refuse our certificate after we have begun to talk.
fn our_certificate_is_refused(error: &(dyn Error + 'static)) -> bool {
    use AlertDescription as A;
    let alert = find::<rustls::Error>(error);
    alert.is_some_and(|alert| {
        matches!(
            alert,
            rustls::Error::AlertReceived(
                A::BadCertificate
                    | A::UnsupportedCertificate
                    | A::CertificateRevoked
                    | A::CertificateExpired
                    | A::CertificateUnknown
                    | A::UnknownCA
                    | A::AccessDenied
                    | A::CertificateRequired
            )
        )
    })
}

/// What a failed request says, in one line: kube repeats the server's answer with all its fields.
fn words(error: &::kube::Error) -> String {
    let ::kube::Error::Api(status) = error else {
        if let Some(busy) = find::<Busy>(error) {
            return busy.to_string();
        }
        let mut lines: Vec<String> = Vec::new();
        // Where our own account of it begins, what the libraries between say adds nothing.
        let ours = causes(error).find(|cause| cause.is::<ConnectError>());
        let first: &(dyn Error + 'static) = match error {
            ::kube::Error::Service(inner) => inner.as_ref(),
            ::kube::Error::HyperError(inner) => inner,
            other => other,
        };
        for cause in causes(ours.unwrap_or(first)) {
            let text = cause.to_string();
            if !lines.last().is_some_and(|last| last.contains(&text)) {
                lines.push(text);
            }
        }
        return lines.join(": ");
    };
    let what = match status.code {
        401 => "the API server does not accept our credentials",
        403 => "the API server does not allow it",
        404 => "the API server does not have it",
        400 | 422 => "the API server finds it invalid",
        409 => "it changed meanwhile",
        429 | 500.. => "the API server is not able to",
        _ => "the API server refuses",
    };
    let message = match status.message.trim() {
        "" => status.reason.as_str(),
        message => message,
    };
    format!("{what} ({}): {message}", status.code)
}

/// An error of this type among the causes.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref::<T>())
}

/// An error and its causes; also the ones that an `io::Error` wraps, which it does not name as its
/// source.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let next = |error: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    };
    std::iter::successors(Some(error), next)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::Interrupt;

    fn retry(seconds: impl Into<Option<u64>>) -> Again {
        let after = seconds.into().map(Duration::from_secs);
        Again::Retry { after }
    }

    fn check(error: ::kube::Error, expected: Again, text: &str) {
        let job = JobError::from(KubeError::request("read Pod a/b", error));
        assert_eq!(job.again, expected, "{job}");
        assert_eq!(job.to_string(), format!("read Pod a/b: {text}"));
    }

    fn answer(status: Value) -> ::kube::Error {
        ::kube::Error::Api(serde_json::from_value(status).unwrap())
    }

    fn service(error: impl Error + Send + Sync + 'static) -> ::kube::Error {
        ::kube::Error::Service(Box::new(error))
    }

    #[test]
    fn the_servers_answer_decides() {
        for code in [400, 401, 403, 405, 406, 413, 415, 422] {
            let error = answer(json!({"code": code, "message": "no"}));
            assert_eq!(again(&error), Again::Fatal, "{code}");
        }
        for code in [404, 408, 409, 410, 429, 500, 502, 503, 504] {
            let error = answer(json!({"code": code, "message": "not now"}));
            assert_eq!(again(&error), retry(None), "{code}");
        }
        check(
            answer(json!({"code": 403, "reason": "Forbidden", "message": "pods is forbidden: no"})),
            Again::Fatal,
            "the API server does not allow it (403): pods is forbidden: no",
        );
        check(
            answer(json!({"code": 401, "reason": "Unauthorized"})),
            Again::Fatal,
            "the API server does not accept our credentials (401): Unauthorized",
        );
        check(
            answer(json!({"code": 429, "message": "storage is initializing",
                "details": {"retryAfterSeconds": 7}})),
            retry(7),
            "the API server is not able to (429): storage is initializing",
        );
        let busy = Busy {
            code: 503,
            message: "later".into(),
            after: Duration::from_secs(3),
        };
        check(
            service(busy),
            retry(3),
            "the API server is busy (503): later",
        );
    }

    #[test]
    fn no_answer_is_worth_another_try_unless_somebody_is_not_who_they_should_be() {
        let torn = io::Error::from(io::ErrorKind::UnexpectedEof);
        check(service(torn), retry(None), "unexpected end of file");
        let nobody = ConnectError::NoMaster {
            tried: vec!["m1: gone".into(), "m2: gone".into()],
        };
        check(
            service(nobody),
            retry(None),
            "reach the Kubernetes API: m1: gone; m2: gone",
        );
        // However deep the libraries between wrap it.
        let untrusted = ConnectError::Untrusted {
            target: "m1".into(),
            source: rustls::Error::NoCertificatesPresented,
        };
        check(
            service(io::Error::other(io::Error::other(untrusted))),
            Again::NeedsApproval,
            "trust the Kubernetes API at m1: peer sent no certificates",
        );
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        let refused = service(io::Error::other(alert));
        assert_eq!(again(&refused), Again::NeedsApproval);
        let other = rustls::Error::AlertReceived(AlertDescription::InternalError);
        assert_eq!(again(&service(io::Error::other(other))), retry(None));
    }

    #[test]
    fn what_a_master_said_decides_also_for_its_api() {
        for said in [Again::Fatal, Again::NeedsApproval, retry(9)] {
            let mut error = JobError::retry("why");
            error.again = said.clone();
            let master = ConnectError::Master {
                master: "m1".into(),
                error,
            };
            check(
                service(master),
                said,
                "reach the Kubernetes API through m1: why",
            );
        }
    }

    #[test]
    fn nothing_interrupts_a_job_but_the_engine() {
        let mut error = JobError::retry("why");
        error.again = Again::Interrupted(Interrupt::LostLease);
        let master = ConnectError::Master {
            master: "m1".into(),
            error,
        };
        let job = JobError::from(KubeError::from(service(master)));
        assert_eq!(job.again, Again::Fatal);
    }

    #[test]
    fn what_we_ask_for_may_be_wrong_or_not_there_yet() {
        let job = |error: KubeError| JobError::from(error).again;
        let (object, api_version) = (String::from("Pod a/b"), String::from("v1"));
        let kind = String::from("Pod");
        assert_eq!(
            job(KubeError::UnknownKind { api_version, kind }),
            retry(None)
        );
        let conflict = FieldConflict {
            manager: "helm".into(),
            field: ".spec".into(),
        };
        let conflicts = vec![conflict];
        assert_eq!(job(KubeError::Conflict { object, conflicts }), Again::Fatal);
        let decode = serde_json::from_str::<Value>("{").unwrap_err();
        assert_eq!(job(::kube::Error::SerdeError(decode).into()), Again::Fatal);
    }
}
