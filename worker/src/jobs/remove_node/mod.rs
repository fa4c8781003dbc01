//! Remove-node: takes one node out of Kubernetes, by Kubespray's `remove-node.yml` on the bastion.
//!
//! Before anything is started the cluster itself is asked what the removal would do to it (`guard`); an
//! answer that does not come is a refusal too. Nothing here waits at a prompt: Kubespray's question is answered
//! by a variable. The machine itself stays: it goes when the spec says so.

mod guard;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jobs::message::RemoveNode;
use jobs::spec::{Node, Role};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ansible::{self, Work};
use super::kubernetes::etcd::{self, Member};
use super::kubernetes::nodes::State;
use super::{kubernetes, kubespray};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Patience, Poll, Proof, Proven};
use guard::{Decision, Seen, Voice};

/// The step names.
pub const STEPS: &[&str] = &[
    "look", "artifact", "intent", "runner", "image", "inputs", "alone", "start", "run", "log",
    "clean", "gone", "prove",
];

/// What the look before a run found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    /// There is nothing to remove any more.
    gone: bool,
    /// etcd has it as a member.
    member: bool,
    /// The other nodes that were ready: they have to be afterwards.
    ready: BTreeSet<String>,
}

/// Removes the node, and proves that it is gone and the others are well.
pub async fn run(ctx: &Ctx, job: &RemoveNode) -> Result<Proven, JobError> {
    let section = kubespray::of_spec(ctx)?;
    let nodes = kubespray::nodes_of(ctx);
    // What the node itself says of the cluster is worth nothing now.
    let others: Vec<Node> = nodes
        .iter()
        .filter(|n| n.name != job.node)
        .cloned()
        .collect();
    // Each generation looks anew: the last one may have come half the way.
    let found: Found = ctx
        .step(("look", ctx.generation() + 1), || look(ctx, job, &others))
        .await?;

    if !found.gone {
        let mut section = section.clone();
        let mut set = |name: &str, value| section.extra_vars.insert(name.to_owned(), value);
        set("node", json!(job.node));
        set("skip_confirmation", json!(true));
        if job.dead {
            set("reset_nodes", json!(false));
            set("allow_ungraceful_removal", json!(true));
        }
        let left = (!found.member).then_some(&job.node);
        if left.is_some_and(|node| {
            nodes
                .iter()
                .any(|n| n.name == *node && n.role == Role::Master)
        }) {
            // Without it the number of etcd's hosts is even, and Kubespray would not begin.
            set("ignore_assert_errors", json!(true));
        }
        let work = Work {
            image: &kubespray::of_spec(ctx)?.image,
            cwd: kubespray::FOLDER,
            commands: vec![kubespray::release::playbook(&section, "remove-node.yml")],
            // A dead one is removed without a look at the others.
            hosts: match job.dead {
                true => vec![job.node.as_str()],
                false => nodes.iter().map(|node| node.name.as_str()).collect(),
            },
            deadline: ansible::DEADLINE,
            binds: vec![],
        };
        ansible::run(ctx, &work, || async {
            let machines = ansible::machines(ctx, &nodes).await?;
            kubespray::inventory::render(&section, &machines, left).map_err(JobError::fatal)
        })
        .await?;
    }

    let patience = Patience {
        every: ctx.world().poll.unwrap_or(Duration::from_secs(10)),
        deadline: Duration::from_secs(10 * 60),
    };
    let check = || async {
        let states = kubernetes::states(ctx, &others).await?;
        let members = etcd::members(ctx, &others).await?;
        let members = by_node(ctx, members).await?;
        Ok::<_, JobError>(prove(job, &found.ready, &states, &members))
    };
    ctx.wait("gone", patience, || async {
        let proof = check().await?;
        Ok::<_, JobError>(match proof.holds {
            true => Poll::Ready(()),
            false => Poll::Pending(format!("{}", proof.observed)),
        })
    })
    .await?;
    ctx.prove("removed", check).await
}

