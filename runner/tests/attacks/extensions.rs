//! Extended headers.

use super::{inside, is_file, refused};
use crate::common::{Tar, head};

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
