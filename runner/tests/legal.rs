//! Archives as they should be: the tree is right in kind, contents, mode, owner and time. And images
//! that are built come out as they went in.
#![allow(missing_docs, reason = "these are tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use common::{Arena, MTIME, Tar, binary, digest_of, head, portrait, text, zst};
use runner::image::{Options, build};
use runner::unpack::Limits;

#[track_caller]
fn unpacked(tar: Tar) -> (Arena, PathBuf) {
    let arena = Arena::new();
    arena.unpack(&tar.zst()).expect("it was refused");
    let target = arena.target();
    (arena, target)
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn mtime(path: &Path) -> i64 {
    path.symlink_metadata().unwrap().mtime()
}

#[test]
fn a_merged_usr_receives_files_under_its_links() {
    for target in ["usr/lib", "/usr/lib", "./usr/lib"] {
        let tar = Tar::new()
            .dir("./")
            .symlink("./lib", target)
            .file("./lib/before", b"1")
            .dir("./usr/")
            .dir("./usr/lib/")
            .file("./usr/lib/there", b"2")
            .dir("./lib/")
            .dir("./lib/modules/")
            .file("./lib/modules/m", b"3")
            .hard_link("./lib/linked", "./lib/there");
        let (_arena, root) = unpacked(tar);
        assert!(
            root.join("lib").symlink_metadata().unwrap().is_symlink(),
            "{target}"
        );
        for (file, contents) in [
            ("before", "1"),
            ("there", "2"),
            ("modules/m", "3"),
            ("linked", "2"),
        ] {
            let path = root.join("usr/lib").join(file);
            assert_eq!(
                fs::read_to_string(path).unwrap(),
                contents,
                "{target} {file}"
            );
        }
    }
}

#[test]
fn a_directory_in_place_of_a_link_leaves_the_link_whatever_comes_first() {
    for target in ["usr/lib", "/usr/lib"] {
        let tar = Tar::new()
            .symlink("lib", target)
            .dir("lib/")
            .file("lib/one", b"1")
            .entry(&head("usr/lib", b'5').mode(0o750).mtime(7), b"")
            .file("usr/lib/two", b"2");
        let (_arena, root) = unpacked(tar);
        assert!(root.join("lib").symlink_metadata().unwrap().is_symlink());
        for file in ["one", "two"] {
            assert!(root.join("usr/lib").join(file).exists(), "{file}");
        }
        assert_eq!(mode(&root.join("usr/lib")), 0o750);
        assert_eq!(mtime(&root.join("usr/lib")), 7);
    }
    // A link to no directory is replaced.
    for target in ["file", "l"] {
        let tar = Tar::new()
            .file("file", b"x")
            .symlink("l", target)
            .dir("l/")
            .file("l/f", b"1");
        let (_arena, root) = unpacked(tar);
        assert!(
            root.join("l").symlink_metadata().unwrap().is_dir(),
            "{target}"
        );
    }
}

#[test]
fn hard_links_may_come_before_their_target() {
    let tar = Tar::new()
        .hard_link("c", "b")
        .hard_link("b", "a")
        .dir("d")
        .hard_link("d/e", "c")
        .file("a", b"shared");
    let (_arena, root) = unpacked(tar);
    let inode = |name| root.join(name).metadata().unwrap().ino();
    for name in ["b", "c", "d/e"] {
        assert_eq!(inode(name), inode("a"), "{name}");
    }
    assert_eq!(
        mtime(&root.join("d")),
        MTIME as i64,
        "the link came after the time was set"
    );
}

#[test]
fn modes_and_times_are_kept() {
    let tar = Tar::new()
        .entry(&head("./", b'5').mode(0o751).mtime(1), b"")
        .entry(&head("d", b'5').mode(0o1777).mtime(2), b"")
        .entry(&head("d/sub", b'5').mode(0o700).mtime(3), b"")
        .entry(&head("d/sub/f", b'0').mode(0o604).mtime(4), b"")
        .entry(&head("d/l", b'2').link("nowhere").mtime(5), b"")
        .entry(&head("d/w", b'0').mode(0o666).mtime(6), b"")
        .entry(&head("r", b'5').mode(0o555).mtime(7), b"")
        .entry(&head("r/none", b'5').mode(0o000).mtime(8), b"")
        .entry(&head("r/none/f", b'0').mode(0o000).mtime(9), b"")
        .file("late/d", b"")
        // Once more, as archives that were appended to have it.
        .entry(&head("d/sub", b'5').mode(0o711).mtime(10), b"");
    let (_arena, root) = unpacked(tar);
    let seen = |path: &str| (mode(&root.join(path)), mtime(&root.join(path)));
    assert_eq!(seen(""), (0o751, 1));
    assert_eq!(seen("d"), (0o1777, 2));
    assert_eq!(seen("d/sub"), (0o711, 10));
    assert_eq!(seen("d/sub/f"), (0o604, 4));
    assert_eq!(seen("d/l"), (0o777, 5));
    assert_eq!(seen("d/w"), (0o666, 6));
    assert_eq!(seen("r"), (0o555, 7));
    assert_eq!(seen("r/none"), (0o000, 8));
    assert_eq!(seen("r/none/f"), (0o000, 9));
    assert_eq!(seen("late").0, 0o755);
}

#[test]
fn long_names_and_large_numbers_in_all_dialects() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(250));
    let target = "t".repeat(300);
    let mut base256 = [0; 12];
    base256[0] = 0x80;
    base256[11] = 3;
    let tar = Tar::new()
        .pax(&[
            ("path", long.as_bytes()),
            ("mtime", b"12345.678"),
            ("comment", b"x"),
        ])
        .file("x", b"pax")
        .gnu_long(b'K', target.as_bytes())
        .gnu_long(b'L', b"gnu")
        .symlink("x", "x")
        .entry(&head("base256", b'0').raw_size(base256), b"abc")
        .pax_kind(b'g', &[("comment", b"a commit")])
        .entry(&head("old", 0).size(1), b"x");
    let (_arena, root) = unpacked(tar);
    assert_eq!(fs::read_to_string(root.join(&long)).unwrap(), "pax");
    assert_eq!(mtime(&root.join(&long)), 12345);
    assert_eq!(
        fs::read_link(root.join("gnu")).unwrap(),
        PathBuf::from(target)
    );
    assert_eq!(fs::read_to_string(root.join("base256")).unwrap(), "abc");
    assert_eq!(fs::read_to_string(root.join("old")).unwrap(), "x");
}

