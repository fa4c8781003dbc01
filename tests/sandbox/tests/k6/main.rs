//! The sandbox's k6-operator on its small API: runners are real processes that load a real server.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod ends;
mod lab;
mod network;

use lab::{API, Lab, SCRIPT, SPACE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::operators::Fault as ClusterFault;
use sandbox::operators::k6::{DEPLOYMENT, Fault, K6, NAMESPACE};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_test_goes_through_its_stages_and_all_runners_together_do_all_of_it() {
    let lab = Lab::start().await;
    lab.begin(&Lab::spec(20, 3)).await;
    let mut seen: Vec<String> = Vec::new();
    while seen.last().is_none_or(|last| last != "finished") {
        let stage = lab.stage().await;
        if seen.last() != Some(&stage) {
            seen.push(stage);
        }
        assert_ne!(seen.last().unwrap(), "error");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let all = [
        "",
        "initialization",
        "initialized",
        "created",
        "started",
        "stopped",
        "finished",
    ];
    let mut rest = all.iter();
    // One that is short may not be seen, but none comes before its time.
    assert!(
        seen.iter().all(|stage| rest.any(|one| one == stage)),
        "{seen:?}"
    );

    assert_eq!(lab.shop.asked(), 60);
    let mut requests = 0;
    for of in ["1", "2"] {
        assert_eq!(lab.ended(of).await, (0, "Completed".to_owned()));
        assert_eq!(lab.phase(of).await, "Succeeded");
        assert_eq!(lab.job(of).await["status"]["succeeded"], 1);
        let summary = lab.summary(of).await;
        requests += Lab::count(&summary, "http_reqs", "count");
        assert_eq!(Lab::count(&summary, "iterations", "count"), 30);
        assert_eq!(Lab::count(&summary, "checks", "passes"), 30);
        let metrics = &summary["metrics"];
        let failed = &metrics["http_req_failed"];
        assert_eq!(
            failed["values"],
            json!({ "rate": 0, "passes": 0, "fails": 30 })
        );
        assert_eq!(
            failed["thresholds"],
            json!({ "rate<=0.01": { "ok": true } })
        );
        let duration = &metrics["http_req_duration"];
        assert_eq!(duration["type"], "trend");
        assert_eq!(duration["contains"], "time");
        assert_eq!(duration["values"]["count"], 30);
        let at = |name: &str| duration["values"][name].as_f64().unwrap();
        let order = ["min", "med", "p(90)", "p(95)", "max"].map(at);
        assert!(order.is_sorted() && order[0] > 0.0, "{order:?}");
        assert!(metrics.get("dropped_iterations").is_none());
        assert!(Lab::count(&summary, "data_received", "count") > 30 * 17);
        assert!(summary["state"]["testRunDurationMs"].as_f64().unwrap() > 0.0);
        assert_eq!(summary["root_group"]["checks"][0]["passes"], 30);
        // A connection is kept: only a user's first request had to connect.
        let median = metrics["http_req_connecting"]["values"]["med"].as_f64();
        assert_eq!(median, Some(0.0));
    }
    assert_eq!(requests, 60);
    let run = lab.run().await;
    let conditions = run["status"]["conditions"].as_array().unwrap();
    let is = |kind: &str, reason: &str| {
        conditions
            .iter()
            .any(|c| c["type"] == kind && c["reason"] == reason && c["message"] == "")
    };
    assert!(is("TestRunRunning", "TestRunRunningFalse"), "{run:#}");
    assert!(is("CloudTestRun", "CloudTestRunFalse"), "{run:#}");
}

#[tokio::test]
async fn only_runners_are_labelled_as_such_and_each_has_its_node() {
    let lab = Lab::start().await;
    let mut spec = Lab::spec(4, 1);
    spec["separate"] = true.into();
    lab.begin(&spec).await;
    lab.until_stage("finished").await;
    let mut nodes: Vec<String> = Vec::new();
    for pod in lab.runners().await {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let (job, letters) = name.rsplit_once('-').unwrap();
        assert_eq!(letters.len(), 5);
        assert_eq!(pod["metadata"]["labels"]["job-name"], job);
        assert_eq!(pod["metadata"]["labels"]["app"], "k6");
        assert_eq!(pod["spec"]["containers"][0]["name"], "k6");
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
        nodes.push(pod["spec"]["nodeName"].as_str().unwrap().to_owned());
    }
    nodes.sort();
    assert_eq!(nodes, ["load-1", "load-2"]);
    let starter = lab.pod("starter").await;
    assert_eq!(starter["metadata"]["labels"]["k6_cr"], lab.name.as_str());
    assert!(starter["metadata"]["labels"].get("runner").is_none());
    assert_eq!(starter["spec"]["nodeName"], "system-1");
    assert!(lab.log("starter").await.contains("\"http_code\":200"));
    // It is like a runner, so it went where they go.
    let initializer = lab.pod("initializer").await;
    assert!(
        initializer["spec"]["nodeName"]
            .as_str()
            .unwrap()
            .starts_with("load-")
    );
    assert!(initializer["metadata"]["labels"].get("runner").is_none());
    for number in [1, 2] {
        let name = format!("{}-service-{number}", lab.name);
        let service = lab
            .cluster
            .get("v1", "Service", SPACE, &name)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(service["spec"]["ports"][0]["port"], 6565);
        assert_eq!(
            lab.job(&number.to_string()).await["spec"]["backoffLimit"],
            0
        );
    }
}

#[tokio::test]
async fn without_its_deployment_the_operator_does_nothing() {
    let lab = Lab::start().await;
    let faults = lab.operators.as_ref().unwrap().faults();
    let fault = ClusterFault::NeverAvailable(Lab::operator());
    faults.set(fault.clone());
    lab.until("it is not available", async || {
        let own = lab
            .cluster
            .get("apps/v1", "Deployment", NAMESPACE, DEPLOYMENT)
            .await;
        own.unwrap().unwrap()["status"]
            .get("availableReplicas")
            .is_none()
    })
    .await;
    lab.begin(&Lab::spec(2, 1)).await;
    lab.ticks(10).await;
    assert_eq!(lab.stage().await, "");
    faults.clear(&fault);
    lab.until_stage("finished").await;
}

#[tokio::test]
async fn the_bundle_installs_the_controller_of_the_version_before() {
    let lab = Lab::start().await;
    let own = lab
        .cluster
        .get("apps/v1", "Deployment", NAMESPACE, DEPLOYMENT)
        .await;
    let image = &own.unwrap().unwrap()["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "ghcr.io/grafana/k6-operator:controller-v1.5.0");
    for kind in ["TestRun", "PrivateLoadZone"] {
        lab.until("the kinds are served", async || {
            lab.cluster.scope(API, kind).await.unwrap().is_some()
        })
        .await;
    }
    assert_eq!(K6::definitions().len(), 2);
    // A field that a TestRun does not have is lost, as with the real definition.
    let mut spec = Lab::spec(2, 1);
    spec["runner"]["nodeselector"] = json!({ "a": "b" });
    lab.begin(&spec).await;
    assert!(
        lab.run().await["spec"]["runner"]
            .get("nodeselector")
            .is_none()
    );
    assert_eq!(lab.run().await["spec"]["paused"], "true");
}

#[tokio::test]
async fn a_test_that_cannot_be_is_an_error_or_nothing_at_all() {
    for (change, stage) in [
        // Fewer virtual users than runners.
        (json!({ "parallelism": 3 }), "error"),
        (json!({ "arguments": "run" }), "error"),
        (json!({ "args": ["--no-such-option"] }), "error"),
    ] {
        let lab = Lab::start().await;
        let mut spec = Lab::spec(2, 1);
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        lab.begin(&spec).await;
        lab.until_stage(stage).await;
        assert!(lab.runners().await.is_empty(), "{change}");
    }
    // And these are never told what is wrong.
    for (field, value, stage) in [
        ("parallelism", json!(0), ""),
        ("script", json!({}), "initialization"),
    ] {
        let lab = Lab::start().await;
        let mut spec = Lab::spec(2, 1);
        spec[field] = value;
        lab.begin(&spec).await;
        lab.until_stage(stage).await;
        lab.ticks(10).await;
        assert_eq!(lab.stage().await, stage);
    }
}

#[tokio::test]
async fn a_script_that_throws_fails_the_initializer_or_else_every_runner() {
    let lab = Lab::start().await;
    lab.script(&format!("throw new Error(\"no\");\n{SCRIPT}"))
        .await;
    let mut spec = Lab::spec(2, 1);
    lab.begin(&spec).await;
    lab.until_stage("error").await;
    assert_eq!(lab.ended("initializer").await.0, 1);
    assert!(lab.log("initializer").await.contains("level=error"));

    let lab = Lab::start().await;
    lab.script(&format!("throw new Error(\"no\");\n{SCRIPT}"))
        .await;
    spec["initializer"] = json!({ "disabled": true });
    lab.begin(&spec).await;
    for of in ["1", "2"] {
        lab.until("it ends", async || lab.phase(of).await == "Failed")
            .await;
        assert_eq!(lab.ended(of).await, (107, "Error".to_owned()));
    }
    lab.ticks(10).await;
    assert_eq!(lab.stage().await, "created");
    assert!(lab.job("starter").await.is_null());
}

#[tokio::test]
async fn the_initializer_does_not_see_what_comes_by_env_from() {
    let mut spec = Lab::spec(2, 1);
    let all = spec["runner"]["env"].as_array_mut().unwrap();
    all.retain(|variable| variable["name"] != "TARGET");
    spec["runner"]["envFrom"] = json!([{ "secretRef": { "name": "target" } }]);
    let lab = Lab::start().await;
    lab.begin(&spec).await;
    lab.until_stage("error").await;
    let log = lab.log("initializer").await;
    assert!(log.contains("TARGET is not set"), "{log}");

    let lab = Lab::start().await;
    spec["initializer"] = json!({ "disabled": true });
    lab.begin(&spec).await;
    lab.until_stage("finished").await;
    assert_eq!(lab.shop.asked(), 2);
}

#[tokio::test]
async fn what_is_missing_keeps_a_pod_from_starting() {
    let lab = Lab::start().await;
    let mut spec = Lab::spec(2, 1);
    spec["initializer"] = json!({ "disabled": true });
    spec["runner"]["env"][0]["valueFrom"]["secretKeyRef"]["name"] = "nowhere".into();
    lab.begin(&spec).await;
    lab.until("it waits", async || {
        lab.waits("1").await == "CreateContainerConfigError: secret \"nowhere\" not found"
    })
    .await;
    assert_eq!(lab.stage().await, "created");

    let lab = Lab::start().await;
    let mut spec = Lab::spec(2, 1);
    spec["script"]["configMap"]["name"] = "nothing".into();
    lab.begin(&spec).await;
    lab.until("it waits", async || {
        lab.waits("initializer").await == "ContainerCreating: "
    })
    .await;
    lab.ticks(5).await;
    assert_eq!(lab.stage().await, "initialization");
}

#[tokio::test]
async fn a_pod_that_tolerates_no_load_node_waits_for_ever() {
    let lab = Lab::start().await;
    let mut spec = Lab::spec(2, 1);
    // The runners' tolerations are theirs alone.
    spec["starter"] = json!({ "nodeSelector": { "role": "load-generator" } });
    lab.begin(&spec).await;
    lab.until_stage("started").await;
    let waits = async || {
        let pod = lab.pod("starter").await;
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions.iter().any(|c| {
            c["reason"] == "Unschedulable"
                && c["message"]
                    .as_str()
                    .unwrap()
                    .contains("untolerated taint {dedicated: k6}")
        })
    };
    lab.until("it waits", waits).await;
    lab.ticks(10).await;
    assert_eq!(lab.stage().await, "started");
    assert_eq!(lab.shop.asked(), 0);
    assert_eq!(lab.processes().len(), 2);
}

#[tokio::test]
async fn a_job_that_is_left_blocks_the_next_test_of_its_name() {
    let lab = Lab::start().await;
    let left = json!({ "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": format!("{}-1", lab.name), "namespace": SPACE },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "k6", "image": "a" }] } } } });
    lab.apply(&left).await;
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until("it says so", async || {
        let error = lab.operators.as_ref().unwrap().last_error("k6");
        error.is_some_and(|error| error.contains("make sure you've deleted your previous run"))
    })
    .await;
    assert_eq!(lab.stage().await, "initialized");
    lab.cluster.delete(&left).await.unwrap();
    lab.until_stage("finished").await;
}

