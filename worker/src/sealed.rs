//! A recovery's secrets, opened by the worker that needs them: from the bucket into its memory, and
//! nowhere else.

use jobs::secrets::{Secrets, SecretsError};
use jobs::store::Secret;

use crate::engine::{Ctx, JobError};

/// The secrets that this recovery was given.
///
/// # Errors
/// A failed read may be tried again; that nobody gave any, that they are another worker's, or that
/// they are damaged needs a person.
pub async fn secrets(ctx: &Ctx) -> Result<Secrets, JobError> {
    let record = ctx.store().recovery_record(ctx.cluster(), ctx.recovery());
    let sealed = record.await?.and_then(|record| record.inputs.secrets);
    let sealed = sealed.ok_or_else(|| {
        JobError::fatal(
            "this recovery was given no secrets: start one with --recipient and --secret",
        )
    })?;
    let identity = ctx.world().identity.as_ref().ok_or_else(|| {
        let recipient = &sealed.recipient;
        JobError::fatal(format!(
            "this worker has no age identity to open what is sealed to {recipient}: set REKINDLE_AGE_IDENTITY_FILE, then `rekindle retry`"
        ))
    })?;
    let bytes = ctx.store().get_input(&sealed.input).await?;
    Secrets::open(&bytes, ctx.cluster(), identity).map_err(|error| {
        let text = match &error {
            SecretsError::OtherKey(ours) => format!(
                "the secrets are sealed to {}, this worker's key is {ours}: give it the other one, then `rekindle retry`",
                sealed.recipient
            ),
            other => format!("failed to open the secrets: {other}"),
        };
        JobError::fatal(text)
    })
}

/// One of them that a job cannot do without.
pub fn need<'a>(secrets: &'a Secrets, name: &str) -> Result<&'a Secret, JobError> {
    secrets.get(name).ok_or_else(|| {
        let names = secrets.names().join(", ");
        JobError::fatal(format!(
            "this recovery was given no secret {name}, but {names}: start one with --secret {name}"
        ))
    })
}
