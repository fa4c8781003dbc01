//! Who is who on this machine: processes, and the boot they belong to.
//!
//! A pid alone says nothing: it may be somebody else's by now. A pid with its start time names one
//! process of one boot.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use serde::{Deserialize, Serialize};

use crate::sys::process::start_time;

/// One process of one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number on the host.
    pub pid: u32,
    /// When it began, in clock ticks since the boot: field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl Process {
    /// The process that has this number now; `None` when there is none, or only its zombie.
    pub(crate) fn find(pid: u32) -> Option<Self> {
        let start_time = start_time(pid)?;
        Some(Self { pid, start_time })
    }

    pub(crate) fn this() -> Option<Self> {
        Self::find(std::process::id())
    }

    /// Whether it still runs. Holds for processes of this boot only.
    pub(crate) fn lives(self) -> bool {
        Self::find(self.pid) == Some(self)
    }
}

/// Names this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// How long the machine has been up, sleep included: CLOCK_BOOTTIME, which no one sets.
pub(crate) fn uptime() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    text.split_ascii_whitespace()
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| io::Error::other("/proc/uptime is not a number"))
}

/// A process that has a file open to write, if there is one. Readers do not count.
pub(crate) fn writer_of(path: &Path) -> io::Result<Option<u32>> {
    let wanted = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ends while we look has no files any more.
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let writes = files.flatten().any(|file| {
            fs::metadata(file.path())
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
                && is_writable(&entry.path().join("fdinfo").join(file.file_name()))
        });
        if writes {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

fn is_writable(info: &Path) -> bool {
    let flags = fs::read_to_string(info).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        libc::c_int::from_str_radix(line.trim(), 8).ok()
    });
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let this = Process::this().unwrap();
        assert!(this.lives());
        let other = Process {
            start_time: this.start_time + 1,
            ..this
        };
        assert!(!other.lives());
    }

    #[test]
    fn a_writer_is_found_and_a_reader_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert_eq!(writer_of(&path).unwrap(), None);
        let writer = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        assert_eq!(writer_of(&path).unwrap(), Some(std::process::id()));
        drop(writer);
        let _reader = fs::File::open(&path).unwrap();
        assert_eq!(writer_of(&path).unwrap(), None);
    }
}
