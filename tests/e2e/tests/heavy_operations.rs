//! The jobs on a cluster that runs, with nothing of it imitated but Kubernetes itself: real hosts, the real runner with
//! the image of deploy/rootfs, the real Ansible, apt with a repository, accounts. Needs root.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use e2e::processes::Workers;
use e2e::recovery::Begun;
use e2e::site::Site;
use e2e::tools::Tools;
use jobs::ids::{NodeName, StepKey};
use jobs::message::{Access, AddUser, Job, OsUpdate, RemoveNode};
use jobs::plan::PlannedJob;
use jobs::record::{JobRecord, Status};
use jobs::user::{PublicKey, UserName};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use worker::ssh::{HostExt, Output, Ssh};

/// Only ends what is broken.
const LONG: Duration = Duration::from_secs(400);

/// A site with a cluster that runs.
struct Scene {
    site: Site,
    spec: String,
    workers: Workers,
    begun: Begun,
    _tools: Tools,
}

impl Scene {
    async fn new(masters: &str, caches: &str) -> anyhow::Result<Self> {
        let tools = Tools::made().await?;
        let site = tools.site().await?;
        let spec = tools
            .spec(&e2e::lab::small("test"), "")
            .replacen("{ 1: true }", "MASTERS", 1)
            .replacen("{ 1: true }", caches, 1)
            .replacen("MASTERS", masters, 1);
        let mut workers = tools.workers(&site)?;
        workers.spawn()?;
        let begun = site.begin_with(&spec, None).await?;
        begun.finished(LONG).await?;
        Ok(Self {
            site,
            spec,
            workers,
            begun,
            _tools: tools,
        })
    }

    /// Begins a single job.
    async fn begin(&self, payload: Job) -> anyhow::Result<(Begun, String)> {
        let name = payload.name();
        let plan = vec![PlannedJob {
            name: name.clone(),
            payload,
            needs: vec![],
            always: false,
        }];
        let begun = self.site.begin_with(&self.spec, Some(plan)).await?;
        Ok((begun, name.to_string()))
    }

    /// Runs a single job to its end, whatever that is.
    async fn run(&self, payload: Job) -> anyhow::Result<JobRecord> {
        let (begun, name) = self.begin(payload).await?;
        begun
            .reaches(&name, &[Status::Succeeded, Status::Failed], LONG)
            .await
    }

    async fn good(&self, payload: Job) -> anyhow::Result<JobRecord> {
        let record = self.run(payload).await?;
        match &record.failure {
            None => Ok(record),
            Some(failure) => bail!("{failure}"),
        }
    }

    async fn bad(&self, payload: Job) -> anyhow::Result<String> {
        let record = self.run(payload).await?;
        let failure = record.failure.as_ref();
        failure.map(ToString::to_string).context("it succeeded")
    }

    async fn login(&self, node: &str) -> anyhow::Result<Ssh> {
        let node = NodeName::new(node)?;
        self.site.sandbox.login(&self.begun.cluster, &node).await
    }

    async fn sh(&self, node: &str, script: &str) -> anyhow::Result<Output> {
        Ok(self.login(node).await?.run(&["sh", "-c", script]).await?)
    }

    /// What a script prints that has to succeed.
    async fn says(&self, node: &str, script: &str) -> anyhow::Result<String> {
        let said = self.sh(node, script).await?;
        let error = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.success(), "{node}: {script}: {error}");
        Ok(said.text().trim().to_owned())
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.workers.stop().await?;
        self.site.stop().await
    }
}

fn proof(record: &JobRecord, name: &str) -> Value {
    record.steps[&StepKey::new(format!("prove/{name}")).unwrap()]
        .output
        .clone()
}