#[tokio::test]
async fn a_test_that_cleans_up_takes_its_logs_with_it() {
    let lab = Lab::start().await;
    let mut spec = Lab::spec(2, 1);
    spec["cleanup"] = "post".into();
    lab.begin(&spec).await;
    lab.until("it ran", async || lab.shop.asked() == 2).await;
    lab.until("it is gone", async || {
        lab.run().await.is_null() && lab.runners().await.is_empty()
    })
    .await;
    lab.until_no_process().await;
}

#[tokio::test]
async fn no_process_outlives_its_pod_or_the_operator() {
    let mut lab = Lab::start().await;
    lab.faults.set(Fault::StarterFails);
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until_stage("started").await;
    assert_eq!(lab.processes().len(), 2);
    lab.cluster.delete(&lab.pod("1").await).await.unwrap();
    lab.until("one is left", async || lab.processes().len() == 1)
        .await;
    lab.until("its Job has failed", async || {
        lab.job("1").await["status"]["failed"] == 1
    })
    .await;
    drop(lab.operators.take());
    lab.until_no_process().await;
    // Nobody says so any more.
    assert_eq!(lab.phase("2").await, "Running");
}

#[tokio::test]
async fn an_operator_that_is_started_anew_finds_its_containers_gone() {
    let mut lab = Lab::start().await;
    lab.faults.set(Fault::StarterFails);
    lab.begin(&Lab::spec(2, 1)).await;
    lab.until_stage("started").await;
    drop(lab.operators.take());
    lab.until_no_process().await;
    let client = lab.cluster.client().clone();
    let settings =
        sandbox::operators::k6::K6Settings::new(env!("CARGO_BIN_EXE_k6-stand-in"), lab.sim.clone());
    lab.operators = Some(K6::start(client, settings));
    lab.until_stage("finished").await;
    assert_eq!(
        lab.ended("1").await,
        (137, "ContainerStatusUnknown".to_owned())
    );
}

