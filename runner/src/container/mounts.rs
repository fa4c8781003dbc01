//! What is mounted in the new root: the kernel's own file systems, secrets, and what the spec binds.

use std::cell::Cell;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::libc;
use nix::sys::stat::{Mode, fstat, makedev, mkdirat};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::symlinkat;

use super::error::{Failure, Reports, errno, failed};
use super::root::{Root, tmpfs};
use super::spec::{Bind, Secrets, Spec};
use super::target;
use crate::sys::mount::{
    NO_DEV, NO_EXEC, NO_SUID, NewFs, READ_ONLY, Setting, attach, copy, restrict,
};
use crate::sys::open_without_links;

/// Nothing there may be a device, gain rights, or be executed.
const INERT: u64 = NO_SUID | NO_DEV | NO_EXEC;

/// The devices that programs expect, with their numbers: a host could have something else there.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Of /proc: what tells about the host, or changes it, and belongs to no process.
const MASKED: [&str; 13] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "kmsg",
    "key-users",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];
const READ_ONLY_IN_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

const MASKED_IN_SYS: [&str; 3] = ["firmware", "devices/virtual/powercap", "fs/pstore"];

/// Mounts /proc, /sys and /dev.
pub(crate) fn kernel(
    root: &Root,
    spec: &Spec,
    rootless: bool,
    reports: &Reports,
) -> Result<(), Failure> {
    let masks = Masks::make()?;
    proc(root, &masks)?;
    sys(root, &masks, rootless, reports)?;
    dev(root, spec, rootless)
}

/// What hides a file or a directory.
struct Masks {
    file: Mask,
    directory: Mask,
}

impl Masks {
    fn make() -> Result<Self, Failure> {
        let directory = tmpfs(1 << 12, 2, 0o555)
            .and_then(|fs| fs.mount(INERT | READ_ONLY))
            .map_err(failed("make", "an empty file system"))?;
        Ok(Self {
            file: Mask::new(device("null", 1, 3)?),
            directory: Mask::new(directory),
        })
    }

    /// Hides what stands at a path of a mount, which is of the kind that we take it for: a mask over
    /// something else would mask nothing (CVE-2025-31133).
    fn hide(&self, mount: &OwnedFd, kind: FsType, path: &str) -> Result<(), Failure> {
        let Some(target) = open_of_kind(mount, kind, path)? else {
            return Ok(());
        };
        let is_directory = target::is_directory(&target).map_err(failed("look at", path))?;
        let mask = if is_directory {
            &self.directory
        } else {
            &self.file
        };
        mask.attach(target).map_err(failed("mask", path))
    }
}

/// A mount that is attached in many places: first itself, then copies of it. Letting go of a mount that
/// is attached nowhere would make the kernel wait for all processors.
struct Mask {
    mount: OwnedFd,
    used: Cell<bool>,
}

impl Mask {
    fn new(mount: OwnedFd) -> Self {
        Self {
            mount,
            used: Cell::new(false),
        }
    }

    fn attach(&self, target: impl AsFd) -> Result<(), Errno> {
        if self.used.replace(true) {
            attach(copy(&self.mount, false)?, target)
        } else {
            attach(&self.mount, target)
        }
    }
}

/// Opens a path of a mount that we made. `None` when this kernel has no such file.
fn open_of_kind(mount: &OwnedFd, kind: FsType, path: &str) -> Result<Option<OwnedFd>, Failure> {
    let fd = match open_without_links(mount, path.as_ref(), OFlag::O_PATH) {
        Err(Errno::ENOENT) => return Ok(None),
        result => result.map_err(failed("open", path))?,
    };
    let stat = fstatfs(&fd).map_err(failed("look at", path))?;
    if stat.filesystem_type() != kind {
        return Err(Failure::refused(path, "it is not the kernel's"));
    }
    Ok(Some(fd))
}

fn proc(root: &Root, masks: &Masks) -> Result<(), Failure> {
    let target = target::directory(root, "/proc".as_ref())?;
    let mount = NewFs::open(c"proc")
        .and_then(|fs| fs.mount(INERT))
        .map_err(failed("make a file system for", "/proc"))?;
    attach(&mount, target).map_err(failed("mount", "/proc"))?;
    for path in READ_ONLY_IN_PROC {
        if let Some(target) = open_of_kind(&mount, PROC_SUPER_MAGIC, path)? {
            copy(&target, false)
                .and_then(|copy| restrict(&copy, READ_ONLY | INERT, false).map(|()| copy))
                .and_then(|copy| attach(copy, target))
                .map_err(failed("make read-only in /proc", path))?;
        }
    }
    MASKED
        .iter()
        .try_for_each(|path| masks.hide(&mount, PROC_SUPER_MAGIC, path))
}

fn sys(root: &Root, masks: &Masks, rootless: bool, reports: &Reports) -> Result<(), Failure> {
    let target = target::directory(root, "/sys".as_ref())?;
    // It shows the network, which is the host's: without root it is not ours to show.
    if rootless {
        reports.note("no /sys: it is empty without root");
        return masks
            .directory
            .attach(target)
            .map_err(failed("mount", "/sys"));
    }
    let mount = NewFs::open(c"sysfs")
        .and_then(|fs| fs.mount(INERT | READ_ONLY))
        .map_err(failed("make a file system for", "/sys"))?;
    attach(&mount, target).map_err(failed("mount", "/sys"))?;
    MASKED_IN_SYS
        .iter()
        .try_for_each(|path| masks.hide(&mount, SYSFS_MAGIC, path))
}

