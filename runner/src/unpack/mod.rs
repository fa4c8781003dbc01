//! A compressed archive becomes a tree, as it comes: while the reader waits for the network, the
//! decompressor, the parser and the writers work on what is there. So the tree is complete a moment
//! after the last byte.
//!
//! ```text
//! reader (hash) ─chunks→ inflate ─blocks→ archive + tree ─batches→ writers
//! ```
//!
//! The archive is not trusted. `header`, `pax`, `name` and `entry` judge what it says, purely; `tree`
//! sees to it that what it makes lies inside the target; `docs/runner.md` has the policy.

mod archive;
mod block;
mod dir;
mod entry;
mod error;
mod header;
mod inflate;
mod name;
mod pax;
mod tree;
mod writer;

pub use entry::{Dropped, Limits};
pub use error::{Reason, UnpackError};

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use crate::sys;
use archive::Archive;
use tree::Tree;
use writer::{Maker, Writers};

/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;
/// How many chunks may wait for the decompressor.
const CHUNKS: usize = 8;
/// How many blocks may wait for the parser.
const WAITING: usize = 8;

/// What an archive held.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Entries of any kind, extension headers too.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// What was left out.
    pub dropped: Dropped,
}

/// What to do with the entries.
enum Sink {
    /// Make a tree, with this many writers.
    Tree { root: OwnedFd, writers: usize },
    /// Judge them only.
    Nowhere,
}

/// Unpacks a zstd-compressed tar archive into `target`, an empty directory that nobody else uses.
/// Reads the source to its end unless it fails. On an error the target is half full: remove it.
///
/// # Errors
/// [`UnpackError::Refused`] for a broken or hostile archive, [`UnpackError::Read`] when the source
/// fails, [`UnpackError::Write`] when the tree cannot be written.
pub fn unpack(
    source: impl Read + Send,
    target: &Path,
    limits: &Limits,
) -> Result<Summary, UnpackError> {
    let root = File::open(target).map_err(|source| UnpackError::Write {
        operation: "open",
        path: target.display().to_string(),
        source,
    })?;
    // In memory, making files is bound by one lock, and a second writer is in the way.
    let writers = if sys::is_tmpfs(&root) { 1 } else { 2 };
    let root = root.into();
    flow(source, Sink::Tree { root, writers }, limits)
}

/// Judges an archive as [`unpack`] would, but writes nothing. What only a file system can tell, such as
/// a parent that is a file, is not found.
///
/// # Errors
/// As [`unpack`].
pub fn check(source: impl Read + Send, limits: &Limits) -> Result<Summary, UnpackError> {
    flow(source, Sink::Nowhere, limits)
}

fn flow(mut source: impl Read + Send, sink: Sink, limits: &Limits) -> Result<Summary, UnpackError> {
    thread::scope(|scope| {
        let (chunk, chunks) = sync_channel(CHUNKS);
        let (block, blocks) = sync_channel(WAITING);
        let reader = scope.spawn(move || read(&mut source, &chunk));
        let inflater = scope.spawn(move || inflate::inflate(&chunks, &block, limits));
        let mut archive = Archive::new(&blocks, limits);
        let unpacked = match sink {
            Sink::Nowhere => judge(&mut archive),
            Sink::Tree { root, writers } => {
                let maker = Maker {
                    owner: geteuid()
                        .is_root()
                        .then(|| (geteuid().as_raw(), getegid().as_raw())),
                    umask: sys::umask(),
                };
                let writers = Writers::start(scope, writers, maker);
                match Tree::new(root, writers, maker) {
                    Ok(tree) => plant(&mut archive, tree),
                    Err(errno) => Err(target_error(errno)),
                }
            }
        };
        let summary = Summary {
            entries: archive.entries(),
            bytes: archive.bytes(),
            dropped: archive.dropped().clone(),
        };
        // Closing the channel stops the threads before it, if they have not come to their end.
        drop(archive);
        drop(blocks);
        let inflated = inflater.join().expect("the decompressor does not panic");
        let read = reader.join().expect("the reader does not panic");
        // The first cause: what could not be read cannot be decompressed, and so on.
        read.map_err(UnpackError::Read)?;
        match (unpacked, inflated) {
            (
                Err(UnpackError::Refused {
                    reason: Reason::CutOff,
                    ..
                })
                | Ok(()),
                Err(error),
            ) => Err(error),
            (unpacked, _) => unpacked.map(|()| summary),
        }
    })
}

fn target_error(errno: Errno) -> UnpackError {
    UnpackError::Write {
        operation: "open",
        path: String::from("."),
        source: errno.into(),
    }
}

/// Reads until the end, or until nobody wants more.
fn read(source: &mut impl Read, chunks: &SyncSender<Vec<u8>>) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        // Small reads of a network are put together, but what is there does not wait long.
        while filled < CHUNK / 4 {
            match source.read(&mut chunk[filled..]) {
                Ok(0) => {
                    chunk.truncate(filled);
                    let _ = chunks.send(chunk);
                    return Ok(());
                }
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        chunk.truncate(filled);
        if chunks.send(chunk).is_err() {
            return Ok(());
        }
    }
}

fn judge(archive: &mut Archive<'_>) -> Result<(), UnpackError> {
    while archive.next_entry()?.is_some() {}
    Ok(())
}

fn plant(archive: &mut Archive<'_>, mut tree: Tree<'_>) -> Result<(), UnpackError> {
    let made = make_all(archive, &mut tree);
    tree.finish(made)
}

/// Makes all entries. The tree remembers what it has, so the layers of an image can be made one after
/// another into one tree, once `entry` and `tree` know what a whiteout is. `Err(None)`: a writer failed, and says itself why.
fn make_all(archive: &mut Archive<'_>, tree: &mut Tree<'_>) -> Result<(), Option<UnpackError>> {
    let mut received = 0;
    while let Some(entry) = archive.next_entry()? {
        let is_file = entry.kind == entry::Kind::File;
        flush_if_new(archive, tree, &mut received)?;
        tree.make(entry)?;
        if is_file {
            while let Some(slice) = archive.next_slice()? {
                flush_if_new(archive, tree, &mut received)?;
                tree.data(slice);
            }
            tree.end_file();
        }
    }
    Ok(())
}

/// The buffers are few: with each new one, the writers get the old ones.
fn flush_if_new(
    archive: &Archive<'_>,
    tree: &mut Tree<'_>,
    received: &mut u64,
) -> Result<(), Option<UnpackError>> {
    if archive.received() != *received {
        *received = archive.received();
        tree.flush()?;
    }
    Ok(())
}
