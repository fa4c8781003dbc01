//! The plan: which jobs a recovery has and which jobs each one needs. Data, not code.
//!
//! A [`PlanFile`] is written by people and speaks of kinds; [`PlanFile::expand`] makes the
//! [`Plan`] of a cluster out of it: one job a node for kinds that work on nodes. Jobs that both
//! work on nodes are linked node by node, so that one node is mounted while another still boots.

mod graph;

pub use graph::{Plan, PlannedJob, Readiness, Settled};

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{JobName, NodeName};
use crate::message::{
    Backup, Demo, Job, KINDS, LoadTest, OnNode, OsUpdate, Restore, WaitCertificates,
};
use crate::spec::{ClusterSpec, Node, Problem, Role};

/// The plan of a whole recovery, used when none is given.
pub const DEFAULT_PLAN: &str = include_str!("../../../deploy/examples/plan.yaml");

/// A plan as written by people (`plan.yaml`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// Version of this format: 1.
    pub version: u32,
    /// The jobs, in any order.
    pub jobs: Vec<Entry>,
}

/// One kind of job in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The kind, for example `provision`.
    pub job: String,
    /// Which nodes, for kinds that work on nodes; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Selector>,
    /// What must have succeeded before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Runs even when what it needs has failed, once all of it is settled.
    #[serde(default)]
    pub always: bool,
}

/// A need: a kind, or a kind on some nodes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Need {
    /// All jobs of a kind; the job of the same node where both work on nodes.
    Kind(String),
    /// The jobs of a kind on these nodes.
    Some(SomeNodes),
}

/// A kind on some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SomeNodes {
    /// The kind.
    pub job: String,
    /// The nodes.
    pub nodes: Selector,
}

/// Chooses nodes: those that match every given field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Selector {
    /// Of these groups (prefixes).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// With these roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Role>,
    /// With these names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NodeName>,
    /// Behind the load balancer (`true`) or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded: Option<bool>,
    /// With data disks (`true`) or without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_disks: Option<bool>,
}

impl Selector {
    /// Whether a node is chosen.
    pub fn matches(&self, node: &Node) -> bool {
        (self.groups.is_empty() || self.groups.contains(&node.prefix))
            && (self.roles.is_empty() || self.roles.contains(&node.role))
            && (self.names.is_empty() || self.names.contains(&node.name))
            && self
                .forwarded
                .is_none_or(|want| want != node.forward.is_empty())
            && self
                .data_disks
                .is_none_or(|want| want != node.data_disks.is_empty())
    }
}

impl PlanFile {
    /// Reads a plan file.
    pub fn parse(yaml: &str) -> Result<Self, Vec<Problem>> {
        crate::yaml::parse(yaml).map_err(|problem| vec![problem])
    }

    /// Makes the plan of one cluster. Pure; gives every problem found, with its path.
    pub fn expand(&self, spec: &ClusterSpec) -> Result<Plan, Vec<Problem>> {
        let nodes = spec.nodes();
        let mut problems = self.check(&nodes);
        if !problems.is_empty() {
            return Err(problems);
        }
        let chosen: BTreeMap<&str, Vec<&Node>> = self
            .jobs
            .iter()
            .map(|e| (e.job.as_str(), choose(e.nodes.as_ref(), &nodes)))
            .collect();
        let jobs: Vec<PlannedJob> = self
            .jobs
            .iter()
            .filter(|entry| is_there(&entry.job, spec))
            .flat_map(|entry| expand_entry(entry, &chosen, spec))
            .collect();
        match Plan::new(jobs) {
            Ok(plan) => Ok(plan),
            Err(problem) => {
                problems.push(problem);
                Err(problems)
            }
        }
    }

