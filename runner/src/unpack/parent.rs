//! Directories: made where an entry needs one, and never deeper than a tree may be.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{Mode, fchmod, mkdirat};

use super::dir::Dir;
use super::error::{Reason, UnpackError};
use super::name::{DEPTH_MAX, Name, follow, split};
use super::tree::{Problem, Tree, open_leaf};

/// How many links of links are followed to make a missing directory; the kernel's own limit.
const LINKS: u32 = 40;

/// Why there is no directory, and none can be made.
#[derive(Debug)]
pub(super) enum NoDirectory {
    TooDeep,
    Kernel(Errno),
}

impl From<Errno> for NoDirectory {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl NoDirectory {
    /// As an error about an entry.
    pub(super) fn of(self, operation: &'static str, name: &Name) -> UnpackError {
        match self {
            Self::TooDeep => UnpackError::refused(name.as_bytes(), Reason::TooDeep),
            Self::Kernel(errno) => UnpackError::kernel(operation, name, errno),
        }
    }

    /// As an error about an entry that the directory should hold.
    pub(super) fn above(self, name: &Name) -> UnpackError {
        let reason = match self {
            Self::Kernel(Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => Reason::Parent,
            Self::Kernel(Errno::ENAMETOOLONG) => Reason::PathTooLong,
            why => return why.of("make the parent of", name),
        };
        UnpackError::refused(name.as_bytes(), reason)
    }
}

impl Tree<'_> {
    /// The directory that holds an entry; made when the archive has no entry for it.
    pub(super) fn parent(&mut self, name: &Name) -> Result<Arc<Dir>, Problem> {
        match self.dirs.open(name.parent()) {
            Ok(dir) => Ok(dir),
            Err(Errno::ENOENT) => {
                // A file that is still to be written may stand where the parent should be.
                self.writers.settle()?;
                Ok(self
                    .missing(name.parent(), LINKS)
                    .map_err(|why| why.above(name))?)
            }
            Err(errno) => Err(NoDirectory::from(errno).above(name).into()),
        }
    }

    /// Whether a link leads to a directory. What it leads to is made when it is not there, as it is for
    /// an entry below the link.
    pub(super) fn leads_to_directory(&mut self, name: &Name) -> Result<bool, UnpackError> {
        match self.missing(name.as_bytes(), LINKS) {
            Ok(_) => Ok(true),
            Err(NoDirectory::Kernel(Errno::ENOTDIR | Errno::ELOOP)) => Ok(false),
            Err(why) => Err(why.above(name)),
        }
    }

    /// Makes a directory in another one.
    pub(super) fn make_directory(
        &mut self,
        parent: &Dir,
        path: &[u8],
        mode: Mode,
    ) -> Result<Arc<Dir>, NoDirectory> {
        if parent.depth() >= DEPTH_MAX {
            return Err(NoDirectory::TooDeep);
        }
        let (_, leaf) = split(path);
        mkdirat(&parent.fd, leaf, mode)?;
        let fd = open_leaf(parent, leaf)?;
        Ok(self.dirs.made(path, fd, parent)?)
    }

    /// Makes a directory and those above it; where a link to nothing stands in the way, what it
    /// points to inside the tree.
    fn missing(&mut self, path: &[u8], links: u32) -> Result<Arc<Dir>, NoDirectory> {
        match self.dirs.open(path) {
            Err(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
        let (above, leaf) = split(path);
        let parent = self.missing(above, links)?;
        let mode = Mode::from_bits_truncate(0o755);
        match self.make_directory(&parent, path, mode) {
            Ok(dir) => {
                let place = self.place(&parent, leaf);
                self.fill(&parent, place);
                // Whatever the umask, as the package managers do.
                fchmod(&dir.fd, mode)?;
                return Ok(dir);
            }
            Err(NoDirectory::Kernel(Errno::EEXIST)) => {
                // EINVAL when it is no link: then something that is no directory stands there.
                let target = readlinkat(&parent.fd, leaf).map_err(|errno| match errno {
                    Errno::EINVAL => Errno::ENOTDIR,
                    errno => errno,
                })?;
                let links = links.checked_sub(1).ok_or(Errno::ELOOP)?;
                self.missing(&follow(above, target.as_bytes()), links)?;
            }
            Err(why) => return Err(why),
        }
        Ok(self.dirs.open(path)?)
    }
}