#[test]
fn many_frames_large_files_and_padding_come_out_whole() {
    let large: Vec<u8> = (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut tar = Tar::new().file("large", &large);
    for number in 0..3000 {
        tar = tar.file(format!("d{}/f{number}", number % 40), &large[..number * 3]);
    }
    let archive = tar.end();
    // Frames that end anywhere, empty ones and skippable ones are all one stream.
    let mut frames = Vec::new();
    for piece in archive.chunks(777_777) {
        frames.extend(zst(piece));
        frames.extend(zst(b""));
        frames.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
    }
    // GNU tar fills its last record with zeros.
    frames.extend(zst(&[0; 10_240]));
    let arena = Arena::new();
    arena.unpack(&frames).unwrap();
    let root = arena.target();
    assert_eq!(
        digest_of(&fs::read(root.join("large")).unwrap()),
        digest_of(&large)
    );
    for number in 0..3000 {
        let file = fs::read(root.join(format!("d{}/f{number}", number % 40))).unwrap();
        assert!(file == large[..number * 3], "f{number}");
    }
}

#[test]
fn archives_of_gnu_tar_in_each_format() {
    let arena = Arena::new();
    let tree = sample_tree(arena.folder.path());
    for format in ["gnu", "posix", "oldgnu", "ustar"] {
        if format == "ustar" {
            // It has no room for this name.
            fs::remove_file(tree.join(format!("usr/{}", "n".repeat(180)))).unwrap();
        }
        let arena = Arena::new();
        let file = arena.folder.path().join("theirs");
        let made = Command::new("tar")
            .args(["--format", format, "--zstd", "-cf"])
            .arg(&file)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        let archive = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        arena.unpack(&archive).unwrap();
        assert_eq!(portrait(&arena.target()), portrait(&tree), "{format}");
    }
}

/// A tree with a bit of everything.
fn sample_tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir_all(tree.join("usr/lib/python3/__pycache__")).unwrap();
    fs::create_dir_all(tree.join("empty")).unwrap();
    fs::write(tree.join("usr/lib/python3/a.py"), "print(1)").unwrap();
    fs::write(tree.join("usr/lib/python3/__pycache__/a.pyc"), "bytes").unwrap();
    fs::write(tree.join("usr/lib/large"), vec![7; 1_000_000]).unwrap();
    fs::write(tree.join("usr/lib/Főtanúsítvány with space.crt"), "pem").unwrap();
    fs::write(tree.join(format!("usr/{}", "n".repeat(180))), "long").unwrap();
    fs::hard_link(tree.join("usr/lib/large"), tree.join("also-large")).unwrap();
    symlink("usr/lib", tree.join("lib")).unwrap();
    symlink("/nowhere", tree.join("usr/dangling")).unwrap();
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(
        tree.join("usr/lib/large"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME);
    for (number, path) in portrait(&tree).keys().enumerate() {
        let path = tree.join(path);
        if !path.symlink_metadata().unwrap().is_symlink() {
            let time = time + Duration::from_secs(number as u64);
            File::open(path).unwrap().set_modified(time).unwrap();
        }
    }
    tree
}

fn options(latest: Option<i64>) -> Options {
    Options {
        level: 3,
        latest,
        limits: Limits::default(),
    }
}

#[test]
fn what_is_built_from_a_directory_comes_out_the_same() {
    let arena = Arena::new();
    let tree = sample_tree(arena.folder.path());
    let image = arena.folder.path().join("i.tar.zst");
    let built = build(&tree, &image, &options(None)).unwrap();
    assert_eq!(built.digest, digest_of(&fs::read(&image).unwrap()));
    // A long name needs a header of its own, which is no entry.
    assert_eq!(built.entries, portrait(&tree).len() as u64);
    let target = arena.target();
    let limits = Limits::default();
    runner::image::unpack_file(&image, &target, Some(&built.digest), &limits).unwrap();
    assert_eq!(portrait(&target), portrait(&tree));
}

#[test]
fn the_same_tree_gives_the_same_digest() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = sample_tree(one.path());
    // The same contents, made in another order by another process.
    let copy = two.path().join("copy");
    let copied = Command::new("cp").arg("-a").args([&first, &copy]).status();
    assert!(copied.unwrap().success());
    let digest = |tree: &Path| {
        let image = two.path().join("i");
        build(tree, &image, &options(None)).unwrap().digest
    };
    assert_eq!(digest(&first), digest(&copy));
    assert_eq!(digest(&first), digest(&first));
    fs::write(copy.join("usr/lib/python3/a.py"), "print(2)").unwrap();
    assert_ne!(digest(&first), digest(&copy));
}

