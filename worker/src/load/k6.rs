//! What k6 says: its summary in a runner's log, and what stands in it.
//!
//! The script prints the data of `handleSummary` as one line of JSON between two marker lines. Everything of it comes
//! from a script that anybody may have written, so nothing is taken for granted: what is missing or of another shape is
//! an error, and never a zero that looks good.

use std::collections::VecDeque;

use jobs::record::{Latency, Summary};
use serde_json::Value;

/// The line before the summary.
pub const BEGIN: &str = "---rekindle-summary-begin---";
/// The line after it.
pub const END: &str = "---rekindle-summary-end---";
/// Lines that are kept of a log's end.
const KEPT: usize = 10;
/// Letters that are kept of such a line.
const WIDTH: usize = 300;
/// Numbers up to here are exact as JSON has them.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Why there is no summary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SummaryError {
    /// Nothing of it is in the log.
    #[error("there is no summary in its log")]
    Absent,
    /// Its end is in the log and its beginning is not.
    #[error("the beginning of the summary is not in its log: the log was rotated")]
    Rotated,
    /// The log ends within it.
    #[error("its log ends within the summary")]
    Cut,
    /// It is not what k6 writes.
    #[error("its summary is not one of k6: {0}")]
    Unreadable(String),
}

/// A log that is read line by line: what stood between the markers, and how it ends.
#[derive(Debug, Clone, Default)]
pub struct Log {
    between: Option<Vec<String>>,
    found: Option<Result<String, SummaryError>>,
    end: VecDeque<String>,
}

impl Log {
    /// Reads a whole log.
    pub fn of(text: &str) -> Self {
        let mut log = Self::default();
        text.lines().for_each(|line| log.line(line));
        log
    }

    /// Takes its next line.
    pub fn line(&mut self, line: &str) {
        match line.trim() {
            "" => {}
            BEGIN => self.between = Some(Vec::new()),
            // The last summary counts: a script may have printed something like it before.
            END => {
                self.found = Some(match self.between.take() {
                    Some(lines) if lines.len() == 1 => Ok(lines.concat()),
                    Some(lines) => Err(SummaryError::Unreadable(format!(
                        "{} lines are between the markers instead of one",
                        lines.len()
                    ))),
                    None => Err(SummaryError::Rotated),
                });
            }
            line => match &mut self.between {
                Some(lines) => lines.push(line.to_owned()),
                None => self.keep(line),
            },
        }
    }

    fn keep(&mut self, line: &str) {
        if self.end.len() == KEPT {
            self.end.pop_front();
        }
        self.end.push_back(line.chars().take(WIDTH).collect());
    }

    /// The summary's JSON.
    pub fn summary(&self) -> Result<&str, SummaryError> {
        match (&self.between, &self.found) {
            (Some(_), _) => Err(SummaryError::Cut),
            (None, Some(found)) => found.as_deref().map_err(Clone::clone),
            (None, None) => Err(SummaryError::Absent),
        }
    }

    /// How the log ends, in one line; nothing when it says nothing but the summary.
    pub fn end(&self) -> Option<String> {
        let lines: Vec<&str> = self.end.iter().map(String::as_str).collect();
        (!lines.is_empty()).then(|| lines.join(" | "))
    }
}

/// A summary, as far as it matters to us.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What was counted.
    pub summary: Summary,
    /// Thresholds of the script that do not hold, by k6's own word: `http_req_duration: p(95)<=2000`.
    pub broken: Vec<String>,
}

/// Reads the data of k6's `handleSummary`.
///
/// # Errors
/// When it is not that, or when it does not say what happened to each request. A counter that was never counted up is
/// not in it, so without iterations, dropped iterations, checks and bytes they are zero; without requests there is
/// nothing to judge.
pub fn read(text: &str) -> Result<Told, SummaryError> {
    let data: Value = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        SummaryError::Unreadable(format!("it is no JSON at line {line}, column {column}"))
    })?;
    let metrics = Metrics::of(&data)?;
    let requests = metrics.count("http_reqs")?.ok_or_else(|| {
        SummaryError::Unreadable("it has no `http_reqs`: the script asked for nothing".into())
    })?;
    // A rate counts what is true of it: of `http_req_failed` the failures "pass".
    let (failed, good) = metrics
        .rate("http_req_failed")?
        .ok_or_else(|| missing("http_req_failed"))?;
    if failed.checked_add(good) != Some(requests) {
        return Err(SummaryError::Unreadable(format!(
            "`http_req_failed` is about {failed} + {good} requests, and there were {requests}"
        )));
    }
    let (checks_held, checks_failed) = metrics.rate("checks")?.unwrap_or_default();
    let duration_ms = number(
        &data["state"]["testRunDurationMs"],
        "state.testRunDurationMs",
    )?;
    Ok(Told {
        summary: Summary {
            requests,
            failed,
            iterations: metrics.count("iterations")?.unwrap_or_default(),
            dropped: metrics.count("dropped_iterations")?.unwrap_or_default(),
            checks_held,
            checks_failed,
            duration_ms,
            latency: metrics.latency("http_req_duration")?,
            received: metrics.count("data_received")?.unwrap_or_default(),
        },
        broken: metrics.broken()?,
    })
}

