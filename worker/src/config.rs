//! The settings that worker and command line share: flags, then the environment, then defaults.
//!
//! Empty values count as absent, since CI systems set variables that have none. An error names the
//! variable and the flag; secrets show in no `Debug` output and in no error.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jobs::queue::{Queue, Rabbit, RabbitConfig, Sqs, SqsConfig};
use jobs::store::{Credentials, Secret, Store, StoreConfig};

use crate::cloud::clo::{Clo, CloConfig, Token};
use crate::net::Dialer;
use crate::ssh::keys::{load_private_key, parse_private_key};
use crate::world::{Access, World};

/// One S3 request for a record may take this long; the store repeats it. Well below a lease.
const S3_TIMEOUT: Duration = Duration::from_secs(4);

/// A setting that is missing or makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct SettingError {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SettingError {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

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

/// The queue that wakes workers up: RabbitMQ or SQS, whichever is set.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Queue")]
pub struct QueueArgs {
    /// URL of a RabbitMQ broker, `amqp://USER:PASSWORD@HOST:PORT/VHOST`
    #[arg(
        long,
        env = "AMQP_URL",
        value_name = "URL",
        hide_env_values = true,
        hide_short_help = true
    )]
    amqp_url: Option<Hidden>,
    /// File with the URL of the broker
    #[arg(
        long,
        env = "AMQP_URL_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    amqp_url_file: Option<PathBuf>,
    /// Name of the queue on RabbitMQ
    #[arg(
        long = "queue",
        env = "REKINDLE_QUEUE",
        value_name = "NAME",
        default_value = "rekindle.jobs",
        hide_short_help = true
    )]
    queue: String,
    /// Name or URL of a queue on SQS, instead of RabbitMQ
    #[arg(
        long,
        env = "SQS_QUEUE",
        value_name = "NAME|URL",
        hide_short_help = true
    )]
    sqs_queue: Option<String>,
    /// URL of a service that speaks the SQS API; AWS' own when absent
    #[arg(long, env = "SQS_ENDPOINT", value_name = "URL", hide_short_help = true)]
    sqs_endpoint: Option<String>,
    /// Region of the queue; needed where neither URL tells it
    #[arg(long, env = "SQS_REGION", value_name = "NAME", hide_short_help = true)]
    sqs_region: Option<String>,
    /// Access key for SQS; without keys, AWS' own chain of credentials is asked
    #[arg(
        long,
        env = "SQS_ACCESS_KEY",
        value_name = "KEY",
        hide_env_values = true,
        hide_short_help = true
    )]
    sqs_access_key: Option<String>,
    /// Secret key for SQS
    #[arg(
        long,
        env = "SQS_SECRET_KEY",
        value_name = "KEY",
        hide_env_values = true,
        hide_short_help = true
    )]
    sqs_secret_key: Option<Hidden>,
    /// File with the secret key
    #[arg(
        long,
        env = "SQS_SECRET_KEY_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    sqs_secret_key_file: Option<PathBuf>,
}

impl QueueArgs {
    /// The queue; does not connect yet.
    pub fn connect(&self) -> Result<Arc<dyn Queue>, SettingError> {
        let (given_url, file) = (self.amqp_url.as_ref(), self.amqp_url_file.as_ref());
        let url = one_of(given_url, file, "AMQP_URL")?;
        match (url, given(&self.sqs_queue)) {
            (None, None) => Err(SettingError::new("there is no queue").hint(
                "set AMQP_URL (--amqp-url) or SQS_QUEUE (--sqs-queue); `rekindle` runs jobs \
                 without one when told `--here`",
            )),
            (Some(_), Some(_)) => Err(SettingError::new("AMQP_URL and SQS_QUEUE are both set")
                .hint("set one of them: workers and `rekindle` must use the same queue")),
            (Some(url), None) => {
                let config = RabbitConfig {
                    queue: self.queue.clone(),
                    ..RabbitConfig::new(url.0.clone())
                };
                let rabbit = Rabbit::new(config);
                Ok(Arc::new(rabbit.map_err(|e| wrong(&e))?))
            }
            (None, Some(queue)) => Ok(Arc::new(Sqs::new(self.sqs(queue)?).map_err(|e| wrong(&e))?)),
        }
    }

    /// What to look at when the queue does not work.
    pub fn advice(&self) -> &'static str {
        match given(&self.sqs_queue) {
            None => "check AMQP_URL: address, user, password and virtual host",
            Some(_) => {
                "check SQS_QUEUE, SQS_ENDPOINT and SQS_REGION, and the keys and what they may do \
                 (docs/operations.md, \"SQS\")"
            }
        }
    }

    fn sqs(&self, queue: String) -> Result<SqsConfig, SettingError> {
        let access = ("SQS_ACCESS_KEY", "--sqs-access-key", &self.sqs_access_key);
        let key = one_of(
            self.sqs_secret_key.as_ref(),
            self.sqs_secret_key_file.as_ref(),
            "SQS_SECRET_KEY",
        )?;
        let secret = ("SQS_SECRET_KEY", "--sqs-secret-key", &key);
        Ok(SqsConfig {
            endpoint: given(&self.sqs_endpoint),
            region: given(&self.sqs_region),
            credentials: credentials(access, secret)?,
            ..SqsConfig::new(queue)
        })
    }
}

