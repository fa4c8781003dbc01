//! Real hosts: servers as Linux namespaces on this machine, with their own sshd, root file
//! system and loop-device disks.
//!
//! They need root, and show what no imitation does: a shell, `mkfs`, mounts, a boot that fails
//! on its fstab. All of a run lives in one lab: a network namespace without a way out,
//! in which every server is a set of namespaces of its own hanging on one bridge.
//! Nothing private is in the machine's own network. Whatever ends this process ends the lab:
//! children are killed by the kernel, namespaces, mounts and loop devices go with their users,
//! and the rest (files, cgroups) is swept up at the next start.

mod base;
mod cgroup;
mod disk;
mod host;
pub(crate) mod keeper;
mod lab;
mod loan;
mod lock;
mod probe;
pub(crate) mod tool;
mod user_data;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use tokio::sync::Semaphore;

use self::disk::Disk;
use self::host::{Booted, Host, Plug};
use self::lab::Lab;
use super::{Boot, Hosts, Stream};

/// A boot is some forty short processes: more at one time only get in each other's way.
const PARALLEL_BOOTS: usize = 4;

/// Where things are kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Holds the base file system, from run to run.
    pub cache: PathBuf,
    /// Holds the labs: roots and volumes of the hosts, until the run ends.
    pub labs: PathBuf,
}

impl Options {
    /// `REKINDLE_CACHE`, or `rekindle` in the user's cache folder; labs are below it.
    pub fn from_env() -> anyhow::Result<Options> {
        let set = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let cache = set("REKINDLE_CACHE")
            .or_else(|| Some(set("XDG_CACHE_HOME")?.join("rekindle")))
            .or_else(|| Some(set("HOME")?.join(".cache/rekindle")))
            .context("find the cache folder: set REKINDLE_CACHE")?;
        let cache = std::path::absolute(cache).context("find the cache folder")?;
        let labs = cache.join("labs");
        Ok(Options { cache, labs })
    }
}

/// The hosts of one run.
#[derive(Debug)]
pub struct RealHosts {
    lab: Lab,
    base: PathBuf,
    boots: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    down: bool,
    counter: u32,
    hosts: BTreeMap<String, Entry>,
    disks: BTreeMap<String, Disk>,
}

#[derive(Debug, Clone)]
struct Entry {
    address: std::net::Ipv4Addr,
    /// Held while the host is being started or stopped.
    host: Arc<tokio::sync::Mutex<Option<Host>>>,
}

impl RealHosts {
    /// Whether this machine can run such hosts; if not, one sentence says what is missing.
    pub fn available() -> Result<(), String> {
        let options = Options::from_env().map_err(|error| format!("{error:#}"))?;
        probe::probe(&options).map_err(|error| format!("{error:#}"))
    }

    /// Makes an empty lab; the first one on a machine builds the base file system (a minute).
    pub async fn start(options: Options) -> anyhow::Result<RealHosts> {
        for path in [&options.cache, &options.labs] {
            ensure!(
                fit_for_mount(path),
                "{} cannot be named in mount options",
                path.display()
            );
        }
        let base = base::ensure(&options.cache)
            .await
            .context("build the base file system")?;
        let lab = Lab::create(&options.labs).await.context("make the lab")?;
        let boots = Semaphore::new(PARALLEL_BOOTS);
        Ok(RealHosts {
            lab,
            base,
            boots,
            state: Mutex::default(),
        })
    }

    /// The lab's folder; its last part is the name of the run.
    pub fn folder(&self) -> &Path {
        &self.lab.folder
    }

    /// From their next start on, hosts find a port of this machine's loopback on their own: what a
    /// cloud lets them reach although the lab has no way out.
    pub fn lend_port(&self, port: u16) {
        self.lab.lend_port(port);
    }

