//! What an image may not do to its host, and what happens to the image: nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use runner::container::{Bind, Exit};

use crate::world::{Output, World};

/// Each path below a folder, with what would change if somebody touched it.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let contents = if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if metadata.is_dir() {
            paths.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let about = (
            metadata.mode(),
            metadata.size(),
            metadata.mtime_nsec(),
            metadata.ctime_nsec(),
            contents,
        );
        found.insert(path, about);
    }
    found
}

#[test]
fn changes_are_thrown_away() {
    let mut world = World::new();
    let before = tree(&world.path("image"));
    let said = world.sh("
        echo x >/etc/new && echo x >>/etc/resolv.conf && mkdir /job && echo x >/job/file
        echo x >/bin/true && touch /root /bin /tmp/x && cat /etc/new /job/file");
    assert_eq!(said, "x\nx\n");
    assert!(
        tree(&world.path("image")) == before,
        "the image was changed"
    );
    // The next run sees nothing of it.
    assert_eq!(
        world.sh("true && ls / && ls /etc /tmp"),
        world.sh("ls / && ls /etc /tmp")
    );
    assert!(!world.sh("ls /").contains("work"));
}

#[test]
fn what_a_program_may_write_has_an_end() {
    let mut world = World::new();
    world.spec.limits.tmpfs_bytes = 1 << 20;
    world.spec.limits.tmpfs_inodes = 500;
    let script = "open(my $f, '>', '/root/large') or die $!; my $n = 0; my $kib = 'x' x 1024;
        while ($n < 4096) { defined syswrite($f, $kib) or last; $n++ } print \"$n $!\"";
    let said = world.perl(script);
    let (kib, error) = said.split_once(' ').unwrap();
    assert_eq!(error, "No space left on device");
    // With our files of /etc, less than the whole.
    assert!((512..=1024).contains(&kib.parse::<u32>().unwrap()), "{kib}");
    let script = "my $n = 0; while ($n < 4096) { open(my $f, '>', \"/root/$n\") or last; $n++ } print \"$n $!\"";
    let said = world.perl(script);
    let (files, error) = said.split_once(' ').unwrap();
    assert_eq!(error, "No space left on device");
    assert!(
        (300..500).contains(&files.parse::<u32>().unwrap()),
        "{files}"
    );
}

/// A folder of the host that the image's links point to.
fn canary(world: &World) -> PathBuf {
    let canary = world.path("canary");
    for folder in ["sys", "net", "secrets", "ssl/certs", "pts"] {
        fs::create_dir_all(canary.join(folder)).unwrap();
    }
    for file in [
        "resolv.conf",
        "hosts",
        "hostname",
        "kcore",
        "null",
        "ssl/certs/ca-certificates.crt",
    ] {
        fs::write(canary.join(file), "host").unwrap();
    }
    canary
}

fn replace(path: &Path, target: &Path) {
    if path.symlink_metadata().is_ok() {
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

#[test]
fn links_in_place_of_directories_are_refused_and_lead_nowhere() {
    // Where the link leads: on the host, absolute and relative; in the image, to another place.
    for path in ["/proc", "/dev", "/sys", "/etc", "/run"] {
        for how in 0..3 {
            let mut world = World::new();
            let canary = canary(&world);
            let target = match how {
                0 => canary.clone(),
                1 => PathBuf::from("../canary"),
                _ => PathBuf::from("tmp"),
            };
            replace(&world.image(path), &target);
            world.secret("key", b"x");
            let before = tree(&canary);
            let refusal = world.run(&["true"]).refusal();
            assert!(refusal.starts_with("Refused"), "{path}: {refusal}");
            assert!(
                refusal.contains(path) && refusal.contains("symbolic link"),
                "{path}: {refusal}"
            );
            assert!(tree(&canary) == before, "{path}");
            assert!(fs::read_dir(world.image("/tmp")).unwrap().next().is_none());
        }
    }
}

#[test]
fn links_in_place_of_files_are_replaced_and_lead_nowhere() {
    let mut world = World::new();
    let canary = canary(&world);
    for name in ["resolv.conf", "hosts", "hostname"] {
        replace(&world.image(&format!("/etc/{name}")), &canary.join(name));
    }
    let before = tree(&canary);
    assert_eq!(
        world
            .sh("cat /etc/hostname; ls -l /etc/hostname | cut -c1 2>/dev/null || true")
            .lines()
            .next(),
        Some("box")
    );
    assert_eq!(
        world.sh("cat /etc/resolv.conf"),
        fs::read_to_string("/etc/resolv.conf").unwrap()
    );
    assert!(tree(&canary) == before);
    assert!(
        world
            .image("/etc/hostname")
            .symlink_metadata()
            .unwrap()
            .is_symlink()
    );
    // A FIFO there is not waited for; a directory is refused.
    fs::remove_file(world.image("/etc/hosts")).unwrap();
    nix::unistd::mkfifo(&world.image("/etc/hosts"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(world.sh("cat /etc/hosts").contains("localhost"));
    fs::remove_file(world.image("/etc/hosts")).unwrap();
    fs::create_dir(world.image("/etc/hosts")).unwrap();
    assert!(world.run(&["true"]).refusal().contains("it is a directory"));
}

#[test]
fn links_on_the_way_to_the_authorities_lead_nowhere() {
    for path in [
        "/etc/ssl",
        "/etc/ssl/certs",
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki",
    ] {
        let mut world = World::new();
        let canary = canary(&world);
        let below = Path::new(path).strip_prefix("/etc").unwrap();
        replace(&world.image(path), &canary.join(below));
        let before = tree(&canary);
        assert_eq!(world.run(&["true"]).exit, Ok(Exit::Code(0)), "{path}");
        assert!(tree(&canary) == before, "{path}");
    }
    // A link inside of the image is followed inside.
    let mut world = World::new();
    fs::create_dir_all(world.image("/etc/ssl/certs")).unwrap();
    fs::write(world.image("/etc/bundle"), "image").unwrap();
    symlink(
        "/etc/bundle",
        world.image("/etc/ssl/certs/ca-certificates.crt"),
    )
    .unwrap();
    let ours = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
    assert!(world.sh("cat /etc/bundle") == ours);
    assert_eq!(
        fs::read_to_string(world.image("/etc/bundle")).unwrap(),
        "image"
    );
}

#[test]
fn links_on_the_way_to_a_bind_or_secret_are_refused() {
    let mut world = World::new();
    let canary = canary(&world);
    replace(&world.image("/run/secrets"), &canary.join("secrets"));
    world.secret("key", b"x");
    let refusal = world.run(&["true"]).refusal();
    assert!(
        refusal.contains("/run/secrets") && refusal.contains("symbolic link"),
        "{refusal}"
    );
    assert!(
        fs::read_dir(canary.join("secrets"))
            .unwrap()
            .next()
            .is_none()
    );

    let mut world = World::new();
    let canary = self::canary(&world);
    symlink(&canary, world.image("/job")).unwrap();
    world.spec.binds = vec![Bind {
        source: canary.join("net"),
        target: "/job/x".into(),
        read_only: false,
    }];
    let refusal = world.run(&["true"]).refusal();
    assert!(
        refusal.contains("/job/x") && refusal.contains("symbolic link"),
        "{refusal}"
    );
    assert!(!canary.join("x").exists());
}

#[test]
fn the_directory_to_begin_in_leads_nowhere() {
    let mut world = World::new();
    for path in [
        "/proc/self/fd/3",
        "/proc/1/root",
        "/proc/self/fd/../fd/5",
        "/proc/self/root",
    ] {
        world.spec.cwd = path.into();
        let refusal = world.run(&["true"]).refusal();
        assert!(refusal.contains("enter the directory"), "{path}: {refusal}");
    }
    symlink("/proc/self/fd/4", world.image("/begin")).unwrap();
    world.spec.cwd = "/begin".into();
    world.run(&["true"]).refusal();
}

#[test]
fn an_image_without_the_usual_directories_gets_them() {
    let mut world = World::new();
    for folder in ["dev", "proc", "sys", "run", "etc", "tmp"] {
        fs::remove_dir_all(world.image(folder)).unwrap();
    }
    world.secret("key", b"x");
    assert_eq!(
        world.sh("cat /run/secrets/key /etc/hostname /proc/self/comm"),
        "xbox\ncat\n"
    );
    assert!(!world.image("proc").exists());
}

/// Two overlays on each other are as many as the kernel allows: a third one is refused.
fn stack_overlays(dir: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let image = dir.join("image");
    for _ in 0..2 {
        let image = image.display();
        let empty = dir.join("empty");
        fs::create_dir_all(&empty).unwrap();
        let options = format!("lowerdir={}:{image}", empty.display());
        mount(
            Some("overlay"),
            dir.join("image").as_path(),
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
    }
}

/// The same, but the image and `host` and `other` beside it are of one file system, which can be written to.
fn stack_writable_overlays(dir: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let stack = dir.join("stack");
    let mut lower = dir.to_owned();
    for layer in ["first", "second"] {
        let layer = dir.join(layer);
        let tmpfs = Some("tmpfs");
        mount(tmpfs, &layer, tmpfs, MsFlags::empty(), none).unwrap();
        for name in ["upper", "work"] {
            fs::create_dir(layer.join(name)).unwrap();
        }
        let (below, layer) = (lower.display(), layer.display());
        let options = format!("lowerdir={below},upperdir={layer}/upper,workdir={layer}/work");
        let overlay = Some("overlay");
        let options = Some(options.as_str());
        mount(overlay, &stack, overlay, MsFlags::empty(), options).unwrap();
        lower = stack.clone();
    }
    let (from, to) = (stack.join("image"), dir.join("image"));
    mount(Some(&from), &to, none, MsFlags::MS_BIND, none).unwrap();
}

#[test]
fn nothing_is_made_in_a_bind_of_the_file_system_that_the_image_is_on() {
    let mut world = World::new();
    world.before = stack_writable_overlays;
    for folder in ["host", "other", "stack", "first", "second", "image/job"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    let bind = |source, target: &str| Bind {
        source,
        target: target.into(),
        read_only: false,
    };
    world.spec.binds = vec![bind(world.path("stack/host"), "/job")];
    let output = world.run(&["sh", "-c", "mkdir /job/new && stat -c %a /job/new"]);
    let told = output.notes.iter().any(|note| note.contains("no overlay"));
    assert!(told, "{:?} {:?}", output.exit, output.notes);
    assert_eq!(output.success(), "755\n");
    let other = bind(world.path("stack/other"), "/job/new");
    world.spec.binds.push(other);
    let refusal = world.run(&["true"]).refusal();
    assert!(
        refusal.contains("/job/new") && refusal.contains("missing"),
        "{refusal}"
    );
}

#[test]
fn without_an_overlay_the_root_is_read_only_but_for_some_directories() {
    let mut world = World::new();
    world.before = stack_overlays;
    world.secret("key", b"x");
    for name in ["resolv.conf", "hosts"] {
        fs::write(world.image(&format!("/etc/{name}")), "image").unwrap();
    }
    let before = tree(&world.path("image"));
    let output = world.run(&["sh", "-c", "
        for path in /etc/new /new /bin/true /var/new; do (echo x >$path) 2>/dev/null && echo wrote $path; done
        for path in /tmp/new /root/new /run/new /var/tmp/new; do echo x >$path || exit 1; done
        cat /run/secrets/key; stat -c '%a' /tmp /root /run; cat /etc/resolv.conf"]);
    let told = |output: &Output, text: &str| {
        assert!(
            output.notes.iter().any(|note| note.contains(text)),
            "{:?} {:?}",
            output.exit,
            output.notes
        );
    };
    told(&output, "no overlay");
    told(&output, "/etc/hostname is the image's");
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap();
    assert_eq!(output.success(), format!("x1777\n700\n755\n{resolv}"));
    assert!(tree(&world.path("image")) == before);
    // Together they have one end.
    world.spec.limits.tmpfs_bytes = 1 << 20;
    let script = "for my $folder (qw(/tmp /root /run)) { open(my $f, '>', \"$folder/x\") or die; $n++ while $n < 4096 and defined syswrite($f, 'x' x 1024) } print $n";
    let kib: u32 = world.perl(script).parse().unwrap();
    assert!((512..=1024).contains(&kib), "{kib}");
}
