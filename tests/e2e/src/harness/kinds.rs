//! What each kind of job is tried on: a small cluster, and the jobs that come before it.
//!
//! A new kind gets its line in `before`; the compiler asks for it.

use std::collections::BTreeMap;

use jobs::ids::{JobName, NodeName};
use jobs::images::Platform;
use jobs::message::{
    Access, AddUser, Change, Demo, Job, MirrorImages, OnNode, OsUpdate, PutSecret, RemoveNode,
    Switch, WaitCertificates,
};
use jobs::plan::PlannedJob;
use jobs::record::{JobRecord, StepRecord};
use jobs::user::{PublicKey, UserName};

/// What stands for the image that Kubespray is in; SPEC has its digest.
pub const IMAGE: &[u8] = b"an image with Kubespray in it";

/// A person's key.
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBy8J3iJeCBE41pd2kUsu1S5DV2Vh7uC9zYMFjlhUUyZ ann";

/// The images that are mirrored: what the Kubernetes of SPEC needs.
pub const IMAGES: &str = "registry.k8s.io/kube-apiserver:v1.33.7
registry.k8s.io/kube-controller-manager:v1.33.7
registry.k8s.io/kube-scheduler:v1.33.7
registry.k8s.io/kube-proxy:v1.33.7
registry.k8s.io/pause:3.10
registry.k8s.io/coredns/coredns:v1.12.0
quay.io/calico/node:v3.30.5
quay.io/calico/cni:v3.30.5
quay.io/calico/kube-controllers:v3.30.5
";

/// The names of the secrets that a recovery is given.
pub const SECRETS: [&str; 2] = ["DEMO_TOKEN", "DEMO_KEY"];

/// A certificate that is there.
pub const CERTIFICATE: &str = "default/demo-tls";

/// Kinds that operators answer. They act by themselves, so no two runs make the same calls, and no points can be taken
/// from one: their workers are killed step by step in `heavy_whole` and `load_yandex` instead, while the API stumbles.
pub const PLAYED: [&str; 8] = [
    "flux-bootstrap",
    "restore",
    "promote",
    "backup",
    "release",
    "load-test",
    "load-test-clean-up",
    "reap",
];

