//! SSH keys: our own from CI, and the host keys that we give to new machines.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};

/// Why a key cannot be used. Never shows any of it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("read the SSH key {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is protected by a passphrase that we do not have.
    #[error(
        "use the SSH key from {origin}: it is encrypted; a worker needs a key without passphrase"
    )]
    Encrypted {
        /// Where it came from.
        origin: String,
    },
    /// It is no private key.
    #[error("use the SSH key from {origin}: {reason}")]
    Bad {
        /// Where it came from, for example `SSH_PRIVATE_KEY`.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key could not be made.
    #[error("make an SSH host key")]
    Generate {
        /// Why.
        source: russh::keys::ssh_key::Error,
    },
}

/// Reads a private key from text, such as the content of `SSH_PRIVATE_KEY`. `origin` names the
/// text in errors.
pub fn parse_private_key(text: &str, origin: &str) -> Result<Arc<PrivateKey>, KeyError> {
    let bad = |reason: &str| KeyError::Bad {
        origin: origin.to_owned(),
        reason: reason.to_owned(),
    };
    // CI systems like to indent secrets, and to change or lose their line ends.
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let Some(first) = lines.first() else {
        return Err(bad("it is empty"));
    };
    if first.starts_with("ssh-") || first.starts_with("ecdsa-") {
        return Err(bad("it is a public key; the private one is needed"));
    }
    if !first.starts_with("-----BEGIN ") {
        return Err(bad(
            "it does not begin with `-----BEGIN … PRIVATE KEY-----`",
        ));
    }
    if lines.len() < 3 {
        return Err(bad("its line breaks are lost"));
    }
    if lines.iter().any(|line| line.contains("ENCRYPTED")) {
        return Err(KeyError::Encrypted {
            origin: origin.to_owned(),
        });
    }
    let mut pem = lines.join("\n");
    pem.push('\n');
    match russh::keys::decode_secret_key(&pem, None) {
        Ok(key) => Ok(Arc::new(key)),
        Err(russh::keys::Error::KeyIsEncrypted) => Err(KeyError::Encrypted {
            origin: origin.to_owned(),
        }),
        Err(error) => Err(bad(&error.to_string())),
    }
}

/// Reads a private key from a file.
pub fn load_private_key(path: &Path) -> Result<Arc<PrivateKey>, KeyError> {
    let origin = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse_private_key(&text, &origin),
        Err(source) => Err(KeyError::Read {
            path: origin,
            source,
        }),
    }
}

/// Reads a public key as it stands in records: an OpenSSH line.
pub fn parse_public_key(line: &str) -> Result<PublicKey, KeyError> {
    PublicKey::from_openssh(line.trim()).map_err(|error| KeyError::Bad {
        origin: "a pinned host key".to_owned(),
        reason: error.to_string(),
    })
}

/// `SHA256:…`, as `ssh-keygen -l` prints it.
pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A private key as text. `Debug` hides it.
#[derive(Clone)]
pub struct SecretPem(String);

impl SecretPem {
    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretPem(hidden)")
    }
}

/// A host key that a new machine is given, so that we know it before its first boot.
#[derive(Debug, Clone)]
pub struct HostKey {
    /// OpenSSH PEM, for the user data of the machine.
    pub private: SecretPem,
    /// OpenSSH line, for the record of the node.
    pub public: String,
}

/// Makes an ed25519 host key.
pub fn generate_host_key() -> Result<HostKey, KeyError> {
    let generate = |source| KeyError::Generate { source };
    let mut rng = russh::keys::key::safe_rng();
    let key = PrivateKey::random(&mut rng, Algorithm::Ed25519).map_err(generate)?;
    let private = key.to_openssh(LineEnding::LF).map_err(generate)?;
    let public = key.public_key().to_openssh().map_err(generate)?;
    Ok(HostKey {
        private: SecretPem(private.to_string()),
        public,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_host_key_reads_back_and_its_halves_belong_together() {
        let made = generate_host_key().unwrap();
        let private = parse_private_key(made.private.expose(), "test").unwrap();
        let public = parse_public_key(&made.public).unwrap();
        assert_eq!(fingerprint(private.public_key()), fingerprint(&public));
        assert_eq!(public.algorithm(), Algorithm::Ed25519);
        assert_ne!(generate_host_key().unwrap().public, made.public);
    }

    #[test]
    fn a_key_survives_what_ci_does_to_its_lines() {
        let pem = generate_host_key().unwrap().private;
        for text in [
            pem.expose().replace('\n', "\r\n"),
            pem.expose().trim_end().to_owned(),
            pem.expose()
                .lines()
                .map(|line| format!("    {line}\n"))
                .collect(),
            format!("\n\n{}\n\n", pem.expose()),
        ] {
            parse_private_key(&text, "test").unwrap();
        }
    }

    #[test]
    fn bad_keys_are_explained_and_never_shown() {
        let made = generate_host_key().unwrap();
        let pem = made.private.expose();
        let cut: String = pem
            .lines()
            .take(3)
            .map(|line| format!("{line}\n"))
            .collect();
        for (text, want) in [
            ("", "it is empty"),
            (made.public.as_str(), "it is a public key"),
            ("hunter2hunter2", "does not begin with"),
            (&pem.replace('\n', " "), "line breaks are lost"),
            (&pem.replace('\n', "\\n"), "line breaks are lost"),
            (&cut, "test"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
                "encrypted",
            ),
            (ENCRYPTED, "encrypted"),
        ] {
            let error = parse_private_key(text, "test").unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(want), "{shown}");
            for secret in pem.lines().filter(|line| !line.starts_with('-')) {
                assert!(!shown.contains(secret), "{shown}");
            }
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert!(!format!("{made:?}").contains(pem.lines().nth(2).unwrap()));
    }

    #[test]
    fn a_missing_key_file_is_named() {
        let error = load_private_key(Path::new("/nonexistent/id_ed25519")).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/id_ed25519"),
            "{error}"
        );
    }

    /// A throw-away key, made with `ssh-keygen -t ed25519 -N test`.
    const ENCRYPTED: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
        b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABCvq3rHBu\n\
        L91g7EevFg32buAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIKhpeyo1AOphF1jo\n\
        kqArvQuYzrT8b70bhcwh3y3URcc/AAAAkOo1+tv9FQArNXgDrrZYzLfA6nosbPOiIxxN8j\n\
        luk7IX4MXyD3tciOvUdK1YbCD4RCfU+2CBJxLkHiix7ROI+S+5GOsNNEqyESjV5F+TPZX1\n\
        lYfc6EQYY5ju0TUG48SsECxtDcgotH5U2ChXZcWXZmY/YgFvGrjBi0urVv7GC5yCGvytny\n\
        WpqJ99EFksuGxRlg==\n\
        -----END OPENSSH PRIVATE KEY-----";
}
