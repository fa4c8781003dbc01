//! The part of cloud-init that the hosts play: the host key in the user data.

use anyhow::bail;
use serde::Deserialize;

/// A host key as cloud-init's `ssh_keys:` gives it.
#[derive(Default, Deserialize)]
pub(super) struct HostKey {
    #[serde(rename = "ed25519_private")]
    pub(super) private: Option<String>,
    #[serde(rename = "ed25519_public")]
    pub(super) public: Option<String>,
}

#[derive(Deserialize)]
struct CloudConfig {
    #[serde(default)]
    ssh_keys: HostKey,
}

/// The host key in the user data; none if it names none. Other kinds of user data (scripts)
/// are not ours to run.
pub(super) fn host_key(user_data: &str) -> anyhow::Result<HostKey> {
    if !user_data.trim_start().starts_with("#cloud-config") {
        return Ok(HostKey::default());
    }
    match serde_saphyr::from_str::<CloudConfig>(user_data) {
        Ok(config) => Ok(config.ssh_keys),
        // The parser's message quotes the text, and the text holds a private key.
        Err(_) => bail!("user data is not a readable cloud-config"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::host_key;

    #[test]
    fn the_key_is_read_with_its_line_breaks() {
        let key = host_key(
            "#cloud-config\nhostname: a\nssh_keys:\n  ed25519_private: |\n    BEGIN\n    x\n    END\n  \
             ed25519_public: ssh-ed25519 AAAA\n",
        )
        .unwrap();
        assert_eq!(key.private.as_deref(), Some("BEGIN\nx\nEND\n"));
        assert_eq!(key.public.as_deref(), Some("ssh-ed25519 AAAA"));
    }

    #[test]
    fn no_key_is_no_error() {
        assert!(
            host_key("#cloud-config\nhostname: a\n")
                .unwrap()
                .private
                .is_none()
        );
        assert!(host_key("#!/bin/sh\n").unwrap().private.is_none());
    }

    #[test]
    fn an_error_does_not_quote_the_key() {
        let error = host_key("#cloud-config\nssh_keys:\n  ed25519_private: [SECRET\n")
            .err()
            .unwrap();
        assert!(!format!("{error:?}").contains("SECRET"));
    }
}
