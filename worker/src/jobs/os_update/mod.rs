//! Os-update: the packages of the nodes, one node after the other, with a playbook of our own on the bastion.
//!
//! Workers come first and masters last: what is wrong with an update is better seen on a worker. A node that is in
//! Kubernetes is drained before and put back after. The bastion is left out: the run itself lives there.

use std::collections::BTreeMap;
use std::time::Duration;

use jobs::ids::NodeName;
use jobs::message::OsUpdate;
use jobs::spec::{Node, Role};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ansible::{self, Work, inputs};
use super::kubernetes::nodes::State;
use super::{kubernetes, kubespray};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Patience, Poll, Proof, Proven};
use crate::ssh::{Host, HostExt};
use inputs::{Group, Inventory, Machine};

/// The step names.
pub const STEPS: &[&str] = &[
    "before", "artifact", "intent", "runner", "image", "inputs", "alone", "start", "run", "log",
    "clean", "packages", "nodes", "prove",
];

/// The playbook, beside the other files of the run.
const PLAYBOOK: &str = "os-update.yml";
/// How long a node may take at most that is drained, updated and booted.
const A_NODE: Duration = Duration::from_secs(60 * 60);
/// On a node that we have cordoned, in Kubernetes.
const MARK: &str = "rekindle.io/os-update";

/// The nodes that Kubernetes knows, and whether somebody else had cordoned them; nothing where there is no
/// Kubernetes.
type Before = BTreeMap<String, bool>;

/// What a node says of its packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Packages {
    /// What could still be done: the first few lines of what apt says.
    pending: Vec<String>,
    reboot_required: bool,
}

/// Updates, and proves that nothing is left to do and that every node is in service as before.
pub async fn run(ctx: &Ctx, job: &OsUpdate) -> Result<Proven, JobError> {
    let section = kubespray::of_spec(ctx)?;
    let all = kubespray::nodes_of(ctx);
    let chosen = choose(&all, &job.nodes).map_err(JobError::fatal)?;
    let before: Before = ctx.step("before", || look(ctx, &all)).await?;

    let work = Work {
        image: &section.image,
        cwd: inputs::INPUTS,
        commands: vec![inputs::playbook(PLAYBOOK)],
        hosts: chosen.iter().map(|node| node.name.as_str()).collect(),
        binds: vec![],
        deadline: ansible::DEADLINE.max(A_NODE * u32::try_from(chosen.len()).unwrap_or(u32::MAX)),
    };
    ansible::run(ctx, &work, || async {
        let machines = ansible::machines(ctx, &all).await?;
        let vars = BTreeMap::from([
            ("job".to_owned(), json!(ctx.recovery())),
            ("reboot".to_owned(), json!(job.reboot)),
        ]);
        let inventory = inventory(&machines, &chosen)?;
        let mut files = inputs::files(&inventory, &vars, &machines);
        files.insert(PLAYBOOK, include_bytes!("os-update.yml").to_vec());
        Ok(files)
    })
    .await?;

    let cluster = Cluster::of(ctx);
    let mut packages = BTreeMap::new();
    for node in &chosen {
        let seen: Packages = ctx
            .step(("packages", &node.name), || async {
                let record = cluster.provisioned(&node.name).await?;
                of_packages(&ctx.world().ssh(ctx, &record).await?).await
            })
            .await?;
        packages.insert(node.name.to_string(), seen);
    }
    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(10)),
        deadline: Duration::from_secs(10 * 60),
    };
    let check = || async {
        let states = match before.is_empty() {
            true => BTreeMap::new(),
            false => kubernetes::states(ctx, &all).await?,
        };
        Ok::<_, JobError>(prove(&chosen, &before, &packages, &states))
    };
    ctx.wait("nodes", patience, || async {
        let proof = check().await?;
        Ok::<_, JobError>(match proof.holds {
            true => Poll::Ready(()),
            false => Poll::Pending(proof.observed.to_string()),
        })
    })
    .await?;
    ctx.prove("updated", check).await
}

/// The nodes in the order in which they are done: workers, then masters.
fn choose(all: &[Node], names: &[NodeName]) -> Result<Vec<Node>, String> {
    if let Some(name) = names
        .iter()
        .find(|name| all.iter().all(|n| n.name != **name))
    {
        return Err(format!(
            "the spec has no switched-on node `{name}` that is not the bastion"
        ));
    }
    let chosen = |node: &&Node| names.is_empty() || names.contains(&node.name);
    let mut nodes: Vec<Node> = all.iter().filter(chosen).cloned().collect();
    nodes.sort_by_key(|node| node.role == Role::Master);
    Ok(nodes)
}

