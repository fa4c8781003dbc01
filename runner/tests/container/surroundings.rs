//! What a program sees around it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use runner::container::Bind;

use crate::world::{World, until};

/// Mount point → (its options, its root, its kind).
fn mounts(world: &mut World) -> BTreeMap<String, (Vec<String>, String, String)> {
    let text = world.sh("cat /proc/self/mountinfo");
    let mounts = text.lines().map(|line| {
        let (place, kind) = line.split_once(" - ").unwrap();
        let place: Vec<&str> = place.split(' ').collect();
        let options = place[5].split(',').map(str::to_owned).collect();
        let kind = kind.split(' ').next().unwrap().to_owned();
        (place[4].to_owned(), (options, place[3].to_owned(), kind))
    });
    mounts.collect()
}

#[test]
fn only_what_belongs_there_is_mounted() {
    let mut world = World::new();
    world.secret("key", b"x");
    let mounts = mounts(&mut world);
    let check = |path: &str, kind: &str, flags: &[&str]| {
        let (options, _, found) = mounts.get(path).unwrap_or_else(|| panic!("no {path}"));
        assert_eq!(found, kind, "{path}");
        for flag in flags {
            assert!(
                options.iter().any(|option| option == flag),
                "{path}: {options:?}"
            );
        }
    };
    check("/", "overlay", &["nosuid", "nodev"]);
    check("/proc", "proc", &["nosuid", "nodev", "noexec"]);
    check("/proc/sys", "proc", &["ro", "nosuid", "nodev", "noexec"]);
    if Path::new("/proc/sysrq-trigger").exists() {
        check("/proc/sysrq-trigger", "proc", &["ro"]);
    }
    check("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]);
    check("/dev", "tmpfs", &["nosuid", "nodev", "noexec"]);
    check("/dev/pts", "devpts", &["nosuid", "noexec"]);
    check("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec"]);
    check(
        "/run/secrets",
        "tmpfs",
        &["ro", "nosuid", "nodev", "noexec"],
    );
    for (path, (options, root, kind)) in &mounts {
        // Of the host's file systems: single devices, and the authorities, which nobody can write.
        let device = path.starts_with("/dev/")
            && ["/null", "/zero", "/full", "/random", "/urandom", "/tty"].contains(&root.as_str());
        let mask = root == "/null" && path.starts_with("/proc/");
        let authorities = path.starts_with("/etc/") && options.contains(&"ro".to_owned());
        let own = ["proc", "sysfs", "tmpfs", "devpts", "overlay"].contains(&kind.as_str());
        assert!(
            own || device || mask || authorities,
            "{path}: {root} of {kind}"
        );
        assert!(
            options.contains(&"nosuid".to_owned()),
            "{path}: {options:?}"
        );
    }
}

#[test]
fn namespaces_are_its_own_but_for_the_network() {
    let mut world = World::new();
    for name in ["mnt", "pid", "uts", "ipc", "cgroup", "net"] {
        let inside = world.perl(&format!("print readlink('/proc/self/ns/{name}')"));
        let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let same = inside == outside.to_str().unwrap();
        assert!(inside.contains(name), "{inside}");
        assert_eq!(same, name == "net", "{name}");
    }
    // The namespace of control groups begins at its own.
    assert!(
        world
            .sh("cat /proc/self/cgroup")
            .lines()
            .all(|line| line.ends_with(":/"))
    );
    assert_eq!(world.sh("cat /proc/sys/kernel/hostname"), "box\n");
    // Process 1, the shell, and the program that it starts.
    let pids = world.sh("ls /proc");
    let pids: Vec<&str> = pids
        .lines()
        .filter(|name| name.parse::<u32>().is_ok())
        .collect();
    assert_eq!(pids, ["1", "2", "3"]);
}

#[test]
fn the_environment_and_the_directory_are_those_of_the_spec() {
    let mut world = World::new();
    world.spec.env = BTreeMap::from([("A".into(), "1 2".into()), ("PATH".into(), "/bin".into())]);
    world.spec.cwd = "/var/tmp".into();
    assert_eq!(world.run(&["env"]).success(), "A=1 2\nPATH=/bin\n");
    assert_eq!(world.perl("print readlink('/proc/self/cwd')"), "/var/tmp");
    world.spec.cwd = "/nowhere".into();
    let refusal = world.run(&["env"]).refusal();
    assert!(
        refusal.contains("enter the directory `/nowhere`"),
        "{refusal}"
    );
}

