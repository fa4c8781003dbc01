//! A recovery's secrets, sealed to the workers with age: what CI gives travels and lies as ciphertext
//! only, and only a worker that holds the identity can open it.
//!
//! All of them are one file. It says inside which cluster it is for, so that nobody who can write to
//! the bucket can hand one cluster's secrets to another's recovery.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::ids::ClusterName;
use crate::store::Secret;

/// Version of what is inside.
const VERSION: u32 = 1;
/// The longest name of a secret, in bytes.
const LONGEST_NAME: usize = 64;
/// The largest secret, in bytes: keys, tokens and small files.
pub const LARGEST: usize = 256 * 1024;

/// What secrets are sealed to: the public half. It is no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(age::x25519::Recipient);

/// What opens them: the private half, which only workers have.
#[derive(Clone)]
pub struct Identity(age::x25519::Identity);

/// Secrets by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets(BTreeMap<String, Secret>);

/// What is wrong with keys, names, or a sealed file. No text of it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// Not a public key of age.
    #[error(
        "`{0}` is no age recipient: it begins with `age1` and stands in the file of `rekindle keygen`"
    )]
    Recipient(String),
    /// Not a private key of age. What it is instead is not repeated.
    #[error(
        "there is no age identity in it: a line that begins with `AGE-SECRET-KEY-1`, as `rekindle keygen` writes it"
    )]
    Identity,
    /// More than one: which one is meant only a person can say.
    #[error("there are {0} age identities in it, and one is wanted")]
    Identities(usize),
    /// A name that cannot be one of an environment variable.
    #[error("`{0}` is no name of a secret: up to 64 of A-Z, 0-9 and `_`, a letter first")]
    Name(String),
    /// The same name twice.
    #[error("the secret {0} is given twice")]
    Twice(String),
    /// Nothing in it.
    #[error("the secret {0} is empty")]
    Empty(String),
    /// Too much in it.
    #[error("the secret {0} has more than {LARGEST} bytes")]
    Large(String),
    /// Sealed to somebody else.
    #[error("they are sealed to another key than this worker's, {0}")]
    OtherKey(String),
    /// Changed, cut off, or never a sealed file.
    #[error("the sealed file is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a newer Rekindle.
    #[error("the sealed file has version {0}, this build knows up to {VERSION}: update the worker")]
    Newer(u32),
    /// Somebody put another cluster's in this one's place.
    #[error("they are those of cluster `{0}`")]
    OtherCluster(ClusterName),
    /// Sealing itself.
    #[error("failed to seal the secrets: {0}")]
    Seal(String),
}

#[derive(Serialize, Deserialize)]
struct Inside {
    version: u32,
    cluster: ClusterName,
    secrets: BTreeMap<String, String>,
}

impl Identity {
    /// A new one.
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Its public half.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// The text of an identity file, as `age-keygen` writes it: for one file that only its owner reads.
    pub fn to_file(&self) -> Secret {
        let (public, key) = (self.recipient(), self.0.to_string());
        Secret::new(format!("# public key: {public}\n{}\n", key.expose_secret()))
    }
}

/// Reads an identity file: comments, and one key.
impl FromStr for Identity {
    type Err = SecretsError;

    fn from_str(text: &str) -> Result<Self, SecretsError> {
        let lines = text.lines().map(str::trim);
        let keys: Vec<&str> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        match keys[..] {
            [key] => key.parse().map(Self).map_err(|_| SecretsError::Identity),
            [] => Err(SecretsError::Identity),
            _ => Err(SecretsError::Identities(keys.len())),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {}", self.recipient())
    }
}

impl FromStr for Recipient {
    type Err = SecretsError;

