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
mod links;
mod name;
mod parent;
mod pax;
mod tree;
mod whiteout;
mod writer;

pub use entry::{Dropped, Limits};
pub use error::{Reason, UnpackError};

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use crate::digest::Digest;
use crate::sys;
use archive::Archive;
use entry::Form;
pub(crate) use inflate::Compression;
use inflate::{Inflate, Inflated};
pub(crate) use name::printable;
use tree::Tree;
use writer::{Maker, Writers};

/// How much is read at once, in bytes.
const CHUNK: usize = 256 << 10;
/// How many chunks may wait for the decompressor.
const CHUNKS: usize = 8;
/// How many blocks may wait for the parser.
const WAITING: usize = 8;

/// What an archive held.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Entries of any kind.
    pub entries: u64,
    /// Extension headers. They are no entries, but count for the limit: they take as long.
    #[serde(skip)]
    extensions: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// What was left out.
    pub dropped: Dropped,
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
    with_tree(target, |mut tree| {
        let plant = |archive: &mut Archive<'_>| {
            let made = make_all(archive, &mut tree);
            tree.finish(made)
        };
        let (held, _) = flow(
            source,
            image(limits),
            Form::Image,
            Summary::default(),
            plant,
        )?;
        Ok(held)
    })
}

/// Judges an archive as [`unpack`] would, but writes nothing. What only a file system can tell, such as
/// a parent that is a file, is not found.
///
/// # Errors
/// As [`unpack`].
pub fn check(source: impl Read + Send, limits: &Limits) -> Result<Summary, UnpackError> {
    let (held, _) = flow(
        source,
        image(limits),
        Form::Image,
        Summary::default(),
        judge,
    )?;
    Ok(held)
}

/// Unpacks layers into `target`, an empty directory that nobody else uses: `lay` adds them one after
/// another, the lowest first. On an error the target is half full: remove it.
pub(crate) fn unpack_layers<E: From<UnpackError>>(
    target: &Path,
    limits: &Limits,
    lay: impl FnOnce(&mut Layers<'_, '_>) -> Result<(), E>,
) -> Result<Summary, E> {
    with_tree(target, |tree| {
        let mut layers = Layers {
            tree: Some(tree),
            limits,
            held: Summary::default(),
        };
        lay(&mut layers)?;
        if let Some(tree) = layers.tree {
            tree.finish(Ok(()))?;
        }
        Ok(layers.held)
    })
}

/// The tree that layers become.
#[derive(Debug)]
pub(crate) struct Layers<'a, 'scope> {
    /// `None` after a failure.
    tree: Option<Tree<'scope>>,
    limits: &'a Limits,
    held: Summary,
}

impl Layers<'_, '_> {
    /// Applies a layer, and gives the digest of its archive before compression. After an error no
    /// further layer is taken.
    ///
    /// # Errors
    /// As [`unpack`].
    pub(crate) fn add(
        &mut self,
        source: impl Read + Send,
        compression: Compression,
    ) -> Result<Digest, UnpackError> {
        let mut tree = self.tree.take().ok_or_else(|| {
            UnpackError::Read(io::Error::other("a layer below it was not unpacked"))
        })?;
        let inflate = Inflate {
            compression,
            limits: self.limits,
            hashed: true,
        };
        let kept = &mut self.tree;
        let plant = |archive: &mut Archive<'_>| {
            let made = make_all(archive, &mut tree).and_then(|()| tree.end_layer());
            if made.is_err() {
                return tree.finish(made);
            }
            *kept = Some(tree);
            Ok(())
        };
        let (held, inflated) = flow(source, inflate, Form::Layer, self.held.clone(), plant)?;
        self.held = held;
        Ok(inflated.digest.expect("it was asked for"))
    }
}

fn image(limits: &Limits) -> Inflate<'_> {
    Inflate {
        compression: Compression::Zstd,
        limits,
        hashed: false,
    }
}

/// Lends a new tree in `target`, with its writers.
fn with_tree<T, E: From<UnpackError>>(
    target: &Path,
    work: impl FnOnce(Tree<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let root = File::open(target).map_err(|source| UnpackError::Write {
        operation: "open",
        path: target.display().to_string(),
        source,
    })?;
    // In memory, making files is bound by one lock, and a second writer is in the way.
    let writers = if sys::is_tmpfs(&root) { 1 } else { 2 };
    let maker = Maker {
        owner: geteuid()
            .is_root()
            .then(|| (geteuid().as_raw(), getegid().as_raw())),
        umask: sys::umask(),
    };
    thread::scope(|scope| {
        let writers = Writers::start(scope, writers, maker);
        work(Tree::new(root.into(), writers, maker).map_err(target_error)?)
    })
}

/// Leads an archive from its source to `sink`; gives what it held, and what came out of the
/// decompressor.
fn flow(
    mut source: impl Read + Send,
    inflate: Inflate<'_>,
    form: Form,
    held: Summary,
    sink: impl FnOnce(&mut Archive<'_>) -> Result<(), UnpackError>,
) -> Result<(Summary, Inflated), UnpackError> {
    thread::scope(|scope| {
        let (chunk, chunks) = sync_channel(CHUNKS);
        let (block, blocks) = sync_channel(WAITING);
        let mut archive = Archive::new(&blocks, form, inflate.limits, held);
        let reader = scope.spawn(move || read(&mut source, &chunk));
        let inflater = scope.spawn(move || inflate.run(&chunks, &block));
        let unpacked = sink(&mut archive);
        let held = archive.into_held();
        // Closing the channel stops the threads before it, if they have not come to their end.
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
            (Err(error), _) => Err(error),
            (Ok(()), Ok(inflated)) => Ok((held, inflated)),
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

/// Makes all entries. `Err(None)`: a writer failed, and says itself why.
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
