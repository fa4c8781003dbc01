//! The Pods of load tests, which nobody else plays here: the Job controller, the scheduler and the kubelet in one.

use anyhow::Context;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::environment::{self, Variables};
use super::jobs::{self, Role};
use super::process::Process;
use super::schedule::node_for;
use super::{Fault, K6, MANAGER, run};
use crate::operators::Tick;
use crate::operators::api::{name, namespace};
use crate::operators::percona::json::{now, text, texts};

/// Where the ConfigMap of a script is in the Pods.
const SCRIPTS: &str = "/test";

/// How a container ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    code: i32,
    reason: &'static str,
}

impl Ended {
    fn with(code: i32) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self { code, reason }
    }
}

impl K6 {
    /// Brings the Jobs of all TestRuns on.
    pub(super) async fn jobs(&mut self, tick: &Tick) -> anyhow::Result<()> {
        let pods = tick.cluster.list("v1", "Pod").await?;
        // A process goes with its Pod.
        self.running
            .retain(|running, _| pods.iter().any(|pod| uid(pod) == running));
        let jobs = tick.cluster.list_with("batch/v1", "Job", "app=k6").await?;
        for job in &jobs {
            let owned = text(job, "/metadata/ownerReferences/0/kind") == "TestRun";
            if let Some(role) = Role::of(job).filter(|_| owned) {
                self.job(tick, job, role, &pods).await?;
            }
        }
        Ok(())
    }

    async fn job(
        &mut self,
        tick: &Tick,
        job: &Value,
        role: Role,
        pods: &[Value],
    ) -> anyhow::Result<()> {
        let status = &job["status"];
        if status["succeeded"].as_u64() > Some(0) || status["failed"].as_u64() > Some(0) {
            return Ok(());
        }
        let own = |pod: &&Value| text(pod, "/metadata/ownerReferences/0/uid") == uid(job);
        let Some(pod) = pods.iter().find(own) else {
            if status["startTime"].is_string() {
                // Somebody deleted it, and there is no second try.
                return over(tick, job, false).await;
            }
            let pod = tick.cluster.apply("kubelet", &jobs::pod(job)).await?;
            let pending = json!({ "phase": "Pending" });
            tick.cluster.set_status("kubelet", &pod, &pending).await?;
            let status = json!({ "active": 1, "ready": 0, "startTime": now() });
            return Ok(tick.cluster.set_status("kubelet", job, &status).await?);
        };
        match text(pod, "/status/phase") {
            "Running" => self.runs(tick, pod, role).await,
            "Succeeded" => over(tick, job, true).await,
            "Failed" => over(tick, job, false).await,
            _ => self.pending(tick, pod, role, pods).await,
        }
    }

    /// A Pod that does not run yet.
    async fn pending(
        &mut self,
        tick: &Tick,
        pod: &Value,
        role: Role,
        pods: &[Value],
    ) -> anyhow::Result<()> {
        if text(pod, "/spec/nodeName").is_empty() {
            return self.schedule(tick, pod, role, pods).await;
        }
        if let Some(process) = self.running.get_mut(uid(pod)) {
            if let Some(code) = process.ended()? {
                return self.end(tick, pod, Ended::with(code)).await;
            }
            if process.is_ready() || role == Role::Initializer {
                set(tick, pod, "Running", &running()).await?;
            }
            return Ok(());
        }
        let waiting = |reason: &str, message: &str| json!({ "waiting": { "reason": reason, "message": message } });
        let image = text(pod, "/spec/containers/0/image");
        if self.is_set(role, Fault::ImagePullFails) {
            let words = format!(
                "Back-off pulling image \"{image}\": ErrImagePull: failed to resolve reference \"{image}\": not found"
            );
            return set(tick, pod, "Pending", &waiting("ImagePullBackOff", &words)).await;
        }
        if role == Role::Starter {
            return set(tick, pod, "Running", &running()).await;
        }
        let Some(files) = files(tick, pod).await? else {
            // A volume whose ConfigMap is not there cannot be mounted, and nobody gives up on it.
            let waiting = json!({ "waiting": { "reason": "ContainerCreating" } });
            return set(tick, pod, "Pending", &waiting).await;
        };
        let mut container = pod["spec"]["containers"][0].clone();
        if role == Role::Initializer {
            // k6 takes it from the options of its command line alone, which the operator makes of `env`.
            container["envFrom"] = Value::Null;
        }
        match environment::of(&tick.cluster, pod, &container).await? {
            Ok(variables) => self.spawn(pod, role, variables, &files),
            Err(why) => {
                let waiting = waiting("CreateContainerConfigError", &why);
                set(tick, pod, "Pending", &waiting).await
            }
        }
    }