    fn from_str(text: &str) -> Result<Self, SecretsError> {
        text.trim().parse().map(Self).map_err(|_| {
            // A private key by mistake is not repeated.
            let private = text.to_ascii_uppercase().contains("SECRET");
            let shown = if private { "(a private key)" } else { text };
            SecretsError::Recipient(shown.chars().take(80).collect())
        })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Secrets {
    /// Adds one.
    ///
    /// # Errors
    /// When its name, or what is in it, cannot be right.
    pub fn add(&mut self, name: &str, secret: Secret) -> Result<(), SecretsError> {
        let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let named = name.len() <= LONGEST_NAME
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(plain);
        let wrong = match secret.reveal().len() {
            // What is no name may be a secret that was put in its place.
            _ if !named => SecretsError::Name(name.chars().take(8).collect()),
            0 => SecretsError::Empty(name.to_owned()),
            1..=LARGEST if self.0.contains_key(name) => SecretsError::Twice(name.to_owned()),
            1..=LARGEST => {
                self.0.insert(name.to_owned(), secret);
                return Ok(());
            }
            _ => SecretsError::Large(name.to_owned()),
        };
        Err(wrong)
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    /// Their names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Seals them for one cluster. Twice the same gives other bytes.
    pub fn seal(&self, cluster: &ClusterName, to: &Recipient) -> Result<Vec<u8>, SecretsError> {
        let reveal =
            |(name, secret): (&String, &Secret)| (name.clone(), secret.reveal().to_owned());
        let inside = Inside {
            version: VERSION,
            cluster: cluster.clone(),
            secrets: self.0.iter().map(reveal).collect(),
        };
        let plain = serde_json::to_vec(&inside).map_err(|e| SecretsError::Seal(e.to_string()))?;
        age::encrypt(&to.0, &plain).map_err(|e| SecretsError::Seal(e.to_string()))
    }

    /// Opens what was sealed for `cluster`.
    pub fn open(
        sealed: &[u8],
        cluster: &ClusterName,
        with: &Identity,
    ) -> Result<Self, SecretsError> {
        use age::DecryptError::{DecryptionFailed, NoMatchingKeys};
        let plain = age::decrypt(&with.0, sealed).map_err(|error| match error {
            NoMatchingKeys => SecretsError::OtherKey(with.recipient().to_string()),
            DecryptionFailed => SecretsError::Damaged("its content was changed"),
            _ => SecretsError::Damaged("it is not whole, or no age file"),
        })?;
        // What the parser would say may quote what it read.
        let version = serde_json::from_slice::<serde_json::Value>(&plain)
            .ok()
            .and_then(|inside| u32::try_from(inside.get("version")?.as_u64()?).ok())
            .ok_or(SecretsError::Damaged("there is something else inside"))?;
        if version > VERSION {
            return Err(SecretsError::Newer(version));
        }
        let inside: Inside = serde_json::from_slice(&plain)
            .map_err(|_| SecretsError::Damaged("there is something else inside"))?;
        if inside.cluster != *cluster {
            return Err(SecretsError::OtherCluster(inside.cluster));
        }
        let mut secrets = Self::default();
        for (name, secret) in inside.secrets {
            secrets.add(&name, Secret::new(secret))?;
        }
        Ok(secrets)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn cluster(name: &str) -> ClusterName {
        ClusterName::new(name).unwrap()
    }

    fn secrets(all: &[(&str, &str)]) -> Secrets {
        let mut secrets = Secrets::default();
        for (name, secret) in all {
            secrets.add(name, Secret::new(*secret)).unwrap();
        }
        secrets
    }

    #[test]
    fn what_was_sealed_opens_with_its_key_for_its_cluster_only() {
        let (ours, other) = (Identity::generate(), Identity::generate());
        let all = secrets(&[("DOMAIN", "example.org"), ("TOKEN_2", "line\nline\n")]);
        let sealed = all.seal(&cluster("a"), &ours.recipient()).unwrap();
        assert_eq!(
            Secrets::open(&sealed, &cluster("a"), &ours),
            Ok(all.clone())
        );
        assert_ne!(sealed, all.seal(&cluster("a"), &ours.recipient()).unwrap());
        assert!(!String::from_utf8_lossy(&sealed).contains("example.org"));
        let error = Secrets::open(&sealed, &cluster("a"), &other).unwrap_err();
        assert_eq!(error, SecretsError::OtherKey(other.recipient().to_string()));
        let error = Secrets::open(&sealed, &cluster("b"), &ours).unwrap_err();
        assert_eq!(error, SecretsError::OtherCluster(cluster("a")));
    }

    #[test]
    fn a_changed_or_cut_file_is_never_opened() {
        let key = Identity::generate();
        let all = secrets(&[("DOMAIN", "example.org")]);
        let sealed = all.seal(&cluster("a"), &key.recipient()).unwrap();
        for at in 0..sealed.len() {
            let cut = Secrets::open(&sealed[..at], &cluster("a"), &key);
            assert!(cut.is_err(), "cut at {at}");
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(
                Secrets::open(&bent, &cluster("a"), &key).is_err(),
                "bent at {at}"
            );
        }
    }

    #[test]
    fn what_is_inside_has_a_version() {
        let key = Identity::generate();
        let seal = |text: &str| age::encrypt(&key.recipient().0, text.as_bytes()).unwrap();
        let open = |text: &str| Secrets::open(&seal(text), &cluster("a"), &key).unwrap_err();
        let newer = r#"{"version": 2, "cluster": "a", "shares": []}"#;
        assert_eq!(open(newer), SecretsError::Newer(2));
        for other in ["", "hunter2", "{}", r#"{"version": 1, "cluster": "a"}"#] {
            let error = open(other);
            assert!(matches!(error, SecretsError::Damaged(_)), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn names_are_those_of_variables_and_nothing_is_given_twice() {
        let mut all = Secrets::default();
        for bad in [
            "",
            "a",
            "A-B",
            "1A",
            "_A",
            "Ä",
            &"A".repeat(65),
            "hunter2hunter2",
        ] {
            let error = all.add(bad, Secret::new("x")).unwrap_err();
            assert!(matches!(error, SecretsError::Name(_)), "{bad}");
            assert!(!error.to_string().contains("hunter2hunter2"), "{error}");
        }
        all.add("A", Secret::new("x")).unwrap();
        let mut add = |text: String| all.add("A", Secret::new(text)).unwrap_err();
        assert_eq!(add("x".into()), SecretsError::Twice("A".into()));
        assert_eq!(add(String::new()), SecretsError::Empty("A".into()));
        assert_eq!(
            add("x".repeat(LARGEST + 1)),
            SecretsError::Large("A".into())
        );
    }

    #[test]
    fn an_identity_file_is_read_back_and_nothing_else_is_taken_for_one() {
        let key = Identity::generate();
        let file = key.to_file();
        let read: Identity = file.reveal().parse().unwrap();
        assert_eq!(read.recipient(), key.recipient());
        let text = key.recipient().to_string();
        assert_eq!(text.parse::<Recipient>().unwrap(), key.recipient());
        assert!(!format!("{key:?} {file:?}").contains("SECRET"));
        let twice = format!("{0}{0}", file.reveal());
        assert_eq!(
            twice.parse::<Identity>().unwrap_err(),
            SecretsError::Identities(2)
        );
        for bad in ["", "# public key", &text, "AGE-SECRET-KEY-1HUNTER2"] {
            assert_eq!(bad.parse::<Identity>().unwrap_err(), SecretsError::Identity);
        }
        let error = file
            .reveal()
            .lines()
            .last()
            .unwrap()
            .parse::<Recipient>()
            .unwrap_err();
        assert!(error.to_string().contains("(a private key)"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_secret_comes_back_as_it_was(text in ".{1,200}", name in "[A-Z][A-Z0-9_]{0,63}") {
            let key = Identity::generate();
            let all = secrets(&[(&name, &text)]);
            let sealed = all.seal(&cluster("a"), &key.recipient()).unwrap();
            prop_assert_eq!(Secrets::open(&sealed, &cluster("a"), &key), Ok(all));
        }

        #[test]
        fn any_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let key = Identity::generate();
            prop_assert!(Secrets::open(&bytes, &cluster("a"), &key).is_err());
        }
    }
}
