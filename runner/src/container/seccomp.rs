//! The filter of system calls: a list of what the program may not do. Pure: it only makes the filter.
//!
//! Written by hand: the filter must look at the number's x32 bit and give different errors, which the
//! crate `seccompiler` cannot say in one program; and a tree of rules would be longer than this list.

use nix::libc::{self, sock_filter};

/// Refused with EPERM. Most of it needs a capability that is dropped anyway; the kernel's parts that need
/// none are here because they had many holes, or reach beyond the container.
const DENIED: &[libc::c_long] = &[
    // Mounts and namespaces: the container's own are final.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // Files by inode number, past all mounts (CVE-2014-3519).
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Parts of the kernel that know no namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_nfsservctl,
    // The machine as a whole.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Namespaces that clone(2) can make. CLONE_NEWTIME is a signal number there.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u32;

/// Terminals: type into one, and paste. The kernel looks at 32 bits of the number only (CVE-2019-10063).
const IOCTLS: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// Address families that reach the host or the hypervisor, past the file system.
const FAMILIES: [u32; 2] = [libc::AF_VSOCK as u32, libc::AF_ALG as u32];

// linux/audit.h: the ELF machine, 64 bits, little-endian.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the list of refused system calls was not checked for this architecture");

/// Numbers from here on are those of the x32 ABI, which has all calls once more.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

// Where `struct seccomp_data` has what; of the arguments, the lower half.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const fn argument_at(index: u32) -> u32 {
    16 + 8 * index
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const fn error(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}
const DENY: u32 = error(libc::EPERM);
/// C libraries take this as "too old a kernel", and use clone(2), whose flags can be seen.
const UNKNOWN: u32 = error(libc::ENOSYS);

/// The filter as the kernel takes it.
pub(crate) fn filter() -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE_AT),
        skip_if(libc::BPF_JEQ, ARCHITECTURE, 1),
        answer(KILL),
        load(NUMBER_AT),
    ];
    #[cfg(target_arch = "x86_64")]
    when(&mut program, libc::BPF_JGE, X32, UNKNOWN);
    for number in DENIED {
        when(&mut program, libc::BPF_JEQ, *number as u32, DENY);
    }
    when(
        &mut program,
        libc::BPF_JEQ,
        libc::SYS_clone3 as u32,
        UNKNOWN,
    );
    let clone = [(libc::BPF_JSET, NEW_NAMESPACES)];
    when_argument(&mut program, libc::SYS_clone, 0, &clone);
    when_argument(&mut program, libc::SYS_ioctl, 1, &IOCTLS.map(equal));
    when_argument(&mut program, libc::SYS_socket, 0, &FAMILIES.map(equal));
    program.push(answer(ALLOW));
    program
}

const fn equal(value: u32) -> (u32, u32) {
    (libc::BPF_JEQ, value)
}

/// Gives an answer when the loaded value is so.
fn when(program: &mut Vec<sock_filter>, condition: u32, value: u32, result: u32) {
    program.push(skip_unless(condition, value, 1));
    program.push(answer(result));
}

