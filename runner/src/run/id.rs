//! The name of a run, chosen by whoever starts it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names a run, and its folder: letters, digits, `.`, `_` and `-`, at most 100, not beginning with a
/// `.` or `-`. So it is never a path, a hidden file or an option.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// The text is not the name of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the id of a run is letters, digits, `.`, `_` and `-`, at most 100, and begins with a letter or digit"
)]
pub struct BadRunId;

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let rest = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if begins && rest && text.len() <= 100 {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadRunId)
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = BadRunId;

    fn try_from(text: String) -> Result<Self, BadRunId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<std::path::Path> for RunId {
    fn as_ref(&self) -> &std::path::Path {
        self.0.as_ref()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["a", "kubespray-test.2026_11", "7", &"x".repeat(100)] {
            assert!(good.parse::<RunId>().is_ok(), "{good}");
        }
        let long = "x".repeat(101);
        for bad in [
            "", ".", "..", "../x", "a/b", ".trash", "-d", "a b", "é", "a\n", &long,
        ] {
            assert_eq!(bad.parse::<RunId>(), Err(BadRunId), "{bad:?}");
        }
    }
}