#[test]
fn times_are_not_later_than_asked_but_those_of_python_sources() {
    let folder = tempfile::tempdir().unwrap();
    let tree = sample_tree(folder.path());
    let image = folder.path().join("i");
    build(&tree, &image, &options(Some(1000))).unwrap();
    let target = folder.path().join("out");
    runner::image::unpack_file(&image, &target, None, &Limits::default()).unwrap();
    assert_eq!(mtime(&target), 1000);
    assert_eq!(mtime(&target.join("usr/lib/large")), 1000);
    let source = "usr/lib/python3/a.py";
    assert_eq!(mtime(&target.join(source)), mtime(&tree.join(source)));
}

#[test]
fn an_archive_is_built_as_it_is_once_it_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let (tar, image) = (folder.path().join("i.tar"), folder.path().join("i.tar.zst"));
    let good = Tar::new().dir("d").file("d/f", b"x").end();
    let mut digests = Vec::new();
    for archive in [good.clone(), zst(&good)] {
        fs::write(&tar, archive).unwrap();
        digests.push(build(&tar, &image, &options(None)).unwrap().digest);
        assert_eq!(zstd::decode_all(File::open(&image).unwrap()).unwrap(), good);
    }
    assert_eq!(digests[0], digests[1]);
    fs::remove_file(&image).unwrap();
    fs::write(&tar, Tar::new().file("../f", b"x").end()).unwrap();
    let error = build(&tar, &image, &options(None)).unwrap_err();
    assert!(error.to_string().contains("`..`"), "{error}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the archive: {left:?}");
}

