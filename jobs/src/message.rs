//! Job messages: the typed envelope that travels through the queue.
//!
//! A message is a wake-up, not the truth: it names a job of a recovery and repeats the job's
//! payload for people who look into the broker. Decoding is in stages, so that each kind of bad
//! input gets an error of its own and ends in the dead queue with its reason.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::cut::cut;
use crate::ids::{ClusterName, JobName, NodeName, ObjectName, RecoveryId};
use crate::images::{Platform, is_sha256};
use crate::spec::Namespaced;
use crate::user::{PublicKey, UserName};

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
    /// Writes the recovery's report.
    Report,
    /// A job without effects, to watch crash and resume by hand and to measure the engine.
    Demo(Demo),
}

/// A job that works on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnNode {
    /// The node.
    pub node: NodeName,
}

/// Takes a node out of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveNode {
    /// The node.
    pub node: NodeName,
    /// Its machine is gone or does not answer: it is taken out without a word to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
}

/// Updates operating systems.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OsUpdate {
    /// Which nodes; all but the bastion when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
    /// Each node is rebooted, also when no package wants it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reboot: bool,
}

/// Gives access, or takes it away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddUser {
    /// The account.
    pub name: UserName,
    /// What it may.
    pub access: Access,
    /// On which nodes; all, the bastion too, when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
}

/// What an account may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Log in with this key, and no other one.
    Grant {
        /// The key.
        key: PublicKey,
        /// Become root.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        sudo: bool,
    },
    /// Nothing any more. Its files stay.
    Revoke,
}

/// Which images are mirrored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorImages {
    /// Digest of the list of images below `inputs/`: 64 digits.
    #[serde(deserialize_with = "digits")]
    pub images: String,
    /// For which platforms.
    #[serde(default = "usual_platforms")]
    pub platforms: Vec<Platform>,
    /// Whether the proof reads every byte back, and not those of a sample.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_all: bool,
}

/// Changes the values of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// What is changed.
    pub change: Change,
}

/// A change of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// An application of the spec is stopped.
    Freeze {
        /// Its name.
        application: ObjectName,
    },
    /// An application of the spec runs.
    Thaw {
        /// Its name.
        application: ObjectName,
    },
    /// These values are merged into a switch, key by key; `null` takes a key away.
    Values {
        /// The switch.
        switch: Namespaced,
        /// The values.
        values: Map<String, Value>,
        /// The HelmRelease in the same namespace that is to take them at once, if one is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<ObjectName>,
    },
}

/// Another image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The application, by its name in the spec.
    pub application: ObjectName,
    /// Which one.
    pub image: Image,
}

/// Which image of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Image {
    /// The one with this tag.
    Tag(ImageTag),
    /// The one before the last release.
    Former,
}

/// An image's tag: 1 to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`, as the
/// OCI distribution spec has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageTag(String);

impl ImageTag {
    /// The tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ImageTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let sound = (1..=128).contains(&text.len())
            && text.bytes().all(fits)
            && !text.starts_with(['.', '-']);
        match sound {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("`{text:.80}` is not an image tag")),
        }
    }
}

impl TryFrom<String> for ImageTag {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ImageTag> for String {
    fn from(tag: ImageTag) -> String {
        tag.0
    }
}

/// Which backup is restored, and how far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restore {
    /// The label of a set; the newest that fits when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// How far recovery goes.
    #[serde(default)]
    pub until: Until,
    /// When the database was lost; when the recovery was declared, if absent. What is lost is counted from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// Go on although segments are missing in the middle of the WAL, and lose what lies behind them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_gap: bool,
}

/// How far recovery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// To the end of the archived WAL.
    #[default]
    End,
    /// Only until the set is consistent.
    Consistent,
    /// To a moment.
    Time(Timestamp),
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backup {
    /// What it holds.
    #[serde(default, rename = "type")]
    pub kind: BackupKind,
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// All of the database.
    #[default]
    Full,
    /// What changed since the last full one.
    Differential,
    /// What changed since the last one.
    Incremental,
}

/// Certificates to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WaitCertificates {
    /// Which; those of the spec when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Namespaced>,
}

/// Keys of a Kubernetes Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSecret {
    /// The Secret.
    pub secret: Namespaced,
    /// Its keys, each with the name of the sealed secret that is its value. Other keys stay.
    pub keys: BTreeMap<String, String>,
}

fn usual_platforms() -> Vec<Platform> {
    vec![Platform::default()]
}

fn digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match is_sha256(&text) {
        true => Ok(text),
        false => {
            let shown: String = text.chars().take(80).collect();
            Err(D::Error::custom(format!(
                "`{shown}` is not 64 lower-case digits"
            )))
        }
    }
}

/// The payload of a demo job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demo {
    /// How many steps it has.
    pub steps: u32,
    /// How long each step takes, in milliseconds.
    #[serde(default)]
    pub step_ms: u64,
    /// The step (from 0) at which the worker process aborts, to watch a quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_at: Option<u32>,
    /// The step (from 0) that fails for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_at: Option<u32>,
    /// Each step spends its time in a program of its own, to watch what becomes of one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub child: bool,
    /// Tells several demo jobs of one plan apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
}

