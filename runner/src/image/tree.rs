//! Whole directory trees: made under a hidden name, published by a rename, removed whatever their modes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat};
use nix::unistd::syncfs;

use crate::disk::{make_private, sync_parent};
use crate::sys::names;

/// A directory that nobody else looks at. Unless it is published it is removed, with all that is in it.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    published: bool,
}

impl Staging {
    /// Makes the directory. Its parent exists; nothing stands in its place.
    pub(crate) fn create(path: PathBuf) -> io::Result<Self> {
        make_private(&path)?;
        Ok(Self {
            path,
            published: false,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it durable, then visible as `target`, where nothing may stand. A crash leaves either
    /// nothing there, or all of it.
    pub(crate) fn publish(mut self, target: &Path) -> io::Result<()> {
        // One call for the whole file system is far cheaper than one for each of 50,000 files.
        syncfs(File::open(&self.path)?)?;
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(AT_FDCWD, &self.path, AT_FDCWD, target, flags) {
            // Some file systems know no flags. A plain rename replaces an empty directory at most.
            Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(&self.path, target)?,
            renamed => renamed?,
        }
        self.published = true;
        sync_parent(target)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = remove(&self.path)
        {
            eprintln!(
                "warning: failed to remove {}: {error}; the next run tries again",
                self.path.display()
            );
        }
    }
}

/// Removes a tree without following links. What is gone already is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Images have directories that not even their owner may change.
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn open_up(tree: &Path) -> io::Result<()> {
    fs::set_permissions(tree, Permissions::from_mode(0o700))?;
    open_up_below(&File::open(tree)?.into())
}

/// From one open directory to the next: the paths of a tree may be longer than the kernel takes.
fn open_up_below(directory: &OwnedFd) -> io::Result<()> {
    for name in names(directory.try_clone()?)? {
        let stat = fstatat(directory, &name[..], AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            let mode = Mode::from_bits_truncate(0o700);
            fchmodat(directory, &name[..], mode, FchmodatFlags::FollowSymlink)?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            open_up_below(&openat(directory, &name[..], flags, Mode::empty())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use nix::sys::stat::{fstat, mkdirat};

    use super::*;

    #[test]
    fn a_tree_that_is_closed_and_deeper_than_a_path_is_long_is_opened_up_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let name = "n".repeat(250);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut all: Vec<OwnedFd> = vec![File::open(&tree).unwrap().into()];
        for _ in 0..20 {
            let last = all.last().unwrap();
            mkdirat(last, name.as_str(), Mode::from_bits_truncate(0o700)).unwrap();
            all.push(openat(last, name.as_str(), flags, Mode::empty()).unwrap());
        }
        for directory in &all {
            nix::sys::stat::fchmod(directory, Mode::empty()).unwrap();
        }
        open_up(&tree).unwrap();
        for directory in &all {
            assert_eq!(fstat(directory).unwrap().st_mode & 0o777, 0o700);
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
