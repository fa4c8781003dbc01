#![expect(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// As k6 2.2 writes it: 10 users, 3 iterations each, 2 requests failed.
fn data() -> Value {
    json!({
        "root_group": {"name": "", "path": "", "id": "d41d8cd98f00b204e9800998ecf8427e", "groups": [],
            "checks": [{"name": "the answer is 200", "path": "::the answer is 200", "id": "1", "passes": 28, "fails": 2}]},
        "options": {"summaryTrendStats": ["min", "avg", "med", "p(90)", "p(95)", "max", "count"],
            "summaryTimeUnit": "", "noColor": false},
        "state": {"isStdOutTTY": false, "isStdErrTTY": false, "testRunDurationMs": 1234.567},
        "metrics": {
            "http_reqs": {"type": "counter", "contains": "default", "values": {"count": 30, "rate": 24.3}},
            "http_req_failed": {"type": "rate", "contains": "default",
                "values": {"rate": 0.066, "passes": 2, "fails": 28},
                "thresholds": {"rate<=0.01": {"ok": false}}},
            "http_req_duration": {"type": "trend", "contains": "time",
                "values": {"min": 1.5, "avg": 10.25, "med": 9.0, "p(90)": 20.0, "p(95)": 21.5, "max": 40.0, "count": 30},
                "thresholds": {"p(95)<=2000": {"ok": true}}},
            "checks": {"type": "rate", "contains": "default", "values": {"rate": 0.93, "passes": 28, "fails": 2},
                "thresholds": {"rate>=0.9": {"ok": true}}},
            "iterations": {"type": "counter", "contains": "default", "values": {"count": 29, "rate": 24.3}},
            "dropped_iterations": {"type": "counter", "contains": "default", "values": {"count": 1, "rate": 0.1}},
            "data_received": {"type": "counter", "contains": "data", "values": {"count": 61234, "rate": 49595.0}},
            "vus": {"type": "gauge", "contains": "default", "values": {"value": 1, "min": 1, "max": 10}}
        }
    })
}

fn printed(data: &Value) -> String {
    format!("\n{BEGIN}\n{data}\n{END}\n")
}

#[test]
fn a_summary_of_k6_is_read() {
    let told = read(&data().to_string()).unwrap();
    assert_eq!(
        told.summary,
        Summary {
            requests: 30,
            failed: 2,
            iterations: 29,
            dropped: 1,
            checks_held: 28,
            checks_failed: 2,
            duration_ms: 1234.567,
            latency: Latency {
                min: 1.5,
                avg: 10.25,
                med: 9.0,
                p90: 20.0,
                p95: 21.5,
                max: 40.0,
            },
            received: 61234,
        }
    );
    assert_eq!(told.broken, ["http_req_failed: rate<=0.01"]);
}

#[test]
fn what_was_never_counted_up_is_zero() {
    let mut data = data();
    let metrics = data["metrics"].as_object_mut().unwrap();
    for name in [
        "checks",
        "iterations",
        "dropped_iterations",
        "data_received",
        "vus",
    ] {
        metrics.remove(name).unwrap();
    }
    let summary = read(&data.to_string()).unwrap().summary;
    assert_eq!((summary.iterations, summary.dropped), (0, 0));
    assert_eq!((summary.checks_held, summary.checks_failed), (0, 0));
    assert_eq!((summary.requests, summary.received), (30, 0));
}

/// Puts something else at a place of the summary; `None` takes away what is there.
fn changed(pointer: &str, value: Option<Value>) -> String {
    let mut data = data();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = data.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(key.to_owned(), value),
        None => parent.remove(key),
    }
    .expect("the place is there");
    data.to_string()
}

