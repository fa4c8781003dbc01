//! A directory or a tar archive becomes an image: the same input gives the same bytes.
//!
//! What the unpacker would leave out of a directory does not go in: devices, FIFOs, sockets, setuid and setgid
//! bits, extended attributes. An archive is taken as it is. What it would refuse is refused here, where somebody can mend it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::frames::Frames;
use super::pack::{Packed, PackedKind, headers};
use crate::digest::Digest;
use crate::disk::sync_parent;
use crate::unpack::{self, Limits, UnpackError};

/// How to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// The zstd level, 1 to 22.
    pub level: i32,
    /// The latest time that a file may have, in seconds since 1970 (`SOURCE_DATE_EPOCH`). Python sources
    /// keep theirs, because their .pyc files have it inside.
    pub latest: Option<i64>,
    /// What the image may hold.
    pub limits: Limits,
}

/// An image that was built.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// Its name.
    pub digest: Digest,
    /// The length of the file.
    pub compressed_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Devices, FIFOs and sockets that were left out.
    pub left_out: u64,
}

/// Why no image was built. Nothing is left in its place.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file or directory could not be read or written.
    #[error("{operation} {}", path.display())]
    File {
        /// What we were doing.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What came out would not be unpacked.
    #[error(transparent)]
    Refused(#[from] UnpackError),
    /// A file changed under our hands.
    #[error("read {}: it changed meanwhile", .0.display())]
    Changed(PathBuf),
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> BuildError + 'a {
    move |source| BuildError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Builds an image from a directory, or from a tar archive, plain or compressed with zstd. An archive
/// is taken as it is, entry by entry, once it has been judged.
///
/// # Errors
/// As [`BuildError`] says.
pub fn build(from: &Path, to: &Path, options: &Options) -> Result<Built, BuildError> {
    let metadata = fs::metadata(from).map_err(failed("read", from))?;
    let name = to
        .file_name()
        .ok_or_else(|| failed("create", to)(io::ErrorKind::InvalidInput.into()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    // Two may build at once; the last one counts.
    hidden.push(format!(".{}.building", std::process::id()));
    let hidden = to.with_file_name(hidden);
    let file = File::create(&hidden).map_err(failed("create", &hidden))?;
    let mut frames = Frames::new(BufWriter::new(file), options.level);
    let written = if metadata.is_dir() {
        pack(from, &mut frames, options)
    } else {
        copy_archive(from, &mut frames).map(|()| 0)
    };
    let built = written.and_then(|left_out| {
        let (digest, compressed_bytes, out) = frames.finish().map_err(failed("write", &hidden))?;
        let file = out
            .into_inner()
            .map_err(|error| failed("write", &hidden)(error.into_error()))?;
        file.sync_all().map_err(failed("write", &hidden))?;
        // The proof that it can be unpacked, and the only count that matters.
        let again = File::open(&hidden).map_err(failed("open", &hidden))?;
        let summary = unpack::check(again, &options.limits)?;
        fs::rename(&hidden, to).map_err(failed("publish", to))?;
        sync_parent(to).map_err(failed("publish", to))?;
        Ok(Built {
            digest,
            compressed_bytes,
            entries: summary.entries,
            bytes: summary.bytes,
            left_out: left_out + summary.dropped.nodes,
        })
    });
    if built.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&hidden);
    }
    built
}

/// Copies an archive, decompressed when it is zstd.
fn copy_archive(from: &Path, out: &mut impl Write) -> Result<(), BuildError> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let read = failed("read", from);
    let mut file = File::open(from).map_err(&read)?;
    let mut magic = [0; 4];
    let compressed = file.read_exact(&mut magic).is_ok() && magic == ZSTD;
    file.seek(SeekFrom::Start(0)).map_err(&read)?;
    if compressed {
        let mut decoder = zstd::stream::read::Decoder::new(file).map_err(&read)?;
        io::copy(&mut decoder, out).map_err(&read)?;
    } else {
        io::copy(&mut file, out).map_err(&read)?;
    }
    Ok(())
}

/// Packs a directory, depth first and sorted by name. Says how much was left out.
fn pack(root: &Path, out: &mut impl Write, options: &Options) -> Result<u64, BuildError> {
    let mut packer = Packer {
        root,
        out,
        latest: options.latest,
        first_names: HashMap::new(),
        left_out: 0,
    };
    packer.directory(b"")?;
    // The end of an archive: two units of zeros.
    packer
        .out
        .write_all(&[0; 1024])
        .map_err(failed("write", root))?;
    Ok(packer.left_out)
}

struct Packer<'a, W> {
    root: &'a Path,
    out: &'a mut W,
    latest: Option<i64>,
    /// Files with several names, by device and inode: the first name.
    first_names: HashMap<(u64, u64), Vec<u8>>,
    left_out: u64,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, path: &[u8]) -> Result<(), BuildError> {
        let full = self.full(path);
        let metadata = fs::symlink_metadata(&full).map_err(failed("read", &full))?;
        let name: &[u8] = if path.is_empty() { b"." } else { path };
        self.write(&full, name, PackedKind::Directory, &metadata)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).map_err(failed("read", &full))? {
            names.push(entry.map_err(failed("read", &full))?.file_name().into_vec());
        }
        names.sort();
        for name in names {
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name);
            self.entry(&below)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8]) -> Result<(), BuildError> {
        let full = self.full(path);
        let metadata = fs::symlink_metadata(&full).map_err(failed("read", &full))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return self.directory(path);
        }
        if kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket() {
            self.left_out += 1;
            return Ok(());
        }
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.first_names.get(&inode) {
                let first = first.clone();
                return self.write(&full, path, PackedKind::HardLink(&first), &metadata);
            }
            self.first_names.insert(inode, path.to_vec());
        }
        if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(failed("read", &full))?;
            let target = target.as_os_str().as_bytes();
            return self.write(&full, path, PackedKind::Symlink(target), &metadata);
        }
        self.file(&full, path, &metadata)
    }

    fn file(&mut self, full: &Path, path: &[u8], metadata: &Metadata) -> Result<(), BuildError> {
        let file = File::open(full).map_err(failed("open", full))?;
        self.write(full, path, PackedKind::File(metadata.len()), metadata)?;
        let mut contents = file.take(metadata.len());
        let copied = io::copy(&mut contents, self.out).map_err(failed("read", full))?;
        if copied != metadata.len() {
            return Err(BuildError::Changed(full.to_owned()));
        }
        let padding = metadata.len().next_multiple_of(512) - metadata.len();
        io::copy(&mut io::repeat(0).take(padding), self.out).map_err(failed("write", full))?;
        Ok(())
    }

    fn write(
        &mut self,
        full: &Path,
        path: &[u8],
        kind: PackedKind<'_>,
        metadata: &Metadata,
    ) -> Result<(), BuildError> {
        let kept = match kind {
            PackedKind::Directory => 0o1777,
            _ => 0o777,
        };
        let entry = Packed {
            path,
            kind,
            mode: metadata.mode() & kept,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: clamp(path, metadata.mtime(), self.latest),
        };
        self.out
            .write_all(&headers(&entry))
            .map_err(failed("write", full))
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            return self.root.to_owned();
        }
        self.root.join(std::ffi::OsStr::from_bytes(path))
    }
}

fn clamp(path: &[u8], mtime: i64, latest: Option<i64>) -> i64 {
    match latest {
        Some(latest) if !path.ends_with(b".py") => mtime.min(latest),
        _ => mtime,
    }
}
