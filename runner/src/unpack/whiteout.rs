//! Whiteouts: a layer takes away what the layers below have. What it has itself stays, wherever in the
//! archive it comes.
//!
//! Nothing outside the tree is removed: a whiteout's directory is opened as any parent is, and from
//! there on no link is followed.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::dir::Dir;
use super::error::UnpackError;
use super::name::Name;
use super::parent::NoDirectory;
use super::tree::{Problem, Tree, kind_of, open_leaf};
use crate::sys;

impl Tree<'_> {
    /// Hides a name of the layers below. That there is no such name is fine.
    pub(super) fn hide(&mut self, name: &Name) -> Result<(), Problem> {
        match self.dirs.open(name.parent()) {
            Ok(dir) => {
                self.hide_in(&dir, name.leaf(), name)?;
                Ok(())
            }
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(NoDirectory::from(errno).above(name).into()),
        }
    }

    /// Hides all that the layers below have in a directory.
    pub(super) fn hide_all(&mut self, name: &Name) -> Result<(), Problem> {
        match self.dirs.open(name.as_bytes()) {
            Ok(dir) => {
                self.empty(&dir, name)?;
                Ok(())
            }
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(NoDirectory::from(errno).above(name).into()),
        }
    }

    /// Hides what the layers below have in a directory that is about to be replaced.
    pub(super) fn hide_contents(&mut self, parent: &Dir, name: &Name) -> Result<(), UnpackError> {
        if kind_of(parent, name.leaf()) != Some(libc::S_IFDIR) {
            return Ok(());
        }
        let dir = self.enter(parent, name.leaf(), name)?;
        self.empty(&dir, name)?;
        self.forget(dir.ino);
        Ok(())
    }

    /// Hides one entry of a directory; `true` when it is gone. `name` is for errors.
    fn hide_in(&mut self, parent: &Dir, leaf: &[u8], name: &Name) -> Result<bool, UnpackError> {
        let fresh = self.fresh.contains(&self.place(parent, leaf));
        let removed = match kind_of(parent, leaf) {
            None => return Ok(!fresh),
            Some(libc::S_IFDIR) => {
                let dir = self.enter(parent, leaf, name)?;
                let empty = self.empty(&dir, name)?;
                if fresh || !empty || self.touched.contains(&dir.ino) {
                    return Ok(false);
                }
                self.forget(dir.ino);
                unlinkat(&parent.fd, leaf, UnlinkatFlags::RemoveDir)
            }
            Some(_) if fresh => return Ok(false),
            Some(kind) => {
                if kind == libc::S_IFLNK {
                    self.dirs.forget();
                }
                unlinkat(&parent.fd, leaf, UnlinkatFlags::NoRemoveDir)
            }
        };
        removed.map_err(|errno| UnpackError::kernel("remove", name, errno))?;
        Ok(true)
    }

    /// Hides all entries of a directory; `true` when it is empty now.
    fn empty(&mut self, dir: &Dir, name: &Name) -> Result<bool, UnpackError> {
        let leaves = open_leaf(dir, b".")
            .and_then(sys::names)
            .map_err(|errno| UnpackError::kernel("read", name, errno))?;
        let mut empty = true;
        for leaf in leaves {
            empty &= self.hide_in(dir, &leaf, name)?;
        }
        Ok(empty)
    }

    fn enter(&mut self, parent: &Dir, leaf: &[u8], name: &Name) -> Result<Dir, UnpackError> {
        open_leaf(parent, leaf)
            .and_then(|fd| self.dirs.adopt(fd))
            .map_err(|errno| UnpackError::kernel("open", name, errno))
    }
}
