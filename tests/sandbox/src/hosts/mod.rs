//! The machines of the sandbox: what the CLO simulator boots, kills and plugs disks into.
//!
//! Two kinds stand behind one trait: [`simulated`] hosts speak real SSH inside this process and
//! keep a small state of disks, file systems and files; [`real`] hosts are Linux namespaces with
//! their own sshd and loop-device disks. Tests and simulator do not know which they drive.

pub mod real;
pub mod simulated;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream into the sandbox's private network.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a server is booted with. A "cloud image" starts sshd on port 22 of `address`.
#[derive(Clone)]
pub struct Boot {
    /// The cloud's server id.
    pub server: String,
    /// The server's name; becomes the host name.
    pub name: String,
    /// Private IPv4 address in the sandbox network (10.77.0.0/16).
    pub address: std::net::Ipv4Addr,
    /// cloud-init user data as given to the cloud API; `ssh_keys:` (the cloud-config module
    /// `ssh` with `ed25519_private` / `ed25519_public`) sets the host key. Without it the host
    /// makes one of its own.
    pub user_data: Option<String>,
    /// Public keys (OpenSSH lines) for root's authorized_keys.
    pub authorized_keys: Vec<String>,
    /// Volumes plugged in at boot: device name (`vdb`) → volume id.
    pub disks: BTreeMap<String, String>,
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // user_data holds a private key.
        f.debug_struct("Boot")
            .field("server", &self.server)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The hypervisor of the sandbox. Calls are made by the CLO simulator, one server or volume at a
/// time; what does not exist is an error, not a no-op.
#[async_trait]
pub trait Hosts: Send + Sync + fmt::Debug {
    /// `"namespaces"` or `"in-process"`, for the sandbox's output.
    fn kind(&self) -> &'static str;
    /// Boots a server with an empty root disk; returns when sshd listens.
    async fn boot(&self, boot: Boot) -> anyhow::Result<()>;
    /// Pulls the plug of a server: processes and root disk are gone, volumes survive unplugged.
    async fn destroy(&self, server: &str) -> anyhow::Result<()>;
    /// Restarts a server: processes and mounts are gone, root disk, host key and volumes stay.
    async fn reboot(&self, server: &str) -> anyhow::Result<()>;
    /// Makes a blank (all zero) volume of `size_gb` GB.
    async fn create_disk(&self, volume: &str, size_gb: u64) -> anyhow::Result<()>;
    /// Destroys a volume. Refused while it is plugged in.
    async fn delete_disk(&self, volume: &str) -> anyhow::Result<()>;
    /// Plugs a volume into a running server as `/dev/<device>` with its
    /// `/dev/disk/by-id/virtio-<first 20 characters of the volume id>` link.
    async fn attach(&self, server: &str, volume: &str, device: &str) -> anyhow::Result<()>;
    /// Unplugs a volume.
    async fn detach(&self, server: &str, volume: &str) -> anyhow::Result<()>;
    /// Opens a TCP-like stream to `to` inside the private network; refused when nobody listens.
    async fn connect(&self, to: SocketAddr) -> std::io::Result<Box<dyn Stream>>;
    /// Takes everything down; nothing of the sandbox stays on the machine.
    async fn shutdown(&self) -> anyhow::Result<()>;
}
