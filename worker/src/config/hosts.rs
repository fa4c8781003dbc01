//! How workers come to the hosts.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use russh::keys::PrivateKey;

use super::SettingError;
use super::secret::{Hidden, one_of};
use crate::net::Dialer;
use crate::ssh::keys::{load_private_key, parse_private_key};
use crate::world::Access;

/// How workers come to the hosts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hosts")]
pub struct HostArgs {
    /// The SSH private key (OpenSSH PEM) itself
    #[arg(
        long,
        env = "SSH_PRIVATE_KEY",
        value_name = "PEM",
        hide_env_values = true,
        hide = true
    )]
    ssh_private_key: Option<Hidden>,
    /// File with the SSH private key
    #[arg(
        long,
        env = "SSH_PRIVATE_KEY_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    ssh_private_key_file: Option<PathBuf>,
    /// `bastion`: through the bastion; `direct`: straight to the private addresses, as on the bastion
    #[arg(
        long,
        env = "REKINDLE_SSH_ACCESS",
        value_name = "WAY",
        default_value = "bastion",
        hide_short_help = true
    )]
    ssh_access: Way,
    /// SOCKS5 proxy for connections to hosts, `socks5://HOST:PORT`
    #[arg(
        long,
        env = "REKINDLE_PROXY",
        value_name = "URL",
        hide_env_values = true,
        hide_short_help = true
    )]
    proxy: Option<Hidden>,
    /// File with the URL of the proxy, when it holds a password
    #[arg(
        long,
        env = "REKINDLE_PROXY_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    proxy_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Way {
    Bastion,
    Direct,
}

impl HostArgs {
    pub(super) fn ssh_key(&self) -> Result<Option<Arc<PrivateKey>>, SettingError> {
        let wrong =
            |e: &dyn std::error::Error| SettingError::new(format!("failed to {}", chain(e)));
        let pem = self.ssh_private_key.as_ref();
        let pem = pem.filter(|key| !key.0.is_empty());
        let file = self.ssh_private_key_file.as_ref();
        let file = file.filter(|path| !path.as_os_str().is_empty());
        match (pem, file) {
            (Some(_), Some(_)) => Err(SettingError::new(
                "SSH_PRIVATE_KEY and SSH_PRIVATE_KEY_FILE are both set",
            )
            .hint("set one of them")),
            (Some(pem), None) => parse_private_key(&pem.0, "SSH_PRIVATE_KEY")
                .map(Some)
                .map_err(|e| wrong(&e)),
            (None, Some(path)) => load_private_key(path).map(Some).map_err(|e| wrong(&e)),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn dialer(&self) -> Result<Dialer, SettingError> {
        let proxy = one_of(
            self.proxy.as_ref(),
            self.proxy_file.as_ref(),
            "REKINDLE_PROXY",
        )?;
        match proxy {
            Some(url) => Dialer::through(&url.0)
                .map_err(|e| SettingError::new(format!("REKINDLE_PROXY: {e}"))),
            None => Ok(Dialer::direct()),
        }
    }

    pub(super) fn access(&self) -> Access {
        match self.ssh_access {
            Way::Bastion => Access::Bastion,
            Way::Direct => Access::Direct,
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
