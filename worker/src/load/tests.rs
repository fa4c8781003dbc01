//! Verdicts by example, and what holds for all of them.

use jobs::record::{Latency, LoadResult, Runner, Summary};
use jobs::spec::{Driver, Thresholds};
use proptest::prelude::*;
use serde_json::json;

use super::{Asked, merge, result, why};

fn thresholds() -> Thresholds {
    serde_json::from_value(json!({"p95_ms": 2000, "error_rate": 0.01, "checks": 0.99}))
        .expect("thresholds")
}

/// Judged as a test of 10 virtual users that go 5 times.
fn judged(runners: Vec<Runner>) -> LoadResult {
    judged_by(&thresholds(), runners)
}

fn judged_by(thresholds: &Thresholds, runners: Vec<Runner>) -> LoadResult {
    let asked = Asked {
        run: "load-r-0".into(),
        driver: Driver::Kubeconfig,
        target: "https://shop.${DOMAIN}/".into(),
        virtual_users: 10,
        iterations: 5,
        thresholds,
    };
    result(asked, runners)
}

/// One that did everything, and well.
fn good() -> Runner {
    let latency = Latency {
        min: 5.0,
        avg: 120.0,
        med: 100.0,
        p90: 300.0,
        p95: 400.0,
        max: 900.0,
    };
    Runner {
        name: "load-r-0-1".into(),
        exit_code: Some(0),
        reason: Some("Completed".into()),
        summary: Some(Summary {
            requests: 50,
            iterations: 50,
            checks_held: 50,
            duration_ms: 2500.0,
            latency,
            received: 5000,
            ..Summary::default()
        }),
        raw: None,
    }
}

fn but(change: impl FnOnce(&mut Runner)) -> Runner {
    let mut runner = good();
    change(&mut runner);
    runner
}

fn counted(change: impl FnOnce(&mut Summary)) -> Runner {
    but(|runner| change(runner.summary.as_mut().expect("a summary")))
}

#[test]
fn an_application_that_bore_the_load_passes_with_the_numbers_of_the_only_runner() {
    let result = judged(vec![good()]);
    assert!(result.passed(), "{}", why(&result));
    assert_eq!(result.total, good().summary);
    assert_eq!(why(&result), "");
    let names: Vec<&str> = result.thresholds.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["p95_ms", "error_rate", "iterations", "checks"]);
    assert_eq!(super::observed(&result)["p95_ms"], 400.0);
    assert_eq!(super::expected(&result)["error_rate"], "at most 0.01");
}

#[test]
fn what_cannot_be_trusted_is_named_and_never_a_pass() {
    let cases: Vec<(&str, Vec<Runner>)> = vec![
        ("no runner ran", vec![]),
        ("left no summary", vec![but(|r| r.summary = None)]),
        ("no exit code", vec![but(|r| r.exit_code = None)]),
        (
            "exit code 137: OOMKilled",
            vec![but(|r| {
                r.exit_code = Some(137);
                r.reason = Some("OOMKilled".into());
            })],
        ),
        ("exit code 107", vec![but(|r| r.exit_code = Some(107))]),
        (
            "was ended: Evicted",
            vec![but(|r| r.reason = Some("Evicted".into()))],
        ),
        (
            "47 of 50 iterations were done, 3 were given up",
            vec![counted(|s| {
                s.iterations = 47;
                s.dropped = 3;
            })],
        ),
        ("no iteration", vec![counted(|s| s.iterations = 0)]),
        (
            "51 of 50 requests failed",
            vec![counted(|s| s.failed = s.requests + 1)],
        ),
        (
            "request of NaN ms",
            vec![counted(|s| s.latency.p95 = f64::NAN)],
        ),
        ("request of -1 ms", vec![counted(|s| s.latency.min = -1.0)]),
        (
            "duration of inf ms",
            vec![counted(|s| s.duration_ms = f64::INFINITY)],
        ),
        (
            "wrong order",
            vec![counted(|s| s.latency.p95 = s.latency.med - 1.0)],
        ),
        (
            "wrong order",
            vec![counted(|s| s.latency.avg = s.latency.max + 1.0)],
        ),
        (
            "load-r-0-2 left no summary",
            vec![
                good(),
                but(|r| {
                    r.name = "load-r-0-2".into();
                    r.summary = None;
                }),
            ],
        ),
    ];
    for (expected, runners) in cases {
        let result = judged(runners);
        assert!(!result.passed(), "{expected}");
        let why = why(&result);
        assert!(why.contains(expected), "{why}, not {expected}");
        assert!(why.starts_with("the load test is not valid: "), "{why}");
        // It can be recorded, and read back.
        let text = serde_json::to_string(&result).expect("text");
        let back: LoadResult = serde_json::from_str(&text).expect("the same");
        assert_eq!(back, result, "{expected}");
    }
}

