//! `status.json` as its supervisor writes it: whole, durable, and also on a full disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::folder::{Folder, json};
use super::status::Status;

/// The record of one run. The next version's space is taken in advance, so a disk that fills up
/// meanwhile does not turn an exit into a lost run.
#[derive(Debug)]
pub(crate) struct Record {
    folder: PathBuf,
}

impl Record {
    pub(crate) fn new(folder: &Folder) -> Self {
        Self {
            folder: folder.path.clone(),
        }
    }

    /// Writes a version. When this returns, it survives a power cut.
    pub(crate) fn write(&self, status: &Status) -> io::Result<()> {
        let bytes = json(status);
        let next = self.folder.join("status.json.new");
        let file = open(&next)?;
        file.write_all_at(&bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        fs::rename(&next, self.folder.join("status.json"))?;
        File::open(&self.folder)?.sync_all()?;
        if status.is_live() {
            // The last version is a little longer than this one. Not being able to reserve is no
            // failure: there may still be space when it is needed.
            let _ = reserve(&next, bytes.len() as u64 + 4096);
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn reserve(path: &Path, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(io::Error::other)?;
    let file = open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, length)?;
    file.sync_all()
}
