//! Rights that a process gives up and cannot take back.
#![expect(unsafe_code, reason = "libc has no safe call for these")]

use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

/// A capability's bit in the three sets.
const fn bit(capability: u32) -> u64 {
    1 << capability
}

/// The capabilities that a container keeps: those that programs which change files and users need.
/// Names from linux/capability.h.
pub(crate) const KEPT: u64 = bit(0) // CHOWN
    | bit(1) // DAC_OVERRIDE
    | bit(3) // FOWNER
    | bit(4) // FSETID
    | bit(5) // KILL
    | bit(6) // SETGID
    | bit(7) // SETUID
    | bit(18); // SYS_CHROOT

/// Leaves this process, and all that it starts, no other capability than `kept`.
pub(crate) fn drop_capabilities(kept: u64) -> Result<(), Errno> {
    // The bounding set first: that needs SETPCAP. EINVAL tells where the kernel's list ends.
    for capability in 0..64 {
        if kept & bit(capability) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, capability.into()) {
            Err(Errno::EINVAL) => break,
            result => result?,
        }
    }
    match prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64) {
        Err(Errno::EINVAL) => {} // before Linux 4.3: there are none
        result => result?,
    }
    let header = CapHeader {
        version: 0x2008_0522, // _LINUX_CAPABILITY_VERSION_3
        pid: 0,
    };
    let half = |shift: u32| CapData {
        effective: (kept >> shift) as u32,
        permitted: (kept >> shift) as u32,
        inheritable: 0,
    };
    let data = [half(0), half(32)];
    // SAFETY: both structures live through the call and have the layout of version 3.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(result).map(drop)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn prctl(option: libc::c_int, argument: u64) -> Result<(), Errno> {
    // SAFETY: only numbers go in; used for options that take numbers.
    Errno::result(unsafe { libc::prctl(option, argument, 0_u64, 0_u64, 0_u64) }).map(drop)
}

/// Puts a filter before all later system calls of this process and its children.
pub(crate) fn filter_system_calls(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::E2BIG)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program and its instructions live through the call; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    Errno::result(result).map(drop)
}

/// Keeps this process and its children from abstract Unix sockets of others: they have no place in the
/// file system, so with the host's network they would be the host's. Landlock, Linux 6.12.
pub(crate) fn leave_abstract_sockets() -> Result<(), Errno> {
    let rules = LandlockRules {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: 1, // LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
    };
    // SAFETY: the structure lives through the call, and its true size goes with it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const rules,
            size_of::<LandlockRules>(),
            0,
        )
    };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: only numbers go in.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0) };
    Errno::result(result).map(drop)
}

#[repr(C)]
struct LandlockRules {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Leaves the keyring of the session that we came from, for a new and empty one.
pub(crate) fn leave_keyring() -> Result<(), Errno> {
    // SAFETY: null asks for a keyring without a name.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            1, // KEYCTL_JOIN_SESSION_KEYRING
            ptr::null::<u8>(),
        )
    };
    Errno::result(result).map(drop)
}
