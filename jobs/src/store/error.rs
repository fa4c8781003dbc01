//! What can go wrong with the store, and how sure we are about the effect.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer, or answered that it is in trouble, through all tries. Of a write
    /// we do not know whether it took effect.
    #[error("{doing} `{key}`: the store is not reachable: {reason}")]
    Unavailable {
        /// What we were doing.
        doing: &'static str,
        /// To which key.
        key: String,
        /// The last try's answer.
        reason: String,
    },
    /// The store refused: wrong credentials, no such bucket, a malformed request.
    #[error("{doing} `{key}`: the store refused: {reason}")]
    Refused {
        /// What we were doing.
        doing: &'static str,
        /// To which key.
        key: String,
        /// Its answer.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("{field}: {reason}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The bucket lets two writers create the same key: nothing we promise would hold.
    #[error(
        "the bucket does not keep `If-None-Match: *`: {reason}. Rekindle cannot work on it; \
         take a bucket without versioning, or another store (docs/operations.md, \"Which stores work\")"
    )]
    Unsafe {
        /// What the probe saw.
        reason: String,
    },
    /// A record that this build cannot read.
    #[error("`{key}` has record schema {found}, this build reads up to {known}: update it")]
    NewerSchema {
        /// The object.
        key: String,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A record that is damaged.
    #[error("`{key}` is not a record: {reason}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A listing that does not go on in order, and perhaps not to its end.
    #[error(
        "list `{prefix}`: the store's pages do not follow one another in the order of their keys"
    )]
    Paging {
        /// What was listed.
        prefix: String,
    },
    /// An object was replaced while it was downloaded.
    #[error("download `{key}`: the object changed on the way")]
    Changed {
        /// The object.
        key: String,
    },
    /// A file of ours cannot be read or written.
    #[error("{doing} `{key}`: {reason}")]
    Local {
        /// What we were doing.
        doing: &'static str,
        /// With which object.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

impl StoreError {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Changed { .. } | Self::Paging { .. }
        )
    }
}

/// One failed request.
#[derive(Debug)]
pub(super) struct Failed {
    status: Option<u16>,
    code: String,
    reason: String,
    config: bool,
}

impl Failed {
    /// A failure on our side of the wire (a file that cannot be read).
    pub(super) fn local(error: &dyn std::fmt::Display) -> Self {
        Self {
            status: Some(400),
            code: "local".into(),
            reason: error.to_string(),
            config: false,
        }
    }

    /// The body was cut in the middle.
    pub(super) fn cut(error: &dyn std::fmt::Display) -> Self {
        Self {
            status: None,
            code: "cut".into(),
            reason: format!("the answer was cut: {error}"),
            config: false,
        }
    }

    /// 412: the key is taken.
    pub(super) fn is_conflict(&self) -> bool {
        self.status == Some(412)
    }

    /// The one answer that means "absent". A 404 for the bucket is not it.
    pub(super) fn is_no_such_key(&self) -> bool {
        self.status == Some(404) && self.code == "NoSuchKey"
    }

    /// No answer, or one that leaves the effect open. Two answers to a line that stalled or broke
    /// have the status of a bad request, and a 404 without S3's reason was cut, or is not S3's.
    pub(super) fn is_unclear(&self) -> bool {
        let broken = matches!(
            (self.status, self.code.as_str()),
            (_, "RequestTimeout" | "IncompleteBody") | (Some(404), "")
        );
        let open = matches!(self.status, None | Some(408 | 409 | 425 | 429 | 500..));
        !self.config && (open || broken)
    }

    pub(super) fn during(self, doing: &'static str, key: &str) -> StoreError {
        let key = key.to_owned();
        if self.is_unclear() {
            let reason = self.reason;
            return StoreError::Unavailable { doing, key, reason };
        }
        let reason = match self.check() {
            Some(what) => format!("{}; check {what}", self.reason),
            None => self.reason,
        };
        StoreError::Refused { doing, key, reason }
    }

    /// What is most likely wrong when the store refuses.
    fn check(&self) -> Option<&'static str> {
        match (self.code.as_str(), self.status) {
            ("NoSuchBucket", _) => Some("S3_BUCKET"),
            ("InvalidAccessKeyId", _) => Some("S3_ACCESS_KEY"),
            ("SignatureDoesNotMatch", _) => Some("S3_SECRET_KEY"),
            ("RequestTimeTooSkewed", _) => Some("this machine's clock"),
            ("AuthorizationHeaderMalformed" | "PermanentRedirect", _) | (_, Some(301 | 307)) => {
                Some("S3_REGION and S3_ENDPOINT")
            }
            (_, Some(401 | 403)) => Some("S3_ACCESS_KEY and its rights on the bucket"),
            _ => None,
        }
    }
}

pub(super) fn classify<E>(error: SdkError<E>) -> Failed
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let message = error.message().unwrap_or_default().to_owned();
    let reason = match (status, code.is_empty()) {
        (Some(status), false) => format!("{status} {code} {message}").trim().to_owned(),
        (Some(status), true) => format!("{status}"),
        (None, _) => short(&DisplayErrorContext(&error).to_string()),
    };
    // No credentials to be had is not an outage.
    let config = matches!(error, SdkError::ConstructionFailure(_))
        || reason.contains("CredentialsNotLoaded")
        || reason.contains("no providers in chain");
    // A success that could not be parsed has a 2xx status: its effect is open.
    let status = status.filter(|status| *status >= 300);
    Failed {
        status,
        code,
        reason,
        config,
    }
}

/// The first causes of a long chain; the rest is the SDK's innards.
fn short(text: &str) -> String {
    let text = text.split(" (DispatchFailure").next().unwrap_or(text);
    text.chars().take(300).collect()
}
