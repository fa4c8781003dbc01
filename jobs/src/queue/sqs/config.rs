//! Settings of the SQS queue.

use std::fmt;
use std::time::Duration;

use crate::queue::QueueError;
use crate::store::Credentials;

/// The dead queue is named after the work queue.
const DEAD: &str = "-dead";

/// SQS allows 80 characters.
const LONGEST_NAME: usize = 80 - DEAD.len();

/// How to reach SQS, or a service that speaks its API, and which queue to use.
#[derive(Debug, Clone)]
pub struct SqsConfig {
    /// Name or URL of the work queue, usually from `SQS_QUEUE`; the dead queue is named after it.
    pub queue: String,
    /// URL of the service; with a queue's URL, where that points to; else AWS' own. A host name
    /// without a scheme gets `https://`.
    pub endpoint: Option<String>,
    /// The region. May be absent where a URL tells it, or where the service has none.
    pub region: Option<String>,
    /// How we sign.
    pub credentials: Credentials,
    /// How long one try of a call may take; the SDK makes three. Long polls get this on top.
    pub timeout: Duration,
    /// How long a delivery stays hidden from others unless it is renewed: whole seconds, more than
    /// a poll can take, since they count from the question.
    pub visibility: Duration,
    /// How long one question for messages waits for some: whole seconds, at most 20. Closing takes
    /// as long, since what an abandoned question finds would stay hidden for a while.
    pub poll: Duration,
    /// Longest delay given to one message, at most 900 s, which is all that SQS takes. A longer
    /// delay is made of several: whole seconds.
    pub hop: Duration,
}

impl SqsConfig {
    /// The usual timeouts for a queue's name or URL, with AWS' own chain of credentials.
    pub fn new(queue: impl Into<String>) -> SqsConfig {
        SqsConfig {
            queue: queue.into(),
            endpoint: None,
            region: None,
            credentials: Credentials::Aws,
            timeout: Duration::from_secs(5),
            visibility: Duration::from_secs(30),
            poll: Duration::from_secs(5),
            hop: Duration::from_secs(900),
        }
    }
}

/// The checked form of the settings.
#[derive(Clone)]
pub(super) struct Settings {
    /// The work queue's name.
    pub(super) work: String,
    /// The dead queue's name.
    pub(super) dead: String,
    /// The path of the work queue's URL, when that is what was given.
    pub(super) path: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) region: String,
    pub(super) credentials: Credentials,
    pub(super) timeout: Duration,
    pub(super) visibility: Duration,
    pub(super) poll: Duration,
    pub(super) hop: Duration,
}

impl TryFrom<SqsConfig> for Settings {
    type Error = QueueError;

