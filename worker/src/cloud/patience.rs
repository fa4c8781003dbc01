//! How long and how often a cloud's client tries, and what the API's `Retry-After` does to that.

use std::time::{Duration, SystemTime};

use backon::BackoffBuilder;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// How long and how often the client tries.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Limit for one request, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// How often a call is sent at most.
    pub attempts: usize,
    /// Upper end of the first pause; it doubles from attempt to attempt.
    pub first_pause: Duration,
    /// Upper end of every pause.
    pub longest_pause: Duration,
    /// A `Retry-After` above this is not waited for: the error carries it to the caller, who can
    /// give the turn back meanwhile.
    pub longest_retry_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempts: 4,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(8),
            longest_retry_after: Duration::from_secs(20),
        }
    }
}

impl Patience {
    /// Pauses between attempts: exponential with a cap and full jitter, so that many workers that
    /// failed together do not come back together.
    pub(super) fn pauses(&self) -> impl Iterator<Item = Duration> + Send + Sync + Unpin + use<> {
        backon::ExponentialBuilder::new()
            .with_min_delay(self.first_pause)
            .with_max_delay(self.longest_pause)
            .with_max_times(self.attempts.saturating_sub(1))
            .build()
            .map(|pause| pause.mul_f64(rand::random()))
    }

    /// The pause before the next attempt when the API asked for one of `asked`, or `None` to give up.
    pub(super) fn pause(
        &self,
        asked: Option<Duration>,
        planned: Option<Duration>,
    ) -> Option<Duration> {
        let planned = planned?;
        match asked {
            Some(asked) if asked > self.longest_retry_after => None,
            Some(asked) => Some(asked.max(planned)),
            None => Some(planned),
        }
    }
}

/// `Retry-After` is a number of seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(
        SystemTime::from(at.timestamp())
            .duration_since(now)
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_waited_for_unless_it_is_too_long() {
        let patience = Patience {
            longest_retry_after: Duration::from_secs(20),
            ..Patience::default()
        };
        let second = Duration::from_secs(1);
        for (asked, planned, want) in [
            (None, Some(second), Some(second)),
            (Some(5 * second), Some(second), Some(5 * second)),
            (Some(Duration::ZERO), Some(second), Some(second)),
            (Some(21 * second), Some(second), None),
            (Some(5 * second), None, None),
        ] {
            assert_eq!(
                patience.pause(asked, planned),
                want,
                "asked {asked:?}, planned {planned:?}"
            );
        }
    }

    #[test]
    fn pauses_are_bounded_in_number_and_length() {
        let patience = Patience {
            attempts: 6,
            longest_pause: Duration::from_secs(2),
            ..Patience::default()
        };
        for _ in 0..100 {
            let pauses: Vec<_> = patience.pauses().collect();
            assert_eq!(pauses.len(), 5);
            assert!(
                pauses.iter().all(|pause| *pause <= patience.longest_pause),
                "{pauses:?}"
            );
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, want) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("soon", None),
        ] {
            let headers =
                HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(
                retry_after(&headers, now),
                want.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
