//! Hostile archives: each is refused with a clear reason, or lands inside. Nothing outside is read,
//! written, linked, changed or removed, and a failure leaves nothing behind: `Arena` looks each time.
#![allow(missing_docs, reason = "these are tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use common::{Arena, Tar, head, zst};
use runner::unpack::Limits;

/// The archive is refused, and the reason says so.
#[track_caller]
fn refused(archive: &[u8], reason: &str) {
    let error = Arena::new().unpack(archive).expect_err("it was taken");
    assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
}

/// The archive is taken, and what it makes lies inside.
#[track_caller]
fn inside(tar: Tar, look: impl FnOnce(&Path)) {
    let arena = Arena::new();
    arena.unpack(&tar.zst()).expect("it was refused");
    look(&arena.target());
}

fn is_file(path: &Path, contents: &str) {
    assert!(
        path.symlink_metadata().unwrap().is_file(),
        "{} is no file",
        path.display()
    );
    assert_eq!(fs::read_to_string(path).unwrap(), contents);
}

/// The canary, as seen from the target by a link.
const OUT: &str = "../../../canary";

// --- names ---

#[test]
fn a_name_with_dot_dot() {
    refused(&Tar::new().file("../../../canary/file", b"x").zst(), "`..`");
    refused(&Tar::new().dir("a").file("a/../../x", b"x").zst(), "`..`");
    refused(&Tar::new().dir("../../../canary/dir").zst(), "`..`");
    refused(&Tar::new().symlink("..", "x").zst(), "`..`");
}

#[test]
fn an_absolute_name_lands_inside() {
    let arena = Arena::new();
    let absolute = arena.canary.join("file");
    let name = absolute.to_str().unwrap();
    arena.unpack(&Tar::new().file(name, b"x").zst()).unwrap();
    is_file(&arena.target().join(name.trim_start_matches('/')), "x");
}

#[test]
fn empty_names_and_the_root() {
    refused(&Tar::new().file("", b"x").zst(), "name is empty");
    refused(&Tar::new().file(".", b"x").zst(), "replace the root");
    refused(&Tar::new().file("./", b"x").zst(), "replace the root");
    refused(&Tar::new().symlink(".", OUT).zst(), "replace the root");
    refused(&Tar::new().symlink("/", OUT).zst(), "replace the root");
    refused(&Tar::new().hard_link("./.", "x").zst(), "replace the root");
    refused(
        &Tar::new().pax(&[("path", b"")]).file("a", b"x").zst(),
        "name is empty",
    );
}

#[test]
fn a_trailing_slash_makes_no_directory_of_a_link() {
    refused(&Tar::new().symlink("a/", OUT).zst(), "ends with `/`");
    refused(&Tar::new().file("a/", b"x").zst(), "ends with `/`");
    refused(&Tar::new().file("a/.", b"x").zst(), "ends with `/`");
    refused(&Tar::new().hard_link("a/", "b").zst(), "ends with `/`");
}

#[test]
fn control_characters_in_names_and_targets() {
    refused(&Tar::new().file("a\nb", b"x").zst(), "control character");
    refused(
        &Tar::new().file("a\x1b[2Jb", b"x").zst(),
        "control character",
    );
    refused(&Tar::new().symlink("a", "b\x07").zst(), "control character");
    refused(&Tar::new().hard_link("a", "b\r").zst(), "control character");
    refused(
        &Tar::new().pax(&[("path", b"a\0b")]).file("c", b"x").zst(),
        "control character",
    );
    refused(
        &Tar::new()
            .pax(&[("linkpath", b"a\0b")])
            .symlink("c", "x")
            .zst(),
        "control character",
    );
    refused(
        &Tar::new().gnu_long(b'L', b"a\0b").file("c", b"x").zst(),
        "control character",
    );
}

#[test]
fn long_names() {
    let long = [b'a'; 300];
    refused(
        &Tar::new().pax(&[("path", &long)]).file("a", b"x").zst(),
        "longer than 255",
    );
    refused(
        &Tar::new().gnu_long(b'L', &long).file("a", b"x").zst(),
        "longer than 255",
    );
    let long = b"abcd/".repeat(1000);
    refused(
        &Tar::new().pax(&[("path", &long)]).file("a", b"x").zst(),
        "longer than 4095",
    );
    let deep = b"a/".repeat(200);
    refused(
        &Tar::new().pax(&[("path", &deep)]).dir("a").zst(),
        "deeper than 128",
    );
    let target = b"abcd/".repeat(1000);
    refused(
        &Tar::new()
            .pax(&[("linkpath", &target)])
            .symlink("a", "x")
            .zst(),
        "longer than 4095",
    );
}