    /// Path of the lab's network namespace, for `nsenter --net=…` by hand.
    pub fn network(&self) -> &Path {
        self.lab.keeper.net()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn entry(&self, server: &str) -> anyhow::Result<Entry> {
        let entry = self.state().hosts.get(server).cloned();
        entry.with_context(|| format!("find server {server}"))
    }

    async fn first_boot(&self, entry: &Entry, number: u32, boot: &Boot) -> anyhow::Result<()> {
        let mut slot = entry.host.lock().await;
        let host = slot.insert(Host::create(&self.lab, number, boot)?);
        let _turn = self.boots.acquire().await?;
        let disks = self.state().plugs_of(&boot.server);
        let booted = host.power_on(&self.lab, &self.base, &disks).await?;
        ensure!(booted == Booted::Sshd, "{} is in emergency mode", boot.name);
        Ok(())
    }

    /// Forgets a server and everything it had but its volumes.
    async fn remove(&self, server: &str) -> anyhow::Result<()> {
        let entry = self.entry(server)?;
        let mut slot = entry.host.lock().await;
        if let Some(host) = slot.as_mut() {
            host.power_off(&self.lab).await?;
            host.discard()?;
        }
        *slot = None;
        let mut state = self.state();
        state.hosts.remove(server);
        for disk in state.disks.values_mut() {
            disk.plugged.take_if(|(holder, _)| holder == server);
        }
        Ok(())
    }
}

impl State {
    /// Reserves a server's id, address and volumes, before anything is made.
    fn admit(&mut self, boot: &Boot) -> anyhow::Result<(Entry, u32)> {
        ensure!(!self.down, "the lab is shut down");
        ensure!(
            !self.hosts.contains_key(&boot.server),
            "server {} exists",
            boot.server
        );
        let taken = self
            .hosts
            .values()
            .any(|entry| entry.address == boot.address);
        ensure!(
            !taken && boot.address != lab::GATE,
            "address {} is taken",
            boot.address
        );
        let inside = boot.address.octets()[..2] == lab::NETWORK.octets()[..2];
        ensure!(
            inside,
            "{} is outside of {}/{}",
            boot.address,
            lab::NETWORK,
            lab::MASK
        );
        for (device, volume) in &boot.disks {
            check_device(device)?;
            let disk = self
                .disks
                .get(volume)
                .with_context(|| format!("find volume {volume}"))?;
            ensure!(disk.plugged.is_none(), "volume {volume} is plugged in");
        }
        let volumes: std::collections::BTreeSet<_> = boot.disks.values().collect();
        ensure!(volumes.len() == boot.disks.len(), "a volume is named twice");
        for (device, volume) in &boot.disks {
            let disk = self.disks.get_mut(volume).expect("looked up above");
            disk.plugged = Some((boot.server.clone(), device.clone()));
        }
        self.counter += 1;
        let entry = Entry {
            address: boot.address,
            host: Arc::default(),
        };
        self.hosts.insert(boot.server.clone(), entry.clone());
        Ok((entry, self.counter))
    }

    fn plugs_of(&self, server: &str) -> Vec<Plug> {
        let plugs = self.disks.iter().filter_map(|(volume, disk)| {
            let (holder, device) = disk.plugged.as_ref()?;
            (holder == server).then(|| plug(volume, disk, device))
        });
        plugs.collect()
    }
}

fn plug(volume: &str, disk: &Disk, device: &str) -> Plug {
    Plug {
        device: device.to_owned(),
        minor: disk.minor,
        link: disk::link_name(volume),
    }
}

#[async_trait]
impl Hosts for RealHosts {
    fn kind(&self) -> &'static str {
        "namespaces"
    }

    async fn boot(&self, boot: Boot) -> anyhow::Result<()> {
        check_name(&boot.name)?;
        let (entry, number) = self.state().admit(&boot)?;
        if let Err(error) = self.first_boot(&entry, number, &boot).await {
            if let Err(left) = self.remove(&boot.server).await {
                tracing::warn!(
                    server = boot.server,
                    "failed to clean up after a boot: {left:#}"
                );
            }
            return Err(error);
        }
        Ok(())
    }

    async fn destroy(&self, server: &str) -> anyhow::Result<()> {
        self.remove(server).await
    }

    async fn reboot(&self, server: &str) -> anyhow::Result<()> {
        let entry = self.entry(server)?;
        let mut slot = entry.host.lock().await;
        let host = slot
            .as_mut()
            .with_context(|| format!("find server {server}"))?;
        let _turn = self.boots.acquire().await?;
        host.power_off(&self.lab).await?;
        let disks = self.state().plugs_of(server);
        if host.power_on(&self.lab, &self.base, &disks).await? == Booted::Emergency {
            // As in a cloud: the reboot itself went well.
            tracing::warn!(
                server,
                "rebooted into emergency mode: its fstab names a missing disk"
            );
        }
        Ok(())
    }

