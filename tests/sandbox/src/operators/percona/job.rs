//! Jobs and Pods, which nobody else plays here: the Job controller, the scheduler and the kubelet in one.

use serde_json::{Value, json};

use super::json::{now, number, set_condition, text};
use super::source::Located;
use super::{Fault, LOG, MANAGER, Percona};
use crate::operators::Tick;

/// How often a Job tries again, when it does not say.
const BACKOFF_LIMIT: u64 = 6;

pub(super) const LABELS: &str = "postgres-operator.crunchydata.com/";

/// How far a Job's Pod is.
#[derive(Debug, PartialEq)]
pub(super) enum Stage {
    /// It is over: the Job has its verdict.
    Over,
    /// Nothing is to be done.
    Waits,
    /// The container has just begun.
    Began(Value),
    /// The container has done its work, whatever it is: now it ends.
    Ends(Value),
}

/// What a container came to.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: u8,
    pub(super) log: String,
}

impl Percona {
    /// Brings a Job of one container on by a step.
    pub(super) async fn play(
        &mut self,
        tick: &Tick,
        job: &Value,
        secrets: &[String],
    ) -> anyhow::Result<Stage> {
        let of_job = &job["status"];
        let over = |kind| super::json::is_true(of_job, kind);
        if over("Complete") || over("Failed") {
            return Ok(Stage::Over);
        }
        let (namespace, name) = (
            text(job, "/metadata/namespace"),
            text(job, "/metadata/name"),
        );
        let key = format!("{namespace}/{name}");
        let pods = pods_of(tick, job).await?;
        let open = pods
            .iter()
            .find(|pod| matches!(text(pod, "/status/phase"), "" | "Pending" | "Running"));
        let Some(pod) = open else {
            if pods.is_empty() || self.over(format!("{key} back-off"), tick) {
                let pod = tick.cluster.apply(MANAGER, &pod(job)).await?;
                tick.cluster
                    .set_status(MANAGER, &pod, &json!({ "phase": "Pending" }))
                    .await?;
                let began = of_job["startTime"].as_str().map_or_else(now, str::to_owned);
                let status = json!({ "active": 1, "startTime": began });
                tick.cluster.set_status(MANAGER, job, &status).await?;
            }
            return Ok(Stage::Waits);
        };
        if text(pod, "/status/phase") == "Running" {
            return Ok(match self.over(format!("{key} runs"), tick) {
                true => Stage::Ends(pod.clone()),
                false => Stage::Waits,
            });
        }
        if let Some(pending) = self.pending(tick, pod, secrets).await? {
            tick.cluster.set_status(MANAGER, pod, &pending).await?;
            return Ok(Stage::Waits);
        }
        if !self.over(format!("{key} starts"), tick) {
            return Ok(Stage::Waits);
        }
        let running = json!({ "running": { "startedAt": now() } });
        tick.cluster
            .set_status(MANAGER, pod, &phase("Running", pod, &running, 0, None))
            .await?;
        Ok(Stage::Began(pod.clone()))
    }

