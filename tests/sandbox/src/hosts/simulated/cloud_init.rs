//! What a cloud image takes from its user data: the SSH host key, and further keys for root.

use russh::keys::{Algorithm, PrivateKey};
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(default)]
struct CloudConfig {
    ssh_keys: SshKeys,
    ssh_authorized_keys: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SshKeys {
    ed25519_private: Option<String>,
}

/// The parts of cloud-config that mean something here.
pub(super) struct UserData {
    pub(super) host_key: PrivateKey,
    pub(super) authorized_keys: Vec<String>,
}

impl UserData {
    /// Like cloud-init, a user data that cannot be read is logged and passed over: the machine
    /// comes up with a host key of its own, which a pinning client then refuses.
    pub(super) fn read(user_data: Option<&str>) -> anyhow::Result<Self> {
        let config = user_data.map(parse).unwrap_or_default();
        let given = config.ssh_keys.ed25519_private.and_then(|pem| {
            let key = PrivateKey::from_openssh(pem.trim());
            key.inspect_err(|e| tracing::warn!("simulated host: host key in user data: {e}"))
                .ok()
        });
        let host_key = match given {
            Some(key) => key,
            None => PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)?,
        };
        Ok(Self {
            host_key,
            authorized_keys: config.ssh_authorized_keys,
        })
    }
}

fn parse(user_data: &str) -> CloudConfig {
    if !user_data.starts_with("#cloud-config") {
        return CloudConfig::default();
    }
    serde_saphyr::from_str(user_data).unwrap_or_else(|_| {
        // Its error would print parts of the document, and there is a private key in it.
        tracing::warn!("simulated host: user data is no valid cloud-config");
        CloudConfig::default()
    })
}