#[test]
fn a_broken_threshold_is_named_with_what_was_asked_and_what_was_observed() {
    let cases = [
        (
            counted(|s| {
                s.latency.p95 = 3456.7;
                s.latency.max = 5000.0;
            }),
            "p95_ms is 3456.7, at most 2000",
        ),
        (
            counted(|s| s.failed = 1),
            "error_rate is 0.02, at most 0.01",
        ),
        (
            counted(|s| {
                s.checks_held = 49;
                s.checks_failed = 1;
            }),
            "checks is 0.98, at least 0.99",
        ),
        (
            counted(|s| s.requests = 0),
            "p95_ms was not observed, at most 2000",
        ),
        (
            counted(|s| s.checks_held = 0),
            "checks was not observed, at least 0.99",
        ),
        (
            but(|r| {
                r.exit_code = Some(99);
                r.reason = Some("Error".into());
            }),
            "the script's own thresholds",
        ),
    ];
    for (runner, expected) in cases {
        let result = judged(vec![runner]);
        assert!(!result.passed() && result.invalid.is_empty(), "{expected}");
        let why = why(&result);
        assert!(why.contains(expected), "{why}, not {expected}");
    }
}

#[test]
fn a_threshold_of_ours_that_the_script_has_too_is_told_once() {
    let result = judged(vec![but(|r| {
        r.exit_code = Some(99);
        r.summary.as_mut().expect("a summary").failed = 25;
    })]);
    assert!(!result.passed());
    assert!(why(&result).contains("error_rate is 0.5"));
    assert!(!why(&result).contains("script"), "{}", why(&result));
}

#[test]
fn a_script_without_checks_passes_only_where_none_are_asked_for() {
    let none = serde_json::from_value(json!({"p95_ms": 2000, "checks": 0.0})).expect("thresholds");
    let without = || vec![counted(|s| s.checks_held = 0)];
    assert!(judged_by(&none, without()).passed());
    assert!(!judged(without()).passed());
}

#[test]
fn percentiles_of_several_runners_are_those_of_the_slowest() {
    let slow = Latency {
        min: 50.0,
        avg: 200.0,
        med: 190.0,
        p90: 450.0,
        p95: 500.0,
        max: 600.0,
    };
    let half = |latency: Latency| {
        counted(|s| {
            (s.requests, s.iterations, s.checks_held) = (25, 25, 25);
            s.latency = latency;
        })
    };
    let fast = good().summary.expect("a summary").latency;
    let total = judged(vec![half(fast), half(slow)]).total.expect("a total");
    let expected = Latency {
        min: 5.0,
        avg: 160.0,
        max: 900.0,
        ..slow
    };
    assert_eq!(total.latency, expected);
    assert_eq!((total.requests, total.received), (50, 10_000));
    assert_eq!(total.rate(), Some(20.0));
}

#[test]
fn a_runner_that_asked_nothing_does_not_make_the_others_look_fast() {
    let idle = Summary::default();
    let busy = good().summary.expect("a summary");
    for pair in [[&idle, &busy], [&busy, &idle]] {
        let total = merge(pair).expect("a total");
        assert_eq!(total.latency, busy.latency);
    }
}

/// Times in their order.
fn latency() -> impl Strategy<Value = Latency> {
    (prop::array::uniform5(0.0..5000.0_f64), 0.0..=1.0_f64).prop_map(|(mut times, mean)| {
        times.sort_by(f64::total_cmp);
        let [min, med, p90, p95, max] = times;
        Latency {
            min,
            avg: min + mean * (max - min),
            med,
            p90,
            p95,
            max,
        }
    })
}

fn summary() -> impl Strategy<Value = Summary> {
    let counts = (0..200_u64, 0.0..=1.0_f64, 0..60_u64, 0..5_u64);
    let checks = (0..60_u64, 0..3_u64);
    (counts, checks, latency(), 0.0..1e6_f64).prop_map(|(counts, checks, latency, duration_ms)| {
        let (requests, bad, iterations, dropped) = counts;
        Summary {
            requests,
            failed: (requests as f64 * bad * bad) as u64,
            iterations,
            dropped,
            checks_held: checks.0,
            checks_failed: checks.1,
            duration_ms,
            latency,
            received: requests * 100,
        }
    })
}