    /// Ends a Job's Pod, and the Job with it unless it is to try again.
    pub(super) async fn end(
        &self,
        tick: &Tick,
        job: &Value,
        pod: &Value,
        ended: &Ended,
    ) -> anyhow::Result<()> {
        let well = ended.code == 0;
        let reason = if well { "Completed" } else { "Error" };
        let finished = json!({ "terminated": { "exitCode": ended.code, "reason": reason, "finishedAt": now() } });
        let log = json!({ "metadata": { "annotations": { LOG: ended.log } } });
        tick.cluster.patch(MANAGER, pod, &log).await?;
        let state = phase(
            if well { "Succeeded" } else { "Failed" },
            pod,
            &finished,
            0,
            None,
        );
        tick.cluster.set_status(MANAGER, pod, &state).await?;

        let mut status = job["status"].clone();
        status["active"] = Value::Null;
        if well {
            status["succeeded"] = json!(1);
            status["completionTime"] = json!(now());
            set_condition(&mut status, 0, "Complete", "True", "", "");
        } else {
            let failed = number(&status, "/failed") + 1;
            status["failed"] = json!(failed);
            if failed > BACKOFF_LIMIT {
                let words = "Job has reached the specified backoff limit";
                set_condition(
                    &mut status,
                    0,
                    "Failed",
                    "True",
                    "BackoffLimitExceeded",
                    words,
                );
            }
        }
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            // Conditions of Jobs know no generation.
            condition
                .as_object_mut()
                .map(|condition| condition.remove("observedGeneration"));
        }
        tick.cluster.set_status(MANAGER, job, &status).await?;
        Ok(())
    }

    /// The status of a Pod that cannot begin; `None` when it can.
    pub(super) async fn pending(
        &self,
        tick: &Tick,
        pod: &Value,
        secrets: &[String],
    ) -> anyhow::Result<Option<Value>> {
        let unscheduled = |message: String| {
            Ok(Some(
                json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": message }] }),
            ))
        };
        let preemption =
            "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
        // What mounts the database's volume must go where that is; a backup runs on any other node.
        let bound = text(pod, "/spec/containers/0/name") == "pgbackrest-restore";
        for (key, value, effect) in self.settings.taints.iter().filter(|_| bound) {
            if !tolerates(&pod["spec"]["tolerations"], key, value, effect) {
                let why = format!("3 node(s) had untolerated taint {{{key}: {value}}}");
                return unscheduled(format!("0/3 nodes are available: {why}. {preemption}"));
            }
        }
        if self.faults.has(&Fault::PodsPending) {
            return unscheduled("0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod.".to_owned());
        }
        let namespace = text(pod, "/metadata/namespace");
        for secret in secrets {
            // A volume of a Secret that is not there cannot be mounted, and nobody gives up on it.
            if tick
                .cluster
                .get("v1", "Secret", namespace, secret)
                .await?
                .is_none()
            {
                let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
                let words = format!(
                    "MountVolume.SetUp failed for volume \"pgbackrest-config\" : secret \"{secret}\" not found"
                );
                event(tick, pod, "FailedMount", &words).await?;
                return Ok(Some(phase("Pending", pod, &waiting, 0, None)));
            }
        }
        if self.faults.has(&Fault::ImagePullBackOff) {
            let image = text(pod, "/spec/containers/0/image");
            let words = format!("Back-off pulling image \"{image}\"");
            let waiting = json!({ "waiting": { "reason": "ImagePullBackOff", "message": words } });
            return Ok(Some(phase("Pending", pod, &waiting, 0, None)));
        }
        Ok(None)
    }

    /// The keys to a repository, out of the Secrets with pgBackRest's configuration.
    pub(super) async fn keys(
        &self,
        tick: &Tick,
        namespace: &str,
        of: &Located,
    ) -> anyhow::Result<super::Keys> {
        use base64::Engine;
        let mut keys = super::Keys::default();
        for secret in &of.secrets {
            let secret = tick
                .cluster
                .get("v1", "Secret", namespace, secret)
                .await?
                .unwrap_or_default();
            for value in secret["data"]
                .as_object()
                .into_iter()
                .flat_map(|data| data.values())
            {
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(value.as_str().unwrap_or_default());
                let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
                for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
                    match key.trim().strip_prefix(&of.repo) {
                        Some("-s3-key") => value.trim().clone_into(&mut keys.access),
                        Some("-s3-key-secret") => value.trim().clone_into(&mut keys.secret),
                        _ => {}
                    }
                }
            }
        }
        Ok(keys)
    }
}

/// A Job of one container.
pub(super) fn job(
    cluster: &Value,
    name: &str,
    container: &str,
    labels: &Value,
    annotations: &Value,
    tolerations: &Value,
) -> Value {
    let mut spec = json!({ "restartPolicy": "Never", "enableServiceLinks": false,
        "containers": [{ "name": container, "image": "percona/percona-pgbackrest:2.56.0-1", "command": ["bash", "-ceu"] }] });
    if tolerations.is_array() {
        spec["tolerations"] = tolerations.clone();
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name, "namespace": cluster["metadata"]["namespace"], "labels": labels,
            "annotations": annotations, "ownerReferences": super::json::owner(cluster) },
        "spec": { "backoffLimit": BACKOFF_LIMIT,
            "template": { "metadata": { "labels": labels, "annotations": annotations }, "spec": spec } },
    })
}

