//! The result of a load test as text for people.

use std::fmt::Write as _;

use jobs::record::LoadResult;

use crate::render::{lines, table};

/// The verdict, each threshold, and each runner.
pub(crate) fn load(result: &LoadResult, fit: bool) -> String {
    let verdict = match (result.passed(), result.invalid.is_empty()) {
        (true, _) => "passed",
        (false, true) => "failed",
        (false, false) => "not valid",
    };
    let mut text = format!(
        "load test {}: {verdict}; {} virtual users × {} iterations against {}",
        result.run, result.virtual_users, result.iterations, result.target
    );
    if let Some(total) = &result.total {
        let _ = write!(
            text,
            "; {} requests, {} failed",
            total.requests, total.failed
        );
        if let Some(rate) = total.rate() {
            let _ = write!(text, ", {rate:.0} requests/s");
        }
        let _ = write!(text, ", p95 {:.0} ms", total.latency.p95);
    }
    text.push('\n');
    for why in &result.invalid {
        let _ = writeln!(text, "  not valid: {why}");
    }
    let mut rows = table(fit, &["THRESHOLD", "EXPECTED", "OBSERVED", ""]);
    for threshold in &result.thresholds {
        rows.add_row([
            threshold.name.clone(),
            threshold.expected.clone(),
            threshold.observed.map_or_else(|| "-".into(), number),
            if threshold.holds { "holds" } else { "broken" }.into(),
        ]);
    }
    text.push_str(&lines(&rows));
    let mut rows = table(
        fit,
        &["RUNNER", "EXIT", "REQUESTS", "FAILED", "P95 MS", "WHY"],
    );
    for runner in &result.runners {
        let of = |value: Option<f64>| value.map_or_else(|| "-".into(), number);
        let summary = runner.summary.as_ref();
        rows.add_row([
            runner.name.clone(),
            runner
                .exit_code
                .map_or_else(|| "-".into(), |code| code.to_string()),
            summary.map_or_else(|| "-".into(), |s| s.requests.to_string()),
            summary.map_or_else(|| "-".into(), |s| s.failed.to_string()),
            of(summary.map(|s| s.latency.p95)),
            runner.reason.clone().unwrap_or_default(),
        ]);
    }
    text.push('\n');
    text + &lines(&rows)
}

/// Whole numbers as they are, others with as many digits as matter.
fn number(value: f64) -> String {
    match value {
        whole if whole.fract() == 0.0 => format!("{whole:.0}"),
        small if small < 1.0 => format!("{small:.4}"),
        other => format!("{other:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use jobs::record::{Latency, Runner, Summary, Threshold};
    use jobs::spec::Driver;

    use super::*;

    fn result() -> LoadResult {
        let summary = Summary {
            requests: 5000,
            failed: 12,
            iterations: 5000,
            duration_ms: 4000.0,
            latency: Latency {
                p95: 81.25,
                ..Latency::default()
            },
            ..Summary::default()
        };
        LoadResult {
            run: "load-r-1-0".into(),
            driver: Driver::Local,
            target: "https://dsf.${DOMAIN}/".into(),
            virtual_users: 1000,
            iterations: 5,
            runners: vec![Runner {
                name: "worker".into(),
                exit_code: Some(0),
                reason: None,
                summary: Some(summary.clone()),
                raw: None,
            }],
            total: Some(summary),
            thresholds: vec![Threshold {
                name: "error_rate".into(),
                expected: "at most 0.001".into(),
                observed: Some(0.0024),
                holds: false,
            }],
            invalid: vec![],
        }
    }

    #[test]
    fn the_verdict_comes_first_and_each_threshold_says_whether_it_holds() {
        let text = load(&result(), false);
        for part in [
            "load test load-r-1-0: failed; 1000 virtual users × 5 iterations",
            "5000 requests, 12 failed, 1250 requests/s, p95 81 ms",
            "at most 0.001",
            "0.0024",
            "broken",
            "81.2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let unsure = LoadResult {
            invalid: vec!["worker was OOM-killed".into()],
            ..result()
        };
        let text = load(&unsure, false);
        assert!(text.contains("not valid: worker was OOM-killed"), "{text}");
    }
}