    fn try_from(config: SqsConfig) -> Result<Settings, QueueError> {
        let (origin, path, name) = split(&config.queue)?;
        let name_ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if name.ends_with(".fifo") {
            return Err(wrong(
                "SQS_QUEUE",
                "FIFO queues take no delays; use a standard one",
            ));
        }
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(name_ok) {
            let reason = format!("the name `{name}` is not 1 to {LONGEST_NAME} of a-z A-Z 0-9 - _");
            return Err(wrong("SQS_QUEUE", reason));
        }
        let endpoint = match (config.endpoint, origin) {
            (Some(endpoint), _) => Some(origin_of("SQS_ENDPOINT", &endpoint)?.0),
            (None, origin) => origin,
        };
        let told = config.region.or_else(|| region_in(endpoint.as_deref()?));
        let region = match (told, &endpoint) {
            (Some(region), _) => region,
            // Other services look at it only where they have regions.
            (None, Some(_)) => "us-east-1".to_owned(),
            (None, None) => {
                let reason = "must be set where SQS_QUEUE is a name and SQS_ENDPOINT is not set: \
                              queues would be made in a region that nobody chose";
                return Err(wrong("SQS_REGION", reason));
            }
        };
        let whole = |field, time: Duration, most| {
            if time.subsec_nanos() != 0 || !(1..=most).contains(&time.as_secs()) {
                let reason = format!("{time:?} is not 1 to {most} whole seconds");
                return Err(wrong(field, reason));
            }
            Ok(time)
        };
        if config.visibility <= config.poll + config.timeout {
            let reason = "a delivery would be lost before it is here";
            return Err(wrong("visibility", reason));
        }
        Ok(Settings {
            dead: format!("{name}{DEAD}"),
            work: name,
            path,
            endpoint,
            region,
            credentials: config.credentials,
            timeout: config.timeout,
            visibility: whole("visibility", config.visibility, 12 * 3_600)?,
            poll: whole("poll", config.poll, 20)?,
            hop: whole("hop", config.hop, 900)?,
        })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("queue", &self.work)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Origin and path where a URL was given, and the queue's name.
fn split(queue: &str) -> Result<(Option<String>, Option<String>, String), QueueError> {
    if !queue.contains("://") {
        return Ok((None, None, queue.to_owned()));
    }
    let (origin, path) = origin_of("SQS_QUEUE", queue)?;
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    Ok((Some(origin), Some(path), name))
}

/// `scheme://host:port` of a URL, and its path with the leading slash.
fn origin_of(field: &'static str, url: &str) -> Result<(String, String), QueueError> {
    let full = match url.contains("://") {
        true => url.to_owned(),
        false => format!("https://{url}"),
    };
    let rest = full
        .strip_prefix("https://")
        .or_else(|| full.strip_prefix("http://"))
        .filter(|rest| !rest.contains(|c: char| c == '@' || c == '?' || c.is_whitespace()))
        // The text may hold a password: it is not repeated.
        .ok_or_else(|| wrong(field, "it is not a URL such as https://sqs.example.org"))?;
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return Err(wrong(field, "names no host"));
    }
    let at = full.len() - rest.len() + host.len();
    let path = full[at..].trim_end_matches('/').to_owned();
    Ok((full[..at].to_owned(), path))
}

/// AWS' endpoints tell their region: `https://sqs.eu-west-1.amazonaws.com`.
fn region_in(endpoint: &str) -> Option<String> {
    let host = endpoint.rsplit("//").next()?.split(':').next()?;
    let region = host.strip_prefix("sqs.")?.split_once(".amazonaws.com")?.0;
    Some(region.to_owned())
}

fn wrong(field: &'static str, reason: impl Into<String>) -> QueueError {
    QueueError::Config {
        field,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(queue: &str, endpoint: Option<&str>, region: Option<&str>) -> Settings {
        let config = SqsConfig {
            endpoint: endpoint.map(ToOwned::to_owned),
            region: region.map(ToOwned::to_owned),
            ..SqsConfig::new(queue)
        };
        Settings::try_from(config).expect("good settings")
    }

    #[test]
    fn a_name_and_a_region_mean_aws() {
        let settings = settings("rekindle-jobs", None, Some("eu-west-1"));
        assert_eq!(settings.work, "rekindle-jobs");
        assert_eq!(settings.dead, "rekindle-jobs-dead");
        assert_eq!(settings.endpoint, None);
        assert_eq!(settings.region, "eu-west-1");
    }

    #[test]
    fn a_url_tells_name_endpoint_and_region() {
        let url = "https://sqs.eu-north-1.amazonaws.com/123456789012/jobs";
        let settings = settings(url, None, None);
        assert_eq!(settings.work, "jobs");
        assert_eq!(settings.path.as_deref(), Some("/123456789012/jobs"));
        let endpoint = settings.endpoint.as_deref();
        assert_eq!(endpoint, Some("https://sqs.eu-north-1.amazonaws.com"));
        assert_eq!(settings.region, "eu-north-1");
    }

    #[test]
    fn what_is_set_goes_before_what_a_url_tells() {
        let url = "https://message-queue.api.cloud.yandex.net/b1g/dj6/jobs";
        let other = settings(url, Some("127.0.0.1:4566/"), Some("ru-central1"));
        assert_eq!(other.endpoint.as_deref(), Some("https://127.0.0.1:4566"));
        assert_eq!(other.region, "ru-central1");
        let plain = settings("jobs", Some("http://localhost:4566"), None);
        assert_eq!(plain.endpoint.as_deref(), Some("http://localhost:4566"));
        assert_eq!(plain.region, "us-east-1");
    }

    #[test]
    fn nonsense_is_refused_by_the_name_of_its_setting() {
        let mut cases = Vec::new();
        for queue in ["", "a b", "rekindle.jobs", "jobs.fifo", &"q".repeat(76)] {
            cases.push(("SQS_QUEUE", SqsConfig::new(queue)));
        }
        for queue in [
            "ftp://h/a",
            "https://u:hunter2@h/a",
            "https:///a",
            "https://h",
        ] {
            cases.push(("SQS_QUEUE", SqsConfig::new(queue)));
        }
        for endpoint in ["", "u:hunter2@h", "https://", "https://h?x=hunter2", "a b"] {
            let mut config = SqsConfig::new("jobs");
            config.endpoint = Some(endpoint.to_owned());
            cases.push(("SQS_ENDPOINT", config));
        }
        cases.push(("SQS_REGION", SqsConfig::new("jobs")));
        let mut config = SqsConfig::new("https://h/jobs");
        config.hop = Duration::from_secs(901);
        cases.push(("hop", config.clone()));
        config.hop = Duration::from_millis(1_500);
        cases.push(("hop", config.clone()));
        config.hop = Duration::from_secs(1);
        config.visibility = Duration::from_secs(10);
        cases.push(("visibility", config));
        for (field, config) in cases {
            let error = Settings::try_from(config.clone()).expect_err(field);
            let shown = format!("{error} {error:?}");
            assert!(error.to_string().starts_with(field), "{config:?}: {shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
