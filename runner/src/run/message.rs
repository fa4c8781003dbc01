//! What travels between a command and a supervisor: one JSON document a line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::id::RunId;
use super::request::Request;

/// Everything that a new supervisor needs. It comes through a socket, because others can read arguments
/// and the environment.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) store: PathBuf,
    pub(crate) id: RunId,
    pub(crate) attempt: u32,
    pub(crate) request: Request,
    pub(crate) secrets: BTreeMap<String, Hidden>,
    /// The most bytes of the log that are kept.
    pub(crate) log_limit: u64,
}

/// A secret on its way: hexadecimal digits, because JSON has no bytes. No copy of it stays in memory.
pub(crate) struct Hidden(pub(crate) Zeroizing<Vec<u8>>);

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Digits need no escape, so they are read where they stand.
        let digits = <&str>::deserialize(deserializer)?;
        let mut contents = Zeroizing::new(vec![0; digits.len() / 2]);
        hex::decode_to_slice(digits, &mut contents)
            .map_err(|_| D::Error::custom("a secret did not arrive whole"))?;
        Ok(Self(contents))
    }
}

/// What a new supervisor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// It is a process of its own now. Nothing was started yet.
    Here,
    /// The program runs, and that is on record.
    Started,
    /// Nothing runs, and nothing is left.
    Failed(String),
}

/// What a command may ask of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// TERM now, and KILL when it still runs after the time.
    Stop {
        /// How long.
        grace_ms: u64,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It is being done.
    Done,
    /// It cannot be done.
    Failed(String),
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_secret_arrives_as_it_was_sent_and_an_error_does_not_repeat_it() {
        for secret in [&b""[..], b"x", b"\0\xff\n\"", &[7; 100_000]] {
            let text = serde_json::to_vec(&Hidden(secret.to_vec().into())).unwrap();
            let arrived: Hidden = serde_json::from_slice(&text).unwrap();
            assert_eq!(*arrived.0, secret);
        }
        for bad in [r#""686""#, r#""hunter2!""#] {
            let error = serde_json::from_str::<Hidden>(bad).err().unwrap();
            assert!(error.to_string().contains("did not arrive"), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