// --- symbolic links ---

#[test]
fn a_parent_that_is_a_link_to_the_outside() {
    for target in [
        OUT,
        "../../../canary/dir",
        "/canary",
        "/proc/self/root/tmp",
        "/proc/self/cwd",
    ] {
        inside(
            Tar::new().symlink("l", target).file("l/file", b"x"),
            |root| {
                assert!(root.join("l").symlink_metadata().unwrap().is_symlink());
                let landed = target.trim_start_matches("../").trim_start_matches('/');
                is_file(&root.join(landed).join("file"), "x");
            },
        );
    }
}

#[test]
fn a_parent_that_is_an_absolute_link_to_the_canary() {
    let arena = Arena::new();
    let tar = Tar::new()
        .symlink("l", arena.canary.to_str().unwrap())
        .file("l/file", b"x");
    arena.unpack(&tar.zst()).unwrap();
    let landed = arena.canary.strip_prefix("/").unwrap().join("file");
    is_file(&arena.target().join(landed), "x");
}

#[test]
fn links_that_lead_out_in_two_hops() {
    let tar = Tar::new()
        .symlink("a", ".")
        .symlink("b", "a/..")
        .symlink("c", "b/../../canary")
        .file("c/file", b"x");
    inside(tar, |root| is_file(&root.join("canary/file"), "x"));
}

#[test]
fn a_file_over_a_link_replaces_the_link() {
    inside(
        Tar::new()
            .symlink("f", "../../../canary/file")
            .file("f", b"x"),
        |root| is_file(&root.join("f"), "x"),
    );
}

#[test]
fn a_directory_over_a_link_changes_nothing_outside() {
    // As root this would change the mode, owner and time of the canary (CVE-2026-33056).
    let tar = Tar::new()
        .symlink("d", "../../../canary/dir")
        .entry(&head("d/", b'5').mode(0o777), b"")
        .file("d/secret", b"x");
    inside(tar, |root| {
        assert!(root.join("d").symlink_metadata().unwrap().is_dir());
        is_file(&root.join("d/secret"), "x");
    });
}

#[test]
fn missing_parents_are_not_made_through_a_link_to_the_outside() {
    inside(
        Tar::new().symlink("l", OUT).file("l/new/deep/file", b"x"),
        |root| is_file(&root.join("canary/new/deep/file"), "x"),
    );
}

#[test]
fn loops_of_links() {
    refused(
        &Tar::new()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", b"x")
            .zst(),
        "parent",
    );
    refused(
        &Tar::new().symlink("a", "a").file("a/x", b"x").zst(),
        "parent",
    );
    refused(&Tar::new().symlink("a", "a/b").dir("a/x").zst(), "parent");
}

#[test]
fn chains_of_links_longer_than_a_path_may_be() {
    // CVE-2025-4517: realpath gives up on the long path, and the extractor goes on.
    let step = [b'd'; 247];
    let mut tar = Tar::new();
    let mut path = Vec::new();
    for link in b"abcdefghijklmnop" {
        let mut name = path.clone();
        name.extend(step);
        tar = tar.pax(&[("path", &name)]).dir("x");
        let mut short = path.clone();
        short.push(*link);
        tar = tar.symlink_long(&short, &step);
        path.push(*link);
        path.push(b'/');
    }
    let mut last = path.clone();
    last.extend([b'l'; 254]);
    let tar = tar
        .symlink_long(&last, &b"../".repeat(16))
        .symlink_long(b"escape", &[&last[..], b"/", OUT.as_bytes()].concat())
        .symlink("e", "escape/../../../canary")
        .file("e/file", b"x")
        .file("escape/file", b"x");
    // Refused or inside; the arena looks after the canary.
    let _ = Arena::new().unpack(&tar.zst());
}

#[test]
fn more_links_than_the_kernel_follows() {
    let mut tar = Tar::new().dir("d0");
    for number in 1..60 {
        tar = tar.symlink(format!("d{number}"), format!("d{}", number - 1));
    }
    refused(&tar.file("d59/x", b"x").zst(), "parent");
}

