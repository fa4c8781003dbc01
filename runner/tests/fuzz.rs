//! Random archives: nothing panics, nothing gets out, and what is harmless comes out as with GNU tar.
#![allow(missing_docs, reason = "these are tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Arena, Tar, head, portrait, zst};
use proptest::prelude::*;

/// A path of few components, so that entries meet, with all that leads astray.
fn path() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        30 => prop::sample::select(vec!["a", "b", "c", "d"]),
        1 => prop::sample::select(vec!["..", ".", ""]),
    ];
    (
        prop::bool::weighted(0.1),
        prop::collection::vec(component, 1..4),
    )
        .prop_map(|(absolute, path)| {
            format!("{}{}", if absolute { "/" } else { "" }, path.join("/"))
        })
}

/// What a link points to: often the canary.
fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => path(),
        2 => prop::sample::select(vec![
            "../../../canary".to_owned(),
            "../../canary/dir".to_owned(),
            "../../../canary/file".to_owned(),
            "../..".to_owned(),
            "/proc/self/cwd".to_owned(),
            "/proc/self/root".to_owned(),
            ".".to_owned(),
            "..".to_owned(),
            "/".to_owned(),
        ]),
    ]
}

#[derive(Debug, Clone)]
struct Step {
    kind: u8,
    path: String,
    target: String,
    mode: u32,
    by_pax: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(b"00015552223x".to_vec());
    let mode = prop::sample::select(vec![0o644, 0o755, 0o777, 0o000, 0o4755]);
    (kind, path(), target(), mode, prop::bool::weighted(0.1)).prop_map(
        |(kind, path, target, mode, by_pax)| Step {
            kind,
            path,
            target,
            mode,
            by_pax,
        },
    )
}

fn archive(steps: &[Step]) -> Tar {
    let mut tar = Tar::new();
    for (number, step) in steps.iter().enumerate() {
        let contents = format!("contents {number}");
        if step.by_pax {
            tar = tar.pax(&[("path", step.path.as_bytes())]);
        }
        let entry = head(&step.path, step.kind)
            .mode(step.mode)
            .link(&step.target);
        tar = match step.kind {
            b'0' => tar.entry(&entry.size(contents.len() as u64), contents.as_bytes()),
            b'x' => tar.pax(&[("linkpath", step.target.as_bytes())]),
            _ => tar.entry(&entry, b""),
        };
    }
    tar
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_entries_stay_inside(steps in prop::collection::vec(step(), 1..12)) {
        // Arena::unpack asserts that the canary and all around it are as they were.
        let _ = Arena::fast().unpack(&archive(&steps).zst());
    }

    #[test]
    fn damaged_archives_stay_inside(
        steps in prop::collection::vec(step(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        mend in any::<bool>(),
    ) {
        let mut tar = archive(&steps).end();
        for (at, byte) in damage {
            let at = at.index(tar.len());
            tar[at] = byte;
        }
        if mend {
            mend_checksums(&mut tar);
        }
        let _ = Arena::fast().unpack(&zst(&tar));
    }

    #[test]
    fn arbitrary_bytes_are_refused(
        bytes in prop::collection::vec(any::<u8>(), 1..3000),
        compressed in any::<bool>(),
    ) {
        let archive = if compressed { zst(&bytes) } else { bytes };
        prop_assert!(Arena::fast().unpack(&archive).is_err());
    }

    #[test]
    fn cut_archives_are_refused(
        steps in prop::collection::vec(step(), 1..6),
        at in any::<prop::sample::Index>(),
    ) {
        let whole = archive(&steps).zst();
        prop_assert!(Arena::fast().unpack(&whole[..at.index(whole.len())]).is_err());
    }
}

/// Makes every unit a header with a sound checksum, so that damage gets behind that door.
fn mend_checksums(tar: &mut [u8]) {
    for unit in tar.chunks_exact_mut(512) {
        if &unit[257..262] == b"ustar" {
            unit[148..156].fill(b' ');
            let sum: u64 = unit.iter().map(|&byte| u64::from(byte)).sum();
            unit[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// A tree that any extractor makes alike: unique names, parents first, links to what is there.
#[derive(Debug, Clone)]
struct Plain {
    above: prop::sample::Index,
    kind: u8,
    mode: u32,
    mtime: u64,
    size: usize,
    to: prop::sample::Index,
}

fn plain() -> impl Strategy<Value = Plain> {
    (
        any::<prop::sample::Index>(),
        prop::sample::select(b"00005512".to_vec()),
        prop::sample::select(vec![0o644, 0o755, 0o600, 0o444, 0o1777, 0o555]),
        1..2_000_000_000_u64,
        prop_oneof![9 => 0..2000_usize, 1 => 260_000..530_000_usize],
        any::<prop::sample::Index>(),
    )
        .prop_map(|(above, kind, mode, mtime, size, to)| Plain {
            above,
            kind,
            mode,
            mtime,
            size,
            to,
        })
}

fn plain_archive(entries: &[Plain]) -> Tar {
    let mut folders = vec![String::from("./")];
    let mut files = Vec::new();
    let mut tar = Tar::new().entry(&head("./", b'5').mtime(1_000_000), b"");
    for (number, entry) in entries.iter().enumerate() {
        let above = entry.above.get(&folders).clone();
        let name = format!("{above}n{number}");
        let head = |kind| {
            head(&name, kind)
                .mode(entry.mode & 0o777)
                .mtime(entry.mtime)
        };
        tar = match entry.kind {
            b'5' => {
                folders.push(format!("{name}/"));
                tar.entry(&head(b'5').mode(entry.mode | 0o300), b"")
            }
            b'1' if !files.is_empty() => tar.entry(&head(b'1').link(entry.to.get(&files)), b""),
            b'2' => {
                let target = format!("x/../n{}", entry.to.index(entries.len()));
                tar.entry(&head(b'2').mode(0o777).link(target), b"")
            }
            _ => {
                let contents = format!("{number} and again ")
                    .into_bytes()
                    .repeat(entry.size / 8);
                files.push(name.clone());
                tar.entry(&head(b'0').size(contents.len() as u64), &contents)
            }
        };
    }
    tar
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn harmless_archives_come_out_as_with_gnu_tar(entries in prop::collection::vec(plain(), 0..40)) {
        let arena = Arena::fast();
        let archive = plain_archive(&entries);
        arena.unpack(&archive.clone().zst()).unwrap();
        let theirs = arena.folder.path().join("theirs");
        gnu_tar(&archive.end(), &theirs);
        prop_assert_eq!(portrait(&arena.target()), portrait(&theirs));
    }
}

fn gnu_tar(archive: &[u8], to: &Path) {
    fs::create_dir(to).unwrap();
    let file = to.with_extension("tar");
    fs::write(&file, archive).unwrap();
    let output = Command::new("tar")
        .args(["-x", "-p", "--delay-directory-restore", "-f"])
        .arg(&file)
        .arg("-C")
        .arg(to)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", common::text(&output));
}
