//! The kernel, where the standard library has no call for it. The only module that may be unsafe.

mod directory;
pub(crate) mod mount;
pub(crate) mod privilege;
pub(crate) mod process;

pub(crate) use directory::names;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

/// Opens a directory below `root` as a program would that has `root` as its root: symbolic links are
/// followed, also absolute ones, and nothing leads out; `..` stops there. Links of /proc, which lead
/// anywhere, are not followed. openat2(2), Linux 5.6.
pub(crate) fn open_directory_in(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let path = Path::new(OsStr::from_bytes(path));
    open_in(root, path, flags, ResolveFlag::empty())
}

/// Opens what a path below `root` names, and follows no symbolic link on the way: `ELOOP` when there is
/// one. `O_PATH` unless the flags say otherwise.
pub(crate) fn open_without_links(
    root: impl AsFd,
    path: &Path,
    flags: OFlag,
) -> Result<OwnedFd, Errno> {
    open_in(root, path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// Opens a path as a program would that has `root` as its root, but no link of /proc is followed.
pub(crate) fn open_in(
    root: impl AsFd,
    path: &Path,
    flags: OFlag,
    resolve: ResolveFlag,
) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(Mode::from_bits_truncate(
            if flags.contains(OFlag::O_CREAT) {
                0o644
            } else {
                0
            },
        ))
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | resolve);
    // EAGAIN: somebody renamed something meanwhile, anywhere on the system, and `..` was walked.
    loop {
        match openat2(root.as_fd(), path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Whether a file lives in memory.
pub(crate) fn is_tmpfs(file: impl AsFd) -> bool {
    fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
}

/// The mode bits that this process takes from new files; all of them when it cannot be known. There
/// is no call that reads it without changing it for the other threads.
pub(crate) fn umask() -> u32 {
    let mut status = String::new();
    let read = File::open(Path::new("/proc/self/status"))
        .and_then(|mut file| file.read_to_string(&mut status));
    read.ok()
        .and_then(|_| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o777)
}