fn runner() -> impl Strategy<Value = Runner> {
    let codes = prop::sample::select(vec![Some(0), Some(0), Some(0), Some(99), Some(1), None]);
    let reasons = [None, Some("Completed"), Some("Error"), Some("OOMKilled")];
    let reasons = prop::sample::select(reasons.map(|r| r.map(str::to_owned)).to_vec());
    (codes, reasons, prop::option::weighted(0.9, summary())).prop_map(
        |(exit_code, reason, summary)| Runner {
            name: "a-runner".into(),
            exit_code,
            reason,
            summary,
            raw: None,
        },
    )
}

/// A threshold that a runner alone may or may not meet.
fn some_thresholds() -> impl Strategy<Value = Thresholds> {
    (1..5000_u64, 0.0..=1.0_f64, 0.0..=1.0_f64).prop_map(|(p95_ms, error_rate, checks)| {
        let all = json!({"p95_ms": p95_ms, "error_rate": error_rate, "checks": checks});
        serde_json::from_value(all).expect("thresholds")
    })
}

fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_order_of_runners_does_not_matter(
        all in prop::collection::vec(summary(), 1..6),
        dice in any::<prop::sample::Index>(),
    ) {
        let mut other = all.clone();
        other.rotate_left(dice.index(all.len()));
        other.reverse();
        let (mut one, two) = (merge(&all).expect("one"), merge(&other).expect("two"));
        prop_assert!(is_close(one.latency.avg, two.latency.avg));
        one.latency.avg = two.latency.avg;
        prop_assert_eq!(one, two);
    }

    #[test]
    fn the_total_is_sound_where_its_parts_are(all in prop::collection::vec(summary(), 1..6)) {
        let total = merge(&all).expect("a total");
        let sound = all.iter().filter(|part| part.requests > 0);
        prop_assert!(total.failed <= total.requests);
        if let Some(worst) = sound.map(|part| part.latency.p95).max_by(f64::total_cmp) {
            prop_assert_eq!(total.latency.p95, worst);
            let Latency { min, avg, med, p90, p95, max } = total.latency;
            prop_assert!([min, med, p90, p95, max].is_sorted());
            prop_assert!(avg >= min - 1e-6 && avg <= max + 1e-6);
        }
    }

    #[test]
    fn a_pass_means_that_every_runner_ended_well_and_all_was_done(
        thresholds in some_thresholds(),
        runners in prop::collection::vec(runner(), 0..4),
    ) {
        let result = judged_by(&thresholds, runners.clone());
        if result.passed() {
            prop_assert!(!runners.is_empty());
            for runner in &runners {
                prop_assert_eq!(runner.exit_code, Some(0));
                prop_assert!(runner.reason.as_deref() != Some("OOMKilled"));
                let summary = runner.summary.as_ref().expect("a summary");
                prop_assert!(summary.iterations > 0 && summary.failed <= summary.requests);
            }
            let total = result.total.as_ref().expect("a total");
            prop_assert!(total.iterations >= 50 && total.requests > 0);
            prop_assert!(total.latency.p95 <= thresholds.p95_ms as f64);
            prop_assert_eq!(why(&result), "");
        } else {
            prop_assert!(!why(&result).is_empty());
        }
    }

    #[test]
    fn a_runner_that_failed_never_makes_a_failure_a_pass(
        thresholds in some_thresholds(),
        mut runners in prop::collection::vec(runner(), 0..4),
        code in prop::sample::select(vec![None, Some(1), Some(99), Some(107), Some(137)]),
        mut failed in runner(),
    ) {
        failed.exit_code = code;
        runners.push(failed);
        prop_assert!(!judged_by(&thresholds, runners).passed());
    }

    #[test]
    fn the_same_load_split_over_more_runners_is_judged_the_same(
        thresholds in some_thresholds(),
        part in summary(),
        parts in 1..4_usize,
    ) {
        let runner = |summary: Summary| but(|r| r.summary = Some(summary));
        let split = judged_by(&thresholds, vec![runner(part.clone()); parts]);
        let whole = merge(vec![&part; parts]).expect("a total");
        prop_assert_eq!(split.passed(), judged_by(&thresholds, vec![runner(whole)]).passed());
    }
}