#[test]
fn a_parent_that_is_a_file() {
    refused(
        &Tar::new().file("a", b"x").file("a/b", b"x").zst(),
        "parent is not a directory",
    );
    refused(
        &Tar::new().file("a", b"x").file("a/b/c/d", b"x").zst(),
        "parent is not a directory",
    );
}

// --- hard links ---

#[test]
fn hard_links_to_the_outside() {
    refused(
        &Tar::new().hard_link("h", "../../../canary/file").zst(),
        "`..`",
    );
    let arena = Arena::new();
    let absolute = arena.canary.join("dir/secret");
    let tar = Tar::new().hard_link("h", absolute.to_str().unwrap());
    let error = arena.unpack(&tar.zst()).unwrap_err();
    assert!(error.contains("not in the image"), "{error}");
    let through = Tar::new().symlink("l", OUT).hard_link("h", "l/file");
    refused(&through.zst(), "not in the image");
    // Relative to our working directory, as oras-go did it (CVE-2026-50163).
    refused(
        &Tar::new().hard_link("h", "Cargo.toml").zst(),
        "not in the image",
    );
    refused(
        &Tar::new().hard_link("h", "/etc/passwd").zst(),
        "not in the image",
    );
    refused(
        &Tar::new().hard_link("h", "/proc/self/exe").zst(),
        "not in the image",
    );
}

#[test]
fn a_hard_link_to_a_symbolic_link_does_not_follow_it() {
    let tar = Tar::new()
        .symlink("s", "../../../canary/dir/secret")
        .hard_link("h", "s")
        .file("copy", b"x");
    inside(tar, |root| {
        assert!(root.join("h").symlink_metadata().unwrap().is_symlink());
    });
}

#[test]
fn a_file_over_a_hard_link_is_a_file_of_its_own() {
    let tar = Tar::new()
        .file("a", b"old")
        .hard_link("h", "a")
        .file("h", b"new");
    inside(tar, |root| {
        is_file(&root.join("a"), "old");
        is_file(&root.join("h"), "new");
    });
    let tar = Tar::new()
        .symlink("s", "../../../canary/file")
        .hard_link("h", "s")
        .file("h", b"new");
    inside(tar, |root| is_file(&root.join("h"), "new"));
}

#[test]
fn hard_links_to_directories_themselves_and_nothing() {
    refused(
        &Tar::new().dir("d").hard_link("h", "d").zst(),
        "which is not a file",
    );
    refused(&Tar::new().hard_link("h", "h").zst(), "not in the image");
    refused(&Tar::new().hard_link("h", ".").zst(), "which is not");
    refused(&Tar::new().hard_link("h", "").zst(), "name is empty");
    refused(
        &Tar::new().file("a", b"x").hard_link("h", "a/b").zst(),
        "not in the image",
    );
    refused(
        &Tar::new()
            .file("a", b"")
            .hard_link("h", "a")
            .file("h/b", b"x")
            .zst(),
        "not empty",
    );
}

// --- extensions ---

#[test]
fn names_by_extension_are_judged_like_others() {
    for path in [&b"../../../canary/file"[..], b"a/../../../x"] {
        refused(
            &Tar::new().pax(&[("path", path)]).file("a", b"x").zst(),
            "`..`",
        );
        refused(
            &Tar::new().gnu_long(b'L', path).file("a", b"x").zst(),
            "`..`",
        );
        refused(
            &Tar::new()
                .pax(&[("linkpath", path)])
                .hard_link("a", "b")
                .zst(),
            "`..`",
        );
        refused(
            &Tar::new().gnu_long(b'K', path).hard_link("a", "b").zst(),
            "`..`",
        );
    }
    inside(
        Tar::new().pax(&[("path", b"/etc/x")]).file("a", b"x"),
        |root| {
            is_file(&root.join("etc/x"), "x");
        },
    );
}

