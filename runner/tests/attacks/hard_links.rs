//! Hard links.

use super::{OUT, inside, is_file, refused};
use crate::common::{Arena, Tar};

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