/// The metrics of a summary, by their names.
struct Metrics<'a>(&'a serde_json::Map<String, Value>);

impl<'a> Metrics<'a> {
    fn of(data: &'a Value) -> Result<Self, SummaryError> {
        let metrics = data["metrics"].as_object();
        metrics.map(Self).ok_or_else(|| missing("metrics"))
    }

    /// The values of a metric of a type, if there is the metric.
    fn values(&self, name: &str, kind: &str) -> Result<Option<&'a Value>, SummaryError> {
        let Some(metric) = self.0.get(name) else {
            return Ok(None);
        };
        if metric["type"] != kind {
            return Err(SummaryError::Unreadable(format!("`{name}` is no {kind}")));
        }
        match &metric["values"] {
            values @ Value::Object(_) => Ok(Some(values)),
            _ => Err(missing(&format!("{name}.values"))),
        }
    }

    fn count(&self, name: &str) -> Result<Option<u64>, SummaryError> {
        let values = self.values(name, "counter")?;
        values
            .map(|values| whole(&values["count"], &format!("{name}.count")))
            .transpose()
    }

    /// How often a rate was true, and how often it was not.
    fn rate(&self, name: &str) -> Result<Option<(u64, u64)>, SummaryError> {
        let Some(values) = self.values(name, "rate")? else {
            return Ok(None);
        };
        let count = |part: &str| whole(&values[part], &format!("{name}.{part}"));
        Ok(Some((count("passes")?, count("fails")?)))
    }

    fn latency(&self, name: &str) -> Result<Latency, SummaryError> {
        let values = self.values(name, "trend")?.ok_or_else(|| missing(name))?;
        let at = |part: &str| number(&values[part], &format!("{name}.{part}"));
        let latency = Latency {
            min: at("min")?,
            avg: at("avg")?,
            med: at("med")?,
            p90: at("p(90)")?,
            p95: at("p(95)")?,
            max: at("max")?,
        };
        let Latency {
            min,
            avg,
            med,
            p90,
            p95,
            max,
        } = latency;
        let rising = [min, med, p90, p95, max].is_sorted();
        if !rising || !(min..=max).contains(&avg) {
            return Err(SummaryError::Unreadable(format!(
                "the times of `{name}` contradict each other"
            )));
        }
        Ok(latency)
    }

    fn broken(&self) -> Result<Vec<String>, SummaryError> {
        let mut broken = Vec::new();
        for (name, metric) in self.0 {
            let thresholds = match &metric["thresholds"] {
                Value::Null => continue,
                Value::Object(thresholds) => thresholds,
                _ => return Err(missing(&format!("{name}.thresholds"))),
            };
            for (expression, threshold) in thresholds {
                match threshold["ok"].as_bool() {
                    Some(true) => {}
                    Some(false) => broken.push(format!("{name}: {expression}")),
                    None => {
                        return Err(missing(&format!("{name}.thresholds[{expression}].ok")));
                    }
                }
            }
        }
        Ok(broken)
    }
}

fn missing(what: &str) -> SummaryError {
    SummaryError::Unreadable(format!("it has no usable `{what}`"))
}

/// A number that is there, finite, and not below zero.
fn number(value: &Value, what: &str) -> Result<f64, SummaryError> {
    let number = value.as_f64().filter(|it| it.is_finite() && *it >= 0.0);
    number.ok_or_else(|| missing(what))
}

/// The same without a fraction: JavaScript has no other numbers.
fn whole(value: &Value, what: &str) -> Result<u64, SummaryError> {
    let number = number(value, what)?;
    match number.fract() == 0.0 && number < EXACT {
        true => Ok(number as u64),
        false => Err(missing(what)),
    }
}

#[cfg(test)]
#[path = "k6_tests.rs"]
mod tests;
