//! Hostile archives: each is refused with a clear reason, or lands inside. Nothing outside is read,
//! written, linked, changed or removed, and a failure leaves nothing behind: `Arena` looks each time.
#![allow(missing_docs, reason = "these are tests")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;

mod extensions;
mod hard_links;
mod left_out;
mod names;
mod sizes;
mod stream;
mod symbolic_links;

use std::fs;
use std::path::Path;

use common::{Arena, Tar};

/// The archive is refused, and the reason says so.
#[track_caller]
fn refused(archive: &[u8], reason: &str) {
    let error = Arena::new().unpack(archive).expect_err("it was taken");
    assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
}

/// The archive is taken, and what it makes lies inside.
#[track_caller]
fn inside(tar: Tar, look: impl FnOnce(&Path)) {
    let arena = Arena::new();
    arena.unpack(&tar.zst()).expect("it was refused");
    look(&arena.target());
}

fn is_file(path: &Path, contents: &str) {
    assert!(
        path.symlink_metadata().unwrap().is_file(),
        "{} is no file",
        path.display()
    );
    assert_eq!(fs::read_to_string(path).unwrap(), contents);
}

/// The canary, as seen from the target by a link.
const OUT: &str = "../../../canary";
