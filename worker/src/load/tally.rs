//! What virtual users saw, counted as it comes.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use jobs::record::{Latency, Summary};
use serde_json::{Value, json};

/// The longest time that is told from others, in microseconds: an hour. No request may take as long.
const LONGEST: u64 = 3_600_000_000;
/// So many kinds of failures are told apart.
const KINDS: usize = 20;

/// The counts. One request is one iteration, and its good end the one check there is.
#[derive(Debug, Clone)]
pub struct Tally {
    requests: u64,
    failed: u64,
    received: u64,
    /// In microseconds, to three digits.
    times: Histogram<u64>,
    shortest: Duration,
    longest: Duration,
    sum: Duration,
    failures: BTreeMap<String, u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST, 3);
        Self {
            requests: 0,
            failed: 0,
            received: 0,
            times: times.expect("the bounds are those that the histogram's documentation asks for"),
            shortest: Duration::MAX,
            longest: Duration::ZERO,
            sum: Duration::ZERO,
            failures: BTreeMap::new(),
        }
    }
}

impl Tally {
    /// Counts a request that took so long: the bytes of its answer, or why it failed. A failure takes its time like an
    /// answer: a visitor waited for it.
    pub(super) fn count(&mut self, took: Duration, outcome: Result<u64, String>) {
        self.requests += 1;
        self.shortest = self.shortest.min(took);
        self.longest = self.longest.max(took);
        self.sum += took;
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
        self.times.saturating_record(micros.max(1));
        match outcome {
            Ok(bytes) => self.received += bytes,
            Err(why) => {
                self.failed += 1;
                let known = self.failures.len() < KINDS || self.failures.contains_key(&why);
                let kind = if known { why } else { "others".to_owned() };
                *self.failures.entry(kind).or_default() += 1;
            }
        }
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Those of them that failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Why requests failed, and how many did.
    pub fn failures(&self) -> &BTreeMap<String, u64> {
        &self.failures
    }

    /// All of it, when so many iterations were asked for and the load lasted so long.
    pub fn summary(&self, asked: u64, lasted: Duration) -> Summary {
        Summary {
            requests: self.requests,
            failed: self.failed,
            iterations: self.requests,
            dropped: asked.saturating_sub(self.requests),
            checks_held: self.requests - self.failed,
            checks_failed: self.failed,
            duration_ms: millis(lasted),
            latency: self.latency(),
            received: self.received,
        }
    }

    fn latency(&self) -> Latency {
        if self.requests == 0 {
            return Latency::default();
        }
        let (min, max) = (millis(self.shortest), millis(self.longest));
        // A bucket is known by its upper end, which may lie beyond what was measured.
        let at = |share: f64| (self.times.value_at_quantile(share) as f64 / 1000.0).clamp(min, max);
        Latency {
            min,
            avg: millis(self.sum) / self.requests as f64,
            med: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            max,
        }
    }

    /// For those who want to look closer: how many requests took at most so many microseconds, bucket by bucket.
    pub fn buckets(&self) -> Value {
        let buckets = self.times.iter_recorded();
        buckets
            .map(|bucket| json!([bucket.value_iterated_to(), bucket.count_at_value()]))
            .collect()
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::trust::unsound;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_thousand_requests_have_the_percentiles_that_sorting_them_gives() {
        let mut tally = Tally::default();
        for n in 1..=1000 {
            tally.count(ms(n), Ok(10));
        }
        let summary = tally.summary(1000, ms(5000));
        let Latency {
            min,
            avg,
            med,
            p90,
            p95,
            max,
        } = summary.latency;
        assert_eq!((min, max), (1.0, 1000.0));
        for (seen, exact) in [(avg, 500.5), (med, 500.0), (p90, 900.0), (p95, 950.0)] {
            assert!((seen / exact - 1.0).abs() < 0.001, "{seen}, not {exact}");
        }
        assert_eq!((summary.received, summary.dropped), (10_000, 0));
        assert_eq!(summary.rate(), Some(200.0));
        assert_eq!(unsound(&summary), None);
        let buckets = tally.buckets();
        let counts = buckets.as_array().expect("buckets").iter();
        let all: u64 = counts.filter_map(|bucket| bucket[1].as_u64()).sum();
        assert_eq!(all, 1000);
    }

    #[test]
    fn a_failure_is_a_request_that_took_its_time_and_a_check_that_did_not_hold() {
        let mut tally = Tally::default();
        tally.count(ms(30), Ok(1));
        tally.count(ms(30_000), Err("no answer within 30 s".into()));
        let summary = tally.summary(5, ms(31_000));
        assert_eq!((summary.requests, summary.failed), (2, 1));
        assert_eq!((summary.checks_held, summary.checks_failed), (1, 1));
        assert_eq!((summary.iterations, summary.dropped), (2, 3));
        assert_eq!(summary.latency.p95, 30_000.0);
        assert_eq!(tally.failures()["no answer within 30 s"], 1);
    }

    #[test]
    fn nothing_at_all_is_told_as_nothing() {
        let summary = Tally::default().summary(5, ms(10));
        assert_eq!((summary.requests, summary.dropped), (0, 5));
        assert_eq!(summary.latency, Latency::default());
        assert!(unsound(&summary).is_some());
    }

    #[test]
    fn kinds_of_failures_are_bounded_and_none_is_lost() {
        let mut tally = Tally::default();
        for n in 0..100 {
            tally.count(ms(1), Err(format!("error {n}")));
        }
        assert_eq!(tally.failures().len(), KINDS + 1);
        assert_eq!(tally.failures().values().sum::<u64>(), 100);
    }

    #[test]
    fn what_is_too_fast_or_too_slow_for_the_histogram_keeps_its_order() {
        let mut tally = Tally::default();
        for time in [Duration::from_nanos(10), Duration::from_secs(5000)] {
            tally.count(time, Ok(0));
            let summary = tally.summary(2, ms(1));
            assert_eq!(unsound(&summary), None, "{summary:?}");
        }
    }
}