#[test]
fn the_kernel_cannot_be_changed_through_proc_and_sys() {
    let mut world = World::new();
    let open = r#"
        for (qw(/proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /proc/sysrq-trigger
                /proc/irq/default_smp_affinity /sys/kernel/uevent_helper /sys/power/state /proc/sys/kernel/hostname)) {
            next unless -e $_;
            print "$_ can be written\n" if open(my $f, '>', $_);
        }
        mkdir '/sys/x' and print "made /sys/x\n";
        for (qw(/proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts /proc/kmsg)) {
            next unless -e $_;
            my @stat = stat $_;
            print "$_ is not masked\n" unless $stat[6] == 0x103;
        }
        for (qw(/proc/acpi /proc/scsi /sys/firmware)) {
            my @names = ls($_);
            print "$_ has @names\n" if @names;
        }
    "#;
    assert_eq!(world.perl(open), "");
    // It could have: these are there on the host.
    assert!(
        fs::metadata("/proc/keys").is_ok() && fs::metadata("/proc/sys/kernel/core_pattern").is_ok()
    );
}

#[test]
fn devices_are_the_harmless_ones() {
    let mut world = World::new();
    let script = r#"
        for (map { ($_, ls($_)) } ls('/dev')) {
            my @s = lstat;
            my $kind = $s[2] & 0170000;
            print "$_ b\n" if $kind == 0060000;
            printf "%s %d:%d\n", $_, $s[6] >> 8, $s[6] & 255 if $kind == 0020000;
        }
        my ($null, $random, $bytes);
        open($null, '>', '/dev/null') && syswrite($null, 'x') == 1 && print "null works\n";
        open($random, '<', '/dev/urandom') && read($random, $bytes, 4) == 4 && print "random works\n";
        print "tty is ours\n" if open(my $t, '<', '/dev/tty');
    "#;
    assert_eq!(
        world.perl(script),
        "/dev/full 1:7\n/dev/null 1:3\n/dev/pts/ptmx 5:2\n/dev/random 1:8\n/dev/tty 5:0\n/dev/urandom 1:9\n\
         /dev/zero 1:5\nnull works\nrandom works\n"
    );
    assert_eq!(
        world.sh("echo x >/dev/shm/x && cat /dev/shm/x /dev/stdin && echo y >>/dev/stdout"),
        "x\ny\n"
    );
}

