//! The canary: one file of the secrets' bucket that must open with the age key, in the worker's memory, before
//! anything is applied.

use std::time::Duration;

use jobs::secrets::Secrets;
use jobs::spec::{Bucket, Flux};
use jobs::store::{Credentials, Small, Store, StoreConfig, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::secrets::{ACCESS_KEY, AGE_KEY, SECRET_KEY};
use crate::engine::JobError;
use crate::{sealed, sops};

/// No SOPS file is larger, in bytes.
const LARGEST: u64 = 4 << 20;
/// One request to the bucket.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What was opened. Names only, and the digest of the ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Opened {
    /// The file's key in the bucket.
    key: String,
    /// SHA-256 of the file as it lies there.
    digest: String,
    /// The names of what it holds.
    names: Vec<String>,
}

/// Reads the canary and opens it.
pub(super) async fn open(flux: &Flux, given: &Secrets) -> Result<Opened, JobError> {
    let (bucket, key) = (&flux.secrets, &flux.canary);
    let place = format!(
        "`{key}` in bucket `{}` at {}",
        bucket.bucket, bucket.endpoint
    );
    let store = connect(bucket, given).await?;
    let file = match store.get_small(key, LARGEST).await {
        Ok(Small::Body(file)) => file,
        Ok(Small::Absent) => {
            return Err(JobError::fatal(format!(
                "flux.canary: there is no {place}: put a SOPS file there, or name one that is there"
            )));
        }
        Ok(Small::TooLarge(size)) => {
            let text = format!("flux.canary: {place} has {size} bytes: it is no SOPS file");
            return Err(JobError::fatal(text));
        }
        Err(error @ StoreError::Refused { .. }) => {
            return Err(JobError::fatal(format!(
                "flux.canary: {place} cannot be read: {error}: are {ACCESS_KEY}, {SECRET_KEY} and `flux.secrets` right?"
            )));
        }
        Err(error) => {
            return Err(JobError::from(error).while_doing(format!("read the canary, {place}")));
        }
    };
    let text = std::str::from_utf8(&file)
        .map_err(|_| JobError::fatal(format!("flux.canary: {place} is not text")))?;
    let age = sealed::need(given, AGE_KEY)?;
    let document = sops::open(text, age.reveal()).map_err(|error| {
        JobError::fatal(format!(
            "flux.canary: {place} does not open with {AGE_KEY}: {error}. Nothing was applied: start a recovery with the key that the bucket's files are encrypted to"
        ))
    })?;
    Ok(Opened {
        key: key.clone(),
        digest: jobs::digest(&file),
        names: names(&document),
    })
}

async fn connect(bucket: &Bucket, given: &Secrets) -> Result<Store, JobError> {
    let access = sealed::need(given, ACCESS_KEY)?.reveal().trim().to_owned();
    let secret = sealed::need(given, SECRET_KEY)?.reveal().trim().to_owned();
    let config = StoreConfig {
        endpoint: Some(bucket.url()),
        bucket: bucket.bucket.clone(),
        credentials: Credentials::Keys {
            access,
            secret: secret.into(),
        },
        region: bucket.region.clone(),
        prefix: String::new(),
        path_style: bucket.path_style,
        timeout: TIMEOUT,
    };
    Ok(Store::connect(&config).await?)
}

/// The names of a Secret's keys, or of a document's.
fn names(document: &Value) -> Vec<String> {
    let keys = |at: &Value| -> Vec<String> {
        let map = at.as_object().into_iter().flatten();
        map.map(|(key, _)| key.clone()).collect()
    };
    let mut names = [keys(&document["data"]), keys(&document["stringData"])].concat();
    if names.is_empty() {
        names = keys(document);
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_names_of_what_was_opened_are_kept() {
        let secret =
            json!({"kind": "Secret", "data": {"b": "hunter2"}, "stringData": {"a": "hunter3"}});
        assert_eq!(names(&secret), ["b", "a"]);
        assert_eq!(names(&json!({"password": "hunter2"})), ["password"]);
        assert_eq!(names(&json!("hunter2")), Vec::<String>::new());
    }
}
