//! What an image is built for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A platform of Linux, as registries call it: `linux/amd64`, `linux/arm64` or `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform(String);

/// Not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform; one is written `linux/amd64`")]
pub struct BadPlatform(String);

impl Platform {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self("linux/amd64".into())
    }
}

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Self, BadPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            (1..=16).contains(&part.len()) && part.bytes().all(plain)
        };
        match parts.as_slice() {
            ["linux", _] | ["linux", _, _] if parts.iter().all(word) => Ok(Self(text.to_owned())),
            _ => Err(BadPlatform(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for Platform {
    type Error = BadPlatform;

    fn try_from(text: String) -> Result<Self, BadPlatform> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.0
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_those_of_linux() {
        for good in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
            assert_eq!(good.parse::<Platform>().map(String::from), Ok(good.into()));
        }
        for bad in [
            "",
            "amd64",
            "linux/",
            "linux/AMD64",
            "windows/amd64",
            "linux/a/b/c",
            "linux/../x",
        ] {
            assert_eq!(
                bad.parse::<Platform>(),
                Err(BadPlatform(bad.into())),
                "{bad}"
            );
        }
    }
}
