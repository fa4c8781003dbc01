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
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fchmod, fstat, fstatat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};

use super::block::Slice;
use super::dir::{Dir, Dirs};
use super::entry::{Attributes, Entry, Kind};
use super::error::{Reason, UnpackError};
use super::links::HardLink;
use super::name::Name;
use super::writer::{Gone, Maker, Writers};
use crate::sys;

/// A tree under construction.
#[derive(Debug)]
pub(crate) struct Tree<'scope> {
    pub(super) dirs: Dirs,
    pub(super) writers: Writers<'scope>,
    maker: Maker,
    /// Every place that something was made in, as a hash of directory and leaf. Two places with one
    /// hash cost a wait, no more.
    pub(super) places: HashSet<u64>,
    /// Those of them that this layer filled: its whiteouts mean the layers below.
    pub(super) fresh: HashSet<u64>,
    /// The directories, by inode, that this layer put something in: they stay.
    pub(super) touched: HashSet<u64>,
    hasher: RandomState,
    pub(super) links: Vec<HardLink>,
    /// Directories that their owner may not use, by inode: they get their mode at the end.
    pub(super) closed: HashMap<u64, (Name, u32)>,
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
                Some(libc::S_IFDIR) => {
                    let there = self.dirs.open(name.as_bytes());
                    return Ok(Some(
                        there.map_err(|errno| UnpackError::kernel("open", name, errno))?,
                    ));
                }
                // A layer that has a directory here replaces the link of a layer below.
                Some(libc::S_IFLNK) if !below && self.leads_to_directory(name)? => {
                    return Ok(None);
                }
                _ => self.clear(&parent, name, place, below)?,
            }
        }
        let mode = Mode::from_bits_truncate(mode & 0o777 | 0o700);
        let made = self.make_directory(&parent, name.as_bytes(), mode);
        Ok(Some(made.map_err(|why| why.of("create", name))?))
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

    /// Takes a place for something that is no directory. What stood there is removed.
    pub(super) fn claim(&mut self, dir: &Dir, name: &Name) -> Result<u64, Problem> {
        let place = self.place(dir, name.leaf());
        let below = self.is_below(place);
        if !self.fill(dir, place) {
            self.writers.settle()?;
            self.clear(dir, name, place, below)?;
        }
        Ok(place)
    }

    /// Notes that this layer puts something in a place; `false` when something was put there before.
    pub(super) fn fill(&mut self, dir: &Dir, place: u64) -> bool {
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
        let Some(stat) = stat_of(dir, name.leaf()) else {
            return Ok(());
        };
        let removed = match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                self.forget(stat.st_ino);
                unlinkat(&dir.fd, name.leaf(), UnlinkatFlags::RemoveDir)
            }
            kind => {
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

    /// Nothing may be known of a directory that goes away: another may get its inode.
    pub(super) fn forget(&mut self, ino: u64) {
        self.dirs.gone(ino);
        self.closed.remove(&ino);
        self.touched.remove(&ino);
    }

    pub(super) fn place(&self, dir: &Dir, leaf: &[u8]) -> u64 {
        self.hasher.hash_one((dir.ino, leaf))
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

/// The type bits of what stands in a place, without following it.
pub(super) fn kind_of(dir: &Dir, leaf: &[u8]) -> Option<libc::mode_t> {
    stat_of(dir, leaf).map(|stat| stat.st_mode & libc::S_IFMT)
}

fn stat_of(dir: &Dir, leaf: &[u8]) -> Option<FileStat> {
    fstatat(&dir.fd, leaf, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
}

pub(super) fn open_leaf(dir: &Dir, leaf: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(&dir.fd, leaf, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_stays_known_of_a_directory_that_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = std::fs::File::open(folder.path()).expect("it is there");
        let maker = Maker {
            owner: None,
            umask: 0,
        };
        let entry = |kind| Entry {
            name: Name::parse(b"d").expect("a name"),
            kind,
            size: 0,
            attributes: Attributes {
                mode: 0o500,
                uid: 0,
                gid: 0,
                mtime: 1,
            },
        };
        thread::scope(|scope| {
            let writers = Writers::start(scope, 1, maker);
            let mut tree = Tree::new(root.into(), writers, maker).expect("a tree");
            tree.make(entry(Kind::Directory)).expect("made");
            let ino = stat_of(tree.dirs.root(), b"d").expect("there").st_ino;
            tree.touched.insert(ino);
            assert!(tree.dirs.knows(ino) && tree.closed.contains_key(&ino));
            let link = Kind::Symlink(b"x".to_vec());
            tree.make(entry(link)).expect("replaced");
            assert!(!tree.dirs.knows(ino));
            assert!(!tree.closed.contains_key(&ino) && !tree.touched.contains(&ino));
            tree.finish(Ok(())).expect("complete");
        });
    }
}