#[test]
fn two_who_build_the_same_file_at_once_both_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("i.tar.zst");
    for name in ["one", "two"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        let contents: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(folder.path().join(name).join(name), contents).unwrap();
    }
    for _ in 0..3 {
        let builds = ["one", "two"].map(|name| {
            let mut command = binary();
            command.args(["image", "build", "--output", "json"]);
            command.arg(folder.path().join(name)).arg(&image);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        });
        let digests = builds.map(|build| {
            let output = build.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
            let built: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            built["digest"].as_str().unwrap().to_owned()
        });
        let found = digest_of(&fs::read(&image).unwrap()).to_string();
        assert!(
            digests.contains(&found),
            "{found} is neither of {digests:?}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}

#[test]
fn frames_are_independent_and_at_most_four_mebibytes() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("i");
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let contents: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(tree.join("f"), &contents).unwrap();
    build(&tree, &image, &options(None)).unwrap();
    let bytes = fs::read(&image).unwrap();
    let (mut at, mut frames, mut plain) = (0, 0, Vec::new());
    while at < bytes.len() {
        let length = zstd::zstd_safe::find_frame_compressed_size(&bytes[at..]).unwrap();
        let frame = zstd::bulk::decompress(&bytes[at..at + length], 4 << 20).unwrap();
        plain.extend(frame);
        at += length;
        frames += 1;
    }
    assert_eq!(frames, 3);
    assert!(
        plain
            .windows(contents.len())
            .step_by(512)
            .any(|window| window == contents)
    );
}

/// Runs the binary as a user with no rights at all.
fn as_nobody(folder: &Path, arguments: &[&str]) -> Output {
    let copy = folder.join("runner");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_rekindle-runner"), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ]);
        command.arg(&copy);
        command
    } else {
        Command::new(&copy)
    };
    command
        .args(arguments)
        .current_dir(folder.join("own"))
        .output()
        .unwrap()
}

fn folder_of_nobody() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = folder.path().join("own");
    fs::create_dir(&own).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&own, Some(65534), Some(65534)).unwrap();
    }
    folder
}

