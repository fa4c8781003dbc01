//! Users of the nodes: names and SSH keys that can do no harm wherever they are put, be it a command line, a
//! file name, `authorized_keys` or `sudoers`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Names that systems and the programs on our nodes have for themselves. What else is there already is told by
/// the nodes: an account that is not ours is never touched.
const TAKEN: [&str; 42] = [
    "root",
    "daemon",
    "bin",
    "sys",
    "sync",
    "games",
    "man",
    "lp",
    "mail",
    "news",
    "uucp",
    "proxy",
    "www-data",
    "backup",
    "list",
    "irc",
    "gnats",
    "nobody",
    "nogroup",
    "messagebus",
    "sshd",
    "syslog",
    "uuidd",
    "tcpdump",
    "landscape",
    "pollinate",
    "polkitd",
    "chrony",
    "dnsmasq",
    "tss",
    "lxd",
    "adm",
    "sudo",
    "wheel",
    "admin",
    "docker",
    "shadow",
    "etcd",
    "kube",
    "containerd",
    "ubuntu",
    "debian",
];

/// Types of SSH keys that are taken. DSA is not: sshd has given it up.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// In bytes; an RSA key of 16384 bits has 2.8 kB.
const LONGEST_KEY: usize = 4096;
/// RSA keys with fewer bytes than one of 2048 bits has are not worth their lock.
const SHORTEST_RSA: usize = 279;

/// The name of a person's account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

impl UserName {
    /// Checks a name: a letter, then letters, digits, `-` and `_`, at most 32, all in lower case, and not one
    /// that systems have for themselves.
    pub fn new(text: impl Into<String>) -> Result<Self, BadUser> {
        let text = text.into();
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c);
        let fine = text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.len() <= 32
            && text.bytes().all(inner);
        if !fine {
            let shown = text.chars().take(40).flat_map(char::escape_debug);
            return Err(BadUser::Name(shown.collect()));
        }
        if TAKEN.contains(&text.as_str()) || text.starts_with("systemd-") {
            return Err(BadUser::Taken(text));
        }
        Ok(Self(text))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One public SSH key in OpenSSH's form: type, key, and perhaps a comment, without options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(String);

impl PublicKey {
    /// Reads a key as it stands in `id_ed25519.pub`; empty lines around it are left out.
    ///
    /// # Errors
    /// No error repeats any of the text: it could be a private key.
    pub fn parse(text: &str) -> Result<Self, BadUser> {
        // First of all, and generously: whatever looks like a private key is called one.
        if text.contains("PRIVATE KEY") || text.contains("PuTTY-User-Key-File") {
            return Err(BadUser::PrivateKey);
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.next().ok_or(BadUser::Key("it is empty"))?;
        if lines.next().is_some() {
            return Err(BadUser::Key("it has more than one line; give one key"));
        }
        if line.len() > LONGEST_KEY {
            return Err(BadUser::Key("it is too long for a public key"));
        }
        if line.chars().any(|c| c.is_control()) {
            return Err(BadUser::Key("it has control characters"));
        }
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let kind = words.next().unwrap_or_default();
        if !TYPES.contains(&kind) {
            return Err(BadUser::Key(
                "it does not begin with a type of key that is taken, such as `ssh-ed25519`; options are not taken",
            ));
        }
        let encoded = words
            .next()
            .ok_or(BadUser::Key("its type is not followed by a key"))?;
        let blob = STANDARD
            .decode(encoded)
            .map_err(|_| BadUser::Key("what follows its type is not base64"))?;
        let inner = blob
            .split_first_chunk::<4>()
            .and_then(|(len, rest)| rest.get(..u32::from_be_bytes(*len) as usize));
        if inner != Some(kind.as_bytes()) {
            return Err(BadUser::Key("its type is not that of the key that follows"));
        }
        let least = if kind == "ssh-rsa" {
            SHORTEST_RSA
        } else {
            kind.len() + 4 + 32
        };
        if blob.len() < least {
            return Err(BadUser::Key(
                "it is cut off, or an RSA key of less than 2048 bits",
            ));
        }
        let comment: Vec<&str> = words.collect();
        // What programs on the way could take for more than a text, `{{` above all, is no loss.
        let plain = |c: char| c.is_alphanumeric() || "@._+-:,/=()".contains(c);
        if !comment.iter().all(|word| word.chars().all(plain)) {
            return Err(BadUser::Key(
                "its comment has more than letters, digits and `@._+-:,/=()`",
            ));
        }
        let line = [&[kind, encoded], comment.as_slice()].concat().join(" ");
        Ok(Self(line))
    }

    /// Its line, without a line end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is no user name or no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    /// Not a name.
    #[error(
        "`{0}` is not a user name: a lower-case letter, then at most 31 letters, digits, `-` and `_`"
    )]
    Name(String),
    /// A name of the system.
    #[error("`{0}` is a name that systems have for themselves")]
    Taken(String),
    /// A private key: it is not repeated.
    #[error(
        "this is a private key, which stays with its owner; give the public one, the file that ends in `.pub`"
    )]
    PrivateKey,
    /// Not a public key.
    #[error("this is not one public SSH key: {0}")]
    Key(&'static str),
}

