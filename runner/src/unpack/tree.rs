//! The tree that an archive becomes. One thread decides and makes everything but files.
//!
//! What keeps it inside the target:
//! - parents are opened with openat2(RESOLVE_IN_ROOT), so links lead to where they would inside;
//! - leaves are made with calls that never follow a link (O_EXCL, mkdirat, symlinkat, linkat);
//! - what stands in the way is unlinked by name in its open parent, never opened or followed;
//! - hard links come last, so nothing is written through one.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstat, fstatat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use super::block::Slice;
use super::dir::{Dir, Dirs};
use super::entry::{Attributes, Entry, Kind};
use super::error::{Reason, UnpackError};
use super::name::{Name, follow, printable, split};
use super::writer::{Gone, Maker, Writers};
use crate::sys;

/// How many links of links are followed to make a missing parent; the kernel's own limit.
const LINKS: u32 = 40;
/// How often hard links are tried again that point to other hard links.
const LINK_ROUNDS: u32 = 8;

/// A tree under construction.
#[derive(Debug)]
pub(crate) struct Tree<'scope> {
    pub(super) dirs: Dirs,
    writers: Writers<'scope>,
    maker: Maker,
    /// Every place that something was made in, as a hash of directory and leaf. Two places with one
    /// hash cost a wait, no more.
    pub(super) places: HashSet<u64>,
    /// Those of them that this layer filled: its whiteouts mean the layers below.
    pub(super) fresh: HashSet<u64>,
    /// The directories, by inode, that this layer put something in: they stay.
    pub(super) touched: HashSet<u64>,
    hasher: RandomState,
    links: Vec<HardLink>,
    /// Directories that their owner may not use, by inode: they get their mode at the end.
    pub(super) closed: HashMap<u64, (Name, u32)>,
}

#[derive(Debug)]
struct HardLink {
    name: Name,
    target: Name,
    place: u64,
}

/// Why an entry was not made.
pub(super) enum Problem {
    Unpack(UnpackError),
    Gone,
}

impl From<UnpackError> for Problem {
    fn from(error: UnpackError) -> Self {
        Self::Unpack(error)
    }
}

impl From<Gone> for Problem {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl<'scope> Tree<'scope> {
    pub(crate) fn new(
        root: OwnedFd,
        writers: Writers<'scope>,
        maker: Maker,
    ) -> Result<Self, Errno> {
        Ok(Self {
            dirs: Dirs::new(root)?,
            writers,
            maker,
            places: HashSet::new(),
            fresh: HashSet::new(),
            touched: HashSet::new(),
            hasher: RandomState::new(),
            links: Vec::new(),
            closed: HashMap::new(),
        })
    }

    /// Makes an entry. A file's contents follow with `data`, then `end_file`. An error ends the run:
    /// call `finish` to learn the first one.
    pub(crate) fn make(&mut self, entry: Entry) -> Result<(), Option<UnpackError>> {
        let Entry {
            name,
            kind,
            attributes,
            ..
        } = entry;
        let made = match kind {
            Kind::File => self.file(name, attributes),
            Kind::Directory => self.directory(&name, &attributes),
            Kind::Symlink(target) => self.symlink(&name, &target, &attributes),
            Kind::HardLink(target) => self.hard_link(name, target),
            Kind::Node => Ok(()),
            Kind::Whiteout(hidden) => self.hide(&hidden),
            Kind::Opaque(directory) => self.hide_all(&directory),
        };
        made.map_err(|problem| match problem {
            Problem::Unpack(error) => Some(error),
            Problem::Gone => None,
        })
    }

    pub(crate) fn data(&mut self, slice: Slice) {
        self.writers.data(slice);
    }

    pub(crate) fn end_file(&mut self) {
        self.writers.end();
    }

    /// Hands what was collected to the writers, so that its buffers come back.
    pub(crate) fn flush(&mut self) -> Result<(), Option<UnpackError>> {
        self.writers.flush().map_err(|Gone| None)
    }

