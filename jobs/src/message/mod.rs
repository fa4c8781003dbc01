//! Job messages: the typed envelope that travels through the queue.
//!
//! A message is a wake-up, not the truth: it names a job of a recovery and repeats the job's
//! payload for people who look into the broker. Decoding is in stages, so that each kind of bad
//! input gets an error of its own and ends in the dead queue with its reason.

mod decode;
mod payload;

pub use decode::DecodeError;
pub use payload::{
    Access, AddUser, Backup, BackupKind, Change, Demo, Image, ImageTag, LoadTest, MirrorImages,
    OnNode, OsUpdate, PutSecret, Release, RemoveNode, Restore, Switch, Until, WaitCertificates,
};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterName, JobName, NodeName, RecoveryId};

/// The message schema this build writes. Newer ones are kept, not guessed at.
pub const SCHEMA: u32 = 1;

/// One job message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMessage {
    /// Version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// Message id, derived from recovery, job and turn: duplicates have the same one.
    pub id: String,
    /// The cluster the recovery belongs to.
    pub cluster: ClusterName,
    /// The recovery.
    pub recovery: RecoveryId,
    /// The job's name within the recovery.
    pub job: JobName,
    /// W3C trace context (`traceparent`), so that one recovery is one trace across machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The typed payload; its `kind` stands beside the fields above.
    #[serde(flatten)]
    pub payload: Job,
}

/// What a job is to do: one variant a kind, one file each in `worker/src/jobs/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Job {
    /// Creates or adopts one node's server, volumes and addresses.
    Provision(OnNode),
    /// Makes the load balancer and its rules right.
    LoadBalancer,
    /// Proves that SSH answers on a node with the pinned host key.
    Reachability(OnNode),
    /// Formats what we made blank, mounts one node's data volumes, proves it.
    Mount(OnNode),
    /// Sets owner, group and mode of one node's mount points.
    Permissions(OnNode),
    /// Puts container images into the bucket, for installs without the registries.
    MirrorImages(MirrorImages),
    /// Installs Kubernetes on the cluster's nodes, by Kubespray on the bastion.
    Kubespray,
    /// Takes one node out of Kubernetes, by Kubespray on the bastion.
    RemoveNode(RemoveNode),
    /// Updates the operating system of the nodes, one after the other.
    OsUpdate(OsUpdate),
    /// Gives a person access to the nodes, or takes it away.
    AddUser(AddUser),
    /// Hands the cluster over to Flux.
    FluxBootstrap,
    /// Changes the values of a release by its switch.
    Switch(Switch),
    /// Brings the database back, and the applications with it.
    Restore(Restore),
    /// Makes the restored database the one that later recoveries restore from.
    Promote,
    /// Makes a backup of the database.
    Backup(Backup),
    /// Waits until certificates are there.
    WaitCertificates(WaitCertificates),
    /// Writes keys of a Kubernetes Secret.
    Secret(PutSecret),
    /// Brings another image of an application into service, or the former one back.
    Release(Release),
    /// Loads the application from outside, with a verdict.
    LoadTest(LoadTest),
    /// Takes away what the load test made, however it ended.
    LoadTestCleanUp,
    /// Deletes what carries our label at the temporary cloud and is past its time to live.
    Reap,
    /// Writes the recovery's report.
    Report,
    /// A job without effects, to watch crash and resume by hand and to measure the engine.
    Demo(Demo),
}

/// Every kind, in the order of a recovery.
pub const KINDS: [&str; 23] = [
    "provision",
    "load-balancer",
    "reachability",
    "mount",
    "permissions",
    "mirror-images",
    "kubespray",
    "remove-node",
    "os-update",
    "add-user",
    "flux-bootstrap",
    "switch",
    "restore",
    "promote",
    "backup",
    "wait-certificates",
    "secret",
    "release",
    "load-test",
    "load-test-clean-up",
    "reap",
    "report",
    "demo",
];