#[tokio::test]
async fn who_is_told_to_end_says_what_it_has_done_so_far() {
    let lab = Lab::start().await;
    lab.faults.set(Fault::Slow(1, Duration::from_secs(3600)));
    lab.begin(&Lab::spec(2, 5)).await;
    lab.until("the other one is done", async || {
        lab.phase("2").await == "Succeeded"
    })
    .await;
    lab.until("this one has begun", async || lab.shop.asked() == 6)
        .await;
    // Its answer is on its way yet.
    lab.ticks(20).await;
    for pid in lab.processes() {
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }
    lab.until_stage("finished").await;
    assert_eq!(lab.ended("1").await, (105, "Error".to_owned()));
    let summary = lab.summary("1").await;
    assert_eq!(Lab::count(&summary, "http_reqs", "count"), 1);
    assert!(summary["metrics"].get("iterations").is_none());
}

#[tokio::test]
async fn a_runner_ends_with_whoever_started_it_while_it_waits_and_while_it_makes_load() {
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    for paused in [true, false] {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_k6-stand-in"));
        command.args(["run", "/test/test.js"]);
        if paused {
            command.arg("--paused");
        }
        let variables = [
            ("TARGET", "http://127.0.0.1:1/"),
            ("VUS", "1"),
            ("ITERATIONS", "2"),
            ("SANDBOX_TROUBLE", "slow:3600000"),
        ];
        command.env_clear().envs(variables).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let files = json!({ "/test/test.js": "export default function () {}" });
        let line = format!("{files}\n");
        input.write_all(line.as_bytes()).await.unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(out.next_line().await.unwrap().unwrap(), "sandbox: ready");
        assert_eq!(child.try_wait().unwrap(), None);
        // As when the sandbox is killed: nobody holds the other end any more.
        drop(input);
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(137), "{paused}");
    }
}