    async fn schedule(
        &self,
        tick: &Tick,
        pod: &Value,
        role: Role,
        pods: &[Value],
    ) -> anyhow::Result<()> {
        let nodes = tick.cluster.list("v1", "Node").await?;
        let found = match self.is_set(role, Fault::NeverScheduled) {
            false => node_for(pod, &nodes, pods),
            true => {
                let all = nodes.len();
                Err(format!("0/{all} nodes are available: {all} Insufficient memory. preemption: 0/{all} nodes are available: {all} No preemption victims found for incoming pod."))
            }
        };
        let message = match found {
            Ok(node) => {
                let bound = json!({ "spec": { "nodeName": node } });
                let pod = tick
                    .cluster
                    .patch("kube-scheduler", pod, &bound)
                    .await?;
                let creating = json!({ "waiting": { "reason": "ContainerCreating" } });
                return set(tick, &pod, "Pending", &creating).await;
            }
            Err(message) => message,
        };
        let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message });
        let status = json!({ "phase": "Pending", "conditions": [condition] });
        Ok(tick.cluster.set_status("kube-scheduler", pod, &status).await?)
    }

    /// Starts the process of a container.
    fn spawn(
        &mut self,
        pod: &Value,
        role: Role,
        variables: Variables,
        files: &Variables,
    ) -> anyhow::Result<()> {
        let spec = &pod["spec"]["containers"][0];
        let mut arguments: Vec<String> = Vec::new();
        let mut own = Variables::new();
        match role {
            Role::Initializer => {
                // `k6 archive <script> …`
                let script = text(spec, "/command/2").split_whitespace().nth(2);
                let words = ["inspect", "--execution-requirements", script.unwrap_or_default()];
                arguments.extend(words.map(str::to_owned));
                let mut given = variables;
                if self.settings.faults.has(&Fault::InitializerFails) {
                    given.insert("SANDBOX_TROUBLE".to_owned(), "throw".to_owned());
                }
                let pairs = given.iter().map(|(name, value)| format!("{name}={value}"));
                arguments.extend(pairs.flat_map(|pair| ["-e".to_owned(), pair]));
            }
            Role::Runner(number) => {
                arguments.extend(texts(&spec["command"]).into_iter().skip(1));
                own = variables;
                own.extend(self.settings.network.variables());
                let trouble = self.settings.faults.find(|fault| fault.for_runner(number));
                own.extend(trouble.map(|trouble| ("SANDBOX_TROUBLE".to_owned(), trouble)));
            }
            Role::Starter => {}
        }
        let limit = self.settings.log_limit;
        let program = &self.settings.program;
        let process = Process::start(program, &arguments, &own, files, limit);
        let process = process.with_context(|| format!("start {}", program.display()))?;
        self.running.insert(uid(pod).to_owned(), process);
        Ok(())
    }

    /// A Pod that runs.
    async fn runs(&mut self, tick: &Tick, pod: &Value, role: Role) -> anyhow::Result<()> {
        if role == Role::Starter {
            return self.post(tick, pod).await;
        }
        let vanishes = self.is_set(role, Fault::Vanishes);
        let Some(process) = self.running.get_mut(uid(pod)) else {
            // The operator was started anew, and its processes are gone.
            let ended = Ended {
                code: 137,
                reason: "ContainerStatusUnknown",
            };
            return self.end(tick, pod, ended).await;
        };
        if vanishes && process.has_begun() {
            self.running.remove(uid(pod));
            return delete(tick, pod).await;
        }
        let ended = process.ended()?;
        if let Some(log) = process.news() {
            self.say(pod, &log);
        }
        let Some(code) = ended else {
            return Ok(());
        };
        let mut ended = Ended::with(code);
        if code == 137 && self.is_set(role, Fault::OutOfMemory) {
            ended.reason = "OOMKilled";
        }
        self.end(tick, pod, ended).await
    }

    /// What the starter does: it tells all runners to begin.
    async fn post(&mut self, tick: &Tick, pod: &Value) -> anyhow::Result<()> {
        if self.settings.faults.has(&Fault::StarterFails) {
            let log = "curl: (7) Failed to connect to 10.96.31.7 port 6565: Connection refused\n";
            self.say(pod, log);
            return self.end(tick, pod, Ended::with(7)).await;
        }
        let run = json!({ "metadata": { "namespace": namespace(pod), "name": pod["metadata"]["labels"]["k6_cr"] } });
        let mut log = String::new();
        for runner in run::pods(tick, &run, "runner=true").await? {
            let answered = self.running.get_mut(uid(&runner));
            let code = if answered.is_some() { 200 } else { 0 };
            if let Some(process) = answered {
                process.begin();
            }
            log.push_str(&format!("{{\"http_code\":{code},\"errormsg\":\"\"}}\n"));
        }
        self.say(pod, &log);
        self.end(tick, pod, Ended::with(0)).await
    }

    /// A container has ended, and its Pod with it.
    async fn end(&mut self, tick: &Tick, pod: &Value, ended: Ended) -> anyhow::Result<()> {
        if let Some(mut process) = self.running.remove(uid(pod))
            && let Some(log) = process.news()
        {
            self.say(pod, &log);
        }
        let started = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
        let started = started.as_str().map_or_else(now, str::to_owned);
        let state = json!({ "terminated": { "exitCode": ended.code, "reason": ended.reason,
            "startedAt": started, "finishedAt": now() } });
        let phase = if ended.code == 0 { "Succeeded" } else { "Failed" };
        set(tick, pod, phase, &state).await
    }

    /// What a Pod's container has said.
    fn say(&self, pod: &Value, log: &str) {
        let container = text(pod, "/spec/containers/0/name");
        self.settings
            .api
            .set_log(namespace(pod), name(pod), container, log);
    }

    fn is_set(&self, role: Role, fault: impl Fn(u32) -> Fault) -> bool {
        match role {
            Role::Runner(number) => self.settings.faults.has(&fault(number)),
            _ => false,
        }
    }
}

fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

fn running() -> Value {
    json!({ "running": { "startedAt": now() } })
}

/// The files of the script's ConfigMap by their paths; nothing when it does not exist.
async fn files(tick: &Tick, pod: &Value) -> kube::Result<Option<Variables>> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut maps = volumes.filter_map(|volume| volume["configMap"]["name"].as_str());
    let Some(map) = maps.next() else {
        return Ok(Some(Variables::new()));
    };
    let data = environment::data(&tick.cluster, "ConfigMap", namespace(pod), map).await?;
    Ok(data.map(|data| {
        let files = data.into_iter();
        files
            .map(|(file, text)| (format!("{SCRIPTS}/{file}"), text))
            .collect()
    }))
}

/// Sets the phase of a Pod and the state of its container; the first change is kept as the time it began.
async fn set(tick: &Tick, pod: &Value, phase: &str, state: &Value) -> anyhow::Result<()> {
    let container = &pod["spec"]["containers"][0];
    let ready = phase == "Running";
    let condition = |kind: &str, is: bool| json!({ "type": kind, "status": if is { "True" } else { "False" } });
    let began = text(pod, "/status/startTime");
    let began = if began.is_empty() { now() } else { began.to_owned() };
    // A merge patch keeps what is not taken away.
    let mut state = state.clone();
    for other in ["waiting", "running", "terminated"] {
        if state.get(other).is_none() {
            state[other] = Value::Null;
        }
    }
    let status = json!({
        "phase": phase, "startTime": began,
        "containerStatuses": [{ "name": container["name"], "image": container["image"], "imageID": "",
            "ready": ready, "started": ready, "restartCount": 0, "lastState": {},
            "state": crate::operators::api::without_nulls(&state) }],
        "conditions": [condition("PodScheduled", true), condition("Initialized", true),
            condition("ContainersReady", ready), condition("Ready", ready)],
    });
    Ok(tick.cluster.set_status("kubelet", pod, &status).await?)
}

/// The Pod of a Job is over, and so is the Job.
async fn over(tick: &Tick, job: &Value, well: bool) -> anyhow::Result<()> {
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({ "type": kind, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": now(), "lastProbeTime": now() })
    };
    let words = "Job has reached the specified backoff limit";
    let status = match well {
        true => json!({ "active": null, "ready": 0, "succeeded": 1, "completionTime": now(),
            "conditions": [condition("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"),
                condition("Complete", "CompletionsReached", "Reached expected number of succeeded pods")] }),
        false => json!({ "active": null, "ready": 0, "failed": 1,
            "conditions": [condition("FailureTarget", "BackoffLimitExceeded", words),
                condition("Failed", "BackoffLimitExceeded", words)] }),
    };
    Ok(tick.cluster.set_status(MANAGER, job, &status).await?)
}

/// Without a grace period: nobody would end it otherwise.
async fn delete(tick: &Tick, pod: &Value) -> anyhow::Result<()> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let client = tick.cluster.client().clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace(pod), &kind);
    api.delete(name(pod), &DeleteParams::default().grace_period(0))
        .await?;
    Ok(())
}