#[test]
fn header_and_extension_that_disagree_about_the_size() {
    // CVE-2025-62518 and CVE-2026-33055: one reader sees a file's contents as entries.
    let hidden = Tar::new().file("../../../canary/file", b"smuggled").0;
    let larger = hidden.len().to_string();
    let tar = Tar::new()
        .pax(&[("size", larger.as_bytes())])
        .entry(&head("a", b'0').size(0), &hidden);
    refused(&tar.zst(), "disagree about the size");
    let tar = Tar::new()
        .pax(&[("size", b"0")])
        .entry(&head("a", b'0').size(hidden.len() as u64), &hidden);
    refused(&tar.zst(), "disagree about the size");
}

#[test]
fn extensions_that_programs_read_differently() {
    let ambiguous = "extension headers are ambiguous";
    let file = |tar: Tar| tar.file("c", b"x").zst();
    // GHSA-3cv2-h65g-fgmm: PAX, then a long name of GNU's.
    refused(
        &file(Tar::new().pax(&[("path", b"a")]).gnu_long(b'L', b"b")),
        ambiguous,
    );
    refused(
        &file(Tar::new().gnu_long(b'L', b"b").pax(&[("path", b"a")])),
        ambiguous,
    );
    refused(
        &file(Tar::new().pax(&[("size", b"1")]).gnu_long(b'L', b"b")),
        ambiguous,
    );
    refused(
        &file(Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")])),
        ambiguous,
    );
    refused(
        &file(Tar::new().pax(&[("path", b"a"), ("path", b"b")])),
        ambiguous,
    );
    refused(
        &file(Tar::new().gnu_long(b'L', b"a").gnu_long(b'L', b"b")),
        ambiguous,
    );
    refused(
        &file(Tar::new().pax_kind(b'g', &[("path", b"a")])),
        ambiguous,
    );
    refused(
        &file(Tar::new().pax_kind(b'g', &[("size", b"9")])),
        ambiguous,
    );
}

#[test]
fn damaged_and_giant_extensions() {
    let damaged = Tar::new().entry(&head("pax", b'x').size(7), b"99 a=b\n");
    refused(&damaged.file("a", b"x").zst(), "extended header is damaged");
    for kind in [b'x', b'L', b'K', b'g'] {
        let size = (1 << 20) + 1;
        let giant = Tar::new().entry(&head("pax", kind).size(size), &vec![b'a'; 1 << 20]);
        refused(&giant.zst(), "larger than 1 MiB");
        let huge = Tar::new().entry(&head("pax", kind).size(0o77_777_777_777), b"");
        refused(&huge.zst(), "larger than 1 MiB");
    }
    refused(&Tar::new().pax(&[("path", b"a")]).zst(), "cut off");
    refused(
        &Tar::new().pax(&[("size", b"-1")]).file("a", b"x").zst(),
        "no sound number",
    );
    refused(
        &Tar::new()
            .pax(&[("uid", b"4294967295")])
            .file("a", b"x")
            .zst(),
        "no sound number",
    );
    refused(
        &Tar::new().pax(&[("mtime", b"nan")]).file("a", b"x").zst(),
        "no sound number",
    );
}

// --- sizes ---

#[test]
fn negative_and_enormous_sizes() {
    let smuggled = Tar::new().file("../../../canary/file", b"x").0;
    let negative = head("a", b'0').raw_size([0xff; 12]);
    refused(
        &Tar::new().entry(&negative, b"").raw(&smuggled).zst(),
        "size is negative",
    );
    let mut minus_512 = [0xff; 12];
    minus_512[10] = 0xfe;
    minus_512[11] = 0;
    refused(
        &Tar::new()
            .entry(&head("a", b'0').raw_size(minus_512), b"")
            .zst(),
        "size is negative",
    );
    let mut exbi = [0; 12];
    exbi[0] = 0x80;
    exbi[4] = 0x7f;
    refused(
        &Tar::new().entry(&head("a", b'0').raw_size(exbi), b"").zst(),
        "more than",
    );
    let mut beyond = [0xff; 12];
    beyond[0] = 0x80;
    refused(
        &Tar::new()
            .entry(&head("a", b'0').raw_size(beyond), b"")
            .zst(),
        "no sound number",
    );
    refused(
        &Tar::new()
            .entry(&head("a", b'0').raw_size(*b"-0000000001\0"), b"")
            .zst(),
        "no sound number",
    );
}

#[test]
fn sparse_files() {
    refused(&Tar::new().entry(&head("a", b'S'), b"").zst(), "sparse");
    for key in ["GNU.sparse.major", "GNU.sparse.realsize", "GNU.sparse.map"] {
        let tar = Tar::new().pax(&[(key, b"17592186044416")]).file("a", b"x");
        refused(&tar.zst(), "sparse");
    }
}

#[test]
fn entries_with_contents_that_should_have_none() {
    let smuggled = Tar::new().file("../../../canary/file", b"x").0;
    for kind in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        let head = head("a", kind).link("b").size(smuggled.len() as u64);
        refused(&Tar::new().entry(&head, &smuggled).zst(), "has contents");
    }
}

