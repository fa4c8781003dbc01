#![expect(clippy::unwrap_used, reason = "tests")]
use serde_json::json;

use super::*;

fn summary(ok: bool) -> Value {
    json!({
        "state": {"testRunDurationMs": 100.0},
        "metrics": {
            "http_reqs": {"type": "counter", "values": {"count": 5}},
            "http_req_failed": {"type": "rate", "values": {"passes": 0, "fails": 5}},
            "iterations": {"type": "counter", "values": {"count": 5}},
            "http_req_duration": {"type": "trend",
                "values": {"min": 1, "avg": 1, "med": 1, "p(90)": 1, "p(95)": 1, "max": 1},
                "thresholds": {"p(95)<2": {"ok": ok}}},
            "http_reqs{url:https://dsf.example.org/}": {"type": "counter", "values": {"count": 5}},
        }
    })
}

fn log_of(summary: &Value) -> Result<Log, String> {
    Ok(Log::of(&format!(
        "level=warning msg=\"Request Failed\" error=\"Get https://dsf.example.org/\"\n{}\n{summary}\n{}\n",
        k6::BEGIN,
        k6::END
    )))
}

fn end(code: i32, reason: &str) -> End {
    End {
        code: Some(code),
        reason: reason.into(),
    }
}

fn read(end: &End, log: Result<Log, String>) -> (Runner, Option<String>) {
    let hidden = Hidden(Some("example.org".into()));
    with_end("load-r-1-0-1".into(), end, &log, &hidden)
}

#[test]
fn a_runner_that_came_to_its_end_has_a_summary_without_the_domain() {
    let (runner, raw) = read(&end(0, "Completed"), log_of(&summary(true)));
    assert_eq!((runner.exit_code, runner.reason), (Some(0), None));
    assert_eq!(runner.summary.unwrap().requests, 5);
    let raw = raw.unwrap();
    assert!(
        raw.contains("dsf.${DOMAIN}") && !raw.contains("example.org"),
        "{raw}"
    );

    let (runner, _) = read(&end(99, "Error"), log_of(&summary(false)));
    assert_eq!((runner.exit_code, runner.reason), (Some(99), None));
    assert!(runner.summary.is_some());
}

#[test]
fn what_k6_says_of_its_thresholds_counts_whatever_it_exits_with() {
    let (runner, _) = read(&end(0, "Completed"), log_of(&summary(false)));
    assert_eq!(runner.exit_code, Some(99));
    let (runner, _) = read(&end(107, "Error"), log_of(&summary(false)));
    assert_eq!(runner.exit_code, Some(107));
}

#[test]
fn a_runner_without_a_summary_says_why_without_the_domain() {
    let check = |end: &End, log: Result<Log, String>, expected: &str| {
        let (runner, raw) = read(end, log);
        assert_eq!((runner.summary, raw), (None, None));
        assert_eq!(runner.reason.unwrap(), expected);
        assert_eq!(runner.exit_code, end.code);
    };
    check(
        &end(107, "Error"),
        Ok(Log::of(
            "level=error msg=\"cannot open https://dsf.example.org/\"",
        )),
        "there is no summary in its log; its log ends: level=error msg=\"cannot open https://dsf.${DOMAIN}/\"",
    );
    check(
        &end(0, "Completed"),
        Ok(Log::default()),
        "there is no summary in its log",
    );
    check(
        &end(0, "Completed"),
        Ok(Log::of(&format!("{{}}\n{}\n", k6::END))),
        "the beginning of the summary is not in its log: the log was rotated; its log ends: {}",
    );
    check(
        &end(137, "OOMKilled"),
        Err("it is gone".into()),
        "OOMKilled; it is gone",
    );
    // What it wrote is kept, even if it cannot be read.
    let (runner, raw) = read(&end(0, "Completed"), log_of(&json!({"metrics": 1})));
    assert_eq!(raw.unwrap(), r#"{"metrics":1}"#);
    assert!(runner.reason.unwrap().contains("no usable `metrics`"));
    // A summary does not make a killed runner a good one.
    let (runner, _) = read(&end(137, "OOMKilled"), log_of(&summary(true)));
    assert_eq!(runner.reason.unwrap(), "OOMKilled");
}

#[test]
fn each_runner_that_there_should_be_is_accounted_for() {
    let pod = |name: &str, state: Value| {
        json!({"metadata": {"name": name, "labels": {"runner": "true"}}, "status": {"phase": "Running",
            "containerStatuses": [{"name": "k6", "state": state}]}})
    };
    let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    let pods = [
        pod("load-r-1-0-4-fffff", ended.clone()),
        pod("load-r-1-0-1-aaaaa", ended.clone()),
        pod("load-r-1-0-4-bbbbb", ended.clone()),
        pod("load-r-1-0-3-ccccc", json!({"running": {}})),
        pod("load-r-1-0-5-ddddd", ended),
        pod("load-r-2-0-2-eeeee", json!({})),
    ];
    let runners: Vec<String> = by_runner("load-r-1-0", 4, &pods)
        .into_iter()
        .map(|(name, ran)| match &ran {
            Ran::Ended(pod, end) => format!("{name}: {}: {end}", life::name(pod)),
            ran => {
                let runner = without_end(name.clone(), ran);
                assert_eq!((runner.exit_code, &runner.summary), (None, &None));
                format!("{name}: {}", runner.reason.unwrap())
            }
        })
        .collect();
    assert_eq!(
        runners,
        [
            "load-r-1-0-1: load-r-1-0-1-aaaaa: Completed, exit code 0",
            "load-r-1-0-2: it has no Pod",
            "load-r-1-0-3: it has not ended: pod load-r-1-0-3-ccccc is Running",
            "load-r-1-0-4: it began 2 times: load-r-1-0-4-fffff, load-r-1-0-4-bbbbb",
        ]
    );
}

#[test]
fn a_domain_that_is_not_given_hides_nothing() {
    assert_eq!(Hidden(None).hide("abc"), "abc");
    assert_eq!(
        Hidden(Some("b".into())).hide("abcb"),
        "a${DOMAIN}c${DOMAIN}"
    );
}