fn inventory(
    machines: &[Machine],
    chosen: &[Node],
) -> Result<Inventory<serde_json::Value>, JobError> {
    let problems = inputs::problems(machines);
    if !problems.is_empty() {
        return Err(JobError::fatal(problems.join("; ")));
    }
    let host = |m: &Machine| {
        let vars = json!({"ansible_host": m.record.internal.ip, "ansible_user": m.record.ssh_user});
        (m.node.name.to_string(), vars)
    };
    let update = chosen
        .iter()
        .filter_map(|node| machines.iter().find(|m| m.node.name == node.name));
    let masters = machines.iter().filter(|m| m.node.role == Role::Master);
    Ok(Inventory::new(
        BTreeMap::new(),
        machines.iter().map(host).collect(),
        vec![
            ("update", Group::of_hosts(update)),
            ("masters", Group::of_hosts(masters)),
        ],
    ))
}

/// How Kubernetes has the nodes before anything is done. It is there when one master has its admin's
/// configuration; that none has must be said by all of them.
async fn look(ctx: &Ctx, all: &[Node]) -> Result<Before, JobError> {
    let cluster = Cluster::of(ctx);
    let mut there = false;
    for master in all.iter().filter(|node| node.role == Role::Master) {
        let record = cluster.provisioned(&master.name).await?;
        let host = ctx.world().ssh(ctx, &record).await?;
        there |= is_there(&host, "/etc/kubernetes/admin.conf").await?;
    }
    if !there {
        return Ok(Before::new());
    }
    let states = kubernetes::states(ctx, all).await?;
    // What carries our mark was cordoned by a job of ours that did not come to its end.
    let foreign = |state: &State| state.cordoned && !state.annotations.contains_key(MARK);
    Ok(states
        .into_iter()
        .map(|(name, state)| (name, foreign(&state)))
        .collect())
}

/// Whether a file is there; an answer that is neither is an error.
async fn is_there<H: Host>(host: &H, path: &str) -> Result<bool, JobError> {
    match host.run(&["test", "-e", path]).await?.status {
        0 => Ok(true),
        1 => Ok(false),
        other => Err(JobError::retry(format!(
            "`test -e {path}` ended with {other}"
        ))),
    }
}

async fn of_packages<H: Host>(host: &H) -> Result<Packages, JobError> {
    let simulated = host
        .run_ok(&["apt-get", "-s", "-q", "dist-upgrade"])
        .await?;
    Ok(Packages {
        pending: pending(&simulated.text()),
        reboot_required: is_there(host, "/run/reboot-required").await?,
    })
}

/// What `apt-get -s` would do.
fn pending(said: &str) -> Vec<String> {
    let does = |line: &&str| {
        ["Inst ", "Remv ", "Conf "]
            .iter()
            .any(|verb| line.starts_with(verb))
    };
    said.lines()
        .filter(does)
        .take(5)
        .map(str::to_owned)
        .collect()
}

