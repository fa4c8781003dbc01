//! The report as one page: no script, no other file, nothing that is loaded from anywhere. Everything that
//! comes from records is escaped by the template.

use askama::Template;
use jiff::Timestamp;
use serde_json::Value;

use super::document::{Evidence, Objective, Report, Verdict, span};
use super::load::Load;

/// The page; its template is `worker/templates/report.html`.
#[derive(Debug, Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    /// SHA-256 of `report.json`, which has everything.
    digest: &'a str,
    verdict: &'static str,
    /// Its class in the style sheet.
    class: &'static str,
    objectives: Vec<Row>,
    bars: Vec<Bar>,
    proofs: Vec<Shown>,
    backup: Option<String>,
    load: Option<Loaded<'a>>,
}

/// The load test.
#[derive(Debug)]
struct Loaded<'a> {
    load: &'a Load,
    verdict: &'static str,
    class: &'static str,
    /// The times of requests, in percent of the longest.
    times: Vec<Time>,
    thresholds: Vec<Limit<'a>>,
    rate: String,
}

/// A time of requests.
#[derive(Debug)]
struct Time {
    name: &'static str,
    width: f64,
    shown: String,
}

/// A threshold.
#[derive(Debug)]
struct Limit<'a> {
    name: &'a str,
    expected: &'a str,
    observed: String,
    holds: bool,
}

/// A target and what came of it.
#[derive(Debug)]
struct Row {
    name: &'static str,
    target: String,
    actual: String,
    mark: &'static str,
}

/// A phase on the timeline, in percent of the whole.
#[derive(Debug)]
struct Bar {
    kind: String,
    jobs: String,
    left: f64,
    width: f64,
    took: String,
    good: bool,
}

/// A proof.
#[derive(Debug)]
struct Shown {
    job: String,
    proof: String,
    at: String,
    expected: String,
    observed: String,
    holds: bool,
}

/// Values are cut after so many characters; the whole is in `report.json`.
const MOST: usize = 600;

/// Renders the page of a report whose JSON has this digest.
pub(super) fn render(report: &Report, digest: &str) -> Result<String, askama::Error> {
    let mut objectives = vec![row("Recovery time (RTO)", &report.rto)];
    objectives.extend(
        report
            .rpo
            .as_ref()
            .map(|rpo| row("Recovery point (RPO)", rpo)),
    );
    let (verdict, class) = match report.verdict {
        Verdict::Passed => ("passed", "passed"),
        Verdict::PassedWithConditions => ("passed with conditions", "passed-with-conditions"),
        Verdict::Failed => ("failed", "failed"),
    };
    Page {
        report,
        digest,
        verdict,
        class,
        objectives,
        bars: bars(report),
        proofs: report.proofs.iter().map(shown).collect(),
        backup: report.backup.as_ref().map(text),
        load: report.load.as_ref().map(loaded),
    }
    .render()
}

fn row(name: &'static str, of: &Objective) -> Row {
    let time = |seconds: Option<i64>, none: &str| seconds.map_or_else(|| none.to_owned(), span);
    Row {
        name,
        target: time(of.target_seconds, "none set"),
        actual: time(of.actual_seconds, "not reached"),
        mark: match of.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        },
    }
}

fn loaded(load: &Load) -> Loaded<'_> {
    let times = load.result.total.as_ref().map(|total| total.latency);
    let times = times.map_or_else(Vec::new, |of| {
        let all = [
            ("shortest", of.min),
            ("mean", of.avg),
            ("median", of.med),
            ("p90", of.p90),
            ("p95", of.p95),
            ("longest", of.max),
        ];
        let longest = all
            .iter()
            .map(|(_, ms)| *ms)
            .fold(f64::MIN_POSITIVE, f64::max);
        let time = |(name, ms): (&'static str, f64)| Time {
            name,
            width: (ms / longest * 100.0).clamp(0.3, 100.0),
            shown: format!("{ms:.1} ms"),
        };
        all.map(time).into()
    });
    let thresholds = load.result.thresholds.iter().map(|threshold| Limit {
        name: &threshold.name,
        expected: &threshold.expected,
        observed: threshold
            .observed
            .map_or_else(|| "nothing".into(), |value| format!("{value:.4}")),
        holds: threshold.holds,
    });
    let (verdict, class) = match (load.passed, load.result.invalid.is_empty()) {
        (true, _) => ("passed", "passed"),
        (false, true) => ("failed", "failed"),
        (false, false) => ("not valid", "failed"),
    };
    Loaded {
        load,
        verdict,
        class,
        times,
        thresholds: thresholds.collect(),
        rate: load
            .requests_per_second
            .map_or_else(|| "unknown".into(), |rate| format!("{rate:.0}")),
    }
}

fn bars(report: &Report) -> Vec<Bar> {
    let from = report.declared;
    let ends = report.phases.iter().filter_map(|phase| phase.ended);
    let to = ends.max().unwrap_or(report.written);
    let whole = (to.duration_since(from).as_secs_f64()).max(1.0);
    let percent =
        |at: Timestamp| (at.duration_since(from).as_secs_f64() / whole * 100.0).clamp(0.0, 100.0);
    let phases = report.phases.iter().filter_map(|phase| {
        let started = phase.started?;
        let (left, right) = (percent(started), percent(phase.ended.unwrap_or(to)));
        Some(Bar {
            kind: phase.kind.clone(),
            jobs: format!("{} of {}", phase.succeeded, phase.jobs),
            left,
            width: (right - left).max(0.3),
            took: phase.seconds.map_or_else(|| "not ended".into(), span),
            good: phase.succeeded == phase.jobs,
        })
    });
    phases.collect()
}

fn shown(evidence: &Evidence) -> Shown {
    Shown {
        job: evidence.job.to_string(),
        proof: evidence.proof.clone(),
        at: evidence.at.to_string(),
        expected: text(&evidence.result["expected"]),
        observed: text(&evidence.result["observed"]),
        holds: evidence.holds(),
    }
}

fn text(value: &Value) -> String {
    let whole = match value {
        Value::String(text) => text.clone(),
        value => serde_json::to_string_pretty(value).unwrap_or_default(),
    };
    match whole.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &whole[..end]),
        None => whole,
    }
}
