//! The root of the container: the image, read-only, below a layer in memory that takes all changes.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{chdir, fchdir, pivot_root};

use super::error::{Failure, Reports, failed};
use super::spec::Limits;
use crate::sys::mount::{NO_DEV, NO_SUID, NewFs, READ_ONLY, Setting, attach, copy, restrict};
use crate::sys::open_without_links;

const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// Where programs write. Without an overlay these get directories in memory, if the image has them.
const WRITABLE: [(&str, u32); 4] = [
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/run", 0o755),
    ("/root", 0o700),
];

/// The root of the container before it is entered.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    /// The layer in memory.
    memory: OwnedFd,
    writable: bool,
}

impl Root {
    /// Mounts it over `rootfs`, which only this mount namespace sees.
    pub(crate) fn make(
        rootfs: &Path,
        limits: &Limits,
        rootless: bool,
        reports: &Reports,
    ) -> Result<Self, Failure> {
        let image = open(rootfs, DIRECTORY, Mode::empty()).map_err(failed("open", rootfs))?;
        let lower = copy(&image, false).map_err(failed("bind", rootfs))?;
        restrict(&lower, READ_ONLY | NO_SUID | NO_DEV, false)
            .map_err(failed("make read-only", rootfs))?;

        let size = limits.tmpfs_bytes.max(1 << 16);
        let inodes = limits.tmpfs_inodes.max(64);
        let memory = tmpfs(size, inodes, 0o755)
            .and_then(|fs| fs.mount(NO_SUID | NO_DEV))
            .map_err(failed("make a file system in memory over", rootfs))?;
        for name in ["image", "changes", "work", "root"] {
            mkdirat(&memory, name, Mode::from_bits_truncate(0o755))
                .map_err(failed("make", name))?;
        }
        attach(&memory, &image).map_err(failed("mount over", rootfs))?;
        let within = |name: &str| {
            openat(&memory, name, DIRECTORY, Mode::empty()).map_err(failed("open", name))
        };
        attach(&lower, within("image")?).map_err(failed("mount", rootfs))?;
        let at = within("root")?;
        match overlay(&memory, &lower, rootless) {
            Ok(overlay) => {
                attach(&overlay, at).map_err(failed("mount an overlay over", rootfs))?;
                Ok(Self {
                    fd: overlay,
                    memory,
                    writable: true,
                })
            }
            Err(errno) => {
                reports.note(format!(
                    "no overlay: the root is read-only but for /tmp, /var/tmp, /run and /root ({errno})"
                ));
                let fd = copy(&lower, false).map_err(failed("bind", rootfs))?;
                attach(&fd, at).map_err(failed("mount", rootfs))?;
                let root = Self {
                    fd,
                    memory,
                    writable: false,
                };
                for (path, mode) in WRITABLE {
                    root.replace(path.as_ref(), mode)?;
                }
                Ok(root)
            }
        }
    }

    /// The root's mount.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The layer in memory, for what is mounted from there.
    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Whether files of the image can be changed, in memory.
    pub(crate) fn writable(&self) -> bool {
        self.writable
    }

    /// Makes it the root of this process, and lets go of the host's. pivot_root(2): unlike chroot there
    /// is no way back.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        fchdir(&self.fd).map_err(failed("enter", "the new root"))?;
        pivot_root(".", ".").map_err(failed("make the root", "the new root"))?;
        umount2(".", MntFlags::MNT_DETACH).map_err(failed("unmount", "the host's root"))?;
        chdir("/").map_err(failed("enter", "/"))
    }

    fn replace(&self, path: &Path, mode: u32) -> Result<(), Failure> {
        let target = match open_without_links(&self.fd, path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(target) => target,
            // The image has its own idea of this place.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => return Ok(()),
            Err(errno) => return Err(Failure::kernel("open in the image", path, errno)),
        };
        let name = path.to_string_lossy().replace('/', "-");
        mkdirat(&self.memory, name.as_str(), Mode::empty()).map_err(failed("make", &name))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = openat(&self.memory, name.as_str(), flags, Mode::empty())
            .map_err(failed("open", &name))?;
        fchmod(&directory, Mode::from_bits_truncate(mode))
            .map_err(failed("set the mode of", path))?;
        copy(&directory, false)
            .and_then(|mount| attach(mount, target))
            .map_err(failed("mount", path))
    }
}

/// A file system in memory that has an end.
pub(crate) fn tmpfs(bytes: u64, inodes: u64, mode: u32) -> Result<NewFs, Errno> {
    let fs = NewFs::open(c"tmpfs")?;
    let text = |number: String| CString::new(number).map_err(|_| Errno::EINVAL);
    fs.set(Setting::Text(c"size", &text(bytes.to_string())?))?;
    fs.set(Setting::Text(c"nr_inodes", &text(inodes.to_string())?))?;
    fs.set(Setting::Text(c"mode", &text(format!("{mode:o}"))?))?;
    Ok(fs)
}

/// Lays the changes over the image. The paths are relative to the layer in memory: those of the host
/// may have characters that overlayfs takes for separators.
fn overlay(memory: &OwnedFd, lower: &OwnedFd, rootless: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let changes = openat(memory, "changes", flags, Mode::empty())?;
    // The root's own mode is that of the upper layer.
    fchmod(
        &changes,
        Mode::from_bits_truncate(fstat(lower)?.st_mode & 0o7777),
    )?;
    fchdir(memory)?;
    let fs = NewFs::open(c"overlay")?;
    fs.set(Setting::Text(c"source", c"image"))?;
    fs.set(Setting::Text(c"lowerdir", c"image"))?;
    fs.set(Setting::Text(c"upperdir", c"changes"))?;
    fs.set(Setting::Text(c"workdir", c"work"))?;
    if rootless {
        // Attributes named `trusted.` are not ours to set. Linux 5.11.
        fs.set(Setting::Flag(c"userxattr"))?;
    }
    fs.mount(NO_SUID | NO_DEV)
}
