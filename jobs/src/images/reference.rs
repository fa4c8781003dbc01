//! The name of an image, in full.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::is_sha256;

/// The longest name that registries take, host and all.
const LONGEST_NAME: usize = 255;
/// The longest tag.
const LONGEST_TAG: usize = 128;

/// An image by its full name: registry, repository, and a tag, a digest, or both.
///
/// Docker's short names are not taken: `nginx` means another image wherever it is read, and an import
/// under a name that Kubernetes does not ask for helps nobody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// No registry before the first `/`.
    #[error(
        "it begins with no registry; write `docker.io/library/nginx:1.28` rather than `nginx:1.28`"
    )]
    Registry,
    /// The repository is not as registries have them.
    #[error(
        "`{0}` is not a repository: it has lower-case letters, digits and single `/`, `.`, `_`, `-` between them"
    )]
    Repository(String),
    /// Neither tag nor digest.
    #[error(
        "it has neither a tag nor a digest: what `latest` is today is for nobody to say tomorrow"
    )]
    Nothing,
    /// The tag is none.
    #[error("`{0}` is not a tag: it has up to 128 letters, digits, `_`, `.` and `-`")]
    Tag(String),
    /// The digest is none.
    #[error("`{0}` is not `sha256:` and 64 lower-case digits")]
    Digest(String),
    /// Longer than registries take.
    #[error("its name has more than 255 characters")]
    TooLong,
}

impl Reference {
    /// Host of the registry, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag, if it has one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest it is bound to, if it is: `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What a node knows the image by: Kubernetes asks for one that has both tag and digest by its digest,
    /// and people ask for it by its tag.
    pub fn names(&self) -> Vec<String> {
        let name = self.name();
        let tagged = self.tag.iter().map(|tag| format!("{name}:{tag}"));
        let bound = self.digest.iter().map(|digest| format!("{name}@{digest}"));
        tagged.chain(bound).collect()
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (registry, rest) = rest.split_once('/').ok_or(BadReference::Registry)?;
        if !is_registry(registry) {
            return Err(BadReference::Registry);
        }
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if registry.len() + 1 + repository.len() > LONGEST_NAME {
            return Err(BadReference::TooLong);
        }
        if !repository.split('/').all(is_component) {
            return Err(BadReference::Repository(shown(repository)));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(BadReference::Tag(shown(tag)));
        }
        let sound = |digest: &&str| digest.strip_prefix("sha256:").is_some_and(is_sha256);
        if let Some(digest) = digest.filter(|digest| !sound(digest)) {
            return Err(BadReference::Digest(shown(digest)));
        }
        if tag.is_none() && digest.is_none() {
            return Err(BadReference::Nothing);
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

/// A host, told from the beginning of a repository by its dot or port, as docker does it.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty()
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let told = host.contains('.') || host == "localhost" || port.is_some();
    told && host.split('.').all(label)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let plain = |b: u8| word(b) || b"._-".contains(&b);
    let ends =
        |text: &str| text.bytes().next().is_some_and(word) && text.bytes().last().is_some_and(word);
    text.bytes().all(plain) && ends(text) && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=LONGEST_TAG).contains(&text.len())
        && text.bytes().all(|b| word(b) || b".-".contains(&b))
        && text.bytes().next().is_some_and(word)
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

impl TryFrom<String> for Reference {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Self, BadReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn full_names_are_read_as_they_are_written() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, names) in [
            (
                "registry.k8s.io/pause:3.10",
                vec!["registry.k8s.io/pause:3.10".to_owned()],
            ),
            (
                "localhost:5000/a/b-c__d:V1.0_x-",
                vec!["localhost:5000/a/b-c__d:V1.0_x-".into()],
            ),
            (
                &format!("quay.io/calico/node@{digest}"),
                vec![format!("quay.io/calico/node@{digest}")],
            ),
            (
                &format!("quay.io/calico/node:v3@{digest}"),
                vec![
                    "quay.io/calico/node:v3".into(),
                    format!("quay.io/calico/node@{digest}"),
                ],
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(reference.names(), names);
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        use BadReference::*;
        let long = format!("r.io/{}:1", "a".repeat(251));
        for (text, want) in [
            ("", Registry),
            ("nginx:1.28", Registry),
            ("library/nginx:1.28", Registry),
            ("https://quay.io/a:1", Registry),
            ("user@quay.io/a:1", Registry),
            ("-quay.io/a:1", Registry),
            ("quay.io:x/a:1", Registry),
            ("quay.io:0/a:1", Registry),
            ("quay.io/a", Nothing),
            ("quay.io/:1", Repository("".into())),
            ("quay.io/../a:1", Repository("../a".into())),
            ("quay.io/A:1", Repository("A".into())),
            ("quay.io/a//b:1", Repository("a//b".into())),
            ("quay.io/a b:1", Repository("a b".into())),
            ("quay.io/a:", Tag("".into())),
            ("quay.io/a:.1", Tag(".1".into())),
            ("quay.io/a:1:2", Tag("1:2".into())),
            ("quay.io/a@sha256:00", Digest("sha256:00".into())),
            ("quay.io/a@md5:00", Digest("md5:00".into())),
            ("quay.io/a:1@", Digest("".into())),
            (&long, TooLong),
        ] {
            assert_eq!(text.parse::<Reference>(), Err(want), "{text}");
        }
    }
}
