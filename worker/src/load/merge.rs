//! Several runners' summaries as one.

use jobs::record::{Latency, Summary};

/// Puts summaries together: counters are added, the duration is the longest one. Nothing of nothing.
pub fn merge<'a>(summaries: impl IntoIterator<Item = &'a Summary>) -> Option<Summary> {
    let mut all = summaries.into_iter();
    let mut total = all.next()?.clone();
    for next in all {
        total = Summary {
            latency: together(
                (total.requests, &total.latency),
                (next.requests, &next.latency),
            ),
            requests: total.requests.saturating_add(next.requests),
            failed: total.failed.saturating_add(next.failed),
            iterations: total.iterations.saturating_add(next.iterations),
            dropped: total.dropped.saturating_add(next.dropped),
            checks_held: total.checks_held.saturating_add(next.checks_held),
            checks_failed: total.checks_failed.saturating_add(next.checks_failed),
            duration_ms: total.duration_ms.max(next.duration_ms),
            received: total.received.saturating_add(next.received),
        };
    }
    Some(total)
}

/// Times of two runners with so many requests each. The percentiles are those of the slower one, since percentiles
/// cannot be merged; who asked nothing says nothing.
fn together((m, a): (u64, &Latency), (n, b): (u64, &Latency)) -> Latency {
    if n == 0 {
        return *a;
    }
    if m == 0 {
        return *b;
    }
    let slower = if slowness(a) >= slowness(b) { a } else { b };
    let (m, n) = (m as f64, n as f64);
    Latency {
        min: a.min.min(b.min),
        avg: a.avg * (m / (m + n)) + b.avg * (n / (m + n)),
        max: a.max.max(b.max),
        ..*slower
    }
}

/// By what runners are compared. All of it, so that which one is the slower does not depend on their order.
fn slowness(latency: &Latency) -> [f64; 3] {
    [latency.p95, latency.p90, latency.med]
}
