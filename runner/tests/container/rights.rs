//! What a program may not do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use runner::container::Exit;

use crate::world::World;

fn status(world: &mut World, process: &str) -> Vec<(String, String)> {
    let text = world.sh(&format!("cat /proc/{process}/status"));
    text.lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn capabilities_are_the_eight_that_are_needed() {
    let mut world = World::new();
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SYS_CHROOT
    const EIGHT: &str = "00000000000400fb";
    const NONE: &str = "0000000000000000";
    for process in ["self", "1"] {
        let status = status(&mut world, process);
        for (name, expected) in [
            ("CapBnd", EIGHT),
            ("CapPrm", EIGHT),
            ("CapEff", EIGHT),
            ("CapInh", NONE),
            ("CapAmb", NONE),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            let found = status.iter().find(|(key, _)| key == name);
            assert_eq!(found.unwrap().1, expected, "{name} of {process}");
        }
    }
}

/// Makes a system call by its number; prints its name when it is let through.
fn refused(world: &mut World, calls: &[(&str, i64, &str)]) {
    // A call may write to what it gets, so Perl gives it no literals.
    let mut script = String::from("my $r; sub text { my $text = shift; $text }\n");
    for (name, number, arguments) in calls {
        let mut arguments = arguments.replace(", '", ", text('");
        arguments = arguments.replace("',", "'),");
        if arguments.ends_with('\'') {
            arguments.push(')');
        }
        // 1 is EPERM, 38 ENOSYS.
        script += &format!(
            "$! = 0; $r = syscall({number}{arguments}); print '{name}: ', $r, ' ', $!+0, qq(\\n) unless $r == -1 && ($! == 1 || $! == 38);\n"
        );
    }
    assert_eq!(world.perl(&script), "");
}

#[test]
fn system_calls_that_lead_out_are_refused() {
    use nix::libc::*;
    let mut world = World::new();
    let new_user = CLONE_NEWUSER | SIGCHLD;
    refused(
        &mut world,
        &[
            ("mount", SYS_mount, ", 'none', '/tmp', 'tmpfs', 0, 0"),
            ("umount", SYS_umount2, ", '/proc/sys', 2"),
            ("remount", SYS_mount, ", 'none', '/proc/sys', 'proc', 32, 0"),
            ("pivot_root", SYS_pivot_root, ", '/', '/'"),
            ("fsopen", SYS_fsopen, ", 'tmpfs', 0"),
            ("open_tree", SYS_open_tree, ", -100, '/', 1"),
            ("move_mount", SYS_move_mount, ", 0, '', 1, '', 0"),
            ("unshare user", SYS_unshare, &format!(", {CLONE_NEWUSER}")),
            ("unshare mount", SYS_unshare, &format!(", {CLONE_NEWNS}")),
            ("setns", SYS_setns, ", 0, 0"),
            (
                "clone user",
                SYS_clone,
                &format!(", {new_user}, 0, 0, 0, 0"),
            ),
            ("clone3", SYS_clone3, ", 0, 0"),
            ("ptrace", SYS_ptrace, ", 16, 1, 0, 0"),
            ("keyctl", SYS_keyctl, ", 0, -3, 0"),
            ("add_key", SYS_add_key, ", 'user', 'a', 'b', 1, -2"),
            ("request_key", SYS_request_key, ", 'user', 'a', 0, 0"),
            ("bpf", SYS_bpf, ", 0, 0, 0"),
            ("perf_event_open", SYS_perf_event_open, ", 0, 0, -1, -1, 0"),
            ("userfaultfd", SYS_userfaultfd, ", 1"),
            ("io_uring_setup", SYS_io_uring_setup, ", 1, 0"),
            ("open_by_handle_at", SYS_open_by_handle_at, ", -100, 0, 0"),
            ("init_module", SYS_init_module, ", 0, 0, ''"),
            ("finit_module", SYS_finit_module, ", 0, '', 0"),
            ("kexec_load", SYS_kexec_load, ", 0, 0, 0, 0"),
            ("reboot", SYS_reboot, ", 0, 0, 0, 0"),
            ("syslog", SYS_syslog, ", 3, 0, 0"),
            ("settimeofday", SYS_settimeofday, ", 0, 0"),
            ("swapon", SYS_swapon, ", '/tmp/x', 0"),
            ("sethostname", SYS_sethostname, ", 'x', 1"),
            (
                "mknod",
                SYS_mknodat,
                &format!(", -100, '/tmp/disk', {}, {}", S_IFBLK | 0o600, 0xfe00),
            ),
            (
                "mknod in /dev",
                SYS_mknodat,
                &format!(", -100, '/dev/mem', {}, {}", S_IFCHR | 0o600, 0x101),
            ),
            ("vsock", SYS_socket, ", 40, 1, 0"),
            ("af_alg", SYS_socket, ", 38, 5, 0"),
            ("raw socket", SYS_socket, ", 2, 3, 1"),
            ("packet socket", SYS_socket, ", 17, 3, 0"),
            (
                "capset",
                SYS_capset,
                r#", text(pack("LL", 0x20080522, 0)), text(pack("LLLLLL", (0xffffffff) x 6))"#,
            ),
        ],
    );
    // The same way, a call that is allowed is let through: the test would see it.
    assert_eq!(world.perl(&format!("print syscall({SYS_getppid})")), "1");
}

#[test]
fn a_terminal_is_not_typed_into() {
    let mut world = World::new();
    // A terminal of its own, so that only the filter can refuse it.
    let script = "
        open(my $master, '+<', '/dev/ptmx') or die $!;
        my $n = pack 'i', 0; ioctl($master, 0x40045431, $n) or die $!; ioctl($master, 0x80045430, $n) or die $!;
        # Not as the session's: that would end it with the terminal.
        sysopen(my $tty, '/dev/pts/' . unpack('i', $n), 0402) or die $!;
        my $size = \"\\0\" x 8; ioctl($tty, 0x5413, $size) or die \"TIOCGWINSZ: $!\";
        for (0x5412, 0x541c, 0x100005412) {
            my $x = 'x'; $! = 0;
            print \"$_ $!\\n\" unless syscall(SYS_ioctl, fileno $tty, $_, $x) == -1 && $! == 1;
        }";
    let script = script.replace("SYS_ioctl", &nix::libc::SYS_ioctl.to_string());
    assert_eq!(world.perl(&script), "");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_process_of_another_architecture_is_killed() {
    let mut world = World::new();
    // int 0x80 with the number of getpid, in a file of 64 bits: the filter must not read the number
    // as one of its own.
    let code = [
        0xb8_u8, 20, 0, 0, 0, 0xcd, 0x80, 0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05,
    ];
    world.script("/bin/old", "");
    fs::write(world.image("/bin/old"), elf(&code, None)).unwrap();
    let exit = world.run(&["old"]).exit;
    assert_eq!(exit, Ok(Exit::Signal(nix::libc::SIGSYS)));
}

/// A static program of this machine, or one that names its loader.
#[cfg(target_arch = "x86_64")]
fn elf(code: &[u8], interpreter: Option<&str>) -> Vec<u8> {
    let segments: u16 = if interpreter.is_some() { 2 } else { 1 };
    let start = 64 + 56 * u64::from(segments);
    let path = interpreter
        .map(|path| format!("{path}\0"))
        .unwrap_or_default();
    let size = start + code.len() as u64 + path.len() as u64;
    let base = 0x40_0000_u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for value in [base + start, 64, 0] {
        file.extend(value.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0]);
    file.extend(segments.to_le_bytes());
    file.extend([0; 6]);
    let mut segment = |kind: u32, offset: u64, size: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(5_u32.to_le_bytes());
        for value in [offset, base + offset, base + offset, size, size, 0x1000] {
            file.extend(value.to_le_bytes());
        }
    };
    if interpreter.is_some() {
        segment(3, start + code.len() as u64, path.len() as u64);
    }
    segment(1, 0, size);
    file.extend(code);
    file.extend(path.as_bytes());
    file
}

#[test]
fn the_root_is_not_escaped_by_chroot() {
    let mut world = World::new();
    fs::write(world.path("canary"), "host").unwrap();
    let host = world.path("canary");
    let script = format!(
        "mkdir '/tmp/a'; opendir(my $d, '/'); chroot('/tmp/a') or die \"chroot: $!\"; chdir($d);
         chdir('..') for 1..100; chroot('.');
         print \"escaped\\n\" if -e '{0}' || -e '.{0}';
         opendir(my $r, '.'); print join ' ', sort grep !/^\\./, readdir $r",
        host.display()
    );
    assert_eq!(
        world.perl(&script),
        "bin dev etc lib lib64 proc root run sys tmp var"
    );
}

#[test]
fn the_engine_is_out_of_reach_through_process_1() {
    let mut world = World::new();
    let script = r#"
        print "$_ can be read\n" for grep { defined readlink } qw(/proc/1/exe /proc/1/root /proc/1/cwd);
        for (qw(/proc/1/exe /proc/1/mem /proc/1/maps /proc/1/environ)) {
            print "$_ can be opened\n" if open(my $f, '<', $_);
            print "$_ can be written\n" if open(my $f, '>>', $_);
        }
        for (0..9) {
            print "its descriptor $_ can be opened\n" if open(my $f, '<', "/proc/1/fd/$_");
            print "its descriptor $_ can be read\n" if defined readlink "/proc/1/fd/$_";
        }
        print 'its name is ', do { open(my $f, '<', '/proc/1/comm'); <$f> };
    "#;
    assert_eq!(world.perl(script), "its name is rekindle-init\n");
}

#[test]
fn a_program_that_is_a_link_to_the_engine_is_refused() {
    let mut world = World::new();
    for (name, text) in [
        ("direct", "#!/proc/self/exe\n"),
        ("nested", "#!/bin/direct\n"),
        ("linked", "#!/bin/link\n"),
        ("alias", "#!/proc/1/../self/exe -c\n"),
    ] {
        world.script(&format!("/bin/{name}"), text);
        if name == "direct" {
            std::os::unix::fs::symlink("/proc/self/exe", world.image("/bin/link")).unwrap();
        }
        let refusal = world.run(&[name]).refusal();
        assert!(refusal.contains("leads through /proc"), "{name}: {refusal}");
    }
    for name in ["link", "/proc/self/exe"] {
        let refusal = world.run(&[name]).refusal();
        assert!(refusal.contains("leads through /proc"), "{name}: {refusal}");
    }
    // What is executed later is its own file, not the engine's.
    world.script("/bin/direct", "#!/proc/self/exe\n");
    assert!(world.sh("ls -l /proc/self/exe").contains("/bin/ls"));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_program_whose_loader_is_a_link_to_the_engine_is_refused() {
    let mut world = World::new();
    // exit(0)
    let code = [0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    for (loader, reason) in [
        (Some("/proc/self/exe"), "leads through /proc"),
        (Some("/absent"), "not in the image"),
        (None, ""),
    ] {
        world.script("/bin/program", "");
        fs::write(world.image("/bin/program"), elf(&code, loader)).unwrap();
        let output = world.run(&["program"]);
        match loader {
            // The same file without a loader runs, so it is the loader that is refused.
            None => assert_eq!(output.exit, Ok(Exit::Code(0))),
            Some(_) => assert!(output.refusal().contains(reason)),
        }
    }
}

#[test]
fn setuid_gives_nothing() {
    let mut world = World::new();
    fs::copy(world.image("/bin/cat"), world.image("/bin/setuid")).unwrap();
    fs::set_permissions(
        world.image("/bin/setuid"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    let script = "$) = $( = 1000; $> = $< = 1000; exec 'setuid', '/proc/self/status'";
    let status = world.perl(script);
    assert!(status.contains("Uid:\t1000\t1000\t1000\t1000"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    use nix::libc::{SYS_connect, SYS_socket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    let name = format!("rekindle-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    UnixStream::connect_addr(&address).unwrap();
    let mut world = World::new();
    let script = format!(
        "syscall({SYS_socket}, 1, 1, 0) == 3 or die; my $a = pack('S', 1) . \"\\0{name}\";
         print syscall({SYS_connect}, 3, $a, length $a) == -1 ? \"$!\" : 'connected'"
    );
    let output = world.run(&["perl", "-e", &script]);
    // Kernels before 6.12 cannot; then it is said.
    if output
        .notes
        .iter()
        .any(|note| note.contains("abstract Unix sockets"))
    {
        assert_eq!(output.success(), "connected");
    } else {
        assert_eq!(output.success(), "Operation not permitted");
    }
}
