//! Names of entries.

use super::{OUT, is_file, refused};
use crate::common::{Arena, Tar};

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

#[test]
fn errors_never_repeat_control_characters() {
    let name = b"\x1b]0;title\x07\n../x";
    let error = Arena::new()
        .unpack(&Tar::new().file(name, b"x").zst())
        .unwrap_err();
    assert!(!error.chars().any(char::is_control), "{error:?}");
}
