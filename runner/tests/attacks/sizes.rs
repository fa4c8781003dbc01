//! Sizes and counts.

use runner::unpack::Limits;

use super::refused;
use crate::common::{Arena, Tar, head, zst};

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
