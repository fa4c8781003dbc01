//! Kubespray on simulated hosts: what a run leaves, and what becomes of it when things go wrong.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use anyhow::Context;
use e2e::harness::kinds::IMAGE;
use e2e::lab::{LONG, Lab, Worker, quick, small, until};
use e2e::recovery::Begun;
use jobs::keys;
use jobs::record::{JobRecord, Status};
use sandbox::hosts::simulated::Play;
use serde_json::Value;

const JOB: &str = "kubespray";
const KUBELET: &str = "/etc/kubernetes/kubelet.json";
/// As many looks as nobody takes.
const FOR_EVER: u32 = 1_000_000;

/// A lab with the image in its bucket, and what stands for the runner's program.
struct Scene {
    lab: Lab,
    program: tempfile::NamedTempFile,
}

impl Scene {
    async fn new(play: Play) -> anyhow::Result<Self> {
        let lab = Lab::start().await?;
        lab.sandbox.s3.put_object("artifacts/kubespray", IMAGE);
        lab.hosts().kubespray(play);
        let program = tempfile::NamedTempFile::new()?;
        std::fs::write(program.path(), "a program")?;
        Ok(Self { lab, program })
    }

    async fn worker(&self) -> anyhow::Result<Worker> {
        let mut world = self.lab.world()?;
        world.runner = Some(self.program.path().to_owned());
        let store = self.lab.sandbox.store().await?;
        Worker::start(store, self.lab.queue.clone(), world, quick())
    }

    /// Runs to its end a recovery that goes well.
    async fn recovered(&self, spec: &str) -> anyhow::Result<Begun> {
        let worker = self.worker().await?;
        let begun = self.lab.recover(spec).await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        Ok(begun)
    }

    /// Runs a recovery until the job has failed; what it says.
    async fn failed(&self, spec: &str) -> anyhow::Result<(Worker, Begun, String)> {
        let worker = self.worker().await?;
        let begun = self.lab.recover(spec).await?;
        let record = begun.reaches(JOB, &[Status::Failed], LONG).await?;
        Ok((worker, begun, why(&record)))
    }

    /// A recovery whose run takes for ever, until it is looked at.
    async fn running(&self, looks: u32) -> anyhow::Result<(Worker, Begun)> {
        self.lab.hosts().kubespray(Play {
            looks,
            ..Play::default()
        });
        let worker = self.worker().await?;
        let begun = self.lab.recover(&spec()).await?;
        let runs = async || Ok(self.run(&begun, 1)["looks"].as_u64() > Some(3));
        until("it runs", runs).await?;
        Ok((worker, begun))
    }

    /// Waits until the job says what it waits for.
    async fn says(&self, begun: &Begun, what: &str) -> anyhow::Result<()> {
        until(what, async || {
            let record = begun.record(JOB).await?;
            let waits = record.map(|r| r.waits).unwrap_or_default();
            Ok(waits.values().any(|wait| wait.seen.contains(what)))
        })
        .await
    }