impl TryFrom<String> for UserName {
    type Error = BadUser;

    fn try_from(text: String) -> Result<Self, BadUser> {
        Self::new(text)
    }
}

impl std::str::FromStr for UserName {
    type Err = BadUser;

    fn from_str(text: &str) -> Result<Self, BadUser> {
        Self::new(text)
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = BadUser;

    fn try_from(text: String) -> Result<Self, BadUser> {
        Self::parse(&text)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBy8J3iJeCBE41pd2kUsu1S5DV2Vh7uC9zYMFjlhUUyZ";

    #[test]
    fn names_of_people_are_taken_and_nothing_else() {
        for good in ["ann", "ann-1", "a_b", "x", &"a".repeat(32)] {
            assert!(UserName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Ann",
            "1ann",
            "-ann",
            "_ann",
            "an n",
            "ann;reboot",
            "../ann",
            "ann\n",
            "ann.",
            "änn",
            "%sudo",
            "$(id)",
            "ann:x:0:0",
            &"a".repeat(33),
        ] {
            assert!(matches!(UserName::new(bad), Err(BadUser::Name(_))), "{bad}");
        }
        for taken in ["root", "nobody", "sshd", "systemd-network", "sudo"] {
            assert!(
                matches!(UserName::new(taken), Err(BadUser::Taken(_))),
                "{taken}"
            );
        }
    }

    #[test]
    fn a_key_is_one_line_of_type_key_and_comment() {
        for (text, line) in [
            (KEY.to_owned(), KEY.to_owned()),
            (
                format!("\n{KEY}  ann at home \r\n\n"),
                format!("{KEY} ann at home"),
            ),
        ] {
            let key = PublicKey::parse(&text).expect("a key");
            assert_eq!(key.as_str(), line);
            assert_eq!(PublicKey::parse(key.as_str()), Ok(key));
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let check = |text: &str, want: &str| {
            let error = PublicKey::parse(text).expect_err(want).to_string();
            assert!(error.contains(want), "{text:?}: {error}");
        };
        check("", "it is empty");
        check(&format!("{KEY}\n{KEY}"), "more than one line");
        check(&format!("command=\"sh\" {KEY}"), "options are not taken");
        check(&format!("no-pty {KEY}"), "options are not taken");
        check("ssh-dss AAAAB3NzaC1kc3M=", "does not begin with a type");
        check("ssh-ed25519", "not followed by a key");
        check("ssh-ed25519 !!!!", "not base64");
        check(
            &KEY.replacen("ssh-ed25519", "ssh-rsa", 1),
            "its type is not that of the key",
        );
        check("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "cut off");
        check(
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==",
            "less than 2048 bits",
        );
        check(&format!("{KEY} a\u{7}b"), "control characters");
        check(
            &format!("{KEY} {{{{ lookup('pipe', 'id') }}}}"),
            "its comment has more",
        );
        check(&"x".repeat(5000), "too long");
    }

    #[test]
    fn a_private_key_is_refused_and_not_repeated() {
        for text in [
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
            "PuTTY-User-Key-File-3: ssh-ed25519\nb3BlbnNzaC1rZXktdjEAAAAA\n",
            // A private key without its first line.
            "b3BlbnNzaC1rZXktdjEAAAAA\nb3BlbnNzaC1rZXktdjEAAAAA",
        ] {
            let error = PublicKey::parse(text).expect_err("not public");
            assert!(!format!("{error} {error:?}").contains("b3Blb"), "{error}");
        }
        let error = PublicKey::parse("-----BEGIN RSA PRIVATE KEY-----").expect_err("not public");
        assert_eq!(error, BadUser::PrivateKey);
    }
}
