//! What the machine shows of a lab.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn assert_nothing_left(lab: &Path) {
    assert_eq!(processes_of(lab), Vec::<PathBuf>::new());
    assert_eq!(loops_below(lab), Vec::<String>::new());
    assert!(!lab.exists());
    let name = lab.file_name().unwrap();
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        assert!(!controller.path().join(name).exists(), "cgroup is left");
    }
}

pub(super) fn processes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.join("status").exists() && !path.is_symlink())
        .collect()
}

pub(super) fn threads() -> Vec<PathBuf> {
    let tasks = processes()
        .into_iter()
        .filter_map(|p| fs::read_dir(p.join("task")).ok());
    tasks
        .flat_map(|tasks| tasks.flatten().map(|entry| entry.path()))
        .collect()
}

/// When a thread started; none if there is no such thread.
pub(super) fn started(thread: &Path) -> Option<String> {
    let stat = fs::read_to_string(thread.join("stat")).ok()?;
    // Counted from behind the command's name, which may hold blanks.
    Some(stat.rsplit_once(") ")?.1.split(' ').nth(19)?.to_owned())
}

/// Processes that see a mount of the lab.
pub(super) fn processes_of(lab: &Path) -> Vec<PathBuf> {
    let lab = lab.to_str().unwrap();
    let sees = |path: &PathBuf| {
        fs::read_to_string(path.join("mountinfo")).is_ok_and(|mounts| mounts.contains(lab))
    };
    processes().into_iter().filter(sees).collect()
}

pub(super) fn namespaces_of(process: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(process.join("ns"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

pub(super) fn loops_below(lab: &Path) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").unwrap().flatten();
    let below = devices.filter(|device| {
        fs::read_to_string(device.path().join("loop/backing_file"))
            .is_ok_and(|file| Path::new(file.trim_end()).starts_with(lab))
    });
    below
        .map(|device| device.file_name().into_string().unwrap())
        .collect()
}