#[test]
fn without_root_everything_works_but_owners() {
    let folder = folder_of_nobody();
    let tar = Tar::new()
        .entry(&head("./", b'5').mode(0o555).mtime(1), b"")
        .entry(&head("r", b'5').mode(0o500).mtime(2), b"")
        .entry(&head("r/none", b'5').mode(0o000).mtime(3), b"")
        .entry(&head("r/none/f", b'0').mode(0o400).mtime(4), b"")
        .symlink("l", "r")
        .hard_link("h", "l/none/f")
        .entry(&head("null", b'3'), b"");
    fs::write(folder.path().join("own/i"), tar.zst()).unwrap();
    let done = as_nobody(folder.path(), &["image", "unpack", "i", "out"]);
    assert!(done.status.success(), "{}", text(&done));
    let root = folder.path().join("own/out");
    let seen = |path: &str| (mode(&root.join(path)), mtime(&root.join(path)));
    assert_eq!(seen(""), (0o555, 1));
    assert_eq!(seen("r"), (0o500, 2));
    if nix::unistd::geteuid().is_root() {
        assert_eq!(seen("r/none"), (0o000, 3));
        assert_eq!(seen("r/none/f"), (0o400, 4));
        assert_eq!(root.join("h").metadata().unwrap().uid(), 65534);
    } else {
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn without_root_a_failure_leaves_nothing_not_even_closed_directories() {
    let folder = folder_of_nobody();
    let tar = Tar::new()
        .entry(&head("r", b'5').mode(0o500), b"")
        .entry(&head("r/none", b'5').mode(0o000), b"")
        .file("r/none/f", b"x");
    let (good, bad) = (tar.clone().zst(), tar.file("../x", b"x").zst());
    fs::write(folder.path().join("own/good"), good).unwrap();
    fs::write(folder.path().join("own/bad"), bad).unwrap();
    let done = as_nobody(folder.path(), &["image", "unpack", "bad", "out"]);
    assert_eq!(done.status.code(), Some(4), "{}", text(&done));
    // Complete, closed, and then found to be the wrong image.
    let other = digest_of(b"other").to_string();
    let done = as_nobody(
        folder.path(),
        &["image", "unpack", "good", "out", "--digest", &other],
    );
    assert_eq!(done.status.code(), Some(4), "{}", text(&done));
    let mut left: Vec<_> = fs::read_dir(folder.path().join("own"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["bad", "good"]);
}

#[test]
fn a_strict_umask_changes_nothing() {
    let arena = Arena::new();
    let tar = Tar::new()
        .entry(&head("d", b'5').mode(0o777), b"")
        .entry(&head("d/f", b'0').mode(0o666), b"")
        .file("implicit/f", b"");
    let image = arena.folder.path().join("i");
    fs::write(&image, tar.zst()).unwrap();
    let mut unpack = Command::new("sh");
    unpack.args(["-c", "umask 077; exec \"$@\"", "sh"]);
    unpack.arg(binary().get_program());
    unpack
        .args(["image", "unpack"])
        .arg(&image)
        .arg(arena.target());
    let done = unpack.output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    let seen = |path: &str| mode(&arena.target().join(path));
    assert_eq!((seen(""), seen("d"), seen("d/f")), (0o755, 0o777, 0o666));
    assert_eq!(seen("implicit"), 0o755);
}

#[test]
fn a_full_disk_is_said_and_left_as_it_was() {
    let arena = Arena::new();
    let large: Vec<u8> = vec![1; 3 << 20];
    let image = arena.folder.path().join("image.tar.zst");
    fs::write(
        &image,
        Tar::new()
            .dir("d")
            .file("d/f", b"x")
            .file("d/large", &large)
            .zst(),
    )
    .unwrap();
    let disk = arena.target();
    fs::create_dir(&disk).unwrap();
    // The mount goes away with the process that made it.
    let script = "mount -t tmpfs -o size=2m disk \"$1\" || exit 99
        \"$2\" image unpack \"$3\" \"$1/out\"
        code=$?; ls -A \"$1\"; exit $code";
    let done = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(&disk)
        .arg(binary().get_program())
        .arg(&image)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    assert!(
        text(&done).contains("write `d/large`: No space left"),
        "{}",
        text(&done)
    );
    assert!(done.stdout.is_empty(), "something is left: {}", text(&done));
}

#[test]
fn owners_are_numbers_that_root_sets() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mut file = head("f", b'0');
    (file.uid, file.gid) = (1234, 5678);
    let mut folder = head("d", b'5');
    (folder.uid, folder.gid) = (42, 43);
    let mut link = head("l", b'2').link("nowhere");
    (link.uid, link.gid) = (7, 8);
    let tar = Tar::new()
        .entry(&file, b"")
        .entry(&folder, b"")
        .entry(&link, b"")
        .pax(&[("uid", b"3000000"), ("gid", b"3000001")])
        .file("large", b"");
    let (_arena, root) = unpacked(tar);
    let owner = |name: &str| {
        let metadata = root.join(name).symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("f"), (1234, 5678));
    assert_eq!(owner("d"), (42, 43));
    assert_eq!(owner("l"), (7, 8));
    assert_eq!(owner("large"), (3_000_000, 3_000_001));
}
