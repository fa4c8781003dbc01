//! The decompressor: chunks of a stream in, blocks out.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use flate2::bufread::MultiGzDecoder;
use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use super::Limits;
use super::block::{BLOCK, Block, Pool};
use super::error::{Reason, UnpackError};
use crate::digest::{Digest, Hasher};

/// The largest window that is taken, as a power of two: 128 MiB. A hostile frame could ask for 2 GiB.
const WINDOW_LOG: u32 = 27;

/// How an archive is compressed. Images are zstd; layers may be any of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What to decompress, and how much of it.
#[derive(Debug)]
pub(crate) struct Inflate<'a> {
    pub(crate) compression: Compression,
    pub(crate) limits: &'a Limits,
    /// Whether the digest of what comes out is wanted.
    pub(crate) hashed: bool,
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Inflated {
    pub(crate) digest: Option<Digest>,
}

impl Inflate<'_> {
    /// Decompresses until the chunks end. Ends early, and well, when nobody wants the blocks any more.
    pub(crate) fn run(
        self,
        chunks: &Receiver<Vec<u8>>,
        blocks: &SyncSender<Arc<Block>>,
    ) -> Result<Inflated, UnpackError> {
        let mut out = Out {
            pool: Pool::new(),
            blocks,
            limits: self.limits,
            produced: 0,
            hasher: self.hashed.then(Hasher::default),
        };
        match self.compression {
            Compression::None => copy(Chunks::new(chunks), &mut out)?,
            Compression::Gzip => copy(MultiGzDecoder::new(Chunks::new(chunks)), &mut out)?,
            Compression::Zstd => zstd(chunks, &mut out)?,
        }
        Ok(Inflated {
            digest: out.hasher.map(Hasher::digest),
        })
    }
}

/// Where the bytes go.
struct Out<'a> {
    pool: Pool,
    blocks: &'a SyncSender<Arc<Block>>,
    limits: &'a Limits,
    produced: u64,
    hasher: Option<Hasher>,
}

impl Out<'_> {
    /// So many bytes were added to a block. An archive is stopped before they are handed on.
    fn count(&mut self, bytes: usize) -> Result<(), UnpackError> {
        self.produced += bytes as u64;
        if self.produced > self.limits.stream() {
            return Err(UnpackError::archive(self.limits.too_many_bytes()));
        }
        Ok(())
    }

    /// Hands a block on; `false` when nobody wants it.
    fn send(&mut self, block: Vec<u8>) -> bool {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&block);
        }
        self.blocks.send(self.pool.fill(block)).is_ok()
    }
}

fn zstd(chunks: &Receiver<Vec<u8>>, out: &mut Out<'_>) -> Result<(), UnpackError> {
    let mut context = DCtx::create();
    context
        .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
        .map_err(damaged)?;
    let mut block = out.pool.take();
    // What the decoder still expects; 0 between two frames.
    let mut missing = 1;
    while let Ok(chunk) = chunks.recv() {
        let mut input = InBuffer::around(&chunk);
        // A full block may leave output behind in the decoder, though all input is taken.
        let mut behind = false;
        while input.pos() < chunk.len() || behind {
            let filled = block.len();
            missing = context
                .decompress_stream(&mut OutBuffer::around_pos(&mut block, filled), &mut input)
                .map_err(damaged)?;
            out.count(block.len() - filled)?;
            let full = block.len() == BLOCK;
            behind = full && missing != 0;
            if full {
                if !out.send(block) {
                    return Ok(());
                }
                block = out.pool.take();
            }
        }
    }
    if missing != 0 {
        return Err(UnpackError::archive(Reason::CutOff));
    }
    // Whether somebody still listens does not matter at the end.
    out.send(block);
    Ok(())
}

fn damaged(code: usize) -> UnpackError {
    UnpackError::archive(Reason::Zstd(zstd_safe::get_error_name(code)))
}

/// Fills blocks from a reader of decompressed bytes.
fn copy(mut reader: impl Read, out: &mut Out<'_>) -> Result<(), UnpackError> {
    loop {
        let mut block = out.pool.take();
        let mut piece = reader.by_ref().take(BLOCK as u64);
        let length = piece.read_to_end(&mut block).map_err(|error| {
            UnpackError::archive(match error.kind() {
                io::ErrorKind::UnexpectedEof => Reason::CutOff,
                _ => Reason::Gzip,
            })
        })?;
        out.count(length)?;
        if !out.send(block) || length < BLOCK {
            return Ok(());
        }
    }
}

/// The chunks as one stream. It never fails: what cannot be read is the reader's error.
struct Chunks<'a> {
    chunks: &'a Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl<'a> Chunks<'a> {
    fn new(chunks: &'a Receiver<Vec<u8>>) -> Self {
        Self {
            chunks,
            chunk: Vec::new(),
            at: 0,
        }
    }
}

impl BufRead for Chunks<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.chunk.len() {
            let Ok(chunk) = self.chunks.recv() else {
                return Ok(&[]);
            };
            self.chunk = chunk;
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.fill_buf()?;
        let length = rest.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}