/// A node with data disks, one without, a master, and the bastion in front of them.
pub const SPEC: &str = "version: 1
cluster: demo
servers:
  image: { distribution: ubuntu, version: \"22.04\" }
  keypair: rekindle-demo
load_balancer: {}
kubernetes:
  version: \"1.33.7\"
  kubespray: \"2.29.1\"
  image: { digest: \"sha256:9c6976b9a9563ca14b8dfbd253b6d6d15c7264c6ad0bdb670407cd651e2ebb4d\", key: kubespray }
  extra_vars:
    enable_nodelocaldns: false
    enable_dns_autoscaler: false
    metrics_server_enabled: false
    local_volume_provisioner_enabled: false
    loadbalancer_apiserver_localhost: false
groups:
  - prefix: cache
    role: worker
    instances: { 1: true }
    vcpus: 2
    ram_gb: 2
    boot_disk: { size_gb: 20 }
    data_disks:
      - { name: data, size_gb: 10, mount: /mnt/disks/data, owner: 1000, group: 1000, mode: \"0750\" }
      - { name: scratch, size_gb: 5, mount: /mnt/disks/scratch, storage: local }
    labels: { cachenode: \"yes\" }
    taints: [\"cachetaint=yes:NoSchedule\"]
  - prefix: spare
    role: worker
    instances: { 1: true }
    vcpus: 2
    ram_gb: 2
    boot_disk: { size_gb: 20 }
  - prefix: master
    role: master
    instances: { 1: true }
    vcpus: 2
    ram_gb: 4
    boot_disk: { size_gb: 20 }
  - prefix: bastion
    role: bastion
    instances: { 1: true }
    vcpus: 2
    ram_gb: 2
    boot_disk: { size_gb: 20 }
    forward: [{ port: 2205, to: 22 }]
";

/// A job to be tried, and the plan around it.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The job.
    pub job: PlannedJob,
    /// All jobs: those that it needs, the job, and one that follows it.
    pub plan: Vec<PlannedJob>,
    /// The one that follows.
    pub follower: JobName,
    /// The machines have a Kubernetes before the job begins, by no job of ours.
    pub kubernetes: bool,
}

/// How a kind is tried.
pub fn scenario(kind: &str) -> Option<Scenario> {
    let job = every_kind().into_iter().find(|job| job.kind() == kind)?;
    let mut plan = Vec::new();
    for payload in before(&job) {
        // In a row, so that the world they leave is always the same.
        let needs: Vec<JobName> = plan.iter().map(|p: &PlannedJob| p.name.clone()).collect();
        plan.push(planned(payload, needs));
    }
    let needs = plan.iter().map(|p| p.name.clone()).collect();
    let mut job = planned(job, needs);
    job.always = matches!(job.payload, Job::Report);
    let after = planned(demo("after", 1), vec![job.name.clone()]);
    let follower = after.name.clone();
    plan.extend([job.clone(), after]);
    let kubernetes = finds_kubernetes(&job.payload);
    Some(Scenario {
        kubernetes,
        job,
        plan,
        follower,
    })
}

/// One job of every kind.
pub fn every_kind() -> Vec<Job> {
    let on = |node: &str| OnNode {
        node: NodeName::new(node).expect("a good name"),
    };
    vec![
        Job::Provision(on("demo-cache-1")),
        Job::LoadBalancer,
        Job::Reachability(on("demo-cache-1")),
        Job::Mount(on("demo-cache-1")),
        Job::Permissions(on("demo-cache-1")),
        Job::MirrorImages(MirrorImages {
            images: jobs::digest(IMAGES.as_bytes()),
            platforms: vec![Platform::default()],
            read_all: true,
        }),
        Job::Kubespray,
        Job::RemoveNode(RemoveNode {
            node: NodeName::new("demo-spare-1").expect("a good name"),
            dead: false,
        }),
        Job::OsUpdate(OsUpdate::default()),
        Job::AddUser(AddUser {
            name: UserName::new("ann").expect("a good name"),
            access: Access::Grant {
                key: PublicKey::parse(KEY).expect("a good key"),
                sudo: true,
            },
            nodes: Vec::new(),
        }),
        Job::Switch(Switch {
            change: Change::Values {
                switch: "default/demo-values-switch".parse().expect("a good name"),
                values: [("frozen".to_owned(), true.into())].into_iter().collect(),
                release: None,
            },
        }),
        Job::WaitCertificates(WaitCertificates {
            certificates: vec![CERTIFICATE.parse().expect("a good name")],
        }),
        Job::Secret(PutSecret {
            secret: "default/demo-keys".parse().expect("a good name"),
            keys: SECRETS
                .map(|name| (name.to_lowercase(), name.to_owned()))
                .into(),
        }),
        Job::Report,
        demo("tried", 4),
    ]
}

/// What has to be done before a job of this kind.
fn before(job: &Job) -> Vec<Job> {
    let on = |node: &str| OnNode {
        node: NodeName::new(node).expect("a good name"),
    };
    let reachable = || {
        vec![
            Job::Provision(on("demo-bastion-1")),
            Job::Provision(on("demo-cache-1")),
            Job::LoadBalancer,
        ]
    };
    let machines = || {
        let mut machines = reachable();
        machines.push(Job::Provision(on("demo-spare-1")));
        machines.push(Job::Provision(on("demo-master-1")));
        machines
    };
    match job {
        Job::Provision(_) | Job::MirrorImages(_) | Job::Reap | Job::Demo(_) => Vec::new(),
        Job::LoadBalancer => vec![Job::Provision(on("demo-bastion-1"))],
        Job::Reachability(_) | Job::Mount(_) | Job::LoadTest(_) | Job::LoadTestCleanUp => {
            reachable()
        }
        Job::Permissions(on) => {
            let mut before = reachable();
            before.push(Job::Mount(on.clone()));
            before
        }
        Job::Kubespray
        | Job::AddUser(_)
        | Job::Switch(_)
        | Job::WaitCertificates(_)
        | Job::Secret(_) => machines(),
        Job::RemoveNode(_)
        | Job::OsUpdate(_)
        | Job::FluxBootstrap
        | Job::Restore(_)
        | Job::Promote
        | Job::Backup(_)
        | Job::Release(_) => {
            let mut before = machines();
            before.push(Job::Kubespray);
            before
        }
        Job::Report => vec![demo("before", 2)],
    }
}

/// Whether a job of this kind finds a Kubernetes that nobody had to install: what asks the API alone need
/// not wait for Kubespray. The machines must be in `before`.
fn finds_kubernetes(job: &Job) -> bool {
    match job {
        Job::Switch(_) | Job::WaitCertificates(_) | Job::Secret(_) => true,
        Job::Provision(_)
        | Job::LoadBalancer
        | Job::Reachability(_)
        | Job::Mount(_)
        | Job::Permissions(_)
        | Job::MirrorImages(_)
        | Job::Kubespray
        | Job::RemoveNode(_)
        | Job::OsUpdate(_)
        | Job::AddUser(_)
        | Job::FluxBootstrap
        | Job::Restore(_)
        | Job::Promote
        | Job::Backup(_)
        | Job::Release(_)
        | Job::LoadTest(_)
        | Job::LoadTestCleanUp
        | Job::Reap
        | Job::Report
        | Job::Demo(_) => false,
    }
}

/// The steps of a job as they count when two runs are compared. A host key that dies with its worker
/// costs an attempt at the server that leaves nothing behind, so such attempts are left out and
/// the numbers of attempts do not count.
pub fn steps_that_count(record: &JobRecord) -> BTreeMap<String, &StepRecord> {
    let attempt = |key: &str| key.rsplit_once('/').map_or("", |(_, n)| n).to_owned();
    let of_server = |key: &str| {
        let name = key.split('/').next().unwrap_or_default();
        matches!(record.payload, Job::Provision(_))
            && ["server-intent", "server", "active", "discard", "discarded"].contains(&name)
    };
    let empty: Vec<String> = record
        .steps
        .iter()
        .filter(|(key, step)| key.as_str().starts_with("server/") && step.output.is_null())
        .map(|(key, _)| attempt(key.as_str()))
        .collect();
    let steps = record.steps.iter().map(|(key, step)| (key.as_str(), step));
    steps
        .filter(|(key, _)| !(of_server(key) && empty.contains(&attempt(key))))
        .map(|(key, step)| match key.split_once('/') {
            Some((name, _)) if of_server(key) => (format!("{name}/*"), step),
            _ => (key.to_owned(), step),
        })
        .collect()
}

fn planned(payload: Job, needs: Vec<JobName>) -> PlannedJob {
    PlannedJob {
        name: payload.name(),
        payload,
        needs,
        always: false,
    }
}

fn demo(name: &str, steps: u32) -> Job {
    Job::Demo(Demo {
        steps,
        step_ms: 0,
        abort_at: None,
        fail_at: None,
        child: false,
        node: Some(NodeName::new(name).expect("a good name")),
    })
}

#[cfg(test)]
mod tests {
    use jobs::message::KINDS;

    use super::*;

    #[test]
    fn every_kind_is_tried() {
        for kind in KINDS {
            let played = PLAYED.contains(&kind);
            assert!(
                scenario(kind).is_some() != played,
                "add {kind} to `every_kind`"
            );
        }
    }
}
