//! Where things are: flags, then the environment, then defaults.
//!
//! Empty values count as absent, since CI systems set variables that have none.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jobs::queue::{Queue, Rabbit, RabbitConfig};
use jobs::store::{Credentials, Secret, Store, StoreConfig};
use worker::cloud::clo::{Clo, CloConfig, Token};

use crate::error::CliError;

/// One S3 request may take this long; the store repeats it.
const S3_TIMEOUT: Duration = Duration::from_secs(20);

/// The bucket that holds all state.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreArgs {
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
    pub(crate) fn config(&self) -> Result<StoreConfig, CliError> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let bucket = given(&self.s3_bucket).ok_or_else(|| {
            CliError::usage("there is no bucket to work with")
                .hint("set S3_BUCKET or give --s3-bucket; `rekindle doctor` checks the connections")
        })?;
        let secret = self.s3_secret_key.as_ref().filter(|key| !key.0.is_empty());
        let credentials = match (given(&self.s3_access_key), secret) {
            (Some(access), Some(secret)) => Credentials::Keys {
                access,
                secret: Secret::new(secret.0.clone()),
            },
            (None, None) => Credentials::Aws,
            (Some(_), None) => {
                return Err(half("S3_ACCESS_KEY", "S3_SECRET_KEY", "--s3-secret-key"));
            }
            (None, Some(_)) => {
                return Err(half("S3_SECRET_KEY", "S3_ACCESS_KEY", "--s3-access-key"));
            }
        };
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
    pub(crate) async fn connect(&self) -> Result<Store, CliError> {
        Ok(Store::connect(&self.config()?).await?)
    }
}

/// The broker.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Queue")]
pub(crate) struct QueueArgs {
    /// URL of the broker, `amqp://USER:PASSWORD@HOST:PORT/VHOST`
    #[arg(
        long,
        env = "AMQP_URL",
        value_name = "URL",
        hide_env_values = true,
        hide_short_help = true
    )]
    amqp_url: Option<Hidden>,
    /// Name of the queue
    #[arg(
        long = "queue",
        env = "REKINDLE_QUEUE",
        value_name = "NAME",
        default_value = "rekindle.jobs",
        hide_short_help = true
    )]
    queue: String,
}

impl QueueArgs {
    /// The queue; does not connect yet.
    pub(crate) fn connect(&self) -> Result<Arc<dyn Queue>, CliError> {
        match self.amqp_url.as_ref().filter(|url| !url.0.is_empty()) {
            None => Err(CliError::usage("there is no broker to post to").hint(
                "set AMQP_URL or give --amqp-url; `--here` runs the jobs in this process instead",
            )),
            Some(url) => Ok(Arc::new(Rabbit::new(RabbitConfig {
                queue: self.queue.clone(),
                ..RabbitConfig::new(url.0.clone())
            })?)),
        }
    }
}

/// The cloud that servers come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cloud")]
pub(crate) struct CloudArgs {
    /// URL of the cloud's API
    #[arg(long, env = "CLO_URL", value_name = "URL", hide_short_help = true)]
    clo_url: Option<String>,
    /// Token of the cloud's API
    #[arg(
        long,
        env = "CLO_AUTH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        hide_short_help = true
    )]
    clo_auth_token: Option<Hidden>,
    /// The cloud project (object) that servers live in
    #[arg(long, env = "CLO_OBJECT_ID", value_name = "ID", hide_short_help = true)]
    clo_object_id: Option<String>,
}

impl CloudArgs {
    /// The cloud, or nothing when it is not set at all. Sends nothing yet.
    pub(crate) fn connect(&self) -> Result<Option<Clo>, CliError> {
        let token = self
            .clo_auth_token
            .as_ref()
            .filter(|token| !token.0.is_empty());
        let project = self.clo_object_id.as_ref().filter(|id| !id.is_empty());
        let (token, project) = match (token, project) {
            (Some(token), Some(project)) => (token, project),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                return Err(half("CLO_AUTH_TOKEN", "CLO_OBJECT_ID", "--clo-object-id"));
            }
            (None, Some(_)) => {
                return Err(half("CLO_OBJECT_ID", "CLO_AUTH_TOKEN", "--clo-auth-token"));
            }
        };
        let mut config = CloConfig::new(Token::new(&token.0), project);
        if let Some(url) = self.clo_url.as_ref().filter(|url| !url.is_empty()) {
            config.url.clone_from(url);
        }
        let clo =
            Clo::new(config).map_err(|error| CliError::usage(format!("failed to {error}")))?;
        Ok(Some(clo))
    }
}

/// A secret as clap keeps it: it shows in no `Debug` output and in no error message.
#[derive(Clone)]
struct Hidden(String);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

fn half(there: &str, missing: &str, flag: &str) -> CliError {
    CliError::usage(format!("{there} is set, {missing} is not"))
        .hint(format!("set {missing} (or {flag}) too, or neither of them"))
}
