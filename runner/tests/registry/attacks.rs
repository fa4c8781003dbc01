//! Hostile layers: refused with a reason, or inside. `World` looks after each that nothing got out and
//! nothing is left.

use std::fs;

use crate::common::{Tar, head};
use crate::server::{Door, Registry};
use crate::world::{Layer, World, gzip, gzipped, is_file, is_gone, plain, push};

/// The canary, as seen from the tree in the store: images/.staging-…/rootfs, below a/b/store.
const OUT: &str = "../../../../../../canary";

#[track_caller]
fn refused(layers: &[Tar], reason: &str) {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let layers: Vec<_> = layers.iter().cloned().map(plain).collect();
    let digest = push(&registry, &layers);
    world.refuses(&registry, &digest, reason);
}

#[track_caller]
fn inside(layers: &[Tar], look: impl FnOnce(&std::path::Path)) {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let layers: Vec<_> = layers.iter().cloned().map(plain).collect();
    let digest = push(&registry, &layers);
    look(&world.pulled(&registry, &digest));
}

#[test]
fn the_canary_is_where_the_links_of_these_attacks_lead() {
    let world = World::new();
    let rootfs = world.store.join("images/.staging-x/rootfs");
    fs::create_dir_all(&rootfs).unwrap();
    assert!(rootfs.join(OUT).join("file").exists());
}

#[test]
fn whiteouts_that_are_no_names() {
    for name in [
        ".wh.",
        ".wh..",
        ".wh...",
        "d/.wh.",
        "d/.wh..",
        "d/.wh...",
        ".wh..wh.plnk",
        ".wh.d/f",
        "d/.wh..wh..opq/f",
    ] {
        refused(
            &[Tar::new().file("d/f", b"1"), Tar::new().file(name, b"")],
            "whiteout",
        );
    }
    refused(&[Tar::new().file("../.wh.canary", b"")], "`..`");
    refused(&[Tar::new().file("d/../../.wh.x", b"")], "`..`");
}

#[test]
fn whiteouts_with_contents_or_of_other_kinds() {
    refused(&[Tar::new().file(".wh.x", b"contents")], "whiteout");
    refused(&[Tar::new().dir(".wh.x")], "whiteout");
    refused(&[Tar::new().symlink(".wh.x", OUT)], "whiteout");
    refused(
        &[Tar::new().file("a", b"").hard_link(".wh.x", "a")],
        "whiteout",
    );
    refused(&[Tar::new().entry(&head(".wh.x", b'3'), b"")], "whiteout");
}

#[test]
fn whiteouts_through_symbolic_links_stay_inside() {
    for target in [OUT, "/proc/self/root", "/", "../../../../../../../../../.."] {
        let below = || {
            Tar::new()
                .symlink("l", target)
                .dir("canary")
                .file("canary/file", b"1")
        };
        for whiteout in [
            "l/.wh.file",
            "l/.wh.dir",
            "l/.wh..wh..opq",
            "l/canary/.wh.file",
        ] {
            let layers = [below(), Tar::new().file(whiteout, b"").file("kept", b"2")];
            let (registry, world) = (Registry::start(Door::Open), World::new());
            let layers: Vec<_> = layers.into_iter().map(plain).collect();
            let digest = push(&registry, &layers);
            world.pulled(&registry, &digest);
        }
    }
    // In one layer, too.
    let tar = Tar::new()
        .symlink("l", OUT)
        .file("l/.wh..wh..opq", b"")
        .file("l/.wh.file", b"");
    inside(&[tar], |root| {
        assert!(root.join("l").symlink_metadata().unwrap().is_symlink())
    });
}

#[test]
fn a_whiteout_of_a_link_takes_the_link_and_not_where_it_leads() {
    let below = Tar::new()
        .symlink("out", OUT)
        .symlink("in", "d")
        .dir("d")
        .file("d/f", b"1")
        .symlink("d/out", OUT);
    let layers = [below, Tar::new().file(".wh.out", b"").file(".wh.in", b"")];
    inside(&layers, |root| {
        is_gone(&root.join("out"));
        is_gone(&root.join("in"));
        is_file(&root.join("d/f"), "1");
    });
    let below = Tar::new()
        .dir("d")
        .symlink("d/out", OUT)
        .symlink("d/root", "/");
    inside(
        &[
            below,
            Tar::new().file(".wh.d", b""),
            Tar::new().file("x", b""),
        ],
        |root| {
            is_gone(&root.join("d"));
        },
    );
}