    /// Completes a layer: what comes next is above it.
    pub(crate) fn end_layer(&mut self) -> Result<(), Option<UnpackError>> {
        self.writers.settle().map_err(|Gone| None)?;
        self.make_links().map_err(Some)?;
        self.fresh.clear();
        self.touched.clear();
        Ok(())
    }

    /// Waits for the writers, makes hard links and closes directories; with `so_far` an error, only
    /// ends the writers. Gives the root back.
    pub(crate) fn finish(
        mut self,
        so_far: Result<(), Option<UnpackError>>,
    ) -> Result<(), UnpackError> {
        let result = so_far.and_then(|()| self.end_layer());
        let closed = self.closed;
        let root = Arc::clone(self.dirs.root());
        // The times of the directories that are still open.
        drop(self.dirs);
        let written = self.writers.finish();
        match result {
            Err(Some(error)) => return Err(error),
            // A writer that is gone says itself why.
            Err(None) => written?,
            Ok(()) => {
                written?;
                close(&root, closed)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, name: Name, attributes: Attributes) -> Result<(), Problem> {
        let dir = self.parent(&name)?;
        self.claim(&dir, &name)?;
        self.writers.create(dir, name, attributes);
        Ok(())
    }

    fn directory(&mut self, name: &Name, attributes: &Attributes) -> Result<(), Problem> {
        let dir = if name.is_root() {
            Arc::clone(self.dirs.root())
        } else {
            match self.new_directory(name, attributes.mode)? {
                Some(dir) => dir,
                None => return Ok(()),
            }
        };
        let failed = |operation| move |errno| UnpackError::kernel(operation, name, errno);
        if let Some((uid, gid)) = self.maker.chown(attributes) {
            fchown(&dir.fd, uid, gid).map_err(failed("give away"))?;
        }
        self.closed.remove(&dir.ino);
        if attributes.mode & 0o700 == 0o700 {
            let mode = Mode::from_bits_truncate(attributes.mode);
            fchmod(&dir.fd, mode).map_err(failed("set the mode of"))?;
        } else {
            self.closed.insert(dir.ino, (name.clone(), attributes.mode));
        }
        dir.set_mtime(attributes.mtime);
        Ok(())
    }

    /// Makes a directory, or takes the one that is there. `None` when the name is a link to one: a
    /// merged /usr has `lib -> usr/lib`, and an entry `lib/` does not mean to undo that.
    fn new_directory(&mut self, name: &Name, mode: u32) -> Result<Option<Arc<Dir>>, Problem> {
        let parent = self.parent(name)?;
        let place = self.place(&parent, name.leaf());
        let below = self.is_below(place);
        if !self.fill(&parent, place) {
            self.writers.settle()?;
            match kind_of(&parent, name.leaf()) {
                Some(libc::S_IFDIR) => return Ok(Some(self.existing(name.as_bytes())?)),
                // A layer that has a directory here replaces the link of a layer below.
                Some(libc::S_IFLNK) if !below && self.dirs.open(name.as_bytes()).is_ok() => {
                    return Ok(None);
                }
                _ => self.clear(&parent, name, place, below)?,
            }
        }
        let mode = Mode::from_bits_truncate(mode & 0o777 | 0o700);
        let failed = |errno| UnpackError::kernel("create", name, errno);
        mkdirat(&parent.fd, name.leaf(), mode).map_err(failed)?;
        let fd = open_leaf(&parent, name.leaf()).map_err(failed)?;
        Ok(Some(self.dirs.keep(name.as_bytes(), fd).map_err(failed)?))
    }

    fn symlink(
        &mut self,
        name: &Name,
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<(), Problem> {
        let dir = self.parent(name)?;
        self.claim(&dir, name)?;
        let failed = |operation| move |errno| UnpackError::kernel(operation, name, errno);
        symlinkat(target, &dir.fd, name.leaf()).map_err(failed("create"))?;
        if let Some((uid, gid)) = self.maker.chown(attributes) {
            fchownat(&dir.fd, name.leaf(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(failed("give away"))?;
        }
        utimensat(
            &dir.fd,
            name.leaf(),
            &TimeSpec::UTIME_OMIT,
            &TimeSpec::new(attributes.mtime, 0),
            UtimensatFlags::NoFollowSymlink,
        )
        .map_err(failed("set the time of"))?;
        Ok(())
    }

    /// Hard links wait for the end: their target may come later, and nothing may be written through one.
    fn hard_link(&mut self, name: Name, target: Name) -> Result<(), Problem> {
        let dir = self.parent(&name)?;
        let place = self.claim(&dir, &name)?;
        self.links.push(HardLink {
            name,
            target,
            place,
        });
        Ok(())
    }

    fn make_links(&mut self) -> Result<(), UnpackError> {
        let mut links = std::mem::take(&mut self.links);
        for _ in 0..LINK_ROUNDS {
            let mut missing = Vec::new();
            for link in links {
                if !self.make_link(&link)? {
                    missing.push(link);
                }
            }
            links = missing;
            if links.is_empty() {
                break;
            }
        }
        match links.first() {
            None => Ok(()),
            Some(link) => Err(UnpackError::refused(
                link.name.as_bytes(),
                Reason::MissingTarget(link.target.to_string()),
            )),
        }
    }

    /// Makes one hard link; `false` when its target is not there.
    fn make_link(&mut self, link: &HardLink) -> Result<bool, UnpackError> {
        let failed = |errno| UnpackError::kernel("link", &link.name, errno);
        let from = match self.dirs.open(link.target.parent()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        };
        match kind_of(&from, link.target.leaf()) {
            None => return Ok(false),
            Some(libc::S_IFREG | libc::S_IFLNK) => {}
            Some(_) => {
                return Err(UnpackError::refused(
                    link.name.as_bytes(),
                    Reason::LinkToNoFile(link.target.to_string()),
                ));
            }
        }
        let to = self.dirs.open(link.name.parent()).map_err(failed)?;
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is just that.
        let linked = linkat(
            &from.fd,
            link.target.leaf(),
            &to.fd,
            link.name.leaf(),
            AtFlags::empty(),
        );
        match linked {
            Ok(()) => Ok(true),
            // Only a directory: entries below the link's own name made one.
            Err(Errno::EEXIST) => Err(UnpackError::refused(
                link.name.as_bytes(),
                Reason::ReplacesDirectory,
            )),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Takes a place for something that is no directory. What stood there is removed.
    fn claim(&mut self, dir: &Dir, name: &Name) -> Result<u64, Problem> {
        let place = self.place(dir, name.leaf());
        let below = self.is_below(place);
        if !self.fill(dir, place) {
            self.writers.settle()?;
            self.clear(dir, name, place, below)?;
        }
        Ok(place)
    }

    /// Notes that this layer puts something in a place; `false` when something was put there before.
    fn fill(&mut self, dir: &Dir, place: u64) -> bool {
        self.fresh.insert(place);
        self.touched.insert(dir.ino);
        self.places.insert(place)
    }

    /// Whether what stands in a place is of a layer below.
    fn is_below(&self, place: u64) -> bool {
        self.places.contains(&place) && !self.fresh.contains(&place)
    }

    /// Removes what stands in a place: anything but a directory with contents, unless they are of a
    /// layer `below`.
    fn clear(
        &mut self,
        dir: &Dir,
        name: &Name,
        place: u64,
        below: bool,
    ) -> Result<(), UnpackError> {
        self.links.retain(|link| link.place != place);
        if below {
            self.hide_contents(dir, name)?;
        }
        let removed = match kind_of(dir, name.leaf()) {
            None => return Ok(()),
            Some(libc::S_IFDIR) => {
                self.dirs.forget();
                unlinkat(&dir.fd, name.leaf(), UnlinkatFlags::RemoveDir)
            }
            Some(kind) => {
                if kind == libc::S_IFLNK {
                    self.dirs.forget();
                }
                unlinkat(&dir.fd, name.leaf(), UnlinkatFlags::NoRemoveDir)
            }
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Err(UnpackError::refused(
                name.as_bytes(),
                Reason::ReplacesDirectory,
            )),
            Err(errno) => Err(UnpackError::kernel("replace", name, errno)),
        }
    }

    pub(super) fn place(&self, dir: &Dir, leaf: &[u8]) -> u64 {
        self.hasher.hash_one((dir.ino, leaf))
    }

    /// The directory that holds an entry; made when the archive has no entry for it.
    fn parent(&mut self, name: &Name) -> Result<Arc<Dir>, Problem> {
        match self.dirs.open(name.parent()) {
            Ok(dir) => Ok(dir),
            Err(Errno::ENOENT) => {
                // A file that is still to be written may stand where the parent should be.
                self.writers.settle()?;
                Ok(self
                    .missing(name.parent(), LINKS)
                    .map_err(|errno| parent_error(name, errno))?)
            }
            Err(errno) => Err(parent_error(name, errno).into()),
        }
    }

    fn existing(&mut self, path: &[u8]) -> Result<Arc<Dir>, UnpackError> {
        self.dirs.open(path).map_err(|errno| UnpackError::Write {
            operation: "open",
            path: printable(path),
            source: errno.into(),
        })
    }

    /// Makes a directory and those above it; where a link to nothing stands in the way, what it
    /// points to inside the tree.
    fn missing(&mut self, path: &[u8], links: u32) -> Result<Arc<Dir>, Errno> {
        match self.dirs.open(path) {
            Err(Errno::ENOENT) => {}
            result => return result,
        }
        let (above, leaf) = split(path);
        let parent = self.missing(above, links)?;
        match mkdirat(&parent.fd, leaf, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                let place = self.place(&parent, leaf);
                self.fill(&parent, place);
                // Whatever the umask, as the package managers do.
                let dir = self.dirs.open(path)?;
                fchmod(&dir.fd, Mode::from_bits_truncate(0o755))?;
                return Ok(dir);
            }
            Err(Errno::EEXIST) => {
                // EINVAL when it is no link: then something that is no directory stands there.
                let target = readlinkat(&parent.fd, leaf).map_err(|errno| match errno {
                    Errno::EINVAL => Errno::ENOTDIR,
                    errno => errno,
                })?;
                let links = links.checked_sub(1).ok_or(Errno::ELOOP)?;
                self.missing(&follow(above, target.as_bytes()), links)?;
            }
            Err(errno) => return Err(errno),
        }
        self.dirs.open(path)
    }
}

/// Gives the directories their modes that their owner may not use, the deepest first.
fn close(root: &Dir, closed: HashMap<u64, (Name, u32)>) -> Result<(), UnpackError> {
    let mut closed: Vec<_> = closed.into_iter().collect();
    closed.sort_by(|(_, (a, _)), (_, (b, _))| b.cmp(a));
    for (ino, (name, mode)) in closed {
        let failed = |errno| UnpackError::kernel("set the mode of", &name, errno);
        // It may be gone, or something else may be reached by its path now.
        let Ok(fd) = sys::open_directory_in(&root.fd, name.as_bytes()) else {
            continue;
        };
        if fstat(&fd).map_err(failed)?.st_ino == ino {
            fchmod(&fd, Mode::from_bits_truncate(mode)).map_err(failed)?;
        }
    }
    Ok(())
}

pub(super) fn parent_error(name: &Name, errno: Errno) -> UnpackError {
    match errno {
        Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV => {
            UnpackError::refused(name.as_bytes(), Reason::Parent)
        }
        Errno::ENAMETOOLONG => UnpackError::refused(name.as_bytes(), Reason::PathTooLong),
        errno => UnpackError::kernel("make the parent of", name, errno),
    }
}

/// The type bits of what stands in a place, without following it.
pub(super) fn kind_of(dir: &Dir, leaf: &[u8]) -> Option<libc::mode_t> {
    fstatat(&dir.fd, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)
        .ok()
        .map(|stat| stat.st_mode & libc::S_IFMT)
}

pub(super) fn open_leaf(dir: &Dir, leaf: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(&dir.fd, leaf, flags, Mode::empty())
}
