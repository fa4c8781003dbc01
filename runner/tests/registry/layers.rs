//! What layers make of each other.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::common::{MTIME, Tar, head};
use crate::server::{Door, Registry};
use crate::world::{Layer, World, gzip, gzipped, is_file, is_gone, names, plain, push, zstd};

/// Pulls an image of these layers, and looks at its tree.
#[track_caller]
fn tree(layers: &[Layer], look: impl FnOnce(&std::path::Path)) {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let digest = push(&registry, layers);
    look(&world.pulled(&registry, &digest));
}

#[test]
fn layers_of_every_compression_become_one_tree() {
    let layers = [
        gzipped(
            Tar::new()
                .dir("etc")
                .file("etc/kept", b"1")
                .file("etc/changed", b"1")
                .file("etc/gone", b"1")
                .dir("var")
                .dir("var/cache")
                .file("var/cache/old", b"1"),
        ),
        zstd(
            Tar::new()
                .file("etc/.wh.gone", b"")
                .file("etc/changed", b"2")
                .file("var/cache/new", b"2")
                .file("var/cache/.wh..wh..opq", b""),
        ),
        plain(Tar::new().file("etc/last", b"3").file(".wh.nothing", b"")),
    ];
    tree(&layers, |root| {
        is_file(&root.join("etc/kept"), "1");
        is_file(&root.join("etc/changed"), "2");
        is_file(&root.join("etc/last"), "3");
        assert_eq!(names(&root.join("etc")), ["changed", "kept", "last"]);
        assert_eq!(names(&root.join("var/cache")), ["new"]);
        assert_eq!(names(root), ["etc", "var"]);
        // What later layers do in a directory does not change its time.
        for directory in ["etc", "var/cache"] {
            let found = fs::metadata(root.join(directory)).unwrap().mtime();
            assert_eq!(found, MTIME as i64, "{directory}");
        }
    });
}

#[test]
fn gzip_of_several_members_is_one_stream() {
    let layer = plain(Tar::new().file("a", &[b'x'; 700_000]).file("b", b"2"));
    let (first, second) = layer.blob.split_at(100_000);
    let blob = [gzip(first), gzip(second)].concat();
    let media_type = format!("{}+gzip", layer.media_type);
    tree(
        &[Layer {
            blob,
            media_type,
            ..layer
        }],
        |root| {
            assert_eq!(fs::metadata(root.join("a")).unwrap().len(), 700_000);
            is_file(&root.join("b"), "2");
        },
    );
}

#[test]
fn hard_links_join_files_of_one_layer_and_of_two() {
    let layers = [
        plain(Tar::new().file("a", b"1").hard_link("b", "a")),
        plain(Tar::new().hard_link("d/c", "a")),
        // A file in place of a name leaves the other names alone.
        plain(Tar::new().file("b", b"3").file(".wh.a", b"")),
    ];
    tree(&layers, |root| {
        is_gone(&root.join("a"));
        is_file(&root.join("b"), "3");
        is_file(&root.join("d/c"), "1");
        assert_eq!(fs::metadata(root.join("d/c")).unwrap().nlink(), 1);
    });
    let layers = [
        plain(Tar::new().file("a", b"1")),
        plain(Tar::new().hard_link("b", "a")),
    ];
    tree(&layers, |root| {
        let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
        assert_eq!(inode("a"), inode("b"));
    });
}

#[test]
fn a_whiteout_means_the_layers_below_only() {
    let below = || {
        plain(
            Tar::new()
                .dir("d")
                .file("d/old", b"1")
                .file("f", b"1")
                .dir("e"),
        )
    };
    // Whatever comes first in the archive.
    let orders = [
        Tar::new()
            .file(".wh.f", b"")
            .file("f", b"2")
            .file(".wh.d", b"")
            .file("d/new", b"2")
            .file("e/.wh..wh..opq", b"")
            .file("e/new", b"2"),
        Tar::new()
            .file("f", b"2")
            .file(".wh.f", b"")
            .file("d/new", b"2")
            .file(".wh.d", b"")
            .file("e/new", b"2")
            .file("e/.wh..wh..opq", b""),
    ];
    for order in orders {
        tree(&[below(), plain(order)], |root| {
            is_file(&root.join("f"), "2");
            assert_eq!(names(&root.join("d")), ["new"]);
            assert_eq!(names(&root.join("e")), ["new"]);
        });
    }
}

