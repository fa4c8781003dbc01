//! Symbolic links, at the end of a path and on the way.

use super::{OUT, inside, is_file, refused};
use crate::common::{Arena, Tar, head};

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
        assert!(root.join("d").symlink_metadata().unwrap().is_symlink());
        is_file(&root.join("canary/dir/secret"), "x");
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
fn links_that_lead_deeper_than_a_tree_may_be() {
    let steps = |count| b"d/".repeat(count);
    let shortcut = |depth| {
        Tar::new()
            .dir(&b"x"[..])
            .symlink_long(b"one", &steps(depth))
    };
    let below = [&b"one/"[..], &steps(27)].concat();
    // Each name is short enough by itself.
    refused(
        &shortcut(127).pax(&[("path", &below)]).dir("long").zst(),
        "deeper than 128",
    );
    refused(
        &shortcut(127)
            .pax(&[("path", &[&below[..], b"file"].concat())])
            .file("long", b"x")
            .zst(),
        "deeper than 128",
    );
    // Link upon link, as far as the kernel follows.
    let tar = shortcut(100)
        .symlink_long(b"two", &[&b"one/"[..], &steps(100)].concat())
        .symlink_long(b"three", &[&b"two/"[..], &steps(100)].concat());
    refused(&tar.clone().file("three/x", b"x").zst(), "deeper than 128");
    refused(&tar.dir("three/").zst(), "deeper than 128");
    let tar = shortcut(100).pax(&[("path", &below)]).dir("long");
    inside(tar, |root| {
        let deep = std::ffi::OsString::from("d/".repeat(127));
        assert!(root.join(deep).is_dir());
    });
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
