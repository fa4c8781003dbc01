//! What each kind of job is told: plain data, checked as it is read.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::ids::{NodeName, ObjectName};
use crate::images::{Platform, is_sha256};
use crate::spec::{Driver, Namespaced};
use crate::user::{PublicKey, UserName};

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

/// A load test. What is absent is as the spec has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoadTest {
    /// Digest of a k6 script below `inputs/`: 64 digits; our own script when absent.
    #[serde(
        default,
        deserialize_with = "maybe_digits",
        skip_serializing_if = "Option::is_none"
    )]
    pub script: Option<String>,
    /// Where the load comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Driver>,
    /// What is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How many virtual users there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_users: Option<NonZeroU32>,
    /// How often each of them goes through the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<NonZeroU32>,
    /// How many runners share the virtual users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<NonZeroU32>,
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

fn maybe_digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    digits(deserializer).map(Some)
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
