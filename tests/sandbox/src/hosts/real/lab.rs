//! One run's world: a network namespace with a bridge, a folder with the hosts' roots and the
//! volumes, a cgroup. And the sweeping up after runs that were killed.

use std::fs::{self, File, TryLockError};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpSocket;

use super::keeper::Keeper;
use super::lock::lock;
use super::{cgroup, disk, tool};

/// The sandbox network of [`Boot::address`](crate::hosts::Boot).
pub(super) const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);
pub(super) const MASK: u8 = 16;
/// Our own address on the bridge.
pub(super) const GATE: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);

/// For our turn, after the sweeping of others.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// Begins the name of every lab.
const PREFIX: &str = "rk-";

const INIT: &str = include_str!("init.sh");

#[derive(Debug)]
pub(super) struct Lab {
    pub(super) folder: PathBuf,
    pub(super) keeper: Keeper,
    /// The lab's devices cgroup.
    pub(super) cgroup: Option<PathBuf>,
    /// Ports of the machine's loopback that hosts find on theirs.
    lent: Mutex<Vec<u16>>,
    /// Locked as long as this process lives.
    _owner: File,
}

impl Lab {
    /// Makes an empty lab below `labs`, after sweeping up those whose owner is dead.
    pub(super) async fn create(labs: &Path) -> anyhow::Result<Lab> {
        fs::create_dir_all(labs).with_context(|| format!("create {}", labs.display()))?;
        let (name, folder, owner) = {
            // Nobody may take a lab for a dead one between its creation and its lock.
            let _gate = lock(&labs.join("lock"), START_DEADLINE, "starts a lab").await?;
            sweep(labs).await?;
            let name = format!(
                "{PREFIX}{}",
                &uuid::Uuid::new_v4().simple().to_string()[..8]
            );
            let folder = labs.join(&name);
            for sub in ["hosts", "disks"] {
                fs::create_dir_all(folder.join(sub)).context("create the lab's folder")?;
            }
            let owner = File::create(folder.join("owner")).context("create the owner file")?;
            owner.try_lock().context("lock the owner file")?;
            // For people; the lock is what counts.
            fs::write(folder.join("owner"), format!("{}\n", std::process::id()))
                .context("write the owner file")?;
            (name, folder, owner)
        };
        fs::write(folder.join("init.sh"), INIT).context("write init.sh")?;
        let cgroup = cgroup::of_lab(&name).filter(|group| fs::create_dir(group).is_ok());
        if cgroup.is_none() {
            tracing::warn!("no devices cgroup here: hosts are held by dropped capabilities only");
        }
        let keeper = Keeper::start(&name, true).context("make the lab's network namespace")?;
        let lab = Lab {
            folder,
            keeper,
            cgroup,
            lent: Mutex::default(),
            _owner: owner,
        };
        lab.make_bridge().await?;
        tracing::info!(lab = name, network = %lab.keeper.net().display(), "lab is ready");
        Ok(lab)
    }

    async fn make_bridge(&self) -> anyhow::Result<()> {
        // Without it the kernel cannot tell itself "host unreachable".
        self.ip(&["link", "set", "lo", "up"]).await?;
        self.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0"])
            .await?;
        self.ip(&["addr", "add", &format!("{GATE}/{MASK}"), "dev", "br0"])
            .await?;
        self.ip(&["link", "set", "br0", "up"]).await?;
        // An address nobody has is known as such after 3 × 0.2 s.
        self.ip(&[
            "ntable",
            "change",
            "name",
            "arp_cache",
            "dev",
            "br0",
            "retrans",
            "200",
        ])
        .await
    }

    /// Removes a cable, both ends, if it is still there.
    pub(super) async fn pull_cable(&self, port: &str) -> anyhow::Result<()> {
        let Err(error) = self.ip(&["link", "del", port]).await else {
            return Ok(());
        };
        // The kernel may take it away before `ip` looks for it, or between look and removal.
        let words = format!("{error:#}");
        let gone = ["Cannot find device", "No such device"]
            .iter()
            .any(|gone| words.contains(gone));
        if gone { Ok(()) } else { Err(error) }
    }

    /// Runs `ip` in the lab's network.
    async fn ip(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = tool::bound_to_us();
        command
            .arg("ip")
            .args(args)
            .stdout(std::process::Stdio::piped());
        command
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let child = self.keeper.spawn(command).await.context("start ip")?;
        tool::finish("ip", child.wait_with_output()).await.map(drop)
    }

    pub(super) fn lend_port(&self, port: u16) {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.push(port);
    }

    pub(super) fn lent_ports(&self) -> Vec<u16> {
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.clone()
    }

    pub(super) async fn socket(&self) -> std::io::Result<TcpSocket> {
        self.keeper.socket().await
    }

    /// Removes what outlives the hosts. They must be down, and the volumes let go.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        self.keeper.stop().await;
        remove_traces(&self.folder).await
    }
}

/// The MAC belongs to the address, so that a re-created host is found in old ARP caches.
pub(super) fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Removes the labs whose owner no longer holds its lock.
async fn sweep(labs: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(labs).context("list labs")? {
        let folder = entry.context("list labs")?.path();
        let lab = folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !lab {
            continue;
        }
        // Without an owner file the creator died at its first step.
        if let Ok(owner) = File::open(folder.join("owner"))
            && matches!(owner.try_lock(), Err(TryLockError::WouldBlock))
        {
            continue;
        }
        tracing::info!(lab = %folder.display(), "removing a lab whose owner is dead");
        remove_traces(&folder).await?;
    }
    Ok(())
}

async fn remove_traces(folder: &Path) -> anyhow::Result<()> {
    let name = folder
        .file_name()
        .expect("a lab has a name")
        .to_string_lossy();
    if let Some(group) = cgroup::of_lab(&name) {
        cgroup::remove(&group).await?;
    }
    disk::release_below(folder).await?;
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}