fn prove(
    chosen: &[Node],
    before: &Before,
    packages: &BTreeMap<String, Packages>,
    states: &BTreeMap<String, State>,
) -> Proof {
    let done = Packages {
        pending: Vec::new(),
        reboot_required: false,
    };
    let (mut expected, mut observed) = (BTreeMap::new(), BTreeMap::new());
    for node in chosen {
        let name = node.name.as_str();
        // Without Kubernetes, or before it has the node, there is nothing to be ready.
        let service = |ready: bool, cordoned: bool| json!({"ready": ready, "cordoned": cordoned});
        let should = before.get(name).map(|cordoned| service(true, *cordoned));
        let is = should.as_ref().and_then(|_| states.get(name));
        let is = is.map(|state| service(state.ready, state.cordoned));
        expected.insert(name, (&done, should));
        observed.insert(name, (packages.get(name), is));
    }
    let same = |name: &&str| {
        let ((done, should), (packages, is)) = (&expected[*name], &observed[*name]);
        *packages == Some(done) && should == is
    };
    Proof {
        holds: !chosen.is_empty() && expected.keys().all(same),
        expected: json!(expected),
        observed: json!(observed),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use jobs::spec::ClusterSpec;

    use super::*;
    use crate::ssh::scripted::{Scripted, fails, prints};

    const SPEC: &str = include_str!("../../../../deploy/examples/cluster-with-kubernetes.yaml");

    fn nodes() -> Vec<Node> {
        let mut nodes = ClusterSpec::parse(SPEC).unwrap().nodes();
        nodes.retain(|node| node.role != Role::Bastion);
        nodes
    }

    fn names(nodes: &[Node]) -> Vec<&str> {
        nodes.iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn workers_come_before_masters_and_the_bastion_never() {
        let all = nodes();
        assert_eq!(
            names(&choose(&all, &[]).unwrap()),
            [
                "small-app-1",
                "small-app-2",
                "small-master-1",
                "small-master-2",
                "small-master-3"
            ]
        );
        let name = |name: &str| NodeName::new(name).unwrap();
        let some = [name("small-master-2"), name("small-app-2")];
        assert_eq!(
            names(&choose(&all, &some).unwrap()),
            ["small-app-2", "small-master-2"]
        );
        choose(&all, &[name("small-bastion-1")]).unwrap_err();
    }

    #[test]
    fn a_node_is_updated_when_nothing_is_left_and_it_serves_as_before() {
        let chosen: Vec<Node> = nodes().into_iter().take(1).collect();
        let name = chosen[0].name.to_string();
        let before = |cordoned| Before::from([(name.clone(), cordoned)]);
        let packages = |pending: &[&str], reboot_required| {
            let pending = pending.iter().map(|p| (*p).to_owned()).collect();
            BTreeMap::from([(
                name.clone(),
                Packages {
                    pending,
                    reboot_required,
                },
            )])
        };
        let states = |ready, cordoned| {
            let annotations = BTreeMap::new();
            BTreeMap::from([(
                name.clone(),
                State {
                    ready,
                    cordoned,
                    annotations,
                },
            )])
        };
        let done = packages(&[], false);
        fn check(
            chosen: &[Node],
            before: &Before,
            packages: &BTreeMap<String, Packages>,
            states: &BTreeMap<String, State>,
        ) -> bool {
            prove(chosen, before, packages, states).holds
        }
        assert!(check(&chosen, &before(false), &done, &states(true, false)));
        assert!(check(&chosen, &before(true), &done, &states(true, true)));
        assert!(
            check(&chosen, &Before::new(), &done, &BTreeMap::new()),
            "no Kubernetes"
        );
        assert!(!check(&chosen, &before(false), &done, &states(true, true)));
        assert!(!check(&chosen, &before(true), &done, &states(true, false)));
        assert!(!check(
            &chosen,
            &before(false),
            &done,
            &states(false, false)
        ));
        assert!(!check(&chosen, &before(false), &done, &BTreeMap::new()));
        assert!(!check(
            &chosen,
            &before(false),
            &packages(&["Inst x"], false),
            &states(true, false)
        ));
        assert!(!check(
            &chosen,
            &before(false),
            &packages(&[], true),
            &states(true, false)
        ));
        assert!(!check(
            &chosen,
            &before(false),
            &BTreeMap::new(),
            &states(true, false)
        ));
        assert!(!prove(&[], &Before::new(), &BTreeMap::new(), &BTreeMap::new()).holds);
    }

    #[tokio::test]
    async fn what_a_node_says_of_its_packages() {
        let said = "Reading package lists...\nInst libc6 [2.36-9] (2.36-10 Debian)\nConf libc6 (2.36-10)\n";
        assert_eq!(pending(said).len(), 2);
        assert_eq!(
            pending(
                "0 upgraded, 0 newly installed\nThe following packages have been kept back:\n  x\n"
            )
            .len(),
            0
        );
        let host = Scripted::new(move |command, _| match command.argv[0].as_str() {
            "apt-get" => prints(said),
            _ => prints(""),
        });
        let seen = of_packages(&host).await.unwrap();
        assert!(seen.reboot_required && seen.pending.len() == 2);
        let host = Scripted::new(|command, _| match command.argv[0].as_str() {
            "apt-get" => fails(100, "E: dpkg was interrupted"),
            _ => fails(1, ""),
        });
        of_packages(&host).await.unwrap_err();
        let host = Scripted::new(|command, _| match command.argv[0].as_str() {
            "apt-get" => prints(""),
            _ => fails(255, "no such shell"),
        });
        of_packages(&host).await.unwrap_err();
    }
}
