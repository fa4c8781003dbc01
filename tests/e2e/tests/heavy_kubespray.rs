//! The job `kubespray` with nothing of it imitated but Kubespray itself and the kubelets: worker processes, a
//! broker, real hosts, the real runner with the image of deploy/rootfs, in it the real Ansible with a playbook
//! of ours (tests/e2e/kubespray), and what that brings up: a real kube-apiserver on every master. Needs root.
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
use jobs::record::NodeRecord;
use jobs::spec::{Node, Role};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value};
use tokio::time::{sleep, timeout};
use worker::cluster::Cluster;
use worker::kube::{Objects, administrator};
use worker::ssh::{HostExt, Ssh};
use worker::world::Entrance;

const JOB: &str = "kubespray";
/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(400);
/// How often a start of the playbook says that it runs.
const MARKS: usize = 5;

/// A site whose bucket has the image.
struct Scene {
    site: Site,
    spec: String,
    nodes: Vec<Node>,
    tools: Tools,
}

impl Scene {
    /// `pause`: seconds that the playbook spends doing nothing.
    async fn new(spec: &str, pause: u32) -> anyhow::Result<Self> {
        let tools = Tools::made().await?;
        let site = tools.site().await?;
        let programs = tools.real_api(&site).await?;
        let more = format!("  extra_vars:\n    standin_pause: {pause}\n    {programs}\n");
        let spec = tools.spec(spec, &more);
        let parsed = jobs::spec::ClusterSpec::parse(&spec);
        let nodes = parsed.map_err(|e| anyhow::anyhow!("{e:?}"))?.nodes();
        Ok(Self {
            site,
            spec,
            nodes,
            tools,
        })
    }

    fn named(&self, role: Role) -> impl Iterator<Item = &NodeName> {
        let nodes = self.nodes.iter().filter(move |node| node.role == role);
        nodes.map(|node| &node.name)
    }

    /// Logs in to the first node of a role.
    async fn login(&self, begun: &Begun, role: Role) -> anyhow::Result<Ssh> {
        let node = self.named(role).next().context("such a node")?;
        self.site.sandbox.login(&begun.cluster, node).await
    }

    fn workers(&self) -> anyhow::Result<Workers> {
        self.tools.workers(&self.site)
    }

    async fn begin(&self) -> anyhow::Result<Begun> {
        self.site.begin_with(&self.spec, None).await
    }

    /// Starts the first node of a role anew.
    async fn reboot(&self, role: Role) -> anyhow::Result<()> {
        let node = self.named(role).next().context("such a node")?;
        let servers = self.site.sandbox.clo.snapshot().servers;
        let server = servers.iter().find(|s| s.name == node.as_str());
        let server = server.with_context(|| format!("{node} is gone"))?;
        self.site.sandbox.hosts.reboot(&server.id).await
    }

    /// What jobs wrote down of the nodes of a role.
    async fn records(&self, begun: &Begun, role: Role) -> anyhow::Result<Vec<NodeRecord>> {
        let store = self.site.sandbox.store().await?;
        let cluster = Cluster::new(&begun.cluster, &store);
        let mut records = Vec::new();
        for name in self.named(role) {
            let record = cluster.node(name).await?;
            records.push(record.with_context(|| format!("{name} has no record"))?);
        }
        Ok(records)
    }

    /// The API as jobs come to it: through the bastion and any master, with what stands in `admin.conf`.
    async fn api(&self, begun: &Begun) -> anyhow::Result<Objects> {
        let store = self.site.sandbox.store().await?;
        let lb = Cluster::new(&begun.cluster, &store).load_balancer().await?;
        let bastion = self.records(begun, Role::Bastion).await?.pop();
        let way = Entrance::Bastion(Box::new(bastion.context("a bastion")?), lb);
        let masters = self.records(begun, Role::Master).await?;
        let masters = self.site.sandbox.world()?.masters(way, masters);
        let client = administrator(masters).await;
        Ok(Objects::new(
            client.map_err(|error| anyhow::anyhow!("{error}"))?,
        ))
    }

