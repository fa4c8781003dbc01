//! How a run stands, by its TestRun, its Jobs and its Pods. Pure but for the cluster's clock.
//!
//! The operator makes an initializer, then the runners, which wait for the starter to set them going together. It
//! has no deadlines, and looks at no exit code: a runner that dies before all others run, or a starter that fails,
//! leaves the run in its stage for ever. So the first sign that it cannot become valid any more ends it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;

use crate::engine::JobError;
use crate::kube::{KubeError, Objects, pods};

/// A Pod may be in trouble for so long before it counts: registries are asked again, and nodes may have to be made first.
const TROUBLE: Duration = Duration::from_secs(15 * 60);
/// A Job has its Pod at once, or something refuses it.
const WITHOUT_POD: Duration = Duration::from_secs(2 * 60);
/// k6 has run, and some of its thresholds do not hold: a result like any other.
pub(super) const THRESHOLDS: i32 = 99;
/// The container of runners and of the initializer.
const CONTAINER: &str = "k6";

/// What a run is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    /// Its name.
    pub(super) run: &'a str,
    /// How many runners it has.
    pub(super) runners: u32,
    /// The load begins within this time from its creation.
    pub(super) begin: Duration,
    /// It is over within this time.
    pub(super) limit: Duration,
}

/// What was seen of it: Jobs and Pods before the TestRun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// When, by the clock that the objects' times are from.
    pub(super) now: Timestamp,
    pub(super) run: Option<&'a Value>,
    pub(super) jobs: &'a [Value],
    pub(super) pods: &'a [Value],
}

/// How a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It goes on; what it is at.
    Going(String),
    /// Every runner has ended.
    Finished,
    /// It cannot become valid any more.
    Broken {
        /// Why.
        why: String,
        /// The Pod whose log may say more.
        pod: Option<String>,
    },
}

fn broken(why: impl Into<String>, pod: Option<&Value>) -> Standing {
    Standing::Broken {
        why: why.into(),
        pod: pod.map(|pod| name(pod).to_owned()),
    }
}

/// How it stands.
pub(super) fn judge(expected: &Expected<'_>, seen: &Seen<'_>) -> Standing {
    let name = expected.run;
    let Some(run) = seen.run else {
        return broken(format!("TestRun {name} was deleted while it ran"), None);
    };
    if !run["metadata"]["deletionTimestamp"].is_null() {
        return broken(format!("TestRun {name} is being deleted"), None);
    }
    let stage = stage(run);
    if stage == "finished" {
        return Standing::Finished;
    }
    if let Some(failed) = failed(seen, &format!("{name}-initializer"), "the initializer") {
        return failed;
    }
    if has_failed(run) {
        // The operator looks at the initializer's Pod, which may have ended before its Job says so.
        let pod = newest(seen, &format!("{name}-initializer"));
        let dead = pod.and_then(|pod| Some((pod, end(pod).filter(|end| end.code != Some(0))?)));
        let why = match dead {
            Some((pod, end)) => format!("the initializer failed: {}", at(pod, &end)),
            None => "the operator has given up (stage `error`): it cannot read the script or its settings"
                .to_owned(),
        };
        return broken(why, pod);
    }
    let starter = format!("{name}-starter");
    // The stage may lag behind the starter that it is about.
    let started = matches!(stage, "started" | "stopped")
        || seen.jobs.iter().any(|job| self::name(job) == starter);
    let mut over = BTreeSet::new();
    for pod in runners(seen.pods) {
        let Some(end) = end(pod) else { continue };
        if !started {
            let why = format!("a runner ended before the load began: {}", at(pod, &end));
            return broken(why, Some(pod));
        }
        if !end.is_result() {
            return broken(format!("a runner died: {}", at(pod, &end)), Some(pod));
        }
        over.extend(number(pod, name));
    }
    if let Some(failed) = failed(seen, &starter, "the starter") {
        return failed;
    }
    if over.len() as u64 >= u64::from(expected.runners) {
        return Standing::Finished;
    }
    let trouble = match troubled(seen) {
        Ok(trouble) => trouble,
        Err(hopeless) => return hopeless,
    };
    let text = progress(expected, seen, stage, over.len(), trouble.as_deref());
    match age(run, seen.now) {
        Some(age) if age > expected.limit => {
            let minutes = expected.limit.as_secs() / 60;
            broken(
                format!("it is not over after {minutes} minutes: {text}"),
                None,
            )
        }
        Some(age) if age > expected.begin && !started => {
            let minutes = expected.begin.as_secs() / 60;
            let why = format!("the load has not begun after {minutes} minutes: {text}");
            broken(why, None)
        }
        _ => Standing::Going(text),
    }
}