fn dev(root: &Root, spec: &Spec, rootless: bool) -> Result<(), Failure> {
    let target = target::directory(root, "/dev".as_ref())?;
    let dev = tmpfs(1 << 16, 64, 0o755)
        .and_then(|fs| fs.mount(NO_SUID | NO_DEV | NO_EXEC))
        .map_err(failed("make a file system for", "/dev"))?;
    attach(&dev, target).map_err(failed("mount", "/dev"))?;
    for (name, major, minor) in DEVICES {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let place = openat(&dev, name, flags, Mode::from_bits_truncate(0o666))
            .map_err(failed("make in /dev", name))?;
        attach(device(name, major, minor)?, place).map_err(failed("mount in /dev", name))?;
    }
    for (name, to) in DEVICE_LINKS {
        symlinkat(to, &dev, name).map_err(failed("make in /dev", name))?;
    }

    let pts = NewFs::open(c"devpts")
        .and_then(|fs| {
            fs.set(Setting::Flag(c"newinstance"))?;
            fs.set(Setting::Text(c"ptmxmode", c"0666"))?;
            fs.set(Setting::Text(c"mode", c"0620"))?;
            if !rootless {
                // The group `tty` everywhere; it does not exist in a namespace with one group.
                fs.set(Setting::Text(c"gid", c"5"))?;
            }
            fs.mount(NO_SUID | NO_EXEC)
        })
        .map_err(failed("make a file system for", "/dev/pts"))?;
    attach(pts, below(&dev, "pts")?).map_err(failed("mount", "/dev/pts"))?;

    let limits = &spec.limits;
    let shm = tmpfs(limits.tmpfs_bytes.clamp(1 << 16, 1 << 26), 4096, 0o1777)
        .and_then(|fs| fs.mount(INERT))
        .map_err(failed("make a file system for", "/dev/shm"))?;
    attach(shm, below(&dev, "shm")?).map_err(failed("mount", "/dev/shm"))
}

/// A new directory of a mount that we made.
fn below(mount: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    mkdirat(mount, name, Mode::from_bits_truncate(0o755)).map_err(failed("make", name))?;
    open_without_links(mount, name.as_ref(), OFlag::O_PATH).map_err(failed("open", name))
}

/// A device of the host as a mount. Making a new one would need a right that a user does not have, and
/// a mount where devices work.
fn device(name: &str, major: u64, minor: u64) -> Result<OwnedFd, Failure> {
    let path = Path::new("/dev").join(name);
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = open(&path, flags, Mode::empty()).map_err(failed("open", &path))?;
    let stat = fstat(&fd).map_err(failed("look at", &path))?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != makedev(major, minor) {
        return Err(Failure::refused(&path, "the host has something else there"));
    }
    let mount = copy(&fd, false).map_err(failed("bind", &path))?;
    restrict(&mount, NO_SUID | NO_EXEC, false).map_err(failed("restrict", &path))?;
    Ok(mount)
}

/// Writes the secrets to memory that is not swapped, and mounts that read-only.
pub(crate) fn secrets(root: &Root, secrets: &Secrets, reports: &Reports) -> Result<(), Failure> {
    const PATH: &str = "/run/secrets";
    if secrets.is_empty() {
        return Ok(());
    }
    let pages: u64 = secrets
        .values()
        .map(|secret| (secret.len() as u64).div_ceil(4096))
        .sum();
    let target = target::directory(root, PATH.as_ref())?;
    // A directory of a tmpfs takes no page; one is for luck with larger pages.
    let bytes = (pages + 16) * 4096;
    let make = |no_swap: bool| {
        let fs = tmpfs(bytes, secrets.len() as u64 + 2, 0o700)?;
        if no_swap {
            fs.set(Setting::Flag(c"noswap"))?;
        }
        fs.mount(INERT)
    };
    // Linux 6.4, and not for users.
    let mount = make(true)
        .or_else(|errno| {
            reports.note(format!(
                "secrets may be swapped: they are in plain tmpfs ({errno})"
            ));
            make(false)
        })
        .map_err(failed("make a file system for", PATH))?;
    for (name, contents) in secrets {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = openat(
            &mount,
            name.as_str(),
            flags,
            Mode::from_bits_truncate(0o400),
        )
        .map_err(failed("make the secret", name))?;
        std::fs::File::from(file)
            .write_all(contents)
            .map_err(|error| Failure::kernel("write the secret", name, errno(&error)))?;
    }
    restrict(&mount, READ_ONLY, false).map_err(failed("make read-only", PATH))?;
    attach(mount, target).map_err(failed("mount", PATH))
}

/// Mounts what the spec asks for.
pub(crate) fn binds(root: &Root, binds: &[Bind]) -> Result<(), Failure> {
    for bind in binds {
        let source = open(
            &bind.source,
            OFlag::O_PATH | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(failed("open", &bind.source))?;
        let path = Path::new(&bind.target);
        let is_directory = target::is_directory(&source).map_err(failed("look at", path))?;
        let target = if is_directory {
            target::directory(root, path)?
        } else {
            target::file(root, path)?
        };
        let mut attributes = NO_SUID | NO_DEV;
        if bind.read_only {
            attributes |= READ_ONLY;
        }
        bind_to(source, target, attributes).map_err(failed("bind", &bind.source))?;
    }
    Ok(())
}

/// Mounts what is open, and all below it, in a second place.
pub(crate) fn bind_to(source: impl AsFd, target: impl AsFd, attributes: u64) -> Result<(), Errno> {
    let mount = copy(source, true)?;
    restrict(&mount, attributes, true)?;
    attach(mount, target)
}
