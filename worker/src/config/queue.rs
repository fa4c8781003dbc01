//! Which queue, and where it is.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jobs::queue::{Queue, Rabbit, RabbitConfig, Sqs, SqsConfig};

use super::secret::{Hidden, credentials, one_of};
use super::{SettingError, given};

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

fn wrong(error: &dyn std::error::Error) -> SettingError {
    SettingError::new(error.to_string())
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