fn stage(run: &Value) -> &str {
    run["status"]["stage"].as_str().unwrap_or_default()
}

/// The operator has given up.
pub(super) fn has_failed(run: &Value) -> bool {
    stage(run) == "error"
}

fn progress(
    expected: &Expected<'_>,
    seen: &Seen<'_>,
    stage: &str,
    over: usize,
    trouble: Option<&str>,
) -> String {
    let stage = match stage {
        "" => "the operator has not seen it yet",
        stage => stage,
    };
    let running = runners(seen.pods).filter(|pod| pod["status"]["phase"] == "Running");
    let trouble = trouble.map_or_else(String::new, |text| format!("; {text}"));
    format!(
        "{stage}: of {} runners {} run, {over} are done{trouble}",
        expected.runners,
        running.count()
    )
}

/// A Job that has failed for good, with what its newest Pod says.
fn failed(seen: &Seen<'_>, job: &str, what: &str) -> Option<Standing> {
    let found = seen.jobs.iter().find(|it| name(it) == job)?;
    let conditions = found["status"]["conditions"].as_array();
    let says = conditions
        .into_iter()
        .flatten()
        .find(|it| it["type"] == "Failed" && it["status"] == "True");
    let count = found["status"]["failed"].as_u64().unwrap_or_default();
    // Kubernetes' own default.
    let tries = found["spec"]["backoffLimit"].as_u64().unwrap_or(6);
    if says.is_none() && count <= tries {
        return None;
    }
    let pod = newest(seen, job);
    let said = pod.and_then(|pod| Some(at(pod, &end(pod)?)));
    let said = said.unwrap_or_else(|| {
        let reason = says.and_then(|it| it["message"].as_str().or(it["reason"].as_str()));
        format!("Job {job}: {}", reason.unwrap_or("it has failed"))
    });
    Some(broken(format!("{what} failed: {said}"), pod))
}

/// The newest Pod of a Job.
fn newest<'a>(seen: &Seen<'a>, job: &str) -> Option<&'a Value> {
    let prefix = format!("{job}-");
    let pods = seen
        .pods
        .iter()
        .filter(|pod| name(pod).starts_with(&prefix));
    pods.max_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str())
}

/// What is in the way of a Pod; the error is that it will stay there.
fn troubled(seen: &Seen<'_>) -> Result<Option<String>, Standing> {
    let older = |object: &Value, than| age(object, seen.now).is_some_and(|age| age > than);
    let mut first = None;
    for pod in seen.pods {
        let Some(trouble) = pods::trouble(std::slice::from_ref(pod)) else {
            continue;
        };
        if trouble.hopeless || older(pod, TROUBLE) {
            return Err(broken(trouble.text, None));
        }
        first.get_or_insert(trouble.text);
    }
    for job in seen.jobs {
        let count = |field: &str| job["status"][field].as_u64().unwrap_or_default();
        let prefix = format!("{}-", name(job));
        let without = !seen.pods.iter().any(|pod| name(pod).starts_with(&prefix));
        if without && count("succeeded") + count("failed") == 0 && older(job, WITHOUT_POD) {
            let text = format!(
                "Job {} has no Pod: a quota, a policy or an admission webhook may refuse it",
                name(job)
            );
            return Err(broken(text, None));
        }
    }
    Ok(first)
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// Its exit code, if it had one.
    pub(super) code: Option<i32>,
    /// What Kubernetes calls that.
    pub(super) reason: String,
}