#[test]
fn a_whiteout_below_a_file_is_refused() {
    refused(
        &[Tar::new().file("f", b"1"), Tar::new().file("f/.wh.x", b"")],
        "not a directory",
    );
    let looped = Tar::new().symlink("l", "l");
    refused(
        &[looped, Tar::new().file("l/.wh.x", b"")],
        "not a directory",
    );
}

#[test]
fn what_a_layer_replaces_is_not_written_through() {
    // A link of a layer below, and then a file, a directory and a whiteout in its place.
    let layers = [
        Tar::new()
            .symlink("a", "../".repeat(6) + "canary/file")
            .symlink("b", OUT),
        Tar::new().file("a", b"2").dir("b").file("b/file", b"2"),
    ];
    inside(&layers, |root| {
        is_file(&root.join("a"), "2");
        is_file(&root.join("b/file"), "2");
        assert!(root.join("b").symlink_metadata().unwrap().is_dir());
    });
    // The place of a directory that was removed, by way of a path that was open.
    let layers = [
        Tar::new().dir("d").dir("d/e").file("d/e/f", b"1"),
        Tar::new().file("d/e/g", b"2").file(".wh.d", b""),
        Tar::new()
            .file(".wh.d", b"")
            .symlink("d", OUT)
            .file("d/file", b"3"),
    ];
    inside(&layers, |root| is_file(&root.join("canary/file"), "3"));
}

#[test]
fn hard_links_across_layers_stay_inside() {
    refused(
        &[
            Tar::new().file("a", b""),
            Tar::new().hard_link("h", "../canary/file"),
        ],
        "`..`",
    );
    let below = Tar::new().symlink("l", OUT);
    refused(
        &[below, Tar::new().hard_link("h", "l/file")],
        "not in the image",
    );
    // What another layer took away cannot be linked to any more.
    let layers = [
        Tar::new().file("a", b"1"),
        Tar::new().file(".wh.a", b""),
        Tar::new().hard_link("h", "a"),
    ];
    refused(&layers, "not in the image");
    let layers = [
        Tar::new().file("a", b"1"),
        Tar::new().hard_link("h", "a").file("h/x", b"2"),
    ];
    refused(&layers, "not empty");
}

#[test]
fn the_limits_are_for_all_layers_together() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let layers: Vec<_> = (0..4)
        .map(|number| gzipped(Tar::new().file(format!("f{number}"), &[b'x'; 400])))
        .collect();
    let digest = push(&registry, &layers);
    let limited = |limit: [&str; 2]| {
        let output = world
            .pull(&registry.url(), &digest)
            .args(limit)
            .output()
            .unwrap();
        crate::world::ended(&output, 4);
        assert!(crate::common::text(&output).contains("raise the limit"));
    };
    limited(["--max-bytes", "1599"]);
    limited(["--max-entries", "3"]);
    let output = world
        .pull(&registry.url(), &digest)
        .args(["--max-bytes", "1600", "--max-entries", "4"])
        .output()
        .unwrap();
    crate::world::ended(&output, 0);
}

#[test]
fn damaged_streams_are_refused() {
    let tar = Tar::new().file("f", &[b'x'; 5000]).end();
    let diff_id = crate::common::digest_of(&tar);
    let whole = gzip(&tar);
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut trailing = whole.clone();
    trailing.extend_from_slice(b"something that is no member");
    let blobs = [
        (whole[..whole.len() - 9].to_vec(), "cut off"),
        (Vec::new(), "cut off"),
        (flipped, "sound gzip"),
        (trailing, "sound gzip"),
        (tar.clone(), "sound gzip"),
        (gzip(&tar[..1024]), "cut off"),
    ];
    for (blob, reason) in blobs {
        let (registry, world) = (Registry::start(Door::Open), World::new());
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip".to_owned();
        let digest = push(
            &registry,
            &[Layer {
                blob,
                media_type,
                diff_id,
            }],
        );
        world.refuses(&registry, &digest, reason);
    }
}

#[test]
fn a_gzip_bomb_is_stopped() {
    let (registry, world) = (Registry::start(Door::Open), World::new());
    let layer = gzipped(Tar::new().file("f", b"").raw(&vec![0; 20 << 20]));
    let digest = push(&registry, &[layer]);
    let output = world
        .pull(&registry.url(), &digest)
        .args(["--max-bytes", "1000", "--max-entries", "1000"])
        .output()
        .unwrap();
    crate::world::ended(&output, 4);
    let printed = crate::common::text(&output);
    assert!(printed.contains("raise the limit"), "{printed}");
}