fn remove(node: &str, dead: bool) -> Job {
    let node = NodeName::new(node).unwrap();
    Job::RemoveNode(RemoveNode { node, dead })
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_flaw_49_nodes_leave_kubernetes_unless_that_would_break_it() -> anyhow::Result<()> {
    let scene = Scene::new("{ 1: true, 2: true, 3: true }", "{ 1: true, 2: true }").await?;

    // Nothing is started for what must stay.
    let why = scene.bad(remove("test-master-1", false)).await?;
    ensure!(why.contains("test-master-1 is the first master"), "{why}");
    let why = scene.bad(remove("test-bastion-1", false)).await?;
    ensure!(why.contains("is the bastion"), "{why}");
    let why = scene.bad(remove("test-cache-2", true)).await?;
    ensure!(why.contains("is Ready, so it is not dead"), "{why}");

    // A worker, in order; and once more, when it is gone.
    let record = scene.good(remove("test-cache-2", false)).await?;
    let seen = proof(&record, "removed");
    ensure!(
        seen["observed"]["nodes"]["test-cache-2"].is_null(),
        "{seen}"
    );
    ensure!(
        seen["expected"]["ready"].as_array().map(Vec::len) == Some(4),
        "{seen}"
    );
    let left = scene
        .sh("test-cache-2", "test -e /etc/kubernetes/kubelet.json")
        .await?;
    ensure!(!left.success(), "the node was not reset");
    let record = scene.good(remove("test-cache-2", false)).await?;
    ensure!(
        !record.steps.contains_key(&StepKey::new("start/1")?),
        "it ran again"
    );
    let why = scene.bad(remove("test-cache-1", false)).await?;
    ensure!(why.contains("test-cache-1 is the last worker"), "{why}");

    // A master that died: a healthy one may not go beside it, itself may.
    let servers = scene.site.sandbox.clo.snapshot().servers;
    let dead = servers
        .iter()
        .find(|s| s.name == "test-master-3")
        .context("no such server")?;
    scene.site.sandbox.hosts.destroy(&dead.id).await?;
    let gone = async {
        loop {
            let all = scene
                .says(
                    "test-master-1",
                    "kubectl --kubeconfig=/etc/kubernetes/admin.conf get nodes --output=json",
                )
                .await?;
            let all: Value = serde_json::from_str(&all)?;
            let ready = all["items"].as_array().into_iter().flatten().any(|node| {
                node["metadata"]["name"] == "test-master-3"
                    && node["status"]["conditions"][0]["status"] == "True"
            });
            if !ready {
                return anyhow::Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(LONG, gone).await.context("it stays Ready")??;
    let why = scene.bad(remove("test-master-2", false)).await?;
    ensure!(why.contains("1 healthy of 2 members"), "{why}");
    let record = scene.good(remove("test-master-3", true)).await?;
    let seen = proof(&record, "removed");
    ensure!(
        seen["observed"]["etcd"]
            .as_object()
            .map(serde_json::Map::len)
            == Some(2),
        "{seen}"
    );
    ensure!(
        seen["observed"]["nodes"]["test-master-3"].is_null(),
        "{seen}"
    );
    scene.stop().await
}

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBy8J3iJeCBE41pd2kUsu1S5DV2Vh7uC9zYMFjlhUUyZ ann";
const NODES: [&str; 3] = ["test-master-1", "test-cache-1", "test-bastion-1"];

fn user(name: &str, access: Access) -> Job {
    Job::AddUser(AddUser {
        name: UserName::new(name).unwrap(),
        access,
        nodes: vec![],
    })
}

fn grant(name: &str, key: &str, sudo: bool) -> Job {
    let key = PublicKey::parse(key).unwrap();
    user(name, Access::Grant { key, sudo })
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_flaw_56_people_get_access_and_lose_it() -> anyhow::Result<()> {
    let scene = Scene::new("{ 1: true }", "{ 1: true }").await?;
    scene
        .says("test-cache-1", "useradd --create-home bob && passwd -d bob")
        .await?;

    // Somebody else's account stays as it is, also where there is none yet.
    let why = scene.bad(grant("bob", KEY, true)).await?;
    ensure!(
        why.contains("test-cache-1") && why.contains("did not make"),
        "{why}"
    );
    ensure!(
        !scene
            .sh("test-master-1", "getent passwd bob")
            .await?
            .success()
    );
    ensure!(
        !scene
            .sh("test-cache-1", "test -e /home/bob/.ssh")
            .await?
            .success()
    );

    // In, by the key alone; the key is ours to log in with.
    let ours = std::fs::read_to_string(scene.site.sandbox.key_file())?;
    let ours = worker::ssh::keys::parse_private_key(&ours, "the sandbox")?;
    let ours = ours.public_key().to_openssh()?;
    scene.good(grant("ann", &ours, true)).await?;
    for node in NODES {
        let said = scene
            .says(node, "id -nG ann; cat /home/ann/.ssh/authorized_keys")
            .await?;
        ensure!(said == format!("ann\n{ours}"), "{node}: {said}");
        // As the user: root by sudo, and no way to another key.
        let become_root = "runuser -u ann -- sudo -n id -u";
        ensure!(scene.says(node, become_root).await? == "0");
        let add = "runuser -u ann -- sh -c 'echo x >>~/.ssh/authorized_keys || echo x >~/.ssh/y'";
        ensure!(
            !scene.sh(node, add).await?.success(),
            "{node}: the user writes keys"
        );
    }

    // Another key, without sudo; the folder of keys led elsewhere meanwhile.
    let trap = "runuser -u ann -- sh -c 'mv ~/.ssh ~/mine && ln -s /root/.ssh ~/.ssh'";
    scene.says("test-cache-1", trap).await?;
    let before = scene
        .says("test-cache-1", "cat /root/.ssh/authorized_keys")
        .await?;
    scene.good(grant("ann", KEY, false)).await?;
    ensure!(
        scene
            .says("test-cache-1", "cat /root/.ssh/authorized_keys")
            .await?
            == before
    );
    for node in NODES {
        ensure!(
            scene
                .says(node, "cat /home/ann/.ssh/authorized_keys")
                .await?
                == KEY
        );
        ensure!(
            !scene
                .sh(node, "runuser -u ann -- sudo -n true")
                .await?
                .success()
        );
    }

    // Out, with all that runs; the files stay.
    let keep = "runuser -u ann -- sh -c 'echo mine >~/note; exec sleep 1000' >/dev/null 2>&1 </dev/null & until [ -s /home/ann/note ]; do sleep 0.05; done";
    scene.says("test-cache-1", keep).await?;
    scene.good(user("ann", Access::Revoke)).await?;
    for node in NODES {
        ensure!(
            !scene
                .sh(
                    node,
                    "test -e /home/ann/.ssh || test -e /etc/sudoers.d/rekindle-ann"
                )
                .await?
                .success()
        );
        ensure!(
            !scene.sh(node, "pgrep -u ann").await?.success(),
            "{node}: it still runs"
        );
        ensure!(
            scene
                .says(node, "passwd -S ann")
                .await?
                .starts_with("ann L ")
        );
    }
    ensure!(scene.says("test-cache-1", "cat /home/ann/note").await? == "mine");

    // And in again, by the mark.
    scene.good(grant("ann", KEY, false)).await?;
    ensure!(
        scene
            .says("test-cache-1", "getent shadow ann | cut -d: -f2,8")
            .await?
            == "*:"
    );
    scene.good(user("nobody-yet", Access::Revoke)).await?;
    scene.stop().await
}

/// Puts a repository with one package onto a node, in version 1, installed, with a configuration file that somebody
/// has changed; version 2 waits, and wants a reboot if `reboot`.
const PACKAGES: &str = r#"set -eu
rm -rf /srv/apt && mkdir -p /srv/apt
make() {
    folder=$(mktemp -d)
    mkdir -p "$folder/DEBIAN" "$folder/etc"
    printf 'Package: standin\nVersion: %s\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n' "$1" >"$folder/DEBIAN/control"
    echo /etc/standin.conf >"$folder/DEBIAN/conffiles"
    echo "of version $1" >"$folder/etc/standin.conf"
    printf '#!/bin/sh\necho "$1 %s" >>/var/lib/standin-package\n%s\n' "$1" "$2" >"$folder/DEBIAN/postinst"
    chmod 755 "$folder/DEBIAN/postinst"
    dpkg-deb --build "$folder" "/srv/apt/standin_$1_all.deb" >/dev/null
    rm -rf "$folder"
}
index() {
    cd /srv/apt
    : >Packages
    for file in *.deb; do
        dpkg-deb --field "$file" >>Packages
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$file" "$(stat -c %s "$file")" "$(sha256sum "$file" | cut -d' ' -f1)" >>Packages
    done
}
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/apt ./' >/etc/apt/sources.list
make 1 :
index
apt-get -q update >/dev/null 2>&1
DEBIAN_FRONTEND=noninteractive apt-get -q -y install standin >/dev/null 2>&1
echo 'of somebody' >/etc/standin.conf
make 2 "$REBOOT"
index
printf '#!/bin/sh\ntouch /run/standin-shutdown\n' >/usr/local/sbin/shutdown
chmod 755 /usr/local/sbin/shutdown
"#;

impl Scene {
    async fn packages(&self, node: &str, reboot: bool) -> anyhow::Result<()> {
        let wants = if reboot {
            "touch /run/reboot-required"
        } else {
            ":"
        };
        let script = format!("REBOOT='{wants}'\n{PACKAGES}");
        self.says(node, &script).await.map(|_| ())
    }

    async fn boot(&self, node: &str) -> anyhow::Result<String> {
        self.says(node, "cat /proc/sys/kernel/random/boot_id").await
    }

    /// Does what the hosts cannot: starts them anew when they want it.
    async fn reboots(&self) -> anyhow::Result<()> {
        loop {
            for server in self.site.sandbox.clo.snapshot().servers {
                let asked = self.sh(&server.name, "test -e /run/standin-shutdown").await;
                if asked.is_ok_and(|asked| asked.success()) {
                    self.site.sandbox.hosts.reboot(&server.id).await?;
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The same as `run`, with somebody there who starts hosts anew.
    async fn update(&self, nodes: &[&str], reboot: bool) -> anyhow::Result<JobRecord> {
        let nodes = nodes.iter().map(|n| NodeName::new(*n).unwrap()).collect();
        tokio::select! {
            record = self.run(Job::OsUpdate(OsUpdate { nodes, reboot })) => record,
            broken = self.reboots() => bail!("nobody reboots: {broken:?}"),
        }
    }

    async fn node(&self, node: &str) -> anyhow::Result<Value> {
        let ask = format!(
            "kubectl --kubeconfig=/etc/kubernetes/admin.conf get node {node} --output=json"
        );
        Ok(serde_json::from_str(
            &self.says("test-master-1", &ask).await?,
        )?)
    }
}

fn well(record: &JobRecord) -> anyhow::Result<()> {
    match &record.failure {
        None => Ok(()),
        Some(failure) => bail!("{failure}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_flaw_74_updates_roll_from_node_to_node() -> anyhow::Result<()> {
    let scene = Scene::new("{ 1: true }", "{ 1: true, 2: true }").await?;
    let (master, first, second) = ("test-master-1", "test-cache-1", "test-cache-2");
    scene.packages(first, true).await?;
    scene.packages(second, false).await?;
    scene.packages(master, false).await?;
    let kubectl = |words: &str| format!("kubectl --kubeconfig=/etc/kubernetes/admin.conf {words}");
    scene.says(master, &kubectl("cordon test-cache-2")).await?;
    let boots = (scene.boot(first).await?, scene.boot(second).await?);

    // The first one cannot be drained: the roll stops there, before anything was updated.
    let stuck = "/var/lib/standin/undrainable-test-cache-1";
    scene.says(master, &format!("touch {stuck}")).await?;
    let record = scene.update(&[], false).await?;
    let why = record.failure.as_ref().context("it went on")?.to_string();
    ensure!(
        why.contains("test-cache-1: task `Drain`") && why.contains("disruption budget"),
        "{why}"
    );
    for node in [first, second, master] {
        let version = scene
            .says(node, "dpkg-query -f '${Version}' -W standin")
            .await?;
        ensure!(version == "1", "{node} has {version}");
    }

    // Then it goes on. What somebody else cordoned stays so; what we did does not.
    scene.says(master, &format!("rm {stuck}")).await?;
    let record = scene.update(&[], false).await?;
    well(&record)?;
    for node in [first, second, master] {
        let version = scene
            .says(node, "dpkg-query -f '${Version}' -W standin")
            .await?;
        ensure!(version == "2", "{node} has {version}");
        let kept = scene.says(node, "cat /etc/standin.conf").await?;
        ensure!(kept == "of somebody", "{node}: {kept}");
    }
    ensure!(scene.boot(first).await? != boots.0, "a reboot was due");
    ensure!(scene.boot(second).await? == boots.1, "no reboot was due");
    let (one, two) = (scene.node(first).await?, scene.node(second).await?);
    ensure!(one["spec"]["unschedulable"].is_null(), "{one}");
    ensure!(
        one["metadata"]["annotations"]
            .as_object()
            .is_some_and(serde_json::Map::is_empty),
        "{one}"
    );
    ensure!(two["spec"]["unschedulable"] == true, "{two}");
    // Workers before the master, and each was drained.
    let drained = scene.says(master, "cat /var/lib/standin/drained").await?;
    ensure!(
        drained == format!("{first}\n{second}\n{master}"),
        "{drained}"
    );

    // Nothing to do is nothing done.
    let boot = scene.boot(first).await?;
    well(&scene.update(&[], false).await?)?;
    ensure!(scene.boot(first).await? == boot);
    ensure!(scene.says(master, "cat /var/lib/standin/drained").await? == drained);
    ensure!(
        scene
            .says(first, "grep -c . /var/lib/standin-package")
            .await?
            == "2"
    );

    // Unless a reboot is asked for: one each, of those that were chosen.
    let untouched = scene.boot(master).await?;
    well(&scene.update(&[second, first], true).await?)?;
    ensure!(scene.boot(master).await? == untouched);
    ensure!(scene.boot(first).await? != boot);
    ensure!(scene.boot(second).await? != boots.1);
    scene.stop().await
}
