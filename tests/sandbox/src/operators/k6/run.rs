//! The stages of a TestRun.

use anyhow::bail;
use serde_json::{Value, json};

use super::{K6, MANAGER, jobs};
use crate::operators::Tick;
use crate::operators::api::{name, namespace};
use crate::operators::percona::json::{now, text};

impl K6 {
    /// Brings a TestRun on by a stage, if it is time.
    pub(super) async fn run(&self, tick: &Tick, run: &Value) -> anyhow::Result<()> {
        let parallelism = run["spec"]["parallelism"].as_i64().unwrap_or_default();
        let Some(runners) = u32::try_from(parallelism).ok().filter(|n| *n >= 1) else {
            // It is only logged: the TestRun never says so.
            bail!(
                "parallelism of TestRun cannot be less than 1; provided value is {parallelism}"
            );
        };
        match text(run, "/status/stage") {
            "" => self.begin(tick, run).await,
            "initialization" => self.inspect(tick, run, runners).await,
            "initialized" => self.create(tick, run, runners).await,
            "created" => self.release(tick, run, runners).await,
            "started" => self.finish(tick, run, runners).await,
            "stopped" => self.stage(tick, run, "finished", &[]).await,
            _ if text(run, "/spec/cleanup") == "post" => Ok(tick.cluster.delete(run).await?),
            _ => Ok(()),
        }
    }

    async fn begin(&self, tick: &Tick, run: &Value) -> anyhow::Result<()> {
        let spec = &run["spec"];
        if !jobs::are_arguments(&jobs::arguments(spec)) {
            return self.stage(tick, run, "error", &[]).await;
        }
        let first = [
            ("CloudTestRun", "Unknown", "TestRunTypeUnknown"),
            ("TestRunRunning", "Unknown", "TestRunPreparation"),
            ("TeardownExecuted", "False", "TeardownExecutedFalse"),
            ("CloudTestRunAborted", "False", "CloudTestRunAbortedFalse"),
            ("CloudPLZTestRun", "False", "CloudPLZTestRunFalse"),
        ];
        if spec["initializer"]["disabled"] == true {
            return self.stage(tick, run, "initialized", &first).await;
        }
        // Whoever names no script is told nothing: there is no initializer, and nobody looks again.
        if let Some(job) = jobs::initializer(run) {
            tick.cluster.apply(MANAGER, &job).await?;
        }
        self.stage(tick, run, "initialization", &first).await
    }

    async fn inspect(&self, tick: &Tick, run: &Value, runners: u32) -> anyhow::Result<()> {
        let job = format!("{}-initializer", name(run));
        let pods = pods(tick, run, &format!("job-name={job}")).await?;
        let Some(pod) = pods.first() else {
            return Ok(());
        };
        match text(pod, "/status/phase") {
            "Failed" => return self.stage(tick, run, "error", &[]).await,
            "Succeeded" => {}
            _ => return Ok(()),
        }
        let inspected: Option<Value> = serde_json::from_str(&log(tick, pod).await?).ok();
        let most = inspected.and_then(|all| all["maxVUs"].as_u64());
        if most.is_none_or(|most| most < u64::from(runners)) {
            return self.stage(tick, run, "error", &[]).await;
        }
        let cloud = [("CloudTestRun", "False", "CloudTestRunFalse")];
        self.stage(tick, run, "initialized", &cloud).await
    }

    async fn create(&self, tick: &Tick, run: &Value, runners: u32) -> anyhow::Result<()> {
        let first = format!("{}-1", name(run));
        let there = tick
            .cluster
            .get("batch/v1", "Job", namespace(run), &first)
            .await?;
        let is_ours =
            |job: &Value| job["metadata"]["ownerReferences"][0]["uid"] == run["metadata"]["uid"];
        if there.is_some_and(|job| !is_ours(&job)) {
            bail!(
                "job with the name {first} exists; make sure you've deleted your previous run"
            );
        }
        for number in 1..=runners {
            let Some(job) = jobs::runner(run, number) else {
                bail!("script definition should contain one of: ConfigMap, VolumeClaim, LocalFile");
            };
            tick.cluster.apply(MANAGER, &job).await?;
            let service = jobs::service(run, number);
            tick.cluster.apply(MANAGER, &service).await?;
        }
        self.stage(tick, run, "created", &[]).await
    }

    /// Waits until so many runners run at one time: one that has ended already keeps it here for ever.
    async fn release(&self, tick: &Tick, run: &Value, runners: u32) -> anyhow::Result<()> {
        let pods = pods(tick, run, "runner=true").await?;
        let running = pods
            .iter()
            .filter(|pod| text(pod, "/status/phase") == "Running");
        if running.count() != runners as usize {
            return Ok(());
        }
        tick.cluster.apply(MANAGER, &jobs::starter(run)).await?;
        let running = [("TestRunRunning", "True", "TestRunRunningTrue")];
        self.stage(tick, run, "started", &running).await
    }

    /// It is over when nothing is active, however that ended.
    async fn finish(&self, tick: &Tick, run: &Value, runners: u32) -> anyhow::Result<()> {
        let labels = format!("app=k6,k6_cr={},runner=true", name(run));
        let mut jobs = tick.cluster.list_with("batch/v1", "Job", &labels).await?;
        jobs.retain(|job| {
            namespace(job) == namespace(run)
                && job["status"]["active"].as_u64().unwrap_or_default() == 0
        });
        if jobs.len() < runners as usize {
            return Ok(());
        }
        let over = [("TestRunRunning", "False", "TestRunRunningFalse")];
        self.stage(tick, run, "stopped", &over).await
    }

    /// Sets the stage and these conditions: type, status and reason.
    async fn stage(
        &self,
        tick: &Tick,
        run: &Value,
        stage: &str,
        conditions: &[(&str, &str, &str)],
    ) -> anyhow::Result<()> {
        let mut all = run["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for (kind, status, reason) in conditions {
            all.retain(|condition| condition["type"] != **kind);
            all.push(json!({ "type": kind, "status": status, "reason": reason, "message": "",
                "lastTransitionTime": now() }));
        }
        let status = json!({ "stage": stage, "conditions": all });
        Ok(tick.cluster.set_status(MANAGER, run, &status).await?)
    }
}

/// What the container `k6` of a Pod said.
async fn log(tick: &Tick, pod: &Value) -> anyhow::Result<String> {
    let (namespace, name) = (namespace(pod), name(pod));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log?container=k6");
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(tick.cluster.client().request_text(request).await?)
}

/// The Pods of a test with a label.
pub(super) async fn pods(tick: &Tick, run: &Value, label: &str) -> kube::Result<Vec<Value>> {
    let labels = format!("app=k6,k6_cr={},{label}", name(run));
    let mut pods = tick.cluster.list_with("v1", "Pod", &labels).await?;
    pods.retain(|pod| namespace(pod) == namespace(run));
    Ok(pods)
}
