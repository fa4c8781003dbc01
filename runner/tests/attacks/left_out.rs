//! What is left out, and what replaces what.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use runner::unpack::Limits;

use super::{OUT, inside, is_file, refused};
use crate::common::{Arena, Tar, head};

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
    assert!(packed.status.success(), "{}", crate::common::text(&packed));
    assert!(!crate::common::text(&packed).contains("xattr"));
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
