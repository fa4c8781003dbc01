//! Whether an application bore the load.

use jobs::record::{LoadResult, Runner, Summary, Threshold};
use jobs::spec::Thresholds;
use serde_json::{Map, Value, json};

use super::trust::{self, THRESHOLD};
use super::{Asked, merge};

/// Puts the runners' summaries together and judges them.
pub fn result(asked: Asked<'_>, mut runners: Vec<Runner>) -> LoadResult {
    let mut invalid: Vec<String> = runners.iter().filter_map(trust::fault).collect();
    for runner in &mut runners {
        // A number that is none cannot even be recorded.
        if runner.summary.as_ref().is_some_and(is_no_number) {
            runner.summary = None;
        }
    }
    let sound = runners.iter().filter_map(|runner| runner.summary.as_ref());
    let total = merge(sound.filter(|summary| trust::unsound(summary).is_none()));
    let wanted = asked.iterations_in_all();
    if runners.is_empty() {
        invalid.push("no runner ran".into());
    }
    if let Some(total) = &total
        && total.iterations < wanted
    {
        let Summary {
            iterations,
            dropped,
            ..
        } = total;
        invalid.push(format!(
            "{iterations} of {wanted} iterations were done, {dropped} were given up when time ran out"
        ));
    }
    let mut thresholds = judge(asked.thresholds, wanted, total.as_ref());
    let broken = runners.iter().any(|r| r.exit_code == Some(THRESHOLD));
    // Ours may stand in the script, too: then its exit code says nothing new.
    if broken && thresholds.iter().all(|threshold| threshold.holds) {
        thresholds.push(Threshold {
            name: "script".into(),
            expected: "the script's own thresholds hold on every runner".into(),
            observed: None,
            holds: false,
        });
    }
    LoadResult {
        run: asked.run,
        driver: asked.driver,
        target: asked.target,
        virtual_users: asked.virtual_users,
        iterations: asked.iterations,
        runners,
        total,
        thresholds,
        invalid,
    }
}

fn is_no_number(summary: &Summary) -> bool {
    let l = &summary.latency;
    let all = [
        summary.duration_ms,
        l.min,
        l.avg,
        l.med,
        l.p90,
        l.p95,
        l.max,
    ];
    !all.into_iter().all(f64::is_finite)
}

/// Each threshold, with what was observed. A threshold about which nothing was observed does not hold: k6 itself
/// would let it pass.
fn judge(asked: &Thresholds, iterations: u64, total: Option<&Summary>) -> Vec<Threshold> {
    let most = |name: &str, limit: f64, observed: Option<f64>| Threshold {
        name: name.into(),
        expected: format!("at most {limit}"),
        observed,
        holds: observed.is_some_and(|observed| observed <= limit),
    };
    let least = |name: &str, limit: f64, observed: Option<f64>| Threshold {
        name: name.into(),
        expected: format!("at least {limit}"),
        observed,
        holds: observed.is_some_and(|observed| observed >= limit),
    };
    let p95 = total
        .filter(|total| total.requests > 0)
        .map(|total| total.latency.p95);
    let error_rate = total.and_then(Summary::error_rate);
    let checks = total.and_then(Summary::checks);
    let done = total.map(|total| total.iterations as f64);
    let mut all = vec![
        most("p95_ms", asked.p95_ms as f64, p95),
        most("error_rate", asked.error_rate.into(), error_rate),
        least("iterations", iterations as f64, done),
    ];
    let wanted = f64::from(asked.checks);
    // A script without checks has to say so by `checks: 0`: else what was to be checked was not.
    if checks.is_some() || wanted > 0.0 {
        all.push(least("checks", wanted, checks));
    }
    all
}

/// Why a result is not a pass, for people: first why it is not valid, then which thresholds did not hold.
pub fn why(result: &LoadResult) -> String {
    let mut all = Vec::new();
    if !result.invalid.is_empty() {
        all.push(format!(
            "the load test is not valid: {}",
            result.invalid.join("; ")
        ));
    }
    let broken = result.thresholds.iter().filter(|t| !t.holds);
    let broken: Vec<String> = broken
        .map(|threshold| {
            let Threshold { name, expected, .. } = threshold;
            match threshold.observed {
                Some(observed) => format!("{name} is {}, {expected} is asked for", round(observed)),
                None if name == "script" => format!("not so: {expected}"),
                None => format!("{name} was not observed, {expected} is asked for"),
            }
        })
        .collect();
    if !broken.is_empty() {
        all.push(format!(
            "the application did not bear the load: {}",
            broken.join("; ")
        ));
    }
    let raw = result
        .runners
        .iter()
        .filter_map(|runner| runner.raw.as_deref());
    let raw: Vec<&str> = raw.collect();
    if !all.is_empty() && !raw.is_empty() {
        all.push(format!("what the runners wrote: {}", raw.join(", ")));
    }
    all.join(". ")
}

/// The thresholds, as a proof expects them.
pub fn expected(result: &LoadResult) -> Value {
    each(result, |threshold| json!(threshold.expected))
}

/// The thresholds, as a proof observed them.
pub fn observed(result: &LoadResult) -> Value {
    each(result, |threshold| json!(threshold.observed))
}

fn each(result: &LoadResult, say: impl Fn(&Threshold) -> Value) -> Value {
    let pairs = result
        .thresholds
        .iter()
        .map(|threshold| (threshold.name.clone(), say(threshold)));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// A number as people read it: three digits after the point, but never a small one as nothing.
fn round(number: f64) -> f64 {
    let rounded = (number * 1000.0).round() / 1000.0;
    if rounded == 0.0 { number } else { rounded }
}
