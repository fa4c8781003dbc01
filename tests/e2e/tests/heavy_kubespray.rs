//! The job `kubespray` with nothing of it imitated but Kubernetes itself: worker processes, a broker,
//! real hosts, the real runner with the image of deploy/rootfs, and in it the real Ansible with a
//! playbook of ours (tests/e2e/kubespray). Needs root.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::history;
use e2e::lab::small;
use e2e::processes::Workers;
use e2e::recovery::{Begun, SPEC};
use e2e::site::Site;
use e2e::tools::Tools;
use jobs::ids::{JobName, NodeName, StepKey};
use jobs::keys;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use worker::ssh::{HostExt, Ssh};

const JOB: &str = "kubespray";
/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(400);
/// How often a start of the playbook says that it runs.
const MARKS: usize = 5;

/// A site whose bucket has the image.
struct Scene {
    site: Site,
    spec: String,
    master: NodeName,
    bastion: NodeName,
    tools: Tools,
}

impl Scene {
    /// `pause`: seconds that the playbook spends doing nothing.
    async fn new(spec: &str, pause: u32) -> anyhow::Result<Self> {
        let tools = Tools::made().await?;
        let site = tools.site().await?;
        let more = format!("  extra_vars: {{ standin_pause: {pause} }}\n");
        let spec = tools.spec(spec, &more);
        let parsed = jobs::spec::ClusterSpec::parse(&spec);
        let nodes = parsed.map_err(|e| anyhow::anyhow!("{e:?}"))?.nodes();
        let first = |role| nodes.iter().find(|node| node.role == role).cloned();
        Ok(Self {
            site,
            spec,
            master: first(jobs::spec::Role::Master).context("a master")?.name,
            bastion: first(jobs::spec::Role::Bastion).context("a bastion")?.name,
            tools,
        })
    }

    fn workers(&self) -> anyhow::Result<Workers> {
        self.tools.workers(&self.site)
    }

    async fn begin(&self) -> anyhow::Result<Begun> {
        self.site.begin_with(&self.spec, None).await
    }

    async fn bastion(&self, begun: &Begun) -> anyhow::Result<Ssh> {
        let sandbox = &self.site.sandbox;
        sandbox.login(&begun.cluster, &self.bastion).await
    }

    /// What must hold at the end; gives how often the run was started.
    async fn check(&self, begun: &Begun) -> anyhow::Result<u64> {
        let record = begun.record(JOB).await?.context("it has a record")?;
        let proof = &record.steps[&StepKey::new("prove/nodes")?].output;
        ensure!(proof["holds"] == true, "{proof}");
        let nodes = proof["observed"]["nodes"].as_object().context("nodes")?;

        let bastion = self.bastion(begun).await?;
        let shell = |script: String| {
            let bastion = &bastion;
            async move { bastion.run_ok(&["sh", "-c", &script]).await }
        };
        let id = format!("{}-{JOB}-1", begun.id);
        let bin = "/var/lib/rekindle/bin/*/rekindle-runner";
        let status = shell(format!("{bin} status {id} --output json")).await?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        ensure!(
            status["state"] == "exited" && status["exit"]["code"] == 0,
            "{status}"
        );
        // What the runner had to do without here, for those who read along.
        eprintln!("notes of the run: {}", status["notes"]);
        let attempts = status["attempt"].as_u64().context("attempts")?;

        // One start after the other, and the last one came to the end.
        let master = self
            .site
            .sandbox
            .login(&begun.cluster, &self.master)
            .await?;
        let marks = master.run_ok(&["cat", "/var/lib/standin/starts"]).await?;
        let marks = marks.text().to_owned();
        let starts = starts_in(marks.lines().collect())?;
        ensure!(starts <= attempts, "{starts} starts in {attempts} attempts");

        // Its whole log is in the bucket.
        let prefix = keys::logs(&begun.cluster, &begun.id, &JobName::new(JOB)?);
        let chunks = self.site.sandbox.s3.objects(&format!("{prefix}1/"));
        let log: Vec<u8> = chunks
            .into_iter()
            .flat_map(|(_, body)| body.to_vec())
            .collect();
        let log = String::from_utf8(log)?;
        let recap = log.rsplit_once("PLAY RECAP").context("no recap")?.1;
        for node in nodes.keys() {
            let line = recap
                .lines()
                .find(|line| line.split_whitespace().next() == Some(node));
            let line = line.with_context(|| format!("{node} is not in the recap: {recap}"))?;
            ensure!(
                line.contains("unreachable=0") && line.contains("failed=0"),
                "{line}"
            );
        }

        // The key was in the container's memory and nowhere else, and nobody runs any more.
        let key = std::fs::read_to_string(self.site.sandbox.key_file())?;
        let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
        let private = lines[lines.len() - 2];
        let found = format!("grep -rlsF -e {private} /var /root /tmp /run /etc || true");
        let found = shell(found).await?;
        ensure!(found.text().is_empty(), "the key is in {}", found.text());
        let running = shell("pgrep -c ansible || true".into()).await?;
        ensure!(running.text().trim() == "0", "Ansible still runs");
        Ok(attempts)
    }
}

