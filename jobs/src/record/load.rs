//! The result of a load test: what each runner did, what that is together, and whether it is enough.

use serde::{Deserialize, Serialize};

use super::JobRecord;
use crate::spec::Driver;

/// What a load test came to. Holds no secret: the target is the one of the spec, with `${DOMAIN}` in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// Name of the run: unique, and part of the names of all that was made for it.
    pub run: String,
    /// Where the load came from.
    pub driver: Driver,
    /// What was loaded.
    pub target: String,
    /// Virtual users, all runners together.
    pub virtual_users: u32,
    /// How often each of them was to go through the script.
    pub iterations: u32,
    /// What each runner did.
    pub runners: Vec<Runner>,
    /// All runners together; nothing when no runner has a summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Summary>,
    /// Each threshold, with what was observed.
    pub thresholds: Vec<Threshold>,
    /// Why the numbers cannot be trusted, if they cannot: a result that is not valid is no result, however good
    /// it looks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid: Vec<String>,
}

impl LoadResult {
    /// The last result that a job has come to, if it has come to one.
    pub fn of(job: &JobRecord) -> Option<Self> {
        let results = job.steps.iter();
        let results = results.filter(|(key, _)| key.as_str().starts_with("result/"));
        let (_, last) = results.max_by_key(|(_, step)| step.n)?;
        serde_json::from_value(last.output.clone()).ok()
    }

    /// Whether the application bore the load, as far as this can be trusted.
    pub fn passed(&self) -> bool {
        self.invalid.is_empty()
            && !self.thresholds.is_empty()
            && self.thresholds.iter().all(|threshold| threshold.holds)
    }
}

/// One runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runner {
    /// Its name: that of its Job, or of the worker's program.
    pub name: String,
    /// Its exit code, if it ended by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What Kubernetes says about its end, such as `OOMKilled`; the end of its log if it has no summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it counted, if it lived to say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Key of its summary as it wrote it, below the bucket's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// What one or several runners counted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// HTTP requests.
    pub requests: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Goes through the script that came to their end.
    pub iterations: u64,
    /// Those that were given up because time ran out.
    #[serde(default)]
    pub dropped: u64,
    /// Checks of the script that held.
    #[serde(default)]
    pub checks_held: u64,
    /// Checks of the script that did not.
    #[serde(default)]
    pub checks_failed: u64,
    /// How long it took, in milliseconds: the longest one of several.
    pub duration_ms: f64,
    /// Time of a request.
    pub latency: Latency,
    /// Bytes received.
    #[serde(default)]
    pub received: u64,
}

impl Summary {
    /// Failed requests, as a share; nothing without requests.
    pub fn error_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.failed as f64 / self.requests as f64)
    }

    /// Checks that held, as a share; nothing without checks.
    pub fn checks(&self) -> Option<f64> {
        let all = self.checks_held + self.checks_failed;
        (all > 0).then(|| self.checks_held as f64 / all as f64)
    }

    /// Requests in a second; nothing when it took no time.
    pub fn rate(&self) -> Option<f64> {
        (self.duration_ms > 0.0).then(|| self.requests as f64 * 1000.0 / self.duration_ms)
    }
}

/// Times of requests, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub avg: f64,
    /// The 50th percentile; of several runners that of the slowest one, as all percentiles are.
    pub med: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The longest.
    pub max: f64,
}

/// One threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// What it is about: `p95_ms`, `error_rate`, `checks`, `iterations`, or what a script's own one is called.
    pub name: String,
    /// What was asked for, for people: `at most 2000`.
    pub expected: String,
    /// What was observed, if anything was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<f64>,
    /// Whether that is good enough.
    pub holds: bool,
}

/// Something that a load test made, and that is to be gone after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Temporary {
    /// What it is: `network`, `subnet`, `cluster`, `node-group`, or a kind of Kubernetes.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its id in the cloud; of an object of Kubernetes, its uid.
    pub id: String,
}
