//! A bucket that the cluster itself uses. It need not be the one that Rekindle keeps its records in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Problem;

/// A bucket of an S3 store, as the cluster and Rekindle both come to it. Its keys are the secrets
/// `CLUSTER_S3_ACCESS_KEY` and `CLUSTER_S3_SECRET_KEY` of a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// The bucket.
    pub bucket: String,
    /// The store's host, with a port if it is not the usual one; without a scheme.
    pub endpoint: String,
    /// The region.
    #[serde(default = "usual_region")]
    pub region: String,
    /// `https://host/bucket` instead of `https://bucket.host`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_style: bool,
    /// Plain HTTP, for stores on this very machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

fn usual_region() -> String {
    "us-east-1".into()
}

impl Bucket {
    /// The endpoint's URL.
    pub fn url(&self) -> String {
        let scheme = if self.insecure { "http" } else { "https" };
        format!("{scheme}://{}", self.endpoint)
    }

    pub(super) fn check(&self, at: &str, found: &mut Vec<Problem>) {
        let mut bad = |field: &str, reason: &str| {
            found.push(Problem::new(format!("{at}.{field}"), reason));
        };
        let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        if !(3..=63).contains(&self.bucket.len()) || !self.bucket.bytes().all(name) {
            bad(
                "bucket",
                "a bucket's name has 3 to 63 lower-case letters, digits, `-` and `.`",
            );
        }
        let host = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        if self.endpoint.contains("://") {
            bad(
                "endpoint",
                "write it without a scheme, for example storage.example.org",
            );
        } else if self.endpoint.is_empty() || !self.endpoint.bytes().all(host) {
            bad(
                "endpoint",
                "it is not a host name such as storage.example.org",
            );
        }
        if self.region.is_empty() {
            bad("region", "it is empty");
        }
    }
}