#[test]
fn a_whiteout_spares_links_and_directories_of_its_own_layer() {
    // These are made at once; files come a moment later.
    let below = Tar::new()
        .symlink("s", "old")
        .dir("d")
        .file("d/old", b"1")
        .dir("e")
        .symlink("e/old", "x");
    let layer = Tar::new()
        .symlink("s", "new")
        .dir("d")
        .dir("e/new")
        .symlink("e/link", "new")
        .file(".wh.s", b"")
        .file(".wh.d", b"")
        .file("e/.wh..wh..opq", b"");
    tree(&[plain(below), plain(layer)], |root| {
        assert_eq!(fs::read_link(root.join("s")).unwrap().to_str(), Some("new"));
        assert_eq!(names(&root.join("d")), [""; 0]);
        assert_eq!(names(&root.join("e")), ["link", "new"]);
    });
}

#[test]
fn a_whiteout_takes_whole_directories_and_what_was_linked_there_stays() {
    let layers = [
        plain(
            Tar::new()
                .entry(&head("d", b'5').mode(0o500), b"")
                .dir("d/e")
                .file("d/e/f", b"1")
                .hard_link("kept", "d/e/f")
                .symlink("d/link", "/kept"),
        ),
        plain(Tar::new().file(".wh.d", b"")),
        plain(Tar::new().file("d", b"a file now")),
    ];
    tree(&layers, |root| {
        is_file(&root.join("kept"), "1");
        is_file(&root.join("d"), "a file now");
    });
}

#[test]
fn what_was_hidden_can_come_back() {
    let layers = [
        plain(Tar::new().dir("d").file("d/f", b"1")),
        plain(Tar::new().file(".wh.d", b"")),
        plain(Tar::new().file("d/f", b"3")),
        plain(Tar::new().file(".wh..wh..opq", b"").file("last", b"4")),
        plain(Tar::new().file("d/f", b"5")),
    ];
    tree(&layers, |root| {
        is_file(&root.join("d/f"), "5");
        assert_eq!(names(root), ["d", "last"]);
    });
}

#[test]
fn a_layer_replaces_what_has_another_kind_below() {
    let layers = [
        plain(
            Tar::new()
                .dir("a")
                .file("a/b", b"1")
                .dir("real")
                .file("real/f", b"1")
                .symlink("link", "real")
                .file("x", b"1"),
        ),
        plain(
            Tar::new()
                .file("a", b"2")
                .dir("link")
                .file("link/g", b"2")
                .dir("x")
                .file("x/y", b"2"),
        ),
    ];
    tree(&layers, |root| {
        is_file(&root.join("a"), "2");
        is_file(&root.join("x/y"), "2");
        assert!(root.join("link").symlink_metadata().unwrap().is_dir());
        assert_eq!(names(&root.join("link")), ["g"]);
        assert_eq!(names(&root.join("real")), ["f"]);
    });
}

#[test]
fn a_layer_without_an_entry_for_a_linked_directory_goes_through_the_link() {
    let layers = [
        plain(
            Tar::new()
                .dir("usr")
                .dir("usr/lib")
                .symlink("lib", "usr/lib"),
        ),
        plain(Tar::new().file("lib/x", b"2").file("usr/lib/y", b"2")),
        plain(Tar::new().file("lib/.wh.y", b"")),
    ];
    tree(&layers, |root| {
        assert!(root.join("lib").symlink_metadata().unwrap().is_symlink());
        assert_eq!(names(&root.join("usr/lib")), ["x"]);
    });
}

#[test]
fn directories_without_rights_are_closed_at_the_end_only() {
    let layers = [
        plain(
            Tar::new()
                .entry(&head("d", b'5').mode(0o500), b"")
                .file("d/a", b"1"),
        ),
        plain(Tar::new().file("d/b", b"2").file("d/.wh.a", b"")),
    ];
    tree(&layers, |root| {
        assert_eq!(fs::metadata(root.join("d")).unwrap().mode() & 0o777, 0o500);
        assert_eq!(names(&root.join("d")), ["b"]);
    });
}