#[test]
fn more_entries_and_bytes_than_allowed() {
    let limits = Limits {
        bytes: 1000,
        entries: 5,
    };
    let arena = Arena::new();
    let mut tar = Tar::new();
    for number in 0..6 {
        tar = tar.file(format!("f{number}"), b"");
    }
    let error = arena.unpack_with(&tar.zst(), &limits).unwrap_err();
    assert!(error.contains("more than 5 entries"), "{error}");
    let tar = Tar::new().file("a", &[0; 600]).file("b", &[0; 600]);
    let error = arena.unpack_with(&tar.zst(), &limits).unwrap_err();
    assert!(error.contains("more than 1000 bytes"), "{error}");
    // Extension headers count too: 200,000 of them are no way around.
    let mut tar = Tar::new();
    for _ in 0..6 {
        tar = tar.pax_kind(b'g', &[("comment", b"x")]);
    }
    let error = arena.unpack_with(&tar.zst(), &limits).unwrap_err();
    assert!(error.contains("more than 5 entries"), "{error}");
    // Zeros behind the end are part of the bomb.
    let bomb = zst(&vec![0; 100_000]);
    let error = arena.unpack_with(&bomb, &limits).unwrap_err();
    assert!(error.contains("more than 1000 bytes"), "{error}");
}

// --- the stream ---

#[test]
fn a_window_of_two_gibibytes() {
    // A frame header that asks for a window of 2 GiB, then an empty last block.
    refused(
        &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00],
        "zstd stream",
    );
}

#[test]
fn damaged_and_cut_streams() {
    let tar = Tar::new().file("a", &b"some contents".repeat(1000));
    let good = tar.clone().zst();
    for length in [0, 1, 5, good.len() / 2, good.len() - 1] {
        refused(&good[..length], "cut off");
    }
    refused(b"this is not zstd at all, but some text", "zstd stream");
    refused(&[&good[..], b"trailing garbage"].concat(), "zstd stream");
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    assert!(Arena::new().unpack(&damaged).is_err());
    // Whole frames, but half an archive.
    let plain = tar.clone().end();
    for length in [
        0,
        100,
        512,
        700,
        plain.len() - 1024,
        plain.len() - 512,
        plain.len() - 100,
    ] {
        refused(&zst(&plain[..length]), "cut off");
    }
}

#[test]
fn what_stands_behind_the_end() {
    let one = Tar::new().file("a", b"x").end();
    let two = Tar::new().file("b", b"x").end();
    refused(&zst(&[&one[..], &two].concat()), "behind its end");
    refused(&[zst(&one), zst(&two)].concat(), "behind its end");
    refused(&zst(&[&one[..], b"garbage"].concat()), "behind its end");
    let lone = Tar::new()
        .file("a", b"x")
        .raw(&[0; 512])
        .file("b", b"x")
        .end();
    refused(&zst(&lone), "behind its end");
}

#[test]
fn a_wrong_checksum() {
    let mut head = head("a", b'0');
    head.bad_sum = true;
    refused(&Tar::new().entry(&head, b"").zst(), "checksum");
    refused(&Tar::new().raw(&[b'x'; 512]).zst(), "checksum");
}

#[test]
fn types_that_images_do_not_have() {
    for kind in [b'D', b'M', b'N', b'V', b'A', b'X', b'z', 0xff] {
        refused(&Tar::new().entry(&head("a", kind), b"").zst(), "unknown");
    }
    refused(&Tar::new().file("d/.wh.f", b"").zst(), "whiteout");
    refused(&Tar::new().file(".wh..wh..opq", b"").zst(), "whiteout");
}

// --- what is left out ---

