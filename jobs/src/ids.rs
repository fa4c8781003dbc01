//! Names and ids as types of their own, checked where they enter the system.
//!
//! They become parts of S3 keys, host names and cloud resource names, so what they may contain is
//! what all of those allow: DNS labels (RFC 1123).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {rule}")]
pub struct BadName {
    /// What it should have been.
    pub what: &'static str,
    /// The text, cut to 80 characters.
    pub text: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(rule) => Err(BadName { what: $what, text: text.chars().take(80).collect(), rule }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A cluster's name: a DNS label of at most 30 characters, since node names build on it.
    ClusterName, "cluster name", |s| label(s, 30)
);
name!(
    /// A node's name, `<cluster>-<prefix>-<n>`: a DNS label.
    NodeName, "node name", |s| label(s, 63)
);
name!(
    /// A recovery's id: a DNS label, unique within its cluster.
    RecoveryId, "recovery id", |s| label(s, 63)
);
name!(
    /// A job's name within its recovery: `kind` or `kind/node`.
    JobName, "job name", |s| {
        let mut parts = s.split('/');
        label(parts.next().unwrap_or_default(), 63)?;
        parts.next().map_or(Ok(()), |node| label(node, 63))?;
        parts.next().map_or(Ok(()), |_| Err("it has at most one `/`"))
    }
);
name!(
    /// A step's key within its job, `name` or `name/what`. Keys are stored and never renamed.
    StepKey, "step key", |s| {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
        if s.is_empty() || s.len() > 200 { Err("it has 1 to 200 characters") }
        else if s.chars().all(fine) { Ok(()) }
        else { Err("it has letters, digits, `-`, `_`, `.`, `:` and `/` only") }
    }
);

name!(
    /// The name of a Kubernetes object: a DNS subdomain as RFC 1123 has it.
    ObjectName, "Kubernetes name", |s| {
        if s.len() > 253 { return Err("it is too long") }
        s.split('.').try_for_each(|part| label(part, 63))
    }
);

impl RecoveryId {
    /// A fresh random id.
    pub fn random() -> Self {
        let hex = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("r-{}", &hex[..12]))
    }

    /// The id that belongs to an idempotency key: the same key of the same cluster is the same recovery.
    pub fn from_key(cluster: &ClusterName, key: &str) -> Self {
        let hex = crate::digest(format!("{cluster}\n{key}").as_bytes());
        Self(format!("r-{}", &hex[..12]))
    }
}

impl JobName {
    /// The name of a job of `kind`, for one node or for the whole cluster.
    pub fn of(kind: &str, node: Option<&NodeName>) -> Self {
        match node {
            Some(node) => Self(format!("{kind}/{node}")),
            None => Self(kind.to_owned()),
        }
    }
}

impl StepKey {
    /// The key of a wait, a proof or a step of many: `name/what`.
    ///
    /// # Panics
    /// When the parts make no valid key: keys are written by us, in the code of a job.
    pub fn of(name: &str, what: impl fmt::Display) -> Self {
        Self::new(format!("{name}/{what}")).expect("step keys are made of names and ids")
    }
}

impl From<&'static str> for StepKey {
    fn from(name: &'static str) -> Self {
        Self::new(name).expect("step keys in the code are valid")
    }
}

impl<T: fmt::Display> From<(&'static str, T)> for StepKey {
    fn from((name, what): (&'static str, T)) -> Self {
        Self::of(name, what)
    }
}

/// A DNS label as RFC 1123 has it, in lower case.
fn label(text: &str, most: usize) -> Result<(), &'static str> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err("it is empty");
    }
    if bytes.len() > most {
        return Err("it is too long");
    }
    if !bytes.iter().all(|b| inner(*b)) {
        return Err("it has lower-case letters, digits and `-` only");
    }
    if bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
        return Err("it begins and ends with a letter or digit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "test", "test-web-1", "0a"] {
            assert!(NodeName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "a/b",
            "../x",
            &"a".repeat(64),
        ] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn job_names_have_at_most_one_slash() {
        assert!(JobName::new("mount/test-web-1").is_ok());
        for bad in ["mount/", "/mount", "a/b/c", "Mount"] {
            assert!(JobName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_same_key_is_the_same_recovery_of_its_cluster_only() {
        let (a, b) = (
            ClusterName::new("a").expect("valid"),
            ClusterName::new("b").expect("valid"),
        );
        assert_eq!(
            RecoveryId::from_key(&a, "ci-1"),
            RecoveryId::from_key(&a, "ci-1")
        );
        assert_ne!(
            RecoveryId::from_key(&a, "ci-1"),
            RecoveryId::from_key(&b, "ci-1")
        );
    }
}
