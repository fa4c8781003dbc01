//! Where the store is.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jobs::store::{Store, StoreConfig};

use super::secret::{Hidden, credentials, one_of};
use super::{SettingError, given};

/// One S3 request for a record may take this long; the store repeats it. Well below a lease.
const S3_TIMEOUT: Duration = Duration::from_secs(4);

/// The bucket that holds all state.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// URL of the S3 service; AWS' own when absent
    #[arg(long, env = "S3_ENDPOINT", value_name = "URL", hide_short_help = true)]
    s3_endpoint: Option<String>,
    /// The bucket that holds all state
    #[arg(long, env = "S3_BUCKET", value_name = "NAME", hide_short_help = true)]
    s3_bucket: Option<String>,
    /// Access key; without keys, AWS' own chain of credentials is asked
    #[arg(
        long,
        env = "S3_ACCESS_KEY",
        value_name = "KEY",
        hide_env_values = true,
        hide_short_help = true
    )]
    s3_access_key: Option<String>,
    /// Secret key
    #[arg(
        long,
        env = "S3_SECRET_KEY",
        value_name = "KEY",
        hide_env_values = true,
        hide_short_help = true
    )]
    s3_secret_key: Option<Hidden>,
    /// File with the secret key
    #[arg(
        long,
        env = "S3_SECRET_KEY_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    s3_secret_key_file: Option<PathBuf>,
    /// Region
    #[arg(
        long,
        env = "S3_REGION",
        value_name = "NAME",
        default_value = "us-east-1",
        hide_short_help = true
    )]
    s3_region: String,
    /// Everything lies below this prefix of the bucket
    #[arg(long, env = "S3_PREFIX", value_name = "PREFIX", hide_short_help = true)]
    s3_prefix: Option<String>,
    /// `https://host/bucket` instead of `https://bucket.host`; the default when there is an endpoint
    #[arg(long, env = "S3_PATH_STYLE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), hide_short_help = true)]
    s3_path_style: Option<bool>,
}

impl StoreArgs {
    /// The checked settings.
    pub fn config(&self) -> Result<StoreConfig, SettingError> {
        let bucket = given(&self.s3_bucket).ok_or_else(|| {
            SettingError::new("there is no bucket to work with")
                .hint("set S3_BUCKET or give --s3-bucket; `rekindle doctor` checks the connections")
        })?;
        let access = ("S3_ACCESS_KEY", "--s3-access-key", &self.s3_access_key);
        let key = one_of(
            self.s3_secret_key.as_ref(),
            self.s3_secret_key_file.as_ref(),
            "S3_SECRET_KEY",
        )?;
        let secret = ("S3_SECRET_KEY", "--s3-secret-key", &key);
        let credentials = credentials(access, secret)?;
        let endpoint = given(&self.s3_endpoint);
        Ok(StoreConfig {
            path_style: self.s3_path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            bucket,
            credentials,
            region: self.s3_region.clone(),
            prefix: self.s3_prefix.clone().unwrap_or_default(),
            timeout: S3_TIMEOUT,
        })
    }

    /// The store; does not talk to it yet.
    pub async fn connect(&self) -> Result<Store, SettingError> {
        Store::connect(&self.config()?)
            .await
            .map_err(|e| SettingError::new(e.to_string()))
    }
}