impl End {
    /// k6 came to its end and says what it saw.
    pub(super) fn is_result(&self) -> bool {
        self.cause().is_none() && matches!(self.code, Some(0 | THRESHOLDS))
    }

    /// What ended it, if it did not end by itself: then the exit code says everything.
    pub(super) fn cause(&self) -> Option<&str> {
        let plain = ["", "Completed", "Error"].contains(&self.reason.as_str());
        (!plain).then_some(&self.reason)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.reason.as_str()) {
            (Some(code), "") => write!(f, "exit code {code}"),
            (Some(code), reason) => write!(f, "{reason}, exit code {code}"),
            (None, reason) => f.write_str(reason),
        }
    }
}

fn at(pod: &Value, end: &End) -> String {
    format!("pod {}: {end}", name(pod))
}

/// How a Pod's container ended; nothing while it has not. A Pod that was evicted may have no container to ask.
pub(super) fn end(pod: &Value) -> Option<End> {
    let status = &pod["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = || status["containerStatuses"].as_array().into_iter().flatten();
    let ours = all().find(|it| it["name"] == CONTAINER).or(all().next());
    let terminated = ours.map(|it| &it["state"]["terminated"]);
    let terminated = terminated.filter(|it| it.is_object());
    let of_pod = text(&status["reason"]);
    match terminated {
        Some(terminated) => {
            let code = terminated["exitCode"].as_i64();
            let reason = match of_pod.is_empty() {
                true => text(&terminated["reason"]),
                false => of_pod,
            };
            Some(End {
                code: code.and_then(|code| code.try_into().ok()),
                reason,
            })
        }
        None if status["phase"] == "Failed" => {
            let reason = match of_pod.is_empty() {
                true => "the Pod has failed".to_owned(),
                false => of_pod,
            };
            Some(End { code: None, reason })
        }
        None => None,
    }
}

/// The Pods of runners. The starter carries all of their labels but one.
pub(super) fn runners(pods: &[Value]) -> impl Iterator<Item = &Value> {
    pods.iter()
        .filter(|pod| pod["metadata"]["labels"]["runner"] == "true")
}

/// The number of the runner that a Pod is of: its Job is `<run>-<number>`.
pub(super) fn number(pod: &Value, run: &str) -> Option<u32> {
    let labels = &pod["metadata"]["labels"];
    let job = labels["batch.kubernetes.io/job-name"]
        .as_str()
        .or(labels["job-name"].as_str());
    // Pods of a Job are called `<job>-<five letters>`.
    let job = job.or_else(|| name(pod).rsplit_once('-').map(|(job, _)| job))?;
    job.strip_prefix(run)?.strip_prefix('-')?.parse().ok()
}

/// The name of an object.
pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn age(object: &Value, now: Timestamp) -> Option<Duration> {
    let created = object["metadata"]["creationTimestamp"].as_str()?;
    let created: Timestamp = created.parse().ok()?;
    // One that is from the future is new.
    Some(now.duration_since(created).try_into().unwrap_or_default())
}

/// What time it is by the cluster's clock, which the times of its objects are from: ours may be another.
pub(super) async fn now(objects: &Objects) -> Result<Timestamp, JobError> {
    let failed = |error| KubeError::request("ask the cluster for the time", error);
    let request = http::Request::get("/version").body(Vec::new());
    let request = request.map_err(JobError::fatal)?;
    let answer = objects.client().send(request.map(Into::into)).await;
    let answer = answer.map_err(failed)?;
    let date = answer.headers().get(http::header::DATE);
    let date = date.and_then(|date| read(date.to_str().ok()?));
    Ok(date.unwrap_or_else(Timestamp::now))
}

/// A time as HTTP writes it.
fn read(date: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(date).ok()
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
