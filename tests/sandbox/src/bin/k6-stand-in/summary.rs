//! What `handleSummary` is given, in k6's shape and on one line.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::runner::Played;
use crate::samples::{Rate, Trend};
use crate::script::Script;
use crate::test::Test;

/// The name and the id of the script's one check.
const CHECK: (&str, &str) = ("the answer is 200", "6210a8cd14cd70477eba5c5e4cb3fb5f");
/// The id of the group that has no name.
const ROOT: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// The summary of a test. A metric that has neither a sample nor a threshold is not there.
pub(crate) fn of(test: &Test, script: &Script, played: &Played) -> Value {
    let samples = &played.samples;
    let seconds = played.took.as_secs_f64();
    let mut metrics = Metrics {
        test,
        played,
        statistics: &script.statistics,
        all: BTreeMap::new(),
    };
    metrics.rate("checks", samples.checks);
    metrics.rate("http_req_failed", samples.failed);
    for (name, trend) in [
        ("http_req_blocked", &samples.blocked),
        ("http_req_connecting", &samples.connecting),
        ("http_req_tls_handshaking", &samples.tls),
        ("http_req_sending", &samples.sending),
        ("http_req_waiting", &samples.waiting),
        ("http_req_receiving", &samples.receiving),
        ("http_req_duration", &samples.duration),
        (
            "http_req_duration{expected_response:true}",
            &samples.expected,
        ),
        ("iteration_duration", &samples.iteration),
    ] {
        metrics.trend(name, trend);
    }
    for (name, contains, count) in [
        ("http_reqs", "default", samples.failed.count()),
        ("iterations", "default", samples.iteration.count() as u64),
        ("dropped_iterations", "default", samples.dropped),
        ("data_sent", "data", samples.sent),
        ("data_received", "data", samples.received),
    ] {
        let rate = count as f64 / seconds.max(f64::MIN_POSITIVE);
        let values = json!({ "count": count, "rate": number(rate) });
        metrics.put(name, "counter", contains, count > 0, values);
    }
    // They are sampled once a second.
    for name in ["vus", "vus_max"] {
        let users = played.users;
        let values = json!({ "value": users, "min": users, "max": users });
        metrics.put(name, "gauge", "default", seconds >= 1.0, values);
    }
    let (name, id) = CHECK;
    let checks = match samples.checks.count() {
        0 => json!([]),
        _ => json!([{ "name": name, "path": format!("::{name}"), "id": id,
            "passes": samples.checks.yes, "fails": samples.checks.no }]),
    };
    json!({
        "root_group": { "name": "", "path": "", "id": ROOT, "groups": [], "checks": checks },
        "options": { "summaryTrendStats": script.statistics, "summaryTimeUnit": "", "noColor": false },
        "state": { "isStdOutTTY": false, "isStdErrTTY": false, "testRunDurationMs": number(seconds * 1000.0) },
        "metrics": metrics.all,
    })
}

struct Metrics<'a> {
    test: &'a Test,
    played: &'a Played,
    statistics: &'a [String],
    all: BTreeMap<&'a str, Value>,
}

impl<'a> Metrics<'a> {
    fn put(&mut self, name: &'a str, kind: &str, contains: &str, sampled: bool, values: Value) {
        let thresholds = self.test.thresholds(name, &self.played.samples);
        if !sampled && thresholds.is_empty() {
            return;
        }
        let mut metric = json!({ "type": kind, "contains": contains, "values": values });
        if !thresholds.is_empty() {
            let thresholds = thresholds
                .into_iter()
                .map(|(text, holds)| (text, json!({ "ok": holds })));
            metric["thresholds"] = Value::Object(thresholds.collect());
        }
        self.all.insert(name, metric);
    }

    /// `passes` are those that are so, which is bad of `http_req_failed`.
    fn rate(&mut self, name: &'a str, rate: Rate) {
        let share = rate.share().unwrap_or_default();
        let values = json!({ "rate": number(share), "passes": rate.yes, "fails": rate.no });
        self.put(name, "rate", "default", rate.count() > 0, values);
    }

    fn trend(&mut self, name: &'a str, trend: &Trend) {
        let values = self
            .statistics
            .iter()
            .filter_map(|name| Some((name.clone(), number(trend.statistic(name)?))));
        let values: Map<String, Value> = values.collect();
        self.put(name, "trend", "time", trend.count() > 0, values.into());
    }
}

/// A number as JavaScript writes it: a whole one without a point.
fn number(of: f64) -> Value {
    match of.fract() == 0.0 && of.abs() < 9e15 {
        true => (of as i64).into(),
        false => of.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runner::Ended;
    use crate::samples::{Request, Samples};

    fn summary(environment: &[(&str, &str)], samples: Samples) -> Value {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let test = Test::read(&environment.iter().map(own).collect()).expect("a test");
        let script = Script::read("summaryTrendStats: ['avg', 'p(95)', 'count']");
        let played = Played {
            samples,
            ended: Ended::Done,
            took: Duration::from_millis(500),
            users: 1,
            silent: false,
        };
        of(&test, &script, &played)
    }

    #[test]
    fn requests_that_failed_are_passes() {
        let mut samples = Samples::default();
        for failed in [true, false, false, false] {
            samples.request(&Request {
                waiting: 8.0,
                failed,
                ..Request::default()
            });
        }
        let metrics = &summary(&[("ERROR_RATE", "0.1")], samples)["metrics"];
        assert_eq!(
            metrics["http_req_failed"],
            json!({ "type": "rate", "contains": "default",
                "values": { "rate": 0.25, "passes": 1, "fails": 3 },
                "thresholds": { "rate<=0.1": { "ok": false } } })
        );
        assert_eq!(
            metrics["http_req_duration"],
            json!({ "type": "trend", "contains": "time", "values": { "avg": 8, "p(95)": 8, "count": 4 } })
        );
        assert_eq!(
            metrics["http_reqs"]["values"],
            json!({ "count": 4, "rate": 8 })
        );
        assert_eq!(metrics.get("checks"), None);
        assert_eq!(metrics.get("dropped_iterations"), None);
        assert_eq!(metrics.get("vus"), None);
    }

    #[test]
    fn what_has_a_threshold_is_there_without_samples() {
        let summary = summary(&[("CHECKS", "1"), ("P95_MS", "5")], Samples::default());
        let metrics = &summary["metrics"];
        let names: Vec<&String> = metrics.as_object().expect("metrics").keys().collect();
        assert_eq!(names, ["checks", "http_req_duration"]);
        assert_eq!(
            metrics["checks"]["thresholds"],
            json!({ "rate>=1": { "ok": true } })
        );
        assert_eq!(summary["root_group"]["checks"], json!([]));
        assert!(!summary.to_string().contains('\n'));
    }
}
