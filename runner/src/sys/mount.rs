//! Mounts by file descriptor: made detached, finished, and only then attached to an open directory. No
//! path is walked twice, so nothing can be exchanged in between. Linux 5.12.
#![expect(unsafe_code, reason = "libc has no safe call for these")]

use std::ffi::CStr;
use std::mem::{self, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

/// What a mount does not allow.
pub(crate) const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub(crate) const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub(crate) const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
pub(crate) const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// The result of a raw call that gives a new descriptor.
fn new_fd(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(result)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A value of one option of a file system.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Setting<'a> {
    Flag(&'a CStr),
    Text(&'a CStr, &'a CStr),
}

/// A file system that is being set up. fsopen(2).
#[derive(Debug)]
pub(crate) struct NewFs(OwnedFd);

impl NewFs {
    pub(crate) fn open(kind: &CStr) -> Result<Self, Errno> {
        // SAFETY: the name is a string with its end, which the kernel only reads.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) };
        new_fd(fd).map(Self)
    }

    pub(crate) fn set(&self, setting: Setting<'_>) -> Result<(), Errno> {
        let (command, key, value) = match setting {
            Setting::Flag(key) => (libc::FSCONFIG_SET_FLAG, key.as_ptr(), ptr::null()),
            Setting::Text(key, value) => (libc::FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr()),
        };
        // SAFETY: key and value are strings with their ends, or null where the command takes none.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                key,
                value,
                0,
            )
        };
        Errno::result(result).map(drop)
    }

    /// Makes the file system, and a mount of it that is attached nowhere yet.
    pub(crate) fn mount(self, attributes: u64) -> Result<OwnedFd, Errno> {
        // SAFETY: this command takes no key and no value.
        let made = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                libc::FSCONFIG_CMD_CREATE,
                ptr::null::<u8>(),
                ptr::null::<u8>(),
                0,
            )
        };
        Errno::result(made)?;
        // SAFETY: only numbers go in.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_raw_fd(),
                libc::FSMOUNT_CLOEXEC,
                attributes,
            )
        };
        new_fd(fd)
    }
}

/// A second mount of what is open, attached nowhere yet; with all that is mounted below it if asked.
pub(crate) fn copy(of: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = libc::OPEN_TREE_CLONE as libc::c_int
        | libc::OPEN_TREE_CLOEXEC as libc::c_int
        | libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_int;
    }
    let fd = of.as_fd().as_raw_fd();
    // SAFETY: the path is the empty string with its end.
    let copy = unsafe { libc::syscall(libc::SYS_open_tree, fd, c"".as_ptr(), flags) };
    new_fd(copy)
}

/// Takes rights from a mount, and from all below it if asked.
pub(crate) fn restrict(mount: impl AsFd, attributes: u64, recursive: bool) -> Result<(), Errno> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_int;
    }
    let change = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is the empty string with its end; the structure lives through the call, has
    // the kernel's layout, and its true size goes with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Names the mount that an open file is reached through. statx(2), Linux 5.8.
pub(crate) fn id(of: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: all of it is numbers.
    let mut found: libc::statx = unsafe { mem::zeroed() };
    // SAFETY: the path is the empty string with its end; the structure lives through the call.
    let result = unsafe {
        libc::statx(
            of.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID,
            &raw mut found,
        )
    };
    Errno::result(result)?;
    if found.stx_mask & libc::STATX_MNT_ID == 0 {
        return Err(Errno::ENOSYS);
    }
    Ok(found.stx_mnt_id)
}

/// Attaches a mount to what is open at `target`, a directory or a file.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    // SAFETY: both paths are the empty string with its end.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}