    fn check(&self, nodes: &[Node]) -> Vec<Problem> {
        let mut found = Vec::new();
        if self.version != 1 {
            found.push(Problem::new(
                "version",
                format!("{} is not known; this build reads version 1", self.version),
            ));
        }
        let mut seen = BTreeSet::new();
        for (i, entry) in self.jobs.iter().enumerate() {
            let at = format!("jobs[{i}]");
            if !KINDS.contains(&entry.job.as_str()) {
                found.push(Problem::new(
                    format!("{at}.job"),
                    format!(
                        "`{}` is not a kind of job; there are {}",
                        entry.job,
                        KINDS.join(", ")
                    ),
                ));
            }
            if entry.job == "mirror-images" {
                found.push(Problem::new(
                    format!("{at}.job"),
                    "`mirror-images` takes a list of images: post it by its own command",
                ));
            }
            if !seen.insert(entry.job.as_str()) {
                found.push(Problem::new(
                    format!("{at}.job"),
                    format!("`{}` stands twice", entry.job),
                ));
            }
            if by_command_only(&entry.job) {
                found.push(Problem::new(
                    format!("{at}.job"),
                    format!(
                        "`{0}` takes what a plan does not say; begin it with `rekindle {0}`",
                        entry.job
                    ),
                ));
            }
            if entry.nodes.is_some() && !takes_nodes(&entry.job) {
                found.push(Problem::new(
                    format!("{at}.nodes"),
                    format!("`{}` does not work on single nodes", entry.job),
                ));
            }
            check_selector(
                entry.nodes.as_ref(),
                nodes,
                &format!("{at}.nodes"),
                &mut found,
            );
            if entry.job == "load-test" && !self.jobs.iter().any(cleans_up_always) {
                found.push(Problem::new(
                    format!("{at}.job"),
                    "what it makes must be taken away: the plan has no `load-test-clean-up` with `needs: [load-test]` and `always: true`",
                ));
            }
            for (j, need) in entry.needs.iter().enumerate() {
                let (kind, selector) = need.parts();
                let at = format!("{at}.needs[{j}]");
                if !self.jobs.iter().any(|other| other.job == kind) {
                    found.push(Problem::new(
                        at.clone(),
                        format!("the plan has no job `{kind}`"),
                    ));
                }
                if selector.is_some() && !per_node(kind) {
                    found.push(Problem::new(
                        at.clone(),
                        format!("`{kind}` does not work on single nodes"),
                    ));
                }
                check_selector(selector, nodes, &at, &mut found);
            }
        }
        found
    }
}

fn cleans_up_always(entry: &Entry) -> bool {
    let after = entry.needs.iter().any(|need| need.parts().0 == "load-test");
    entry.job == "load-test-clean-up" && entry.always && after
}

impl Need {
    fn parts(&self) -> (&str, Option<&Selector>) {
        match self {
            Need::Kind(kind) => (kind, None),
            Need::Some(some) => (&some.job, Some(&some.nodes)),
        }
    }
}

fn check_selector(selector: Option<&Selector>, nodes: &[Node], at: &str, found: &mut Vec<Problem>) {
    let Some(selector) = selector else { return };
    for group in &selector.groups {
        if !nodes.iter().any(|n| n.prefix == *group) {
            found.push(Problem::new(
                format!("{at}.groups"),
                format!("the spec has no switched-on group `{group}`"),
            ));
        }
    }
    for name in &selector.names {
        if !nodes.iter().any(|n| n.name == *name) {
            found.push(Problem::new(
                format!("{at}.names"),
                format!("the spec has no switched-on node `{name}`"),
            ));
        }
    }
}

/// Whether the spec gives a kind of the whole cluster anything to do.
fn is_there(kind: &str, spec: &ClusterSpec) -> bool {
    match kind {
        "load-balancer" => spec.load_balancer.is_some(),
        "kubespray" => spec.kubernetes.is_some(),
        "flux-bootstrap" => spec.flux.is_some(),
        "restore" | "backup" | "promote" => spec.database.is_some(),
        "wait-certificates" => !spec.certificates.is_empty(),
        "load-test" | "load-test-clean-up" => spec.load_test.is_some(),
        _ => true,
    }
}

/// Whether a kind has one job a node.
fn per_node(kind: &str) -> bool {
    matches!(kind, "provision" | "reachability" | "mount" | "permissions")
}

/// Whether an entry may choose nodes: also the one job that goes from node to node.
fn takes_nodes(kind: &str) -> bool {
    per_node(kind) || kind == "os-update"
}