/// Asks the cluster, and decides.
async fn look(ctx: &Ctx, job: &RemoveNode, others: &[Node]) -> Result<Found, JobError> {
    let all = ctx.spec().nodes().into_iter();
    let spec: Vec<(String, Role)> = all.map(|n| (n.name.to_string(), n.role)).collect();
    let node = job.node.to_string();
    if let Some(why) = guard::refused_by_spec(&node, &spec) {
        return Err(JobError::fatal(why));
    }
    let states = kubernetes::states(ctx, others).await?;
    let members = etcd::members(ctx, others).await?;
    let etcd = by_node(ctx, members).await?;
    let ready = states.iter().filter(|(name, s)| s.ready && **name != node);
    let mut found = Found {
        gone: false,
        member: false,
        ready: ready.map(|(name, _)| name.clone()).collect(),
    };
    let seen = Seen {
        node,
        dead: job.dead,
        spec,
        nodes: states
            .into_iter()
            .map(|(name, s)| (name, s.ready))
            .collect(),
        etcd: etcd
            .iter()
            .map(|(name, m)| (name.clone(), voice(m)))
            .collect(),
    };
    match guard::decide(&seen) {
        Decision::Gone => found.gone = true,
        Decision::Remove { member } => found.member = member,
        Decision::Refuse(why) => return Err(JobError::fatal(why)),
    }
    Ok(found)
}

fn voice(member: &Member) -> Voice {
    match (member.voter, member.healthy) {
        (false, _) => Voice::Learner,
        (true, true) => Voice::Healthy,
        (true, false) => Voice::Sick,
    }
}

/// etcd's members by the nodes that they run on. As Kubespray does, the address decides: names can be those
/// of an older inventory. A member of no node of ours goes by its own name, or by its address.
async fn by_node(ctx: &Ctx, members: Vec<Member>) -> Result<BTreeMap<String, Member>, JobError> {
    let records = Cluster::of(ctx).nodes().await?;
    let name = |member: &Member| {
        let ours = records.iter().find(|record| {
            let ip = record.internal.ip.to_string();
            member.hosts.contains(&ip)
        });
        match ours {
            Some(record) => record.node.to_string(),
            None if member.name.is_empty() => member.hosts.join(","),
            None => member.name.clone(),
        }
    };
    Ok(members.into_iter().map(|m| (name(&m), m)).collect())
}

/// The node is in no list that was really read, and those that were ready before are ready.
fn prove(
    job: &RemoveNode,
    ready: &BTreeSet<String>,
    states: &BTreeMap<String, State>,
    members: &BTreeMap<String, Member>,
) -> Proof {
    let node = job.node.as_str();
    let well = |name: &String| states.get(name).is_some_and(|state| state.ready);
    let holds = !states.is_empty()
        && !states.contains_key(node)
        && !members.contains_key(node)
        && ready.iter().all(well);
    Proof {
        expected: json!({"absent": node, "ready": ready}),
        observed: json!({
            "nodes": states,
            "etcd": members,
            "next": format!("switch {node} off in the spec, so that no recovery brings it back; its machine and disks stay until you remove them in the cloud"),
        }),
        holds,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use jobs::ids::NodeName;

    use super::*;

    fn states(of: &[(&str, bool)]) -> BTreeMap<String, State> {
        let state = |(name, ready): &(&str, bool)| {
            let state = State {
                ready: *ready,
                cordoned: false,
                annotations: BTreeMap::new(),
            };
            ((*name).to_owned(), state)
        };
        of.iter().map(state).collect()
    }

    #[test]
    fn a_node_is_removed_when_no_list_has_it_and_the_others_are_as_well_as_before() {
        let job = RemoveNode {
            node: NodeName::new("w1").unwrap(),
            dead: false,
        };
        let ready: BTreeSet<String> = ["m1", "w2"].map(str::to_owned).into();
        let member = Member {
            name: "w1".into(),
            hosts: vec![],
            healthy: true,
            voter: true,
        };
        let check = |of: &[(&str, bool)], members: &[&str]| {
            let members = members.iter().map(|m| ((*m).to_owned(), member.clone()));
            prove(&job, &ready, &states(of), &members.collect()).holds
        };
        assert!(check(&[("m1", true), ("w2", true)], &["m1"]));
        assert!(check(&[("m1", true), ("w2", true), ("w3", false)], &["m1"]));
        assert!(!check(
            &[("m1", true), ("w2", true), ("w1", false)],
            &["m1"]
        ));
        assert!(!check(&[("m1", true), ("w2", true)], &["m1", "w1"]));
        assert!(!check(&[("m1", true), ("w2", false)], &["m1"]));
        assert!(!check(&[("m1", true)], &["m1"]));
        assert!(!prove(&job, &BTreeSet::new(), &states(&[]), &BTreeMap::new()).holds);
    }
}