/// Every kind, in the order of a recovery.
pub const KINDS: [&str; 20] = [
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
            | Job::Report => None,
        }
    }

    /// The job's name within a recovery.
    pub fn name(&self) -> JobName {
        JobName::of(self.kind(), self.node())
    }
}

/// Why a delivery is not a job message we can act on. The worker dead-letters it with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not a JSON object.
    #[error("the message is not a JSON object: {0}")]
    NotJson(String),
    /// Written by a newer Rekindle.
    #[error(
        "the message has schema {found}, this worker knows up to {SCHEMA}: update the worker, then `rekindle retry`"
    )]
    NewerSchema {
        /// The schema it claims.
        found: u64,
    },
    /// A kind this build does not have.
    #[error("the message is of unknown kind `{found}`; known kinds: {}", KINDS.join(", "))]
    UnknownKind {
        /// The kind it claims.
        found: String,
    },
    /// A field is missing or wrong.
    #[error("field `{field}`: {reason}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        reason: String,
    },
}

/// Errors quote the message and do not repeat it; in bytes.
const LONGEST_REASON: usize = 500;

impl DecodeError {
    fn field(field: String, reason: String) -> Self {
        Self::Field {
            field: cut(field, LONGEST_REASON),
            reason: cut(reason, LONGEST_REASON),
        }
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

    /// Reads a message; see [`DecodeError`] for what can be wrong.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let value: Value =
            serde_json::from_slice(body).map_err(|e| DecodeError::NotJson(e.to_string()))?;
        let Some(object) = value.as_object() else {
            return Err(DecodeError::NotJson(format!("it is {}", kind_of(&value))));
        };
        let field = |name: &str, reason: String| DecodeError::field(name.to_owned(), reason);
        match object.get("schema") {
            None => return Err(field("schema", "it is missing".into())),
            Some(schema) => match schema.as_u64() {
                None => return Err(field("schema", "it is not a whole number".into())),
                Some(0) => return Err(field("schema", "schemas count from 1".into())),
                Some(found) if found > u64::from(SCHEMA) => {
                    return Err(DecodeError::NewerSchema { found });
                }
                Some(_) => {}
            },
        }
        match object.get("kind").map(Value::as_str) {
            None => return Err(field("kind", "it is missing".into())),
            Some(None) => return Err(field("kind", "it is not a text".into())),
            Some(Some(kind)) if !KINDS.contains(&kind) => {
                return Err(DecodeError::UnknownKind {
                    found: kind.chars().take(80).collect(),
                });
            }
            Some(Some(_)) => {}
        }
        let message: JobMessage = serde_path_to_error::deserialize(&value).map_err(|e| {
            let path = e.path().to_string();
            let reason = e.into_inner().to_string();
            match path.as_str() {
                "." => wrong_in_payload(&value).unwrap_or_else(|| {
                    let field = named_field(&reason).unwrap_or_else(|| "payload".into());
                    DecodeError::field(field, reason)
                }),
                _ => DecodeError::field(path, reason),
            }
        })?;
        if message.job != message.payload.name() {
            let reason = format!(
                "`{}` is not the name of this payload, `{}`",
                message.job,
                message.payload.name()
            );
            return Err(field("job", reason));
        }
        Ok(message)
    }
}

/// Which field of the payload is wrong. serde reads payloads by way of a buffer that forgets the
/// path, so it is read once more as what its kind says.
fn wrong_in_payload(value: &Value) -> Option<DecodeError> {
    let wrong = match value.get("kind")?.as_str()? {
        "demo" => serde_path_to_error::deserialize::<_, Demo>(value).err()?,
        "mirror-images" => serde_path_to_error::deserialize::<_, MirrorImages>(value).err()?,
        "provision" | "reachability" | "mount" | "permissions" => {
            serde_path_to_error::deserialize::<_, OnNode>(value).err()?
        }
        "remove-node" => serde_path_to_error::deserialize::<_, RemoveNode>(value).err()?,
        "os-update" => serde_path_to_error::deserialize::<_, OsUpdate>(value).err()?,
        "add-user" => serde_path_to_error::deserialize::<_, AddUser>(value).err()?,
        "switch" => serde_path_to_error::deserialize::<_, Switch>(value).err()?,
        "restore" => serde_path_to_error::deserialize::<_, Restore>(value).err()?,
        "backup" => serde_path_to_error::deserialize::<_, Backup>(value).err()?,
        "wait-certificates" => {
            serde_path_to_error::deserialize::<_, WaitCertificates>(value).err()?
        }
        "secret" => serde_path_to_error::deserialize::<_, PutSecret>(value).err()?,
        "release" => serde_path_to_error::deserialize::<_, Release>(value).err()?,
        _ => return None,
    };
    let path = wrong.path().to_string();
    let reason = wrong.into_inner().to_string();
    let field = if path == "." {
        named_field(&reason)?
    } else {
        path
    };
    Some(DecodeError::field(field, reason))
}

/// serde names the field of "missing field `x`" only in its text.
fn named_field(reason: &str) -> Option<String> {
    let rest = reason.strip_prefix("missing field `")?;
    Some(rest.split('`').next()?.to_owned())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
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
