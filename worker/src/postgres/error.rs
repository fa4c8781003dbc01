//! What can go wrong with the database, and whether to ask again.

use std::error::Error;

use crate::engine::{Again, JobError};

/// Why the database gave no answer. An answer that is an error is [`super::Answer::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// A setting of the connection is of no use.
    #[error("{what}: {reason}")]
    Setting {
        /// Which.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something is wrong on the way to a master, and another master is no answer to it.
    #[error("reach the database through {master}: {error}")]
    Master {
        /// The master.
        master: String,
        /// What is wrong, and whether another try may help.
        error: JobError,
    },
    /// No master leads to the database at the moment.
    #[error("reach the database at {target}: {}", if tried.is_empty() { "the cluster has no master".to_owned() } else { tried.join("; ") })]
    NoWay {
        /// Where it should be.
        target: String,
        /// The masters, and what each one said.
        tried: Vec<String>,
    },
    /// What answers is not the database of this cluster. Never retried.
    #[error("trust the database at {target}: {reason}")]
    Untrusted {
        /// Where it is.
        target: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// It does not let us in, or not yet: it starts, or the operator has not set the password.
    #[error("log in to database `{database}` as `{user}`: {reason}")]
    LogIn {
        /// The database.
        database: String,
        /// The user.
        user: String,
        /// Its words.
        reason: String,
    },
    /// The connection ended before the answer was there.
    #[error("ask database `{database}`: {reason}")]
    Cut {
        /// The database.
        database: String,
        /// How.
        reason: String,
    },
}

impl From<PostgresError> for JobError {
    fn from(error: PostgresError) -> Self {
        let again = match &error {
            PostgresError::Setting { .. } => Again::Fatal,
            PostgresError::Untrusted { .. } => Again::NeedsApproval,
            PostgresError::Master { error, .. } => error.again.clone(),
            PostgresError::NoWay { .. }
            | PostgresError::LogIn { .. }
            | PostgresError::Cut { .. } => Again::Retry { after: None },
        };
        Self {
            again,
            ..Self::retry(error)
        }
    }
}

/// What a failed connection says, in one line: the library keeps the server's words in the source.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = cause.source();
    }
    text
}

/// What rustls has against the server's certificate, if that is what went wrong.
pub(super) fn wrong_certificate(error: &tokio_postgres::Error) -> Option<String> {
    let mut source = error.source();
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>();
        let inner = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
        if let Some(tls) = inner.or_else(|| cause.downcast_ref::<rustls::Error>()) {
            let wrong = matches!(
                tls,
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
            );
            return wrong.then(|| tls.to_string());
        }
        source = cause.source();
    }
    None
}
