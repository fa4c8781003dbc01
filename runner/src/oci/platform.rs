//! What an image is built for.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::Arch;

/// A platform of Linux: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub(super) architecture: Arch,
    pub(super) variant: Option<String>,
}

/// Not a platform of Linux.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a platform is written `linux/amd64`")]
pub struct BadPlatform;

impl Platform {
    /// What this host is.
    #[must_use]
    pub fn host() -> Self {
        Self {
            architecture: Arch::default(),
            variant: None,
        }
    }
}

impl FromStr for Platform {
    type Err = BadPlatform;

    fn from_str(text: &str) -> Result<Self, BadPlatform> {
        let rest = text.strip_prefix("linux/").ok_or(BadPlatform)?;
        let (architecture, variant) = match rest.split_once('/') {
            Some((architecture, variant)) => (architecture, Some(variant)),
            None => (rest, None),
        };
        if architecture.is_empty()
            || variant.is_some_and(|variant| variant.is_empty() || variant.contains('/'))
        {
            return Err(BadPlatform);
        }
        Ok(Self {
            architecture: Arch::from(architecture),
            variant: variant.map(str::to_owned),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_as_they_are_written() {
        for text in ["linux/amd64", "linux/arm/v7", "linux/riscv64"] {
            let shown = text
                .parse::<Platform>()
                .map(|platform| platform.to_string());
            assert_eq!(shown, Ok(text.to_owned()));
        }
        for text in [
            "",
            "linux",
            "linux/",
            "windows/amd64",
            "linux/arm/",
            "linux/arm/v7/x",
        ] {
            assert_eq!(text.parse::<Platform>(), Err(BadPlatform), "{text}");
        }
    }
}