#[test]
fn what_does_not_say_what_happened_is_no_summary() {
    let check = |pointer: &str, value: Option<Value>, expected: &str| {
        let error = read(&changed(pointer, value.clone())).unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "{pointer} = {value:?}: {error}"
        );
    };
    check("/metrics", None, "`metrics`");
    check("/metrics", Some(json!([])), "`metrics`");
    check("/metrics/http_reqs", None, "asked for nothing");
    check("/metrics/http_req_failed", None, "`http_req_failed`");
    check("/metrics/http_req_duration", None, "`http_req_duration`");
    check("/state/testRunDurationMs", None, "testRunDurationMs");
    check(
        "/metrics/http_reqs/type",
        Some(json!("gauge")),
        "no counter",
    );
    check(
        "/metrics/http_reqs/values",
        Some(json!(3)),
        "http_reqs.values",
    );
    for bad in [
        json!(-1),
        json!(1.5),
        json!("30"),
        json!(null),
        json!(1e300),
    ] {
        check("/metrics/http_reqs/values/count", Some(bad), "http_reqs");
    }
    check(
        "/metrics/iterations/values/count",
        Some(json!(null)),
        "iterations.count",
    );
    check(
        "/metrics/checks/values/fails",
        None,
        "no usable `checks.fails`",
    );
    // Were failures and successes mixed up, or some requests not judged, then the sum is another.
    check(
        "/metrics/http_req_failed/values/passes",
        Some(json!(0)),
        "0 + 28 requests, and there were 30",
    );
    check(
        "/metrics/http_req_duration/values/p(95)",
        None,
        "http_req_duration.p(95)",
    );
    check(
        "/metrics/http_req_duration/values/p(95)",
        Some(json!(41)),
        "contradict",
    );
    check(
        "/metrics/http_req_duration/values/avg",
        Some(json!(0.1)),
        "contradict",
    );
    check(
        "/metrics/checks/thresholds",
        Some(json!({"rate>=0.9": true})),
        "checks.thresholds[rate>=0.9].ok",
    );
    check(
        "/metrics/checks/thresholds",
        Some(json!([1])),
        "checks.thresholds",
    );
    assert!(read("{").unwrap_err().to_string().contains("no JSON"));
    assert!(read("null").unwrap_err().to_string().contains("`metrics`"));
    // `--summary-export` writes another shape.
    let flat = json!({"metrics": {"http_reqs": {"count": 3, "rate": 1.0}}, "state": {"testRunDurationMs": 1}});
    assert!(read(&flat.to_string()).is_err());
}

#[test]
fn a_log_has_one_summary_between_its_markers() {
    let summary = |log: &str| Log::of(log).summary().map(str::to_owned);
    let json = data().to_string();
    let log = format!("a\nb{}", printed(&data()));
    assert_eq!(summary(&log), Ok(json.clone()));
    // The last one counts.
    assert_eq!(
        summary(&format!("{BEGIN}\nno\n{END}\n{log}")),
        Ok(json.clone())
    );
    // What k6 says after it is no part of it.
    let after =
        format!("{log}time=x level=error msg=\"thresholds on metrics 'checks' were crossed\"\n");
    assert_eq!(summary(&after), Ok(json.clone()));
    assert_eq!(
        Log::of(&after).end().unwrap(),
        "a | b | time=x level=error msg=\"thresholds on metrics 'checks' were crossed\""
    );
    assert_eq!(summary(""), Err(SummaryError::Absent));
    assert_eq!(
        summary("level=error msg=\"TARGET\"\n"),
        Err(SummaryError::Absent)
    );
    assert_eq!(
        summary(&format!("{}\n{END}\n", &json[9..])),
        Err(SummaryError::Rotated)
    );
    assert_eq!(
        summary(&format!("{BEGIN}\n{}", &json[..90])),
        Err(SummaryError::Cut)
    );
    assert_eq!(summary(&format!("{log}{BEGIN}\n")), Err(SummaryError::Cut));
    let two = summary(&format!("{BEGIN}\n{{\n}}\n{END}\n")).unwrap_err();
    assert!(two.to_string().contains("2 lines"), "{two}");
}

#[test]
fn the_end_of_a_log_is_short() {
    let long = format!("{}\n", "x".repeat(1000)).repeat(100);
    let end = Log::of(&long).end().unwrap();
    assert_eq!(end.len(), KEPT * (WIDTH + 3) - 3);
    assert_eq!(Log::of("").end(), None);
    assert_eq!(Log::of(&printed(&json!(1))).end(), None);
}

proptest! {
    #[test]
    fn a_damaged_summary_is_an_error_or_another_summary_and_never_a_panic(
        at in 0usize..2000, cut in 0usize..40, with in "[-0-9a-z{}\\[\\]:,\"\\.]{0,6}",
    ) {
        let mut text = data().to_string();
        let from = at.min(text.len());
        let to = (from + cut).min(text.len());
        text.replace_range(from..to, &with);
        if let Ok(told) = read(&text) {
            let it = told.summary;
            prop_assert!(it.failed <= it.requests);
            prop_assert!(it.duration_ms.is_finite() && it.latency.p95 <= it.latency.max);
        }
    }

    #[test]
    fn no_log_makes_it_panic(log in "[a\n\\-]{0,60}", more in any::<String>()) {
        let text = format!("{log}\n{BEGIN}\n{more}\n{END}\n{log}");
        let log = Log::of(&text);
        if let Ok(text) = log.summary() {
            let _ = read(text);
        }
    }

    #[test]
    fn any_json_is_read_or_refused(text in "(\\{|\\}|\\[|\\]|:|,|\"metrics\"|\"state\"|\"type\"|\"values\"|1|null){0,30}") {
        let _ = read(&text);
    }
}