    /// What was made of a node.
    fn kubelet(&self, node: &str) -> Value {
        let bytes = self.lab.hosts().file(node, KUBELET).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// What the bastion's runner keeps of a run.
    fn run(&self, begun: &Begun, attempt: u32) -> Value {
        let path = format!(
            "/var/lib/rekindle/runner/runs/{}-kubespray-{attempt}/run.json",
            begun.id
        );
        let bytes = self.lab.hosts().file("test-bastion-1", &path);
        serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default()
    }

    /// The log of a run, from its chunks.
    fn log(&self, begun: &Begun, attempt: u32) -> (Vec<u64>, String) {
        let job = jobs::ids::JobName::new(JOB).unwrap();
        let prefix = format!("{}{attempt}/", keys::logs(&begun.cluster, &begun.id, &job));
        let mut offsets = Vec::new();
        let mut text = Vec::new();
        for (key, body) in self.lab.sandbox.s3.objects(&prefix) {
            offsets.push(key.strip_prefix(&prefix).unwrap().parse().unwrap());
            text.extend_from_slice(&body);
        }
        (offsets, String::from_utf8(text).unwrap())
    }
}

fn why(record: &JobRecord) -> String {
    record.failure.as_ref().unwrap().to_string()
}

/// The small cluster with Kubernetes on it.
fn spec() -> String {
    let section = "load_balancer: {}
kubernetes:
  version: \"1.33.7\"
  kubespray: \"2.29.1\"
  image: { digest: \"sha256:9c6976b9a9563ca14b8dfbd253b6d6d15c7264c6ad0bdb670407cd651e2ebb4d\", key: kubespray }";
    small("test")
        .replace("load_balancer: {}", section)
        .replace(
            "    data_disks:",
            "    labels: { cachenode: \"yes\" }\n    taints: [\"cachetaint=yes:NoSchedule\"]\n    data_disks:",
        )
}

fn of_three_masters() -> String {
    spec().replacen(
        "instances: { 1: true }",
        "instances: { 1: true, 2: true, 3: true }",
        1,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_installs_kubernetes_once_and_proves_it() -> anyhow::Result<()> {
    let scene = Scene::new(Play::default()).await?;
    let begun = scene.recovered(&of_three_masters()).await?;

    let worker = scene.kubelet("test-cache-1");
    assert_eq!(worker["version"], "1.33.7");
    assert_eq!(worker["labels"], serde_json::json!({"cachenode": "yes"}));
    for node in [
        "test-cache-1",
        "test-master-1",
        "test-master-2",
        "test-master-3",
    ] {
        assert_eq!(scene.kubelet(node)["installed"], 1, "{node}");
    }
    let record = begun.record(JOB).await?.unwrap();
    let proof = &record.steps[&jobs::ids::StepKey::new("prove/nodes")?].output;
    assert_eq!(proof["holds"], true);
    assert_eq!(proof["observed"]["nodes"].as_object().unwrap().len(), 4);
    let report = scene.lab.report(&begun).context("there is a report")?;
    assert_eq!(report["verdict"], "passed");

    // Every byte of the log once, in chunks that do not depend on when somebody looked.
    let (offsets, log) = scene.log(&begun, 1);
    assert_eq!(offsets, [0, 65_536]);
    assert_eq!(log.lines().count(), 1500);
    assert!(log.ends_with("of this run\n") && log.starts_with("TASK [0000"));

    // What Ansible was given is gone from the bastion.
    let left: Vec<String> = scene
        .lab
        .hosts()
        .root_disk("test-bastion-1")
        .into_keys()
        .collect();
    let inputs = left
        .iter()
        .filter(|path| path.starts_with("/var/lib/rekindle/kubespray/"));
    assert_eq!(inputs.count(), 0, "{left:?}");
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_the_ssh_key_nor_the_lent_url_stands_anywhere() -> anyhow::Result<()> {
    let scene = Scene::new(Play::default()).await?;
    scene.recovered(&spec()).await?;
    let key = std::fs::read_to_string(scene.lab.sandbox.key_file())?;
    // The last but one line of an OpenSSH key holds a part of the private half.
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let secrets = [lines[lines.len() - 2], "X-Amz-Signature"];
    let mut places: Vec<(String, String)> = Vec::new();
    for (server, argv) in scene.lab.hosts().commands() {
        places.push((format!("a command on {server}"), argv.join(" ")));
    }
    for node in ["test-bastion-1", "test-master-1", "test-cache-1"] {
        for (path, entry) in scene.lab.hosts().root_disk(node) {
            places.push((format!("{node}:{path}"), entry));
        }
    }
    for (key, body) in scene.lab.sandbox.s3.objects("") {
        places.push((key, String::from_utf8_lossy(&body).into_owned()));
    }
    let commands = places
        .iter()
        .filter(|(_, text)| text.contains("image pull --digest"));
    assert_eq!(
        commands.count(),
        1,
        "the image was pulled, by a command that we see"
    );
    for (place, text) in &places {
        for secret in secrets {
            assert!(!text.contains(secret), "{place} has a secret");
        }
    }
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_32_a_host_that_fails_fails_the_job_and_a_retry_is_another_run() -> anyhow::Result<()>
{
    let play = Play {
        fails: Some(("test-cache-1".into(), "HTTP Error 404: Not Found".into())),
        ..Play::default()
    };
    let scene = Scene::new(play).await?;
    let (worker, begun, why) = scene.failed(&spec()).await?;
    assert!(
        why.contains(
            "exit code 2: test-cache-1: task `download : Download_file`: HTTP Error 404: Not Found"
        ),
        "{why}"
    );
    assert!(why.contains("logs/kubespray/1/"), "{why}");
    assert_eq!(scene.log(&begun, 1).1.lines().count(), 1500);
    until("the report says so", async || {
        Ok(scene
            .lab
            .report(&begun)
            .is_some_and(|report| report["verdict"] == "failed"))
    })
    .await?;

    scene.lab.hosts().kubespray(Play::default());
    scene.lab.retry(&begun, JOB, None).await?;
    begun.reaches(JOB, &[Status::Succeeded], LONG).await?;
    worker.stop().await?;
    assert_eq!(scene.kubelet("test-cache-1")["installed"], 1);
    assert_eq!(scene.run(&begun, 1)["exit"]["code"], 2);
    assert_eq!(scene.run(&begun, 2)["exit"]["code"], 0);
    assert_eq!(scene.log(&begun, 2).1.lines().count(), 1500);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_lost_is_started_again() -> anyhow::Result<()> {
    let play = Play {
        lost: 2,
        ..Play::default()
    };
    let scene = Scene::new(play).await?;
    let begun = scene.recovered(&spec()).await?;
    assert_eq!(scene.run(&begun, 1)["attempt"], 3);
    assert_eq!(scene.kubelet("test-cache-1")["installed"], 1);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_always_lost_fails_the_job() -> anyhow::Result<()> {
    let play = Play {
        lost: u32::MAX,
        ..Play::default()
    };
    let scene = Scene::new(play).await?;
    let (worker, begun, why) = scene.failed(&spec()).await?;
    worker.stop().await?;
    assert!(
        why.contains("the run was lost: 3 times: the host was started anew"),
        "{why}"
    );
    assert_eq!(scene.run(&begun, 1)["attempt"], 3);
    assert_eq!(scene.kubelet("test-cache-1"), Value::Null);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bastion_that_forgot_the_run_fails_the_job_and_a_retry_is_another_run()
-> anyhow::Result<()> {
    let scene = Scene::new(Play::default()).await?;
    let (worker, begun) = scene.running(FOR_EVER).await?;
    // A new bastion has nothing of the old one.
    let all = ["rm", "-rf", "/var/lib/rekindle"];
    scene.lab.hosts().run("test-bastion-1", &all, b"").await;
    let record = begun.reaches(JOB, &[Status::Failed], LONG).await?;
    let why = why(&record);
    assert!(
        why.contains("the bastion does not know it any more"),
        "{why}"
    );

    scene.lab.hosts().kubespray(Play::default());
    scene.lab.retry(&begun, JOB, None).await?;
    begun.reaches(JOB, &[Status::Succeeded], LONG).await?;
    worker.stop().await?;
    assert_eq!(scene.run(&begun, 2)["exit"]["code"], 0);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_0_with_a_host_left_out_is_a_failure() -> anyhow::Result<()> {
    let play = Play {
        forgets: Some("test-cache-1".into()),
        ..Play::default()
    };
    let scene = Scene::new(play).await?;
    let (worker, _, why) = scene.failed(&spec()).await?;
    worker.stop().await?;
    assert!(
        why.contains("did nothing on 1 of 2 hosts: test-cache-1"),
        "{why}"
    );
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_from_the_first_step_does_not_take_the_old_runs_end_for_its_own()
-> anyhow::Result<()> {
    let play = Play {
        forgets: Some("test-cache-1".into()),
        ..Play::default()
    };
    let scene = Scene::new(play).await?;
    let (worker, begun, _) = scene.failed(&spec()).await?;
    scene.lab.hosts().kubespray(Play::default());
    scene.lab.retry(&begun, JOB, Some("artifact/1")).await?;
    begun.reaches(JOB, &[Status::Succeeded], LONG).await?;
    worker.stop().await?;
    assert_eq!(scene.run(&begun, 2)["exit"]["code"], 0);
    assert_eq!(scene.log(&begun, 2).1.lines().count(), 1500);
    assert_eq!(scene.kubelet("test-cache-1")["installed"], 2);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_is_not_done_before_every_node_is_ready() -> anyhow::Result<()> {
    let play = Play {
        not_ready: Some("test-cache-1".into()),
        ..Play::default()
    };
    let scene = Scene::new(play).await?;
    let worker = scene.worker().await?;
    let begun = scene.lab.recover(&spec()).await?;
    scene
        .says(&begun, "test-cache-1: ready false instead of true")
        .await?;
    assert_eq!(begun.record(JOB).await?.unwrap().status, Status::Running);
    scene.lab.hosts().kubespray(Play::default());
    begun.finished(LONG).await?;
    worker.stop().await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_leaves_the_api_server_behind_is_not_proven() -> anyhow::Result<()> {
    let scene = Scene::new(Play::default()).await?;
    let before = spec().replace("version: \"1.33.7\"", "version: \"1.32.10\"");
    scene.recovered(&before).await?;
    let worker = scene.worker().await?;
    let begun = scene.lab.recover(&spec()).await?;
    scene
        .says(&begun, r#"the API server: "v1.32.10" instead of "v1.33.7""#)
        .await?;
    assert_eq!(scene.kubelet("test-cache-1")["version"], "1.33.7");
    scene.lab.cancel(&begun).await?;
    begun.ended(LONG).await?;
    worker.stop().await?;

    let told = spec().replace(
        "kubernetes:\n",
        "kubernetes:\n  extra_vars: { upgrade_cluster_setup: true }\n",
    );
    scene.recovered(&told).await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_does_not_answer_is_not_the_only_one_asked() -> anyhow::Result<()> {
    let play = Play {
        silent: Some("test-master-1".into()),
        ..Play::default()
    };
    let scene = Scene::new(play).await?;
    scene.recovered(&of_three_masters()).await?;
    let commands = scene.lab.hosts().commands();
    let asked = |name: &str| {
        let on_it =
            |(server, argv): &&(String, Vec<String>)| server == name && argv[0] == "kubectl";
        commands.iter().filter(on_it).count()
    };
    assert!(asked("test-master-1") > 0 && asked("test-master-2") > 0);
    assert_eq!(asked("test-master-3"), 0);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_while_it_runs_and_a_cancelled_run_is_stopped() -> anyhow::Result<()> {
    let scene = Scene::new(Play::default()).await?;
    let (worker, begun) = scene.running(FOR_EVER).await?;
    scene.says(&begun, "of the work on 2 hosts").await?;
    scene.lab.cancel(&begun).await?;
    begun.reaches(JOB, &[Status::Cancelled], LONG).await?;
    assert_eq!(scene.run(&begun, 1)["exit"]["signal"], 15);
    worker.stop().await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_watches_any_more_is_ended_before_the_next_begins() -> anyhow::Result<()>
{
    let scene = Scene::new(Play::default()).await?;
    let (worker, first) = scene.running(FOR_EVER).await?;
    // Nobody is there when it is cancelled, and whoever settles it runs none of its code.
    worker.kill();
    scene.lab.cancel(&first).await?;
    let worker = scene.worker().await?;
    first.reaches(JOB, &[Status::Cancelled], LONG).await?;
    first.ended(LONG).await?;
    assert_eq!(scene.run(&first, 1)["state"], "running");

    scene.lab.hosts().kubespray(Play::default());
    let second = scene.lab.recover(&spec()).await?;
    second.finished(LONG).await?;
    worker.stop().await?;
    assert_eq!(scene.run(&first, 1)["exit"]["signal"], 15);
    assert_eq!(scene.run(&second, 1)["exit"]["code"], 0);
    assert_eq!(scene.kubelet("test-cache-1")["installed"], 1);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_gone_is_put_back_and_the_run_goes_on() -> anyhow::Result<()> {
    let scene = Scene::new(Play::default()).await?;
    let (worker, begun) = scene.running(40).await?;
    let program = ["rm", "-rf", "/var/lib/rekindle/bin"];
    scene.lab.hosts().run("test-bastion-1", &program, b"").await;
    begun.finished(LONG).await?;
    worker.stop().await?;
    assert_eq!(scene.run(&begun, 1)["exit"]["code"], 0);
    assert_eq!(scene.log(&begun, 1).1.lines().count(), 1500);
    assert_eq!(scene.kubelet("test-cache-1")["installed"], 1);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_missing_or_another_one_fails_at_once() -> anyhow::Result<()> {
    let scene = Scene::new(Play::default()).await?;
    let elsewhere = spec().replace("key: kubespray", "key: images/not-there");
    let (worker, _, why) = scene.failed(&elsewhere).await?;
    worker.stop().await?;
    assert!(
        why.contains("the bucket has no `artifacts/images/not-there`"),
        "{why}"
    );
    scene.lab.sandbox.stop().await?;

    let scene = Scene::new(Play::default()).await?;
    scene
        .lab
        .sandbox
        .s3
        .put_object("artifacts/kubespray", &b"something else"[..]);
    let (worker, begun, why) = scene.failed(&spec()).await?;
    worker.stop().await?;
    assert!(
        why.contains("rekindle-runner image") && why.contains("exit status 4"),
        "{why}"
    );
    assert_eq!(scene.run(&begun, 1), Value::Null);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_another_kubespray_is_refused_before_any_node_changes() -> anyhow::Result<()>
{
    let play = Play {
        release: "2.30.0".into(),
        ..Play::default()
    };
    let scene = Scene::new(play).await?;
    let (worker, begun, why) = scene.failed(&spec()).await?;
    worker.stop().await?;
    assert!(
        why.contains("localhost: task `The image has the one of the spec`")
            && why.contains("wanted 2.29.1, and the image has 2.30.0"),
        "{why}"
    );
    assert_eq!(scene.run(&begun, 1)["exit"]["code"], 2);
    for node in ["test-master-1", "test-cache-1"] {
        assert_eq!(scene.kubelet(node), Value::Null, "{node}");
    }
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_the_worker_that_began_it() -> anyhow::Result<()> {
    let scene = Scene::new(Play::default()).await?;
    let (first, begun) = scene.running(40).await?;
    first.kill();
    let second = scene.worker().await?;
    begun.finished(LONG).await?;
    second.stop().await?;
    assert_eq!(scene.run(&begun, 1)["attempt"], 1, "started once");
    assert_eq!(scene.kubelet("test-cache-1")["installed"], 1);
    assert_eq!(scene.log(&begun, 1).1.lines().count(), 1500);
    scene.lab.sandbox.stop().await
}