    /// The API is a real one, of these nodes, and lets nobody do what they may not.
    async fn check_api(&self, begun: &Begun, nodes: &Map<String, Value>) -> anyhow::Result<()> {
        let api = self.api(begun).await?;
        let list = get(&api, "/api/v1/nodes").await?;
        let items = list["items"].as_array().context("a list of nodes")?;
        let name = |item: &Value| item["metadata"]["name"].as_str().map(str::to_owned);
        let known: BTreeSet<Option<String>> = items.iter().map(name).collect();
        ensure!(known == nodes.keys().cloned().map(Some).collect(), "{list}");
        let has_id = |item: &Value| item["metadata"]["uid"].is_string();
        ensure!(items.iter().all(has_id), "who made these? {list}");

        // kubectl says for which version the server stands, and hides nothing.
        let master = self.login(begun, Role::Master).await?;
        let kubectl = "--kubeconfig=/etc/kubernetes/admin.conf";
        let said = ["kubectl", kubectl, "version", "--output=json"];
        let said: Value = serde_json::from_slice(&master.run_ok(&said).await?.stdout)?;
        let version = get(&api, "/version").await?;
        ensure!(
            version["gitVersion"].is_string()
                && said["serverVersion"]["really"] == version["gitVersion"],
            "{said} of {version}"
        );

        // A kubelet's certificate is good for its own node only, and none for nothing.
        let worker = self.login(begun, Role::Worker).await?;
        let own = self.named(Role::Worker).next().context("a worker")?;
        let other = &self.records(begun, Role::Master).await?[0];
        let server = format!("https://{}:6443/api/v1/nodes", other.internal.ip);
        let kubelet = "--cert /var/lib/kubelet/pki/kubelet-client-current.pem";
        for (by, node, answer) in [
            (kubelet, own, "200"),
            (kubelet, &other.node, "403"),
            ("", own, "403"),
        ] {
            let change = format!(
                r#"curl --silent --output /dev/null --write-out '%{{http_code}}' --cacert /etc/kubernetes/ssl/ca.crt {by} \
                --request PATCH --header 'Content-Type: application/merge-patch+json' \
                --data '{{"metadata": {{"annotations": {{"a": "b"}}}}}}' {server}/{node}"#
            );
            let said = worker.run_ok(&["sh", "-c", &change]).await?;
            ensure!(said.text() == answer, "{by} {node}: {}", said.text());
        }

        // etcd has a member on every master, by what its API says.
        let health = format!(
            "own=/etc/ssl/etcd/ssl/admin-{}; etcdctl --endpoints=https://127.0.0.1:2379 \
             --cacert=/etc/ssl/etcd/ssl/ca.pem --cert=$own.pem --key=$own-key.pem endpoint health --cluster",
            other.node
        );
        let health = master.run_ok(&["sh", "-c", &health]).await?;
        let health: Vec<Value> = serde_json::from_slice(&health.stdout)?;
        ensure!(
            health.len() == self.named(Role::Master).count()
                && health.iter().all(|member| member["health"] == true),
            "{health:?}"
        );
        Ok(())
    }

    /// What must hold at the end; gives how often the run was started.
    async fn check(&self, begun: &Begun) -> anyhow::Result<u64> {
        let record = begun.record(JOB).await?.context("it has a record")?;
        let proof = &record.steps[&StepKey::new("prove/nodes")?].output;
        ensure!(proof["holds"] == true, "{proof}");
        let nodes = proof["observed"]["nodes"].as_object().context("nodes")?;
        self.check_api(begun, nodes).await?;

        let bastion = self.login(begun, Role::Bastion).await?;
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
        let master = self.login(begun, Role::Master).await?;
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

async fn get(api: &Objects, path: &str) -> anyhow::Result<Value> {
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(api.client().request(request).await?)
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

    // The API is there again when its master was started anew, with what it knew; so is the kubelet.
    let of_master = async || {
        let master = scene.named(Role::Master).next().context("a master")?;
        let api = scene.api(&begun).await?;
        let node = get(&api, &format!("/api/v1/nodes/{master}")).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
        let boot = text(&node["status"]["nodeInfo"]["bootID"])?;
        anyhow::Ok((text(&node["metadata"]["uid"])?, boot))
    };
    let (id, boot) = of_master().await?;
    scene.reboot(Role::Master).await?;
    let back = async {
        loop {
            match of_master().await {
                Ok((now, booted)) if booted != boot => return now,
                Ok(_) | Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    };
    ensure!(timeout(LONG, back).await? == id, "it is another node");
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
                let bastion = scene.login(begun, Role::Bastion).await?;
                let _ = bastion.run(&["pkill", "-KILL", "sshd"]).await;
            }
            Victim::Supervisor => {
                let bastion = scene.login(begun, Role::Bastion).await?;
                // The oldest: the container's first process has the same command line.
                let line = "^[^ ]*rekindle-runner supervise ";
                let supervisor = ["pkill", "-KILL", "-o", "-f", line];
                bastion.run(&supervisor).await?;
            }
            Victim::Bastion => scene.reboot(Role::Bastion).await?,
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
