//! Where the images of one name are: a registry, and a repository there.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::Reference;

use crate::digest::Digest;
use crate::image::{BadUrl, is_loopback};

/// A repository of a registry: `oci://host/repository`, with a tag and a digest if you like. The tag is
/// for people: what is pulled is always a digest. `oci+http://` is for registries of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    secure: bool,
    reference: Reference,
    /// As it was given.
    text: String,
}

impl Repository {
    /// The digest that the URL names, if it does.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.reference.digest()?.parse().ok()
    }

    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host, and port if it is given.
    pub(super) fn registry(&self) -> &str {
        self.reference.resolve_registry()
    }

    pub(super) fn name(&self) -> &str {
        self.reference.repository()
    }

    /// Where the registry's answers are.
    pub(super) fn base(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}/v2/{}", self.registry(), self.name())
    }
}

impl FromStr for Repository {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let (secure, rest) = match (
            text.strip_prefix("oci://"),
            text.strip_prefix("oci+http://"),
        ) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(BadUrl::Repository),
        };
        let (authority, _) = rest.split_once('/').ok_or(BadUrl::Repository)?;
        let reference: Reference = rest.parse().map_err(|_| BadUrl::Repository)?;
        // Without a dot or a port, the parser takes a host for the beginning of a name.
        if reference.registry() != authority {
            return Err(BadUrl::Repository);
        }
        let host = authority
            .split_once(':')
            .map_or(authority, |(host, _)| host);
        if !secure && !is_loopback(host) {
            return Err(BadUrl::Insecure);
        }
        if reference
            .digest()
            .is_some_and(|digest| digest.parse::<Digest>().is_err())
        {
            return Err(BadUrl::Repository);
        }
        Ok(Self {
            secure,
            reference,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
