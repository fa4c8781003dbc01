//! The recovery record: which plan, which inputs, who asked for it, and the operator's flags.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterName, RecoveryId};

/// One run of a plan against a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRecord {
    /// Its id.
    pub id: RecoveryId,
    /// The cluster.
    pub cluster: ClusterName,
    /// What it was started for, in a word: `recover`, or the kind of a single job.
    pub purpose: String,
    /// The idempotency key it was started with, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What it works from, by digest.
    pub inputs: Inputs,
    /// Who asked for it.
    pub requester: Requester,
    /// When it was created.
    pub created: Timestamp,
    /// What operators asked for since.
    #[serde(default)]
    pub flags: Flags,
    /// How it ended, once it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Finished>,
}

impl RecoveryRecord {
    /// The W3C trace context of the whole recovery: one recovery is one trace across machines.
    pub fn traceparent(&self) -> String {
        let hex =
            crate::digest(format!("{}\n{}\n{}", self.cluster, self.id, self.created).as_bytes());
        format!("00-{}-{}-01", &hex[..32], &hex[32..48])
    }
}

/// SHA-256 digests of the inputs of a recovery, in lower-case hex; the bodies lie under `inputs/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Inputs {
    /// The cluster spec (YAML, as given).
    pub spec: String,
    /// The expanded plan (JSON).
    pub plan: String,
    /// The secrets it was given, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Sealed>,
    /// The objects that bootstrap Flux (YAML), if the spec has a `flux` section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flux: Option<String>,
}

/// Secrets that lie sealed among the inputs until the recovery ends; see [`crate::secrets`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sealed {
    /// The digest of the ciphertext.
    pub input: String,
    /// The names of the secrets.
    pub names: Vec<String>,
    /// Who can open them.
    pub recipient: String,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Requester {
    /// User name.
    pub user: String,
    /// Host name.
    pub host: String,
    /// Link to the CI run, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci_run: Option<String>,
}

/// Flags that operators set; honoured at every step and heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// No new steps until it is resumed; the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Jobs end at their next step; the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
}

/// The end of a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// How.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
}

/// How a recovery ended. A recovery with failed jobs has not ended: it waits for a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every job succeeded.
    Succeeded,
    /// An operator cancelled it.
    Cancelled,
}
