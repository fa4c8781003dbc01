//! Where the bucket is and how to get in.

use std::fmt;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Builder, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
    SharedHttpClient,
};

use super::StoreError;

/// A text that must not be seen: it never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// How we sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// `S3_ACCESS_KEY` and `S3_SECRET_KEY`.
    Keys {
        /// The access key id.
        access: String,
        /// The secret key.
        secret: Secret,
    },
    /// AWS' own chain: environment, profile, instance role.
    Aws,
}

/// The settings of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Endpoint URL; AWS' own when absent. A host name without a scheme gets `https://`.
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// How we sign.
    pub credentials: Credentials,
    /// The region.
    pub region: String,
    /// Everything of ours lies below this; may be empty.
    pub prefix: String,
    /// `https://host/bucket` instead of `https://bucket.host`.
    pub path_style: bool,
    /// How long one request may take.
    pub timeout: Duration,
}

impl StoreConfig {
    pub(super) fn normal_prefix(&self) -> String {
        match self.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    /// The client over TCP. What we do not set comes from where AWS' own tools have it.
    pub(super) async fn client(&self) -> Result<Client, StoreError> {
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()));
        let loader = match self.keys() {
            Some(keys) => loader.credentials_provider(keys),
            None => loader,
        };
        self.finish(Builder::from(&loader.load().await))
    }

    /// The client over something else than TCP; nothing of the machine is looked at.
    pub(super) fn client_over(&self, http: SharedHttpClient) -> Result<Client, StoreError> {
        let mut builder = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .http_client(http);
        builder.set_credentials_provider(self.keys().map(SharedCredentialsProvider::new));
        self.finish(builder)
    }

    fn keys(&self) -> Option<aws_sdk_s3::config::Credentials> {
        match &self.credentials {
            Credentials::Keys { access, secret } => {
                let secret = secret.reveal();
                Some(aws_sdk_s3::config::Credentials::new(
                    access, secret, None, None, "rekindle",
                ))
            }
            Credentials::Aws => None,
        }
    }

    /// Retries are ours (the SDK's would hide that an earlier try took effect), and so are the
    /// checksums: only when required, since old Ceph refuses trailers.
    fn finish(&self, builder: Builder) -> Result<Client, StoreError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(self.timeout);
        let mut builder = builder
            .timeout_config(timeouts.build())
            .retry_config(RetryConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .force_path_style(self.path_style);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint_url(normal_endpoint(endpoint)?);
        }
        Ok(Client::from_conf(builder.build()))
    }
}

fn normal_endpoint(endpoint: &str) -> Result<String, StoreError> {
    let url = if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("https://{endpoint}")
    };
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    match rest {
        Some(rest)
            if !rest.is_empty()
                && !rest.starts_with('/')
                && !rest.contains('@')
                && !rest.contains(char::is_whitespace) =>
        {
            Ok(url)
        }
        _ => Err(StoreError::Config {
            field: "S3_ENDPOINT",
            reason: "it is not a URL such as https://storage.example.org".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_a_scheme_and_nonsense_is_refused() {
        assert_eq!(
            normal_endpoint("storage.clo.ru").expect("fine"),
            "https://storage.clo.ru"
        );
        assert_eq!(
            normal_endpoint("http://127.0.0.1:9000").expect("fine"),
            "http://127.0.0.1:9000"
        );
        for bad in ["", "ftp://x", "https://", "https://user:pw@host", "a b"] {
            let error = normal_endpoint(bad).expect_err(bad).to_string();
            assert!(
                error.contains("S3_ENDPOINT") && !error.contains("pw"),
                "{error}"
            );
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let keys = Credentials::Keys {
            access: "id".into(),
            secret: Secret::new("hunter2"),
        };
        assert!(!format!("{keys:?}").contains("hunter2"));
    }
}