#[test]
fn nodes_are_left_out() {
    let tar = Tar::new()
        .entry(&head("null", b'3').mode(0o666), b"")
        .entry(&head("disk", b'4').mode(0o666), b"")
        .entry(&head("pipe", b'6').mode(0o666), b"")
        .file("pipe", b"a writer would hang here")
        .file("kept", b"x");
    inside(tar, |root| {
        let mut names: Vec<_> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap())
            .inspect(|entry| {
                let kind = entry.file_type().unwrap();
                assert!(!kind.is_char_device() && !kind.is_block_device() && !kind.is_fifo());
            })
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["kept", "pipe"]);
    });
}

#[test]
fn setuid_bits_and_extended_attributes_are_left_out() {
    let tar = Tar::new()
        .entry(&head("su", b'0').mode(0o6755), b"")
        .entry(&head("d", b'5').mode(0o7777), b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\0\0\0"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("LIBARCHIVE.xattr.user.overlay.opaque", b"eQ=="),
            ("SCHILY.acl.access", b"user::rwx"),
        ])
        .file("capable", b"x");
    let arena = Arena::new();
    let file = arena.folder.path().join("image.tar.zst");
    fs::write(&file, tar.zst()).unwrap();
    let target = arena.target();
    let (_, summary) =
        runner::image::unpack_file(&file, &target, None, &Limits::default()).unwrap();
    assert_eq!((summary.dropped.setid, summary.dropped.xattrs), (2, 5));
    let mode = |name: &str| target.join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode("su"), 0o755);
    assert_eq!(mode("d"), 0o1777);
    // GNU tar tells which attributes a file has by packing it.
    let packed = std::process::Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-cf", "-", "capable"])
        .current_dir(&target)
        .output()
        .unwrap();
    assert!(packed.status.success(), "{}", common::text(&packed));
    assert!(!common::text(&packed).contains("xattr"));
}

#[test]
fn entries_that_change_their_kind() {
    let arena = || Tar::new().dir("p").symlink("out", OUT);
    inside(arena().dir("x").symlink("x", OUT).file("x", b"1"), |root| {
        is_file(&root.join("x"), "1")
    });
    inside(arena().file("x", b"1").dir("x").file("x/y", b"2"), |root| {
        is_file(&root.join("x/y"), "2");
    });
    // The open directory must not be used any more when its place is taken.
    let tar = arena()
        .dir("p/d")
        .file("p/d/f", b"1")
        .dir("p/e")
        .symlink("p/e", "../out")
        .file("p/e/file", b"2");
    inside(tar, |root| is_file(&root.join("canary/file"), "2"));
    refused(
        &arena().dir("x").file("x/y", b"1").symlink("x", OUT).zst(),
        "directory that is not empty",
    );
    refused(
        &arena().dir("x").file("x/y", b"1").file("x", b"2").zst(),
        "not empty",
    );
}

#[test]
fn a_link_that_is_replaced_takes_its_paths_along() {
    let tar = Tar::new()
        .dir("one")
        .dir("two")
        .symlink("l", "one")
        .file("l/f", b"1")
        .symlink("l", "two")
        .file("l/f", b"2")
        .symlink("l", OUT)
        .file("l/file", b"3");
    inside(tar, |root| {
        is_file(&root.join("one/f"), "1");
        is_file(&root.join("two/f"), "2");
        is_file(&root.join("canary/file"), "3");
    });
}

#[test]
fn a_target_that_exists_is_not_touched() {
    let arena = Arena::new();
    let target = arena.target();
    fs::create_dir(&target).unwrap();
    fs::write(target.join("mine"), "x").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o750)).unwrap();
    let file = arena.folder.path().join("image.tar.zst");
    fs::write(&file, Tar::new().file("mine", b"y").zst()).unwrap();
    for target in [
        target.clone(),
        arena.canary.join("link"),
        arena.canary.clone(),
    ] {
        let result = runner::image::unpack_file(&file, &target, None, &Limits::default());
        assert!(result.is_err(), "{}", target.display());
    }
    is_file(&target.join("mine"), "x");
    assert_eq!(target.metadata().unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn errors_never_repeat_control_characters() {
    let name = b"\x1b]0;title\x07\n../x";
    let error = Arena::new()
        .unpack(&Tar::new().file(name, b"x").zst())
        .unwrap_err();
    assert!(!error.chars().any(char::is_control), "{error:?}");
}
