//! Places in the image: opened below its root, never through a symbolic link, made where they are missing.
//!
//! The image chose what stands there. A link at a mount target would send a mount, or a file that we
//! write, somewhere else (CVE-2021-30465, CVE-2023-27561), so there is no link on the whole way.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::sys::stat::{Mode, fstat, mkdirat};

use super::error::{Failure, failed};
use super::root::Root;
use crate::sys::{mount, open_without_links};

/// Opens a directory of the image.
pub(crate) fn directory(root: &Root, path: &Path) -> Result<OwnedFd, Failure> {
    match open_without_links(root.fd(), path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(Errno::ENOENT) => make_directory(root, path),
        Err(errno) => Err(cannot_open(path, errno)),
        Ok(fd) => Ok(fd),
    }
}

/// Opens a file of the image that is no directory.
pub(crate) fn file(root: &Root, path: &Path) -> Result<OwnedFd, Failure> {
    let fd = match open_without_links(root.fd(), path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => make_file(root, path)?,
        Err(errno) => return Err(cannot_open(path, errno)),
        Ok(fd) => fd,
    };
    if is_directory(&fd).map_err(failed("look at", path))? {
        return Err(Failure::refused(path, "it is a directory"));
    }
    Ok(fd)
}

pub(crate) fn is_directory(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

fn cannot_open(path: &Path, errno: Errno) -> Failure {
    match errno {
        Errno::ELOOP => Failure::refused(path, "there is a symbolic link on the way"),
        Errno::ENOTDIR => Failure::refused(path, "it is not a directory"),
        errno => Failure::kernel("open in the image", path, errno),
    }
}

fn make_directory(root: &Root, path: &Path) -> Result<OwnedFd, Failure> {
    let mut at = PathBuf::from("/");
    let mut parent = open_without_links(root.fd(), &at, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .map_err(|errno| cannot_open(&at, errno))?;
    for part in path.components().skip(1) {
        at.push(part);
        let open = || open_without_links(root.fd(), &at, OFlag::O_PATH | OFlag::O_DIRECTORY);
        let fd = match open() {
            Err(Errno::ENOENT) => {
                in_image(root, &parent, &at)?;
                mkdirat(&parent, part.as_os_str(), Mode::from_bits_truncate(0o755))
                    .map_err(failed("make in the image", &at))?;
                open()
            }
            result => result,
        };
        parent = fd.map_err(|errno| cannot_open(&at, errno))?;
    }
    Ok(parent)
}

fn make_file(root: &Root, path: &Path) -> Result<OwnedFd, Failure> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::refused(path, "it is no file"));
    };
    let parent = directory(root, parent)?;
    in_image(root, &parent, path)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    openat(&parent, name, flags, Mode::from_bits_truncate(0o644))
        .map_err(failed("make in the image", path))
}

/// Nothing is made in a directory of the host that is mounted in the image. That may be of the same file
/// system as the image; the memory is ours alone.
fn in_image(root: &Root, parent: impl AsFd, path: &Path) -> Result<(), Failure> {
    let look = || -> Result<bool, Errno> {
        let parent = parent.as_fd();
        let in_memory = fstat(parent)?.st_dev == fstat(root.memory())?.st_dev;
        Ok(in_memory || mount::id(parent)? == mount::id(root.fd())?)
    };
    if look().map_err(failed("look at", path))? {
        Ok(())
    } else {
        let reason = "it is missing in what is mounted above it";
        Err(Failure::refused(path, reason))
    }
}

pub(crate) fn is_file(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
}