/// Kinds that work on a running cluster, for a reason that somebody has now.
fn by_command_only(kind: &str) -> bool {
    matches!(
        kind,
        "remove-node" | "add-user" | "switch" | "secret" | "release"
    )
}

fn choose<'a>(selector: Option<&Selector>, nodes: &'a [Node]) -> Vec<&'a Node> {
    nodes
        .iter()
        .filter(|node| selector.is_none_or(|s| s.matches(node)))
        .collect()
}

fn expand_entry(
    entry: &Entry,
    chosen: &BTreeMap<&str, Vec<&Node>>,
    spec: &ClusterSpec,
) -> Vec<PlannedJob> {
    let make = |payload: Job| {
        let all: Vec<JobName> = entry
            .needs
            .iter()
            .flat_map(|need| needed(need, payload.node(), chosen, spec))
            .collect();
        // Two needs may name the same job; the first place counts.
        let mut seen = BTreeSet::new();
        let needs = all
            .into_iter()
            .filter(|name| seen.insert(name.clone()))
            .collect();
        PlannedJob {
            name: payload.name(),
            payload,
            needs,
            always: entry.always,
        }
    };
    let on = |node: &&Node| OnNode {
        node: node.name.clone(),
    };
    let nodes = chosen.get(entry.job.as_str()).into_iter().flatten();
    match entry.job.as_str() {
        "provision" => nodes.map(|n| make(Job::Provision(on(n)))).collect(),
        "reachability" => nodes.map(|n| make(Job::Reachability(on(n)))).collect(),
        "mount" => nodes.map(|n| make(Job::Mount(on(n)))).collect(),
        "permissions" => nodes.map(|n| make(Job::Permissions(on(n)))).collect(),
        "load-balancer" => vec![make(Job::LoadBalancer)],
        // Nothing can be expanded without the list; the check says so.
        "mirror-images" => vec![],
        "kubespray" => vec![make(Job::Kubespray)],
        "os-update" => {
            let named = entry.nodes.is_some();
            let nodes = nodes.filter(|n| named && n.role != Role::Bastion);
            let nodes: Vec<NodeName> = nodes.map(|n| n.name.clone()).collect();
            // None would mean all.
            if named && nodes.is_empty() {
                return Vec::new();
            }
            let reboot = false;
            vec![make(Job::OsUpdate(OsUpdate { nodes, reboot }))]
        }
        "flux-bootstrap" => vec![make(Job::FluxBootstrap)],
        "restore" => vec![make(Job::Restore(Restore::default()))],
        "promote" => vec![make(Job::Promote)],
        "backup" => vec![make(Job::Backup(Backup::default()))],
        "wait-certificates" => vec![make(Job::WaitCertificates(WaitCertificates::default()))],
        "load-test" => vec![make(Job::LoadTest(LoadTest::default()))],
        "load-test-clean-up" => vec![make(Job::LoadTestCleanUp)],
        "reap" => vec![make(Job::Reap)],
        "report" => vec![make(Job::Report)],
        "demo" => vec![make(Job::Demo(Demo {
            steps: 10,
            step_ms: 200,
            abort_at: None,
            fail_at: None,
            child: false,
            node: None,
        }))],
        other => unreachable!("the check knows every kind, also `{other}`"),
    }
}

