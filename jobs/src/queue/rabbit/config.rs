//! Settings of the RabbitMQ queue. The URL carries a password, which no output ever shows.

use std::fmt;
use std::time::Duration;

use lapin::uri::AMQPUri;

use super::topology::Target;
use crate::queue::QueueError;

/// How to reach the broker and which queue to use.
#[derive(Clone)]
pub struct RabbitConfig {
    /// `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://` for TLS; usually from `AMQP_URL`.
    pub url: String,
    /// PEM certificates of a private CA to trust beside the system's, for `amqps`.
    pub ca: Option<String>,
    /// Name of the work queue; the dead and wait queues are named after it.
    pub queue: String,
    /// How long connecting may take, TLS and login included.
    pub connect_timeout: Duration,
    /// How long the broker may take to confirm a publish.
    pub confirm_timeout: Duration,
}

impl RabbitConfig {
    /// The usual queue and timeouts for a URL.
    pub fn new(url: impl Into<String>) -> RabbitConfig {
        RabbitConfig {
            url: url.into(),
            ca: None,
            queue: "rekindle.jobs".to_owned(),
            connect_timeout: Duration::from_secs(10),
            confirm_timeout: Duration::from_secs(15),
        }
    }

    /// The names of all queues that there may be on the broker: work, dead, and one for each delay.
    pub fn queues(&self) -> Vec<String> {
        [Target::Work, Target::Dead]
            .into_iter()
            .chain(Target::waits())
            .map(|target| target.name(&self.queue))
            .collect()
    }
}

impl fmt::Debug for RabbitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitConfig")
            .field("queue", &self.queue)
            .field("connect_timeout", &self.connect_timeout)
            .field("confirm_timeout", &self.confirm_timeout)
            .finish_non_exhaustive()
    }
}

/// The checked form of the settings.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) uri: AMQPUri,
    pub(super) ca: Option<String>,
    pub(super) queue: String,
    pub(super) connect_timeout: Duration,
    pub(super) confirm_timeout: Duration,
}

impl TryFrom<RabbitConfig> for Settings {
    type Error = QueueError;

    fn try_from(config: RabbitConfig) -> Result<Settings, QueueError> {
        let name_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if config.queue.is_empty()
            || config.queue.len() > 100
            || config.queue.starts_with("amq.")
            || !config.queue.bytes().all(name_ok)
        {
            return Err(QueueError::Config {
                field: "queue name",
                reason: format!(
                    "`{}` is not 1 to 100 of a-z A-Z 0-9 . - _, or begins with `amq.`",
                    config.queue
                ),
            });
        }
        if config
            .ca
            .as_ref()
            .is_some_and(|ca| !ca.contains("-----BEGIN CERTIFICATE-----"))
        {
            return Err(QueueError::Config {
                field: "AMQP CA",
                reason: "holds no PEM certificate".to_owned(),
            });
        }
        let mut uri = parse(&config.url)?;
        // The default of 60 s notices a dead peer after two minutes.
        uri.query.heartbeat.get_or_insert(10);
        // lapin reads this one for blocking connections only.
        let limit = uri.query.connection_timeout.map(Duration::from_millis);
        Ok(Settings {
            uri,
            ca: config.ca,
            queue: config.queue,
            connect_timeout: limit.unwrap_or(config.connect_timeout),
            confirm_timeout: config.confirm_timeout,
        })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.uri.authority;
        f.debug_struct("Settings")
            .field("host", &authority.host)
            .field("port", &authority.port)
            .field("user", &authority.userinfo.username)
            .field("vhost", &self.uri.vhost)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

/// Parses the URL. Its parser's words are not passed on: some of them repeat the URL.
fn parse(url: &str) -> Result<AMQPUri, QueueError> {
    let wrong = |reason: &str| QueueError::Config {
        field: "AMQP_URL",
        reason: reason.to_owned(),
    };
    let Some(rest) = url
        .strip_prefix("amqp://")
        .or_else(|| url.strip_prefix("amqps://"))
    else {
        return Err(wrong("must begin with amqp:// or amqps://"));
    };
    // What follows the user; a password with a raw `/` or `@` is told apart by the parser only.
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err(wrong("names no host"));
    }
    if host.starts_with('[') {
        // The parser would silently take `localhost` instead.
        return Err(wrong("IPv6 addresses are not supported; use a host name"));
    }
    let mut uri: AMQPUri = url.parse().map_err(|_| {
        wrong(
            "is not of the form amqps://USER:PASSWORD@HOST:PORT/VHOST; \
             special characters in the parts must be percent-encoded",
        )
    })?;
    if uri.vhost.is_empty() {
        // `amqp://host/` means the virtual host "" by the book, which nobody has.
        uri.vhost = "/".to_owned();
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings, QueueError> {
        Settings::try_from(RabbitConfig::new(url))
    }

    #[test]
    fn defaults_are_filled_in() {
        let settings = settings("amqp://broker/").expect("a good URL");
        assert_eq!(settings.uri.vhost, "/");
        assert_eq!(settings.uri.authority.port, 5672);
        assert_eq!(settings.uri.query.heartbeat, Some(10));
        assert_eq!(settings.queue, "rekindle.jobs");
    }

    #[test]
    fn what_the_url_says_is_kept() {
        let settings = settings("amqps://u:p%40@b:99/%2fteam?heartbeat=30").expect("a good URL");
        assert_eq!(settings.uri.vhost, "/team");
        assert_eq!(settings.uri.authority.port, 99);
        assert_eq!(settings.uri.authority.userinfo.password, "p@");
        assert_eq!(settings.uri.query.heartbeat, Some(30));
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_the_password() {
        for url in [
            "",
            "broker:5672",
            "user:hunter2@broker",
            "http://user:hunter2@broker",
            "amqp://user:hunter2@",
            "amqp://user:hunter2@:5672",
            "amqp://user:hunter2@broker:port",
            "amqp://user:hunter2@broker:99999",
            "amqp://user:hunter2@[::1]:5672",
            "amqp://user:hunter2@broker?heartbeat=x",
            "amqp://user:hunter2@bro ker",
        ] {
            let error = settings(url).expect_err(url);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{url}: {shown}");
            assert!(shown.contains("AMQP_URL"), "{url}: {shown}");
        }
    }

    #[test]
    fn a_bad_queue_name_is_refused() {
        for queue in ["", "amq.x", "a b", &"q".repeat(101)] {
            let mut config = RabbitConfig::new("amqp://broker");
            config.queue = queue.to_owned();
            let error = Settings::try_from(config).expect_err(queue);
            assert!(error.to_string().contains("queue name"));
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let config = RabbitConfig::new("amqp://user:hunter2@broker");
        let settings = Settings::try_from(config.clone()).expect("a good URL");
        let shown = format!("{config:?} {settings:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