/// How many starts of the playbook left these marks: one after the other, and the last one whole.
fn starts_in(marks: Vec<&str>) -> anyhow::Result<u64> {
    let last = marks.last().context("it never ran")?;
    let whole = marks.iter().filter(|mark| *mark == last).count();
    ensure!(
        whole == MARKS,
        "a start that did not finish counted: {marks:?}"
    );
    let mut blocks = marks.clone();
    blocks.dedup();
    let starts: BTreeSet<&&str> = blocks.iter().collect();
    ensure!(
        blocks.len() == starts.len(),
        "two ran at one time: {marks:?}"
    );
    Ok(starts.len() as u64)
}

#[test]
fn starts_that_overlap_or_do_not_end_are_told() {
    let marks = |text: &'static str| starts_in(text.split_whitespace().collect());
    assert_eq!(marks("a a b c c c c c").unwrap(), 3);
    for (bad, why) in [
        ("", "it never ran"),
        ("a b a b b b b", "two ran at one time"),
        ("a a a a a b b b b", "did not finish"),
    ] {
        let error = marks(bad).unwrap_err().to_string();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_ansible_on_the_bastion_brings_every_node_up() -> anyhow::Result<()> {
    let scene = Scene::new(&small("test"), 0).await?;
    let mut workers = scene.workers()?;
    workers.spawn()?;
    let begun = scene.begin().await?;
    begun.finished(LONG).await?;
    ensure!(scene.check(&begun).await? == 1, "started more than once");
    workers.stop().await?;
    scene.site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_ansible_brings_the_reference_cluster_up() -> anyhow::Result<()> {
    let scene = Scene::new(SPEC, 0).await?;
    let mut workers = scene.workers()?;
    workers.spawn()?;
    workers.spawn()?;
    let begun = scene.begin().await?;
    begun.finished(LONG).await?;
    ensure!(scene.check(&begun).await? == 1, "started more than once");
    let record = begun.record(JOB).await?.context("it has a record")?;
    let proof = &record.steps[&StepKey::new("prove/nodes")?].output;
    let nodes = proof["observed"]["nodes"].as_object().context("nodes")?;
    assert_eq!(nodes.len(), 16);
    assert_eq!(nodes["test-cache-2"]["labels"]["cacheinstance"], "num2");
    workers.stop().await?;
    scene.site.stop().await
}

/// What dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Worker,
    /// All connections from outside.
    Connections,
    /// Every process of the bastion's sshd but the one that listens, and with them every session.
    Sessions,
    /// What stays with the run on the bastion.
    Supervisor,
    Bastion,
}

impl Victim {
    async fn kill(self, scene: &Scene, workers: &mut Workers, begun: &Begun) -> anyhow::Result<()> {
        match self {
            Victim::Worker => {
                let pid = workers.pids()[0];
                workers.spawn()?;
                workers.kill9(pid).await?;
            }
            Victim::Connections => {
                scene.site.sandbox.network.cut_open_connections();
            }
            // PID 1 listens, and is out of reach of a signal from inside. Our own session may die
            // before it can tell.
            Victim::Sessions => {
                let bastion = scene.bastion(begun).await?;
                let _ = bastion.run(&["pkill", "-KILL", "sshd"]).await;
            }
            Victim::Supervisor => {
                let bastion = scene.bastion(begun).await?;
                // The oldest: the container's first process has the same command line.
                let line = "^[^ ]*rekindle-runner supervise ";
                let supervisor = ["pkill", "-KILL", "-o", "-f", line];
                bastion.run(&supervisor).await?;
            }
            Victim::Bastion => {
                let servers = scene.site.sandbox.clo.snapshot().servers;
                let bastion = servers.iter().find(|s| s.name == scene.bastion.as_str());
                let bastion = bastion.context("the bastion is gone")?;
                scene.site.sandbox.hosts.reboot(&bastion.id).await?;
            }
        }
        Ok(())
    }
}

async fn recorded(begun: &Begun, step: &str) -> anyhow::Result<bool> {
    let key = StepKey::new(step)?;
    let record = begun.record(JOB).await?;
    Ok(record.is_some_and(|record| record.steps.contains_key(&key)))
}

async fn survives(seed: u64) -> anyhow::Result<()> {
    let mut dice = StdRng::seed_from_u64(seed);
    // A supervisor and a bastion once each: with the first start that makes the three that there may be.
    let mut victims = [
        Victim::Worker,
        Victim::Connections,
        Victim::Sessions,
        Victim::Supervisor,
        Victim::Bastion,
    ];
    victims.shuffle(&mut dice);
    // Before the run is started, or while it runs.
    let early: bool = dice.random();
    let first = if early { "artifact/1" } else { "start/1" };
    eprintln!("seed {seed}: {victims:?} from {first} on");

    let scene = Scene::new(&small("test"), 15).await?;
    let mut workers = scene.workers()?;
    workers.spawn()?;
    let begun = scene.begin().await?;
    let begins = async {
        while !recorded(&begun, first).await? {
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(LONG, begins).await.context("it never began")??;
    let mut killed = Vec::new();
    let mut lost = false;
    for victim in victims {
        let pause = Duration::from_millis(dice.random_range(300..=2500));
        if let Ok(finished) = timeout(pause, begun.finished(LONG)).await {
            finished?;
            break;
        }
        lost |= matches!(victim, Victim::Supervisor | Victim::Bastion)
            && recorded(&begun, "start/1").await?;
        victim.kill(&scene, &mut workers, &begun).await?;
        killed.push(victim);
    }
    begun.finished(LONG).await?;
    let attempts = scene.check(&begun).await?;
    let history = history::check(&scene.site.sandbox, &begun.cluster, &begun.id)?;
    eprintln!("seed {seed}: killed {killed:?}, {attempts} starts, {history:?}");
    ensure!(killed.len() >= 4, "that was no chaos: {killed:?}");
    if killed.contains(&Victim::Worker) {
        ensure!(history.takeovers > 0, "nobody took over");
    }
    if lost {
        ensure!(attempts > 1, "a lost run was not started again");
    }
    workers.stop().await?;
    scene.site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_a_run_survives_whatever_is_killed() -> anyhow::Result<()> {
    let seeds = match std::env::var("REKINDLE_SEED") {
        Ok(seed) => vec![seed.parse()?],
        Err(_) => vec![1, 2, 3],
    };
    for seed in seeds {
        survives(seed)
            .await
            .with_context(|| format!("REKINDLE_SEED={seed}"))?;
    }
    Ok(())
}
