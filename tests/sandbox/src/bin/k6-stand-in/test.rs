//! The test as the environment describes it, and what it has to hold.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::samples::Samples;

/// What is to be done, with what it must bear.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Test {
    /// What every virtual user asks for; what a script without it asks for is `undefined`.
    pub(crate) target: String,
    /// Virtual users, all runners together.
    pub(crate) virtual_users: u64,
    /// How often each of them goes through the script.
    pub(crate) iterations: u64,
    /// When no more is begun.
    pub(crate) max_duration: Duration,
    p95_ms: Option<f64>,
    error_rate: Option<f64>,
    checks: Option<f64>,
}

impl Test {
    /// Reads it.
    pub(crate) fn read(environment: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| environment.get(name).map_or("", |text| text.trim());
        let number = |name: &str| match text(name) {
            "" => Ok(None),
            given => match given.parse::<f64>() {
                Ok(number) if number.is_finite() && number >= 0.0 => Ok(Some(number)),
                _ => Err(format!("Error: {name} is no number: {given}")),
            },
        };
        let count = |name: &str| match text(name) {
            "" => Ok(1),
            given => given
                .parse()
                .map_err(|_| format!("Error: {name} is no number: {given}")),
        };
        let max_duration = match text("MAX_DURATION") {
            "" => Duration::from_secs(600),
            given => duration(given)
                .ok_or_else(|| format!("Error: MAX_DURATION is no duration: {given}"))?,
        };
        let target = match text("TARGET") {
            "" => "undefined",
            target => target,
        };
        Ok(Self {
            target: target.to_owned(),
            virtual_users: count("VUS")?,
            iterations: count("ITERATIONS")?,
            max_duration,
            p95_ms: number("P95_MS")?,
            error_rate: number("ERROR_RATE")?,
            checks: number("CHECKS")?,
        })
    }

    /// What `k6 inspect --execution-requirements` says of it.
    pub(crate) fn requirements(&self) -> Value {
        let seconds = self.max_duration.as_secs();
        json!({
            "scenarios": { "default": {
                "executor": "per-vu-iterations", "vus": self.virtual_users, "iterations": self.iterations,
                "maxDuration": format!("{seconds}s"),
            } },
            "totalDuration": format!("{}s", seconds + 30),
            "maxVUs": self.virtual_users,
        })
    }

    /// The thresholds of a metric as they are written, and whether they hold.
    pub(crate) fn thresholds(&self, metric: &str, samples: &Samples) -> Vec<(String, bool)> {
        let (wanted, text, holds): (_, _, fn(f64, f64) -> bool) = match metric {
            "http_req_duration" => (self.p95_ms, "p(95)<=", |seen, wanted| seen <= wanted),
            "http_req_failed" => (self.error_rate, "rate<=", |seen, wanted| seen <= wanted),
            "checks" => (self.checks, "rate>=", |seen, wanted| seen >= wanted),
            _ => return Vec::new(),
        };
        let Some(wanted) = wanted else {
            return Vec::new();
        };
        let seen = match metric {
            "http_req_duration" => samples.duration.percentile(95.0),
            "http_req_failed" => samples.failed.share(),
            _ => samples.checks.share(),
        };
        // Without a sample k6 is content.
        let holds = seen.is_none_or(|seen| holds(seen, wanted));
        vec![(format!("{text}{wanted}"), holds)]
    }

    /// The metrics whose thresholds do not hold.
    pub(crate) fn crossed(&self, samples: &Samples) -> Vec<&'static str> {
        let metrics = ["checks", "http_req_duration", "http_req_failed"];
        let crossed = metrics.into_iter().filter(|metric| {
            let thresholds = self.thresholds(metric, samples);
            thresholds.iter().any(|(_, holds)| !holds)
        });
        crossed.collect()
    }
}

/// A duration as Go writes it, or a number of milliseconds, as k6 takes it.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(milliseconds) = text.parse() {
        return Some(Duration::from_millis(milliseconds));
    }
    let mut whole = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = &rest[end..];
        let after = unit
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(unit.len());
        whole += number
            * match &unit[..after] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &unit[after..];
    }
    Duration::try_from_secs_f64(whole).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Test, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Test::read(&pairs.iter().map(own).collect())
    }

    #[test]
    fn a_test_is_read_from_the_environment() {
        let test = read(&[
            ("TARGET", "http://a/"),
            ("VUS", "20"),
            ("ITERATIONS", "3"),
            ("MAX_DURATION", "1h30m"),
            ("P95_MS", "1500"),
            ("ERROR_RATE", "0.01"),
        ])
        .expect("a test");
        assert_eq!(test.virtual_users, 20);
        assert_eq!(test.iterations, 3);
        assert_eq!(test.max_duration, Duration::from_secs(5400));
        assert_eq!(test.requirements()["maxVUs"], 20);
        assert_eq!(read(&[]).expect("a test").target, "undefined");
        assert!(read(&[("VUS", "many")]).is_err());
        assert!(read(&[("P95_MS", "NaN")]).is_err());
        assert!(read(&[("MAX_DURATION", "soon")]).is_err());
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, expected) in [
            ("30m", Some(1_800_000)),
            ("1m30s", Some(90_000)),
            ("250ms", Some(250)),
            ("1500", Some(1500)),
            ("0.5s", Some(500)),
            ("5", Some(5)),
            ("5x", None),
            ("s", None),
        ] {
            assert_eq!(
                duration(text),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn a_threshold_without_samples_holds_and_one_that_is_met_exactly_too() {
        let test = read(&[("P95_MS", "10"), ("ERROR_RATE", "0.5"), ("CHECKS", "1")]);
        let test = test.expect("a test");
        let mut samples = Samples::default();
        assert!(test.crossed(&samples).is_empty());
        samples.failed.add(true);
        samples.failed.add(false);
        samples.duration.add(10.0);
        samples.checks.add(true);
        assert!(test.crossed(&samples).is_empty());
        samples.checks.add(false);
        samples.failed.add(true);
        samples.duration.add(1000.0);
        assert_eq!(
            test.crossed(&samples),
            ["checks", "http_req_duration", "http_req_failed"]
        );
        let shown = test.thresholds("http_req_duration", &samples);
        assert_eq!(shown, [("p(95)<=10".to_owned(), false)]);
    }
}