    async fn create_disk(&self, volume: &str, size_gb: u64) -> anyhow::Result<()> {
        check_volume(volume)?;
        let file = {
            let mut state = self.state();
            ensure!(!state.down, "the lab is shut down");
            ensure!(!state.disks.contains_key(volume), "volume {volume} exists");
            state.counter += 1;
            self.lab
                .folder
                .join("disks")
                .join(format!("{}.img", state.counter))
        };
        let bytes = size_gb.checked_mul(1 << 30).context("measure the volume")?;
        let disk = Disk::create(file, bytes).await?;
        let mut state = self.state();
        ensure!(
            !state.down && !state.disks.contains_key(volume),
            "volume {volume} exists"
        );
        state.disks.insert(volume.to_owned(), disk);
        Ok(())
    }

    async fn delete_disk(&self, volume: &str) -> anyhow::Result<()> {
        let mut state = self.state();
        let disk = state
            .disks
            .get(volume)
            .with_context(|| format!("find volume {volume}"))?;
        if let Some((server, _)) = &disk.plugged {
            bail!("volume {volume} is plugged into {server}");
        }
        state
            .disks
            .remove(volume)
            .expect("looked up above")
            .delete()
    }

    async fn attach(&self, server: &str, volume: &str, device: &str) -> anyhow::Result<()> {
        check_device(device)?;
        let entry = self.entry(server)?;
        let mut slot = entry.host.lock().await;
        let host = slot
            .as_mut()
            .with_context(|| format!("find server {server}"))?;
        let plug = {
            let mut state = self.state();
            let taken = state
                .plugs_of(server)
                .iter()
                .any(|plug| plug.device == device);
            ensure!(!taken, "/dev/{device} of {server} is taken");
            let disk = state
                .disks
                .get_mut(volume)
                .with_context(|| format!("find volume {volume}"))?;
            ensure!(disk.plugged.is_none(), "volume {volume} is plugged in");
            disk.plugged = Some((server.to_owned(), device.to_owned()));
            plug(volume, disk, device)
        };
        let plugged = host.plug(&plug);
        if plugged.is_err()
            && let Some(disk) = self.state().disks.get_mut(volume)
        {
            disk.plugged = None;
        }
        plugged.with_context(|| format!("plug {volume} into {server}"))
    }

    async fn detach(&self, server: &str, volume: &str) -> anyhow::Result<()> {
        let entry = self.entry(server)?;
        let mut slot = entry.host.lock().await;
        let host = slot
            .as_mut()
            .with_context(|| format!("find server {server}"))?;
        let plug = {
            let state = self.state();
            let disk = state
                .disks
                .get(volume)
                .with_context(|| format!("find volume {volume}"))?;
            match &disk.plugged {
                Some((holder, device)) if holder == server => plug(volume, disk, device),
                _ => bail!("volume {volume} is not plugged into {server}"),
            }
        };
        host.unplug(&plug)
            .with_context(|| format!("unplug {volume} from {server}"))?;
        if let Some(disk) = self.state().disks.get_mut(volume) {
            disk.plugged = None;
        }
        Ok(())
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(host::connect(&self.lab, to).await?))
    }

    async fn shutdown(&self) -> anyhow::Result<()> {
        let servers: Vec<String> = {
            let mut state = self.state();
            if std::mem::replace(&mut state.down, true) {
                return Ok(());
            }
            state.hosts.keys().cloned().collect()
        };
        let ends = servers.iter().map(|server| self.remove(server));
        let ends = futures::future::join_all(ends).await;
        // Dropping the disks lets their loop devices go.
        let disks = std::mem::take(&mut self.state().disks);
        drop(disks);
        self.lab.remove().await.context("remove the lab")?;
        ends.into_iter()
            .collect::<anyhow::Result<()>>()
            .context("stop the hosts")
    }
}

/// These names become words of a shell script, file names and device nodes.
fn check_device(device: &str) -> anyhow::Result<()> {
    let plain = device.starts_with(|c: char| c.is_ascii_lowercase())
        && device
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(plain && device.len() <= 15, "{device:?} is no device name");
    Ok(())
}

fn check_volume(volume: &str) -> anyhow::Result<()> {
    let plain = volume
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    ensure!(plain && !volume.is_empty(), "{volume:?} is no volume id");
    Ok(())
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    ensure!(
        plain && (1..=63).contains(&name.len()),
        "{name:?} is no host name"
    );
    Ok(())
}

/// Paths go into mount tables and overlay options as they are.
fn fit_for_mount(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.+@~".contains(c);
    path.is_absolute() && path.to_str().is_some_and(|path| path.chars().all(plain))
}