/// The cloud that servers come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cloud")]
pub struct CloudArgs {
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
    /// File with the token
    #[arg(
        long,
        env = "CLO_AUTH_TOKEN_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    clo_auth_token_file: Option<PathBuf>,
    /// The cloud project (object) that servers live in
    #[arg(long, env = "CLO_OBJECT_ID", value_name = "ID", hide_short_help = true)]
    clo_object_id: Option<String>,
}

impl CloudArgs {
    /// The cloud, or nothing when it is not set at all. Sends nothing yet.
    pub fn connect(&self) -> Result<Option<Clo>, SettingError> {
        let token = one_of(
            self.clo_auth_token.as_ref(),
            self.clo_auth_token_file.as_ref(),
            "CLO_AUTH_TOKEN",
        )?;
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
        // A turn is short; what takes longer is for the next one.
        config.patience.timeout = Duration::from_secs(15);
        config.patience.attempts = 3;
        if let Some(url) = self.clo_url.as_ref().filter(|url| !url.is_empty()) {
            config.url.clone_from(url);
        }
        let clo =
            Clo::new(config).map_err(|error| SettingError::new(format!("failed to {error}")))?;
        Ok(Some(clo))
    }
}

/// How workers come to the hosts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hosts")]
pub struct HostArgs {
    /// The SSH private key (OpenSSH PEM) itself
    #[arg(
        long,
        env = "SSH_PRIVATE_KEY",
        value_name = "PEM",
        hide_env_values = true,
        hide = true
    )]
    ssh_private_key: Option<Hidden>,
    /// File with the SSH private key
    #[arg(
        long,
        env = "SSH_PRIVATE_KEY_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    ssh_private_key_file: Option<PathBuf>,
    /// `bastion`: through the bastion; `direct`: straight to the private addresses, as on the bastion
    #[arg(
        long,
        env = "REKINDLE_SSH_ACCESS",
        value_name = "WAY",
        default_value = "bastion",
        hide_short_help = true
    )]
    ssh_access: Way,
    /// SOCKS5 proxy for connections to hosts, `socks5://HOST:PORT`
    #[arg(
        long,
        env = "REKINDLE_PROXY",
        value_name = "URL",
        hide_env_values = true,
        hide_short_help = true
    )]
    proxy: Option<Hidden>,
    /// File with the URL of the proxy, when it holds a password
    #[arg(
        long,
        env = "REKINDLE_PROXY_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    proxy_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Way {
    Bastion,
    Direct,
}

/// What jobs work on.
#[derive(Debug, Clone, Args)]
pub struct WorldArgs {
    /// The cloud.
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// The hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// Longest time in milliseconds between two looks at something that is being built
    #[arg(long, env = "REKINDLE_POLL_MS", value_name = "MS", hide = true)]
    poll_ms: Option<u64>,
}

impl WorldArgs {
    /// Clients and keys; connects to nothing yet.
    pub fn world(&self) -> Result<World, SettingError> {
        let hosts = &self.hosts;
        let wrong =
            |e: &dyn std::error::Error| SettingError::new(format!("failed to {}", chain(e)));
        let pem = hosts
            .ssh_private_key
            .as_ref()
            .filter(|key| !key.0.is_empty());
        let file = hosts
            .ssh_private_key_file
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty());
        let ssh_key = match (pem, file) {
            (Some(_), Some(_)) => {
                return Err(SettingError::new(
                    "SSH_PRIVATE_KEY and SSH_PRIVATE_KEY_FILE are both set",
                )
                .hint("set one of them"));
            }
            (Some(pem), None) => {
                Some(parse_private_key(&pem.0, "SSH_PRIVATE_KEY").map_err(|e| wrong(&e))?)
            }
            (None, Some(path)) => Some(load_private_key(path).map_err(|e| wrong(&e))?),
            (None, None) => None,
        };
        let proxy = one_of(
            hosts.proxy.as_ref(),
            hosts.proxy_file.as_ref(),
            "REKINDLE_PROXY",
        )?;
        let dialer = match proxy {
            Some(url) => Dialer::through(&url.0)
                .map_err(|e| SettingError::new(format!("REKINDLE_PROXY: {e}")))?,
            None => Dialer::direct(),
        };
        let access = match hosts.ssh_access {
            Way::Bastion => Access::Bastion,
            Way::Direct => Access::Direct,
        };
        let mut world = World::default();
        world.clo = self.cloud.connect()?;
        world.dialer = dialer;
        world.ssh_key = ssh_key;
        world.access = access;
        world.poll = self.poll_ms.map(Duration::from_millis);
        if let Some(poll) = world.poll {
            world.settle.every = poll;
        }
        Ok(world)
    }
}

/// A secret as clap keeps it: it shows in no `Debug` output and in no error message.
#[derive(Clone)]
pub struct Hidden(String);

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

