//! What jobs work on: the cloud and its hosts.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CloudArgs, HostArgs, IdentityArgs, KubeArgs, RegistryArgs, SettingError, YandexArgs};
use crate::world::World;

/// What jobs work on.
#[derive(Debug, Clone, Args)]
pub struct WorldArgs {
    /// The cloud.
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// The cloud that load comes from.
    #[command(flatten)]
    pub yandex: YandexArgs,
    /// The hosts.
    #[command(flatten)]
    pub hosts: HostArgs,
    /// The Kubernetes API.
    #[command(flatten)]
    pub kube: KubeArgs,
    /// The registries that images are mirrored from.
    #[command(flatten)]
    pub registries: RegistryArgs,
    /// What secrets are opened with.
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// The rekindle-runner that Ansible runs in, put on the bastion; the one beside this program when absent
    #[arg(
        long,
        help_heading = "Hosts",
        env = "REKINDLE_RUNNER",
        value_name = "FILE",
        hide_short_help = true
    )]
    runner: Option<PathBuf>,
    /// Certificate authorities to trust instead of the host's where an application is asked by its URL, as PEM
    #[arg(
        long,
        help_heading = "Cluster",
        env = "REKINDLE_CA_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    ca_file: Option<PathBuf>,
    /// Longest time in milliseconds between two looks at something that is being built
    #[arg(long, env = "REKINDLE_POLL_MS", value_name = "MS", hide = true)]
    poll_ms: Option<u64>,
}

impl WorldArgs {
    /// Clients and keys; connects to nothing yet.
    pub fn world(&self) -> Result<World, SettingError> {
        let hosts = &self.hosts;
        let ssh_key = hosts.ssh_key()?;
        let dialer = hosts.dialer()?;
        let mut world = World::default();
        world.clo = self.cloud.connect()?;
        world.yandex = self.yandex.connect()?;
        world.dialer = dialer;
        world.ssh_key = ssh_key;
        world.identity = self.identity.identity()?;
        world.access = hosts.access();
        world.kubeconfigs = self.kube.kubeconfigs()?;
        world.runner.clone_from(&self.runner);
        world.ca_file = self
            .ca_file
            .clone()
            .filter(|file| !file.as_os_str().is_empty());
        world.registries = self.registries.registries()?;
        world.poll = self.poll_ms.map(Duration::from_millis);
        if let Some(poll) = world.poll {
            world.settle.every = poll;
        }
        Ok(world)
    }
}
