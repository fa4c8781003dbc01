//! Limits of memory and processes, where the host has control groups, version 1 or 2. Never a reason to fail.
//!
//! The groups are named after the process that made them, so that those of a killed one are found and
//! removed by the next. They are made only when the spec has such a limit: on version 1, moving a process
//! costs some milliseconds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use nix::unistd::geteuid;

use super::error::Reports;
use super::spec::Limits;
use crate::sys::process::start_time;

/// What our groups are called, before the number and start of their maker.
const PREFIX: &str = "rekindle-runner-";

/// The groups of one container.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    folders: Vec<PathBuf>,
    /// What process 1 writes itself to (version 1).
    members: Vec<File>,
    /// What process 1 is born in (version 2).
    into: Option<File>,
}

/// A limit, and the names of its file in both versions.
struct Limit {
    controller: &'static str,
    value: u64,
    file: [&'static str; 2],
    /// What else keeps to it, where the host has that: the file, and its value.
    also: [Option<(&'static str, u64)>; 2],
}

impl Cgroups {
    /// Makes the groups that the limits need. What the host refuses is noted.
    pub(crate) fn make(limits: &Limits, notes: &mut Vec<String>) -> Self {
        let mut cgroups = Self::default();
        let wanted: Vec<Limit> = [
            limits.memory_bytes.map(|value| Limit {
                controller: "memory",
                value,
                file: ["memory.limit_in_bytes", "memory.max"],
                // Else it could have as much again in swap.
                also: [
                    Some(("memory.memsw.limit_in_bytes", value)),
                    Some(("memory.swap.max", 0)),
                ],
            }),
            limits.pids.map(|value| Limit {
                controller: "pids",
                value,
                file: ["pids.max", "pids.max"],
                also: [None; 2],
            }),
        ]
        .into_iter()
        .flatten()
        .collect();
        if wanted.is_empty() {
            return cgroups;
        }
        let name = own_name();
        for limit in wanted {
            if let Err(reason) = cgroups.limit(&name, &limit) {
                notes.push(format!("no limit of {}: {reason}", limit.controller));
            }
        }
        cgroups
    }

    fn limit(&mut self, name: &str, limit: &Limit) -> Result<(), String> {
        if !geteuid().is_root() {
            return Err("control groups need root".to_owned());
        }
        let table =
            fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let hierarchy = find(&table, &own, limit.controller, &has_controller)
            .ok_or("the host has no control group for it")?;
        let told = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| format!("{path}: {error}")
        };
        sweep(&hierarchy.parent);
        let folder = hierarchy.parent.join(name);
        match fs::create_dir(&folder) {
            Ok(()) => self.folders.push(folder.clone()),
            // Version 2 has one group for all limits.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(told(&folder)(error)),
        }
        let version = usize::from(hierarchy.unified);
        let file = folder.join(limit.file[version]);
        fs::write(&file, limit.value.to_string()).map_err(told(&file))?;
        if let Some((name, value)) = limit.also[version] {
            let file = folder.join(name);
            match OpenOptions::new().write(true).open(&file) {
                // The kernel does not count swap.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => opened
                    .and_then(|mut file| file.write_all(value.to_string().as_bytes()))
                    .map_err(told(&file))?,
            }
        }
        if hierarchy.unified {
            if self.into.is_none() {
                self.into = Some(File::open(&folder).map_err(told(&folder))?);
            }
        } else {
            let members = folder.join("cgroup.procs");
            let file = OpenOptions::new()
                .write(true)
                .open(&members)
                .map_err(told(&members))?;
            self.members.push(file);
        }
        Ok(())
    }

    /// The group of version 2 that process 1 is born in.
    pub(crate) fn born_in(&self) -> Option<BorrowedFd<'_>> {
        self.into.as_ref().map(AsFd::as_fd)
    }

    /// Moves this process into the groups of version 1.
    pub(crate) fn join(&self, reports: &Reports) {
        for mut file in &self.members {
            if let Err(error) = file.write_all(b"0") {
                reports.note(format!(
                    "a limit is missing: its group takes no process ({error})"
                ));
            }
        }
    }

    /// Removes the groups, once all their processes are gone.
    pub(crate) fn remove(&self) {
        for folder in &self.folders {
            remove(folder);
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The kernel lets go of a group a moment after its last process was waited for.
fn remove(folder: &Path) {
    for _ in 0..50 {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                sleep(Duration::from_millis(2));
            }
            // What cannot be removed now is swept by the next container.
            _ => return,
        }
    }
}

/// A name that no other process has, nor has had since the host began, for each container another one.
fn own_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (pid, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let started = start_time(pid).unwrap_or_default();
    format!("{PREFIX}{pid}-{started}-{number}")
}

/// Removes the groups of makers that were killed.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| {
            let mut parts = name.strip_prefix(PREFIX)?.split('-');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        });
        if let Some((pid, begin)) = maker
            && start_time(pid) != Some(begin)
        {
            // A group that still has processes stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Where groups for a controller are made.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    parent: PathBuf,
    unified: bool,
}

/// The hierarchy that has a controller, from the texts of /proc/self/mountinfo and /proc/self/cgroup.
///
/// In version 1 the new group is below our own. In version 2 a group with processes can have no
/// limited groups below it, so the new one is below the root, as other engines do without systemd.
fn find(
    mountinfo: &str,
    own: &str,
    controller: &str,
    has: &dyn Fn(&Path, &str) -> bool,
) -> Option<Hierarchy> {
    let own_path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        let path = parts.next()?;
        controllers
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    });
    mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, mounted) = (place.next()?, Path::new(place.next()?));
        let mut kind = kind.split(' ');
        match (kind.next()?, kind.nth(1)?) {
            ("cgroup", options) if options.split(',').any(|name| name == controller) => {
                let below = Path::new(own_path?).strip_prefix(root).ok()?;
                Some(Hierarchy {
                    parent: mounted.join(below),
                    unified: false,
                })
            }
            ("cgroup2", _) if has(mounted, controller) => Some(Hierarchy {
                parent: mounted.to_owned(),
                unified: true,
            }),
            _ => None,
        }
    })
}

/// Whether groups below have the controller, switched on if need be.
fn has_controller(mounted: &Path, controller: &str) -> bool {
    let file = mounted.join("cgroup.subtree_control");
    let on = || {
        fs::read_to_string(&file)
            .is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
    };
    on() || (fs::write(&file, format!("+{controller}")).is_ok() && on())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
38 31 0:35 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_hierarchy_of_a_controller_is_found() {
        let own = "8:pids:/a/b\n4:memory:/\n0::/\n";
        let found = |text: &str, controller: &str, has: bool| {
            find(text, own, controller, &|_: &Path, _: &str| has)
        };
        let v1 = |parent: &str| {
            Some(Hierarchy {
                parent: parent.into(),
                unified: false,
            })
        };
        assert_eq!(found(V1, "pids", false), v1("/sys/fs/cgroup/pids/a/b"));
        assert_eq!(found(V1, "memory", false), v1("/sys/fs/cgroup/memory/"));
        assert_eq!(found(V1, "cpu", false), None);
        let v2 = Hierarchy {
            parent: "/sys/fs/cgroup".into(),
            unified: true,
        };
        assert_eq!(found(V2, "pids", true), Some(v2));
        assert_eq!(found(V2, "pids", false), None);
        assert_eq!(found("", "pids", true), None);
    }
}