impl Job {
    /// The kind's name, as in messages and plans.
    pub fn kind(&self) -> &'static str {
        match self {
            Job::Provision(_) => "provision",
            Job::LoadBalancer => "load-balancer",
            Job::Reachability(_) => "reachability",
            Job::Mount(_) => "mount",
            Job::Permissions(_) => "permissions",
            Job::MirrorImages(_) => "mirror-images",
            Job::Kubespray => "kubespray",
            Job::RemoveNode(_) => "remove-node",
            Job::OsUpdate(_) => "os-update",
            Job::AddUser(_) => "add-user",
            Job::FluxBootstrap => "flux-bootstrap",
            Job::Switch(_) => "switch",
            Job::Restore(_) => "restore",
            Job::Promote => "promote",
            Job::Backup(_) => "backup",
            Job::WaitCertificates(_) => "wait-certificates",
            Job::Secret(_) => "secret",
            Job::Release(_) => "release",
            Job::LoadTest(_) => "load-test",
            Job::LoadTestCleanUp => "load-test-clean-up",
            Job::Reap => "reap",
            Job::Report => "report",
            Job::Demo(_) => "demo",
        }
    }

    /// The node it works on, if it works on one.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Job::Provision(on) | Job::Reachability(on) | Job::Mount(on) | Job::Permissions(on) => {
                Some(&on.node)
            }
            Job::RemoveNode(remove) => Some(&remove.node),
            Job::Demo(demo) => demo.node.as_ref(),
            Job::LoadBalancer
            | Job::MirrorImages(_)
            | Job::Kubespray
            | Job::OsUpdate(_)
            | Job::AddUser(_)
            | Job::FluxBootstrap
            | Job::Switch(_)
            | Job::Restore(_)
            | Job::Promote
            | Job::Backup(_)
            | Job::WaitCertificates(_)
            | Job::Secret(_)
            | Job::Release(_)
            | Job::LoadTest(_)
            | Job::LoadTestCleanUp
            | Job::Reap
            | Job::Report => None,
        }
    }

    /// Whether it takes away what another job made: it also runs in a recovery that was cancelled, if that other
    /// job had begun.
    pub fn cleans_up(&self) -> bool {
        matches!(self, Job::LoadTestCleanUp)
    }

    /// The job's name within a recovery.
    pub fn name(&self) -> JobName {
        JobName::of(self.kind(), self.node())
    }
}

impl JobMessage {
    /// The message that wakes a worker for turn `turn` of a job.
    pub fn new(
        cluster: &ClusterName,
        recovery: &RecoveryId,
        job: JobName,
        payload: Job,
        turn: &str,
    ) -> Self {
        Self {
            schema: SCHEMA,
            id: format!("{recovery}.{job}.{turn}"),
            cluster: cluster.clone(),
            recovery: recovery.clone(),
            job,
            traceparent: None,
            payload,
        }
    }

    /// The bytes that go into the queue.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a message is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> JobMessage {
        let cluster = ClusterName::new("test").expect("valid");
        let recovery = RecoveryId::new("r-1").expect("valid");
        let payload = Job::Mount(OnNode {
            node: NodeName::new("test-web-1").expect("valid"),
        });
        JobMessage::new(&cluster, &recovery, payload.name(), payload, "3")
    }

    #[test]
    fn the_wire_format_is_stable() {
        let text = String::from_utf8(message().encode()).expect("JSON is UTF-8");
        assert_eq!(
            text,
            r#"{"schema":1,"id":"r-1.mount/test-web-1.3","cluster":"test","recovery":"r-1","job":"mount/test-web-1","kind":"mount","node":"test-web-1"}"#
        );
        assert_eq!(JobMessage::decode(text.as_bytes()), Ok(message()));
    }

    #[test]
    fn bad_messages_say_what_is_wrong() {
        let check = |body: &str, want: &str| {
            let error = JobMessage::decode(body.as_bytes())
                .expect_err(body)
                .to_string();
            assert!(error.contains(want), "{body}: {error}");
        };
        check("hello", "not a JSON object");
        check("[]", "it is an array");
        check("{}", "field `schema`: it is missing");
        check(r#"{"schema":2,"kind":"warp"}"#, "has schema 2");
        check(r#"{"schema":1}"#, "field `kind`: it is missing");
        check(r#"{"schema":1,"kind":"warp"}"#, "unknown kind `warp`");
        check(r#"{"schema":1,"kind":"mount"}"#, "missing field");
        let good = String::from_utf8(message().encode()).expect("JSON is UTF-8");
        check(
            &good.replace("\"node\":\"test-web-1\"", "\"node\":\"../etc\""),
            "field `node`: `../etc` is not a valid node name",
        );
        let mirror = r#"{"schema":1,"id":"x","cluster":"test","recovery":"r-1","job":"mirror-images","kind":"mirror-images"#;
        check(&format!("{mirror}\"}}"), "field `images`");
        check(
            &format!("{mirror}\",\"images\":\"../etc\"}}"),
            "field `images`: `../etc` is not 64 lower-case digits",
        );
        check(
            &format!(
                "{mirror}\",\"images\":\"{}\",\"platforms\":[\"vax\"]}}",
                "0a".repeat(32)
            ),
            "field `platforms[0]`: `vax` is not a platform",
        );
        check(
            &good.replace("\"cluster\":\"test\"", "\"cluster\":7"),
            "cluster",
        );
        check(
            &good.replace("\"node\":\"test-web-1\"", "\"node\":\"test-web-2\""),
            "field `job`",
        );
    }

    #[test]
    fn every_kind_has_its_name() {
        for kind in KINDS {
            let value = serde_json::json!({
                "kind": kind, "node": "test-web-1", "steps": 1, "name": "ann", "access": "revoke",
                "images": "0a".repeat(32), "change": {"freeze": {"application": "slr"}},
                "secret": "pg/keys", "keys": {}, "application": "slr", "image": "former",
            });
            let job: Job = serde_json::from_value(value).expect(kind);
            assert_eq!(job.kind(), kind);
        }
    }
}
