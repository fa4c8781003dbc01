//! Volumes: sparse files behind loop devices.
//!
//! A loop device is set to clear itself with its last user, and we are a user as long as the
//! volume exists. So it goes away with this process and with the hosts' mounts, however they end.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{Pid, UnlinkatFlags, symlinkat, unlinkat};

use super::tool;

/// Major number of loop devices.
const LOOP: u64 = 7;

#[derive(Debug)]
pub(super) struct Disk {
    /// Number of the loop device.
    pub(super) minor: u32,
    /// Server and device name it is plugged in as.
    pub(super) plugged: Option<(String, String)>,
    file: PathBuf,
    /// Keeps the loop device alive.
    _user: File,
}

impl Disk {
    pub(super) async fn create(file: PathBuf, bytes: u64) -> anyhow::Result<Disk> {
        File::create_new(&file)
            .and_then(|disk| disk.set_len(bytes))
            .with_context(|| format!("create {}", file.display()))?;
        let path = file.to_str().context("read the path as text")?;
        let device = tool::run("losetup", ["--find", "--show", path]).await?;
        let device = device.trim();
        let minor = device
            .strip_prefix("/dev/loop")
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("find the number of {device:?}"))?;
        let user = File::open(device).with_context(|| format!("open {device}"))?;
        // Detaching a device in use marks it to clear itself after its last user.
        tool::run("losetup", ["--detach", device]).await?;
        let flag = fs::read_to_string(format!("/sys/block/loop{minor}/loop/autoclear"));
        ensure!(
            flag.is_ok_and(|flag| flag.trim() == "1"),
            "{device} does not clear itself"
        );
        Ok(Disk {
            minor,
            plugged: None,
            file,
            _user: user,
        })
    }

    /// Gives up the disk and its data.
    pub(super) fn delete(self) -> anyhow::Result<()> {
        fs::remove_file(&self.file).with_context(|| format!("remove {}", self.file.display()))
    }
}

/// The name of a volume's link below `/dev/disk/by-id`, cut as virtio serial numbers are.
pub(super) fn link_name(volume: &str) -> String {
    format!("virtio-{}", volume.chars().take(20).collect::<String>())
}

/// Makes the device node and its by-id link inside the host of process `pid`.
pub(super) fn plug(pid: Pid, minor: u32, device: &str, link: &str) -> anyhow::Result<()> {
    let dev = dev_of(pid)?;
    let node = makedev(LOOP, u64::from(minor));
    let mode = Mode::from_bits_truncate(0o660);
    mknodat(&dev, device, SFlag::S_IFBLK, mode, node)
        .with_context(|| format!("make /dev/{device}"))?;
    let by_id = folder(folder(dev, "disk")?, "by-id")?;
    symlinkat(format!("../../{device}").as_str(), by_id, link)
        .with_context(|| format!("make the link {link}"))
}

/// Removes node and link again.
pub(super) fn unplug(pid: Pid, device: &str, link: &str) -> anyhow::Result<()> {
    let dev = dev_of(pid)?;
    gone(unlinkat(&dev, device, UnlinkatFlags::NoRemoveDir))
        .with_context(|| format!("remove /dev/{device}"))?;
    let by_id = folder(folder(dev, "disk")?, "by-id")?;
    gone(unlinkat(by_id, link, UnlinkatFlags::NoRemoveDir))
        .with_context(|| format!("remove the link {link}"))
}

/// The host's /dev. Every step on the way is a real folder: a link planted by the host would
/// lead into the machine's own tree.
fn dev_of(pid: Pid) -> anyhow::Result<OwnedFd> {
    let root = File::open(format!("/proc/{pid}/root")).context("open the host's root")?;
    folder(root, "dev")
}

fn folder(parent: impl AsFd, name: &str) -> anyhow::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty()).with_context(|| format!("open the host's {name}"))
}

/// The host's own root may have removed a node before us.
fn gone(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Waits until no loop device is backed by a file below `folder`; a device that lost its users
/// without clearing itself (its process was killed in `create`) is detached.
pub(super) async fn release_below(folder: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut forced = Vec::new();
    loop {
        let left = backed_below(folder)?;
        if left.is_empty() {
            return Ok(());
        }
        for device in &left {
            if !forced.contains(device) {
                forced.push(device.clone());
                if !clears_itself(device) {
                    tool::run("losetup", ["--detach", &format!("/dev/{device}")]).await?;
                }
            }
        }
        ensure!(
            Instant::now() < deadline,
            "loop devices stay busy: {}",
            left.join(", ")
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn clears_itself(device: &str) -> bool {
    fs::read_to_string(format!("/sys/block/{device}/loop/autoclear"))
        .is_ok_and(|flag| flag.trim() == "1")
}

fn backed_below(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").context("list block devices")? {
        let entry = entry.context("list block devices")?;
        // A device that is no loop, or not in use, has no such file.
        let backing = fs::read_to_string(entry.path().join("loop/backing_file"));
        if backing.is_ok_and(|file| Path::new(file.trim_end()).starts_with(folder)) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::link_name;

    #[test]
    fn links_are_cut_as_virtio_cuts_them() {
        let volume = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
        assert_eq!(link_name(volume), "virtio-0a1b2c3d-4e5f-6789-a");
        assert_eq!(link_name("short"), "virtio-short");
    }
}