/// Denies a call when one of its arguments fulfils one of the conditions, and else allows it.
fn when_argument(
    program: &mut Vec<sock_filter>,
    number: libc::c_long,
    index: u32,
    conditions: &[(u32, u32)],
) {
    let mut rule = vec![load(argument_at(index))];
    for (condition, value) in conditions {
        when(&mut rule, *condition, *value, DENY);
    }
    rule.push(answer(ALLOW));
    program.push(skip_unless(libc::BPF_JEQ, number as u32, rule.len() as u8));
    program.extend(rule);
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

const fn load(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

const fn skip_if(condition: u32, value: u32, instructions: u8) -> sock_filter {
    instruction(
        libc::BPF_JMP | condition | libc::BPF_K,
        instructions,
        0,
        value,
    )
}

const fn skip_unless(condition: u32, value: u32, instructions: u8) -> sock_filter {
    instruction(
        libc::BPF_JMP | condition | libc::BPF_K,
        0,
        instructions,
        value,
    )
}

const fn answer(result: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// What the kernel would answer: the few instructions that the filter is made of.
    fn answer_to(architecture: u32, number: libc::c_long, arguments: &[u64]) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&(number as u32).to_ne_bytes());
        data[4..8].copy_from_slice(&architecture.to_ne_bytes());
        for (index, argument) in arguments.iter().enumerate() {
            data[16 + 8 * index..][..8].copy_from_slice(&argument.to_ne_bytes());
        }
        let program = filter();
        let (mut at, mut loaded) = (0, 0_u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let code = u32::from(code);
            match code & 7 {
                libc::BPF_LD => {
                    let bytes = &data[k as usize..][..4];
                    loaded = u32::from_ne_bytes(bytes.try_into().unwrap());
                }
                libc::BPF_JMP => {
                    let so = match code & 0xf0 {
                        libc::BPF_JEQ => loaded == k,
                        libc::BPF_JGE => loaded >= k,
                        libc::BPF_JSET => loaded & k != 0,
                        other => panic!("unknown jump {other}"),
                    };
                    at += usize::from(if so { jt } else { jf });
                }
                libc::BPF_RET => return k,
                other => panic!("unknown instruction {other}"),
            }
        }
    }

    #[track_caller]
    fn check(number: libc::c_long, arguments: &[u64], expected: u32) {
        assert_eq!(answer_to(ARCHITECTURE, number, arguments), expected);
    }

    #[test]
    fn what_programs_need_is_allowed() {
        for number in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_chroot,
            libc::SYS_kill,
            libc::SYS_setuid,
            libc::SYS_wait4,
            libc::SYS_prctl,
            libc::SYS_close_range,
            libc::SYS_landlock_create_ruleset,
        ] {
            check(number, &[], ALLOW);
        }
        let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
        check(libc::SYS_clone, &[thread as u64], ALLOW);
        check(libc::SYS_clone, &[libc::SIGCHLD as u64], ALLOW);
        check(libc::SYS_ioctl, &[0, libc::TIOCGWINSZ], ALLOW);
        check(libc::SYS_socket, &[libc::AF_INET as u64, 1], ALLOW);
        check(libc::SYS_socket, &[libc::AF_NETLINK as u64, 3], ALLOW);
    }

    #[test]
    fn every_call_of_the_list_is_denied() {
        for number in DENIED {
            check(*number, &[], DENY);
        }
    }

    #[test]
    fn new_namespaces_are_denied_by_any_call() {
        for flag in [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
        ] {
            check(libc::SYS_clone, &[(flag | libc::SIGCHLD) as u64], DENY);
            check(libc::SYS_clone, &[u64::MAX << 32 | flag as u64], DENY);
        }
        check(libc::SYS_clone3, &[], UNKNOWN);
    }

    #[test]
    fn terminals_are_not_typed_into_whatever_the_upper_half_says() {
        for upper in [0, 1 << 32, u64::MAX << 32] {
            check(libc::SYS_ioctl, &[0, upper | libc::TIOCSTI], DENY);
            check(libc::SYS_ioctl, &[0, upper | libc::TIOCLINUX], DENY);
            check(libc::SYS_socket, &[upper | libc::AF_VSOCK as u64], DENY);
        }
    }

    #[test]
    fn other_architectures_have_other_numbers_and_are_killed() {
        assert_eq!(answer_to(0x4000_0003, libc::SYS_read, &[]), KILL);
        assert_eq!(answer_to(0, libc::SYS_read, &[]), KILL);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_x32_calls_do_not_exist() {
        for number in [libc::SYS_mount, libc::SYS_read, 520] {
            check(libc::c_long::from(X32) | number, &[], UNKNOWN);
        }
    }
}