#[test]
fn files_are_closed_also_in_process_1() {
    let mut world = World::new();
    // One more is that of the directory itself.
    assert_eq!(
        world.perl("opendir D, '/proc/self/fd'; print join ' ', sort grep /\\d/, readdir D"),
        "0 1 2 3"
    );
    let running = world.start(&["sleep", "1000"]);
    let init = running.init();
    let open = |pid: i32| {
        let mut names: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    // Process 1 closes them while the program already runs, which cannot look.
    until("its files are closed", || open(init) == ["0", "1", "2"]);
    let program = running.processes()[0];
    assert_eq!(open(program), ["0", "1", "2"]);
    let link = |fd: &str| fs::read_link(format!("/proc/{init}/fd/{fd}")).unwrap();
    assert_eq!(link("0").to_str(), Some("/dev/null"));
    assert_eq!(link("1").to_str(), Some("/dev/null"));
    // What the program writes to is not open there: who reads it sees the end.
    assert!(link("2").to_str().unwrap().starts_with("pipe:"));
}

#[test]
fn limits_and_masks_are_those_of_a_service() {
    let mut world = World::new();
    let limits = world.sh("umask; ulimit -c; ulimit -Sn; cat /proc/self/status");
    let mut lines = limits.lines();
    assert_eq!(lines.next(), Some("0022"));
    assert_eq!(lines.next(), Some("0"));
    assert_eq!(lines.next(), Some("1024"));
    for line in lines {
        for name in ["SigBlk", "SigIgn", "SigCgt"] {
            if let Some(mask) = line.strip_prefix(name) {
                assert_eq!(
                    u64::from_str_radix(mask.trim_start_matches(':').trim(), 16),
                    Ok(0),
                    "{line}"
                );
            }
        }
        if let Some(groups) = line.strip_prefix("Groups:") {
            assert_eq!(groups.trim(), "");
        }
    }
}

#[test]
fn the_session_is_its_own() {
    let mut world = World::new();
    // Process, group and session; and no terminal.
    let stat = world.perl(
        "open F, '/proc/self/stat'; $_ = <F>; s/.*\\) //; @f = split; print \"@f[2,3,4] $$\"",
    );
    assert_eq!(stat, "2 2 0 2");
}

#[test]
fn the_hosts_names_and_authorities_are_there() {
    let mut world = World::new();
    assert_eq!(
        world.sh("cat /etc/resolv.conf"),
        fs::read_to_string("/etc/resolv.conf").unwrap()
    );
    assert_eq!(world.sh("cat /etc/hostname"), "box\n");
    let hosts = world.sh("cat /etc/hosts");
    assert!(
        hosts.contains("localhost") && hosts.contains("box"),
        "{hosts}"
    );
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    let ours = fs::metadata(authorities).expect("tests/run installs ca-certificates");
    assert_eq!(
        world.sh(&format!("stat -c %s {authorities}")).trim(),
        ours.size().to_string()
    );
    assert_eq!(
        world.sh(&format!("(echo x >{authorities}) 2>/dev/null || echo no")),
        "no\n"
    );
}

#[test]
fn secrets_are_read_inside_and_are_nowhere_else() {
    let mut world = World::new();
    let secret = "a very secret key, 0123456789";
    world.secret("ssh_key", secret.as_bytes());
    world.secret("large", &vec![b'x'; 100_000]);
    world.secret("empty", b"");
    let output = world.run(&["cat", "/run/secrets/ssh_key"]);
    // Linux 6.4; before that it is said.
    let swaps = output
        .notes
        .iter()
        .any(|note| note.contains("may be swapped"));
    let mounts = world.sh("cat /proc/self/mounts");
    let options = mounts
        .lines()
        .find(|line| line.contains("/run/secrets"))
        .unwrap();
    assert!(swaps || options.contains("noswap"), "{options}");
    assert_eq!(output.success(), secret);
    assert_eq!(
        world.sh("cd /run/secrets && stat -c '%a %u %s %n' *"),
        format!(
            "400 0 0 empty\n400 0 100000 large\n400 0 {} ssh_key\n",
            secret.len()
        )
    );
    assert_eq!(world.sh("stat -f -c %T /run/secrets"), "tmpfs\n");
    assert_eq!(
        world.sh("(echo x >/run/secrets/new) 2>/dev/null || echo no"),
        "no\n"
    );
    // Not in the environment or arguments of any process.
    let found = world.sh("cat /proc/*/environ /proc/*/cmdline 2>/dev/null | ls -d /run/secrets");
    assert!(!found.contains(secret));
    assert!(!world.image("/run/secrets").exists());
    world.secrets.clear();
    assert!(world.run(&["true"]).refusal().contains("has no contents"));
}

#[test]
fn binds_show_what_the_spec_says() {
    let mut world = World::new();
    for folder in ["in", "out"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    fs::write(world.path("in/file"), "hello").unwrap();
    let bind = |source, target: &str, read_only| Bind {
        source,
        target: target.into(),
        read_only,
    };
    world.spec.binds = vec![
        bind(world.path("in"), "/job/in", true),
        bind(world.path("out"), "/job/out", false),
        bind(world.path("in/file"), "/etc/app.conf", true),
    ];
    let said = world.sh("
        cat /job/in/file /etc/app.conf
        (echo x >/job/in/file) 2>/dev/null || echo read-only
        (echo x >/etc/app.conf) 2>/dev/null || echo read-only
        echo back >/job/out/file");
    assert_eq!(said, "hellohelloread-only\nread-only\n");
    assert_eq!(
        fs::read_to_string(world.path("out/file")).unwrap(),
        "back\n"
    );
    assert!(!world.image("/job").exists() && !world.image("/etc/app.conf").exists());
    // Nothing is made in what the host shows.
    world
        .spec
        .binds
        .push(bind(world.path("in"), "/job/out/new", true));
    let refusal = world.run(&["true"]).refusal();
    assert!(
        refusal.contains("/job/out/new") && refusal.contains("missing"),
        "{refusal}"
    );
    assert!(!world.path("out/new").exists());
    world.spec.binds = vec![bind(world.path("absent"), "/job", true)];
    let refusal = world.run(&["true"]).refusal();
    assert!(
        refusal.contains("open `") && refusal.contains("absent"),
        "{refusal}"
    );
}

#[test]
fn devices_and_setuid_of_a_bind_do_not_work() {
    let mut world = World::new();
    fs::create_dir(world.path("in")).unwrap();
    let made = std::process::Command::new("mknod")
        .arg(world.path("in/disk"))
        .args(["c", "1", "3"])
        .status();
    assert!(made.unwrap().success());
    world.spec.binds = vec![Bind {
        source: world.path("in"),
        target: "/job".into(),
        read_only: false,
    }];
    assert_eq!(
        world.sh("(echo x >/job/disk) 2>/dev/null || echo no"),
        "no\n"
    );
}
