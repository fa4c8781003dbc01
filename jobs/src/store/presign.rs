//! Lending one object to somebody who has no keys: a URL that is good for a while.

use std::time::Duration;

use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::presigning::PresigningConfig;

use super::{Secret, Store, StoreError};

/// Longest time that a lent URL is good for.
const LONGEST_LOAN: Duration = Duration::from_secs(60 * 60);

impl Store {
    /// A URL by which anybody reads the object under `key`, for `valid` from now and an hour at most.
    /// It is as secret as what it leads to: it goes through standard inputs, never into an argument,
    /// a log or a record. Signing asks nobody, so the object need not be there.
    ///
    /// # Errors
    /// When there are no credentials to sign with.
    pub async fn lend(&self, key: &str, valid: Duration) -> Result<Secret, StoreError> {
        let refused = |reason: String| StoreError::Refused {
            doing: "sign a URL for",
            key: key.to_owned(),
            reason,
        };
        let config = PresigningConfig::expires_in(valid.min(LONGEST_LOAN))
            .map_err(|e| refused(e.to_string()))?;
        let request = self.client.get_object().bucket(&self.bucket);
        let signed = request
            .key(self.full(key))
            .presigned(config)
            .await
            .map_err(|e| refused(DisplayErrorContext(&e).to_string()))?;
        Ok(Secret::new(signed.uri()))
    }
}