/// The jobs that one need stands for. Between kinds that both work on nodes, a need without a
/// selector means the same node.
fn needed(
    need: &Need,
    node: Option<&NodeName>,
    chosen: &BTreeMap<&str, Vec<&Node>>,
    spec: &ClusterSpec,
) -> Vec<JobName> {
    let (kind, selector) = need.parts();
    if !per_node(kind) {
        return if is_there(kind, spec) {
            vec![JobName::of(kind, None)]
        } else {
            vec![]
        };
    }
    let of = chosen.get(kind).into_iter().flatten();
    let wanted = |candidate: &&&Node| match (selector, node) {
        (Some(selector), _) => selector.matches(candidate),
        (None, Some(node)) => candidate.name == *node,
        (None, None) => true,
    };
    of.filter(wanted)
        .map(|n| JobName::of(kind, Some(&n.name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> ClusterSpec {
        ClusterSpec::parse(include_str!("../../../deploy/examples/cluster.yaml"))
            .expect("the example is valid")
    }

    fn plan() -> Plan {
        PlanFile::parse(DEFAULT_PLAN)
            .expect("valid")
            .expand(&reference())
            .expect("valid")
    }

    #[test]
    fn the_reference_cluster_expands_to_one_job_a_node() {
        let plan = plan();
        let count = |kind: &str| {
            plan.jobs()
                .iter()
                .filter(|j| j.payload.kind() == kind)
                .count()
        };
        assert_eq!(
            (count("provision"), count("reachability"), count("mount")),
            (17, 17, 7)
        );
        assert_eq!((count("load-balancer"), count("report")), (1, 1));
    }

    #[test]
    fn nodes_are_linked_node_by_node_and_the_load_balancer_waits_for_its_backends_only() {
        let plan = plan();
        let needs = |job: &str| {
            let job = plan
                .job(&JobName::new(job).expect("valid"))
                .expect("in the plan");
            job.needs
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(needs("mount/test-cache-2"), ["reachability/test-cache-2"]);
        assert_eq!(
            needs("load-balancer"),
            [
                "provision/test-bastion-1",
                "provision/test-web-1",
                "provision/test-web-2"
            ]
        );
    }

    #[test]
    fn an_update_is_one_job_for_the_chosen_nodes_and_never_for_the_bastion() {
        let update = |entry: &str| {
            let yaml = format!("version: 1\njobs: [{{job: os-update{entry}}}]");
            let plan = PlanFile::parse(&yaml).expect("valid").expand(&reference());
            let jobs = plan.expect("valid").jobs().to_vec();
            jobs.into_iter().map(|job| job.payload).collect::<Vec<_>>()
        };
        let of = |names: &[&str]| {
            let name = |n: &&str| NodeName::new(*n).expect("valid");
            let nodes = names.iter().map(name).collect();
            let reboot = false;
            vec![Job::OsUpdate(OsUpdate { nodes, reboot })]
        };
        assert_eq!(update(""), of(&[]));
        assert_eq!(
            update(", nodes: {names: [test-cache-2, test-bastion-1]}"),
            of(&["test-cache-2"])
        );
        assert_eq!(update(", nodes: {roles: [bastion]}"), []);
    }

    #[test]
    fn bad_plans_name_the_place() {
        let check = |yaml: &str, want: &str| {
            let problems = match PlanFile::parse(yaml) {
                Err(problems) => problems,
                Ok(file) => file.expand(&reference()).expect_err(yaml),
            };
            let text = problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n");
            assert!(text.contains(want), "{yaml}: {text}");
        };
        check(
            "version: 1\njobs: [{job: warp}]",
            "jobs[0].job: `warp` is not a kind",
        );
        check(
            "version: 1\njobs: [{job: mount, needs: [provision]}]",
            "jobs[0].needs[0]: the plan has no job",
        );
        check(
            "version: 1\njobs: [{job: mount, needs: [mount]}]",
            "needs itself",
        );
        check(
            "version: 1\njobs: [{job: mount, neds: []}]",
            "unknown field `neds`",
        );
        check("version: 2\njobs: []", "version: 2 is not known");
        check(
            "version: 1\njobs: [{job: mirror-images}]",
            "jobs[0].job: `mirror-images` takes a list of images",
        );
        check(
            "version: 1\njobs: [{job: mount, nodes: {groups: [nope]}}]",
            "no switched-on group `nope`",
        );
        check(
            "version: 1\njobs: [{job: provision}, {job: provision}]",
            "stands twice",
        );
        check(
            "version: 1\njobs: [{job: remove-node}]",
            "jobs[0].job: `remove-node` takes what a plan does not say; begin it with `rekindle remove-node`",
        );
        check(
            "version: 1\njobs: [{job: provision, needs: [report]}, {job: report, needs: [provision]}]",
            "needs itself",
        );
    }
}
