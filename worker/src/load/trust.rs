//! Why the numbers of a runner cannot be trusted.

use jobs::record::{Latency, Runner, Summary};

/// k6's exit code when a threshold of the script's own does not hold. The run itself went well.
pub(super) const THRESHOLD: i32 = 99;

/// How Kubernetes calls an end whose exit code says it all; every other word of its own (`OOMKilled`, `Evicted`,
/// `DeadlineExceeded`) means that something ended the runner.
const ENDS: [&str; 2] = ["Completed", "Error"];

/// What is wrong with a runner, if anything is.
pub(super) fn fault(runner: &Runner) -> Option<String> {
    let name = &runner.name;
    let because = match runner.reason.as_deref().filter(|reason| !reason.is_empty()) {
        Some(reason) => format!(": {reason}"),
        None => String::new(),
    };
    let ended = match runner.exit_code {
        None => Some(format!("{name} has no exit code{because}")),
        Some(0 | THRESHOLD) => None,
        Some(code) => Some(format!("{name} ended with exit code {code}{because}")),
    };
    ended.or_else(|| match &runner.summary {
        None => Some(format!("{name} left no summary{because}")),
        Some(summary) => match runner.reason.as_deref() {
            Some(reason) if !reason.is_empty() && !ENDS.contains(&reason) => {
                Some(format!("{name} was ended{because}"))
            }
            _ => unsound(summary).map(|what| format!("the numbers of {name} are wrong: {what}")),
        },
    })
}

/// What contradicts itself in a summary, or what it lacks.
pub(super) fn unsound(summary: &Summary) -> Option<String> {
    let Summary {
        requests,
        failed,
        duration_ms,
        latency,
        ..
    } = summary;
    if !is_time(*duration_ms) {
        return Some(format!("a duration of {duration_ms} ms"));
    }
    if failed > requests {
        return Some(format!("{failed} of {requests} requests failed"));
    }
    if let Some(what) = unordered(latency) {
        return Some(what);
    }
    (summary.iterations == 0).then(|| "no iteration came to its end".to_owned())
}

fn is_time(ms: f64) -> bool {
    ms.is_finite() && ms >= 0.0
}

/// Times that are none, or that stand in the wrong order.
fn unordered(latency: &Latency) -> Option<String> {
    let Latency {
        min,
        avg,
        med,
        p90,
        p95,
        max,
    } = *latency;
    let all = [min, avg, med, p90, p95, max];
    if let Some(wrong) = all.into_iter().find(|ms| !is_time(*ms)) {
        return Some(format!("a request of {wrong} ms"));
    }
    // A mean is a sum that was rounded.
    let slack = max * 1e-9;
    let rises = [min, med, p90, p95, max].is_sorted();
    let mean = avg >= min - slack && avg <= max + slack;
    (!rises || !mean).then(|| {
        format!("times in the wrong order: min {min}, avg {avg}, med {med}, p90 {p90}, p95 {p95}, max {max}")
    })
}