/// The next Pod of a Job.
fn pod(job: &Value) -> Value {
    let name = text(job, "/metadata/name");
    let mut labels = job["spec"]["template"]["metadata"]["labels"].clone();
    labels["job-name"] = json!(name);
    let mut spec = job["spec"]["template"]["spec"].clone();
    // What the API server fills in of its own is not ours to apply.
    spec = json!({ "restartPolicy": "Never", "enableServiceLinks": false, "tolerations": spec["tolerations"].take(),
        "containers": [{ "name": spec["containers"][0]["name"], "image": spec["containers"][0]["image"] }] });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": format!("{name}-{}", letters()), "namespace": job["metadata"]["namespace"],
            "labels": labels, "ownerReferences": super::json::owner(job) },
        "spec": spec,
    })
}

/// What makes a name another one.
fn letters() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = |_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    (0..5).map(letter).collect()
}

/// The Pods of a Job.
pub(super) async fn pods_of(tick: &Tick, job: &Value) -> anyhow::Result<Vec<Value>> {
    let of_job = |pod: &Value| {
        pod["metadata"]["namespace"] == job["metadata"]["namespace"]
            && pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    };
    let mut pods = tick.cluster.list("v1", "Pod").await?;
    pods.retain(of_job);
    Ok(pods)
}

/// Deletes a Job with its Pods.
pub(super) async fn delete(tick: &Tick, job: &Value) -> anyhow::Result<()> {
    for pod in pods_of(tick, job).await? {
        tick.cluster.delete(&pod).await?;
    }
    tick.cluster.delete(job).await?;
    Ok(())
}

/// The status of a Pod with one container.
pub(super) fn phase(
    phase: &str,
    pod: &Value,
    state: &Value,
    restarts: u32,
    last: Option<&Value>,
) -> Value {
    let ready = phase == "Running" && state.get("running").is_some();
    let mut container = json!({ "name": pod["spec"]["containers"][0]["name"], "ready": ready, "restartCount": restarts,
        "image": pod["spec"]["containers"][0]["image"], "imageID": "", "state": state });
    if let Some(last) = last {
        container["lastState"] = last.clone();
    }
    let condition =
        |kind: &str, is: bool| json!({ "type": kind, "status": if is { "True" } else { "False" } });
    json!({ "phase": phase, "containerStatuses": [container],
        "conditions": [condition("PodScheduled", true), condition("Ready", ready)] })
}

fn tolerates(tolerations: &Value, key: &str, value: &str, effect: &str) -> bool {
    effect == "PreferNoSchedule"
        || tolerations.as_array().into_iter().flatten().any(|toleration| {
            let is = |path: &str, of: &str| matches!(text(toleration, path), same if same == of || same.is_empty());
            let exists = text(toleration, "/operator") == "Exists";
            is("/effect", effect) && is("/key", key) && (exists || text(toleration, "/value") == value)
        })
}

/// Tells something of an object in an event.
pub(super) async fn event(
    tick: &Tick,
    of: &Value,
    reason: &str,
    words: &str,
) -> anyhow::Result<()> {
    let (namespace, name) = (text(of, "/metadata/namespace"), text(of, "/metadata/name"));
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": format!("{name}.{}", reason.to_lowercase()), "namespace": namespace },
        "type": "Warning", "reason": reason, "message": words, "source": { "component": MANAGER },
        "involvedObject": { "apiVersion": of["apiVersion"], "kind": of["kind"], "name": name,
            "namespace": namespace, "uid": of["metadata"]["uid"] },
    });
    let there = tick
        .cluster
        .get("v1", "Event", namespace, text(&event, "/metadata/name"))
        .await?;
    // The same again is only counted, and nobody counts here.
    if there.is_none_or(|there| there["message"] != words) {
        tick.cluster.apply(MANAGER, &event).await?;
    }
    Ok(())
}
