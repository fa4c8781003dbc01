//! The devices cgroup (version 1) of a lab: the kernel itself refuses a host's root every device
//! but the usual character devices and the disks plugged into it.
//!
//! Without it a root with CAP_SYS_ADMIN could mount a devtmpfs and open the machine's disk. On a
//! machine with cgroup version 2 only, the hosts make do with their missing CAP_MKNOD.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// null, zero, full, random, urandom; tty, ptmx; pseudo-terminals.
const ALLOWED: &[&str] = &[
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Where the groups of a lab go, if the machine has the controller and lets us use it.
pub(super) fn of_lab(name: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    Some(parent(&mounts, &groups)?.join(name))
}

/// Our own group in the hierarchy of the devices controller.
fn parent(mounts: &str, groups: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let controllers = (right.next()? == "cgroup").then(|| right.nth(1))??;
        let devices = controllers
            .split(',')
            .any(|controller| controller == "devices");
        let mut left = left.split(' ').skip(3);
        devices.then(|| Some((left.next()?, left.next()?)))?
    });
    let (root, point) = mount?;
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let devices = fields
            .next()?
            .split(',')
            .any(|controller| controller == "devices");
        devices.then(|| fields.next())?
    })?;
    // In a container the mount may show a part of the tree only.
    let below = own.strip_prefix(root).unwrap_or(own);
    Some(Path::new(point).join(below.trim_start_matches('/')))
}

/// Makes a host's group, closed but for the usual devices and `minors` of loop devices.
pub(super) fn create(group: &Path, minors: impl IntoIterator<Item = u32>) -> anyhow::Result<()> {
    fs::create_dir_all(group).with_context(|| format!("create cgroup {}", group.display()))?;
    set(group, "devices.deny", "a")?;
    for rule in ALLOWED {
        set(group, "devices.allow", rule)?;
    }
    minors.into_iter().try_for_each(|minor| allow(group, minor))
}

/// Lets a host use a loop device.
pub(super) fn allow(group: &Path, minor: u32) -> anyhow::Result<()> {
    set(group, "devices.allow", &format!("b 7:{minor} rwm"))
}

/// Takes a loop device away again; what is open or mounted stays so.
pub(super) fn deny(group: &Path, minor: u32) -> anyhow::Result<()> {
    set(group, "devices.deny", &format!("b 7:{minor} rwm"))
}

fn set(group: &Path, file: &str, rule: &str) -> anyhow::Result<()> {
    fs::write(group.join(file), rule).with_context(|| format!("write {rule:?} to {file}"))
}

/// Removes a group and the groups below it, after killing what still lives in them.
pub(super) async fn remove(group: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let Ok(entries) = fs::read_dir(group) else {
            return Ok(());
        };
        let below = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir());
        for group in below.chain([group.to_owned()]) {
            let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in processes.lines().filter_map(|pid| pid.parse().ok()) {
                // It may be gone by now.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = fs::remove_dir(&group);
        }
        if !group.exists() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("cgroup {} stays busy", group.display());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::parent;
    use std::path::Path;

    #[test]
    fn our_group_is_found_below_the_mount() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      36 30 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n";
        let groups = "5:devices:/a/b\n0::/\n";
        let found = parent(mounts, groups);
        assert_eq!(
            found.as_deref(),
            Some(Path::new("/sys/fs/cgroup/devices/a/b"))
        );
    }

    #[test]
    fn version_2_has_none() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(parent(mounts, "0::/user\n"), None);
    }
}
