//! Open directories of the tree, and their times.
//!
//! A directory's time changes with each entry that is made in it, so it is set when the last user lets
//! go of the directory, and again whenever it was opened once more. That spreads the work over the
//! run, where a pass at the end would keep the user waiting.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use nix::errno::Errno;
use nix::sys::stat::{fstat, futimens};
use nix::sys::time::TimeSpec;

use crate::sys;

/// How many directories stay open; tar archives go depth first, so few are enough.
const OPEN: usize = 128;

/// A directory of the tree.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) fd: OwnedFd,
    /// What tells directories apart, whatever path led here.
    pub(crate) ino: u64,
    known: Arc<Known>,
}

/// What stays known of a directory that is not open.
#[derive(Debug)]
struct Known {
    /// The time that an entry gave it, if any did.
    mtime: AtomicI64,
    depth: usize,
}

const UNSET: i64 = i64::MIN;

impl Dir {
    pub(crate) fn set_mtime(&self, seconds: i64) {
        self.known.mtime.store(seconds, Ordering::Relaxed);
    }

    /// How many directories it is below the root, however short the path that led here.
    pub(crate) fn depth(&self) -> usize {
        self.known.depth
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let seconds = self.known.mtime.load(Ordering::Relaxed);
        if seconds != UNSET {
            // We own the directory and it is open: this fails only for a time that the file system
            // cannot hold, and then the nearest one is taken instead of failing.
            let _ = futimens(&self.fd, &TimeSpec::UTIME_OMIT, &TimeSpec::new(seconds, 0));
        }
    }
}

/// The open directories of one tree, by path.
#[derive(Debug)]
pub(crate) struct Dirs {
    root: Arc<Dir>,
    open: HashMap<Box<[u8]>, Arc<Dir>>,
    order: VecDeque<Box<[u8]>>,
    last: Option<(Box<[u8]>, Arc<Dir>)>,
    known: HashMap<u64, Arc<Known>>,
}

impl Dirs {
    pub(crate) fn new(root: OwnedFd) -> Result<Self, Errno> {
        let mut known = HashMap::new();
        let root = Arc::new(wrap(root, &mut known, 0)?);
        Ok(Self {
            root,
            open: HashMap::new(),
            order: VecDeque::new(),
            last: None,
            known,
        })
    }

    pub(crate) fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// The directory at a path, followed inside the root.
    pub(crate) fn open(&mut self, path: &[u8]) -> Result<Arc<Dir>, Errno> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some((last, dir)) = &self.last
            && **last == *path
        {
            return Ok(Arc::clone(dir));
        }
        let dir = match self.open.get(path) {
            Some(dir) => Arc::clone(dir),
            None => {
                let fd = sys::open_directory_in(&self.root.fd, path)?;
                // All of them were made here, so their depths are known.
                let dir = wrap(fd, &mut self.known, 0)?;
                self.keep(path, dir)
            }
        };
        self.last = Some((path.into(), Arc::clone(&dir)));
        Ok(dir)
    }

    /// Takes a directory that was just made at a path, in another one.
    pub(crate) fn made(
        &mut self,
        path: &[u8],
        fd: OwnedFd,
        parent: &Dir,
    ) -> Result<Arc<Dir>, Errno> {
        let dir = wrap(fd, &mut self.known, parent.depth() + 1)?;
        Ok(self.keep(path, dir))
    }

    fn keep(&mut self, path: &[u8], dir: Dir) -> Arc<Dir> {
        let dir = Arc::new(dir);
        if self.open.len() >= OPEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
        let path: Box<[u8]> = path.into();
        if self.open.insert(path.clone(), Arc::clone(&dir)).is_none() {
            self.order.push_back(path);
        }
        dir
    }

    /// A directory that was opened by other means than its path.
    pub(crate) fn adopt(&mut self, fd: OwnedFd) -> Result<Dir, Errno> {
        wrap(fd, &mut self.known, 0)
    }

    /// Forgets a directory that is gone: another may get its inode.
    pub(crate) fn gone(&mut self, ino: u64) {
        self.forget();
        self.known.remove(&ino);
    }

    #[cfg(test)]
    pub(crate) fn knows(&self, ino: u64) -> bool {
        self.known.contains_key(&ino)
    }

    /// Forgets all paths: something that others led through is gone.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
        self.order.clear();
        self.last = None;
    }
}

fn wrap(fd: OwnedFd, known: &mut HashMap<u64, Arc<Known>>, depth: usize) -> Result<Dir, Errno> {
    let ino = fstat(&fd)?.st_ino;
    let known = known.entry(ino).or_insert_with(|| {
        Arc::new(Known {
            mtime: AtomicI64::new(UNSET),
            depth,
        })
    });
    Ok(Dir {
        fd,
        ino,
        known: Arc::clone(known),
    })
}
