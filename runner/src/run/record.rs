//! `status.json` as its supervisor writes it: whole, durable, and also on a full disk.

use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::folder::{Folder, json};
use super::status::Status;
use crate::disk;

/// The record of one run. The next version's space is taken in advance, so a disk that fills up
/// meanwhile does not turn an exit into a lost run.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
}

impl Record {
    pub(crate) fn new(folder: &Folder) -> Self {
        Self {
            path: folder.file("status.json"),
        }
    }

    /// Writes a version. When this returns, it survives a power cut.
    pub(crate) fn write(&self, status: &Status) -> io::Result<()> {
        let bytes = json(status);
        disk::replace(&self.path, &bytes)?;
        if status.is_live() {
            // The last version is a little longer than this one. Not being able to reserve is no
            // failure: there may still be space when it is needed.
            let _ = reserve(&disk::next_version(&self.path), bytes.len() as u64 + 4096);
        }
        Ok(())
    }
}

fn reserve(path: &Path, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(io::Error::other)?;
    let file = disk::open_private(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, length)?;
    file.sync_all()
}