/// A text that is set and not empty.
fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// A pair of keys, or AWS' own chain. Each comes with the names of its variable and its flag.
fn credentials(
    (access_name, access_flag, access): (&str, &str, &Option<String>),
    (secret_name, secret_flag, secret): (&str, &str, &Option<Hidden>),
) -> Result<Credentials, SettingError> {
    let secret = secret.as_ref().filter(|key| !key.0.is_empty());
    match (given(access), secret) {
        (Some(access), Some(secret)) => Ok(Credentials::Keys {
            access,
            secret: Secret::new(secret.0.clone()),
        }),
        (None, None) => Ok(Credentials::Aws),
        (Some(_), None) => Err(half(access_name, secret_name, secret_flag)),
        (None, Some(_)) => Err(half(secret_name, access_name, access_flag)),
    }
}

fn wrong(error: &dyn std::error::Error) -> SettingError {
    SettingError::new(error.to_string())
}

/// A secret as it is, or as the content of a file: an environment can be read by whoever may look
/// into the process, and is passed on to its children by mistake.
fn one_of(
    given: Option<&Hidden>,
    file: Option<&PathBuf>,
    name: &str,
) -> Result<Option<Hidden>, SettingError> {
    let given = given.filter(|secret| !secret.0.is_empty());
    match (given, file.filter(|path| !path.as_os_str().is_empty())) {
        (Some(_), Some(_)) => Err(SettingError::new(format!(
            "{name} and {name}_FILE are both set"
        ))
        .hint("set one of them")),
        (Some(secret), None) => Ok(Some(secret.clone())),
        (None, Some(path)) => {
            let wrong = |why: String| {
                let path = path.display();
                SettingError::new(format!("failed to read {name}_FILE, {path}: {why}"))
            };
            let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
            // Editors end a file with a line end.
            let secret = text.trim_end_matches(['\r', '\n']);
            if secret.is_empty() {
                return Err(wrong("it is empty".into()));
            }
            Ok(Some(Hidden(secret.to_owned())))
        }
        (None, None) => Ok(None),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn half(there: &str, missing: &str, flag: &str) -> SettingError {
    SettingError::new(format!("{there} is set, {missing} is not"))
        .hint(format!("set {missing} (or {flag}) too, or neither of them"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        queue: QueueArgs,
    }

    /// The queue that these flags choose, whatever the environment of the test says.
    fn chosen(flags: &str) -> Result<String, SettingError> {
        let nothing = "--amqp-url= --sqs-queue= --sqs-endpoint= --sqs-region= --sqs-access-key= --sqs-secret-key=";
        let given: Vec<&str> = flags.split_whitespace().collect();
        let named = |flag: &str| given.iter().any(|one| one.starts_with(flag));
        let rest = nothing.split_whitespace().filter(|flag| !named(flag));
        let line = ["x"].into_iter().chain(rest).chain(given.iter().copied());
        let queue = Line::try_parse_from(line).expect("good flags").queue;
        Ok(format!("{:?}", queue.connect()?))
    }

    #[test]
    fn one_queue_is_chosen_by_what_is_set() {
        let rabbit = chosen("--amqp-url=amqp://u:hunter2@broker").expect("fine");
        assert!(rabbit.contains("Rabbit") && !rabbit.contains("hunter2"));
        let keys = "--sqs-access-key=id --sqs-secret-key=hunter2";
        for flags in [
            "--sqs-queue=jobs --sqs-region=eu-west-1",
            "--sqs-queue=jobs --sqs-endpoint=http://127.0.0.1:4566",
            "--sqs-queue=https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
        ] {
            let sqs = chosen(&format!("{flags} {keys}")).expect(flags);
            assert!(sqs.contains("Sqs") && !sqs.contains("hunter2"), "{sqs}");
        }
    }

    #[test]
    fn a_queue_that_is_not_clear_is_an_error_with_the_names_of_the_settings() {
        for (flags, words) in [
            ("", ["AMQP_URL", "SQS_QUEUE"]),
            ("--sqs-region=eu-west-1", ["AMQP_URL", "SQS_QUEUE"]),
            (
                "--sqs-queue=jobs --sqs-region=x --amqp-url=amqp://u:hunter2@b",
                ["both", "one of them"],
            ),
            ("--sqs-queue=jobs", ["SQS_REGION", "SQS_ENDPOINT"]),
            (
                "--sqs-queue=rekindle.jobs",
                ["SQS_QUEUE", "`rekindle.jobs`"],
            ),
            (
                "--sqs-queue=jobs --sqs-endpoint=https://u:hunter2@h",
                ["SQS_ENDPOINT", "URL"],
            ),
            (
                "--sqs-queue=jobs --sqs-region=x --sqs-secret-key=hunter2",
                [
                    "SQS_SECRET_KEY is set, SQS_ACCESS_KEY is not",
                    "--sqs-access-key",
                ],
            ),
        ] {
            let SettingError { reason, hint } = chosen(flags).expect_err(flags);
            let text = format!("{reason}; {}", hint.unwrap_or_default());
            for word in words {
                assert!(text.contains(word), "no `{word}` in `{text}`");
            }
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
