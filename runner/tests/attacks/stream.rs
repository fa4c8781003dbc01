//! The compressed stream, and the blocks of the archive.

use super::refused;
use crate::common::{Arena, Tar, head, zst};

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
