//! The buffers that travel from the decompressor to the writers: each byte is copied once, by the
//! decompressor, and memory is bounded because the buffers are few and come back.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::header::UNIT;

/// The size of a buffer in bytes: a multiple of a tar unit, so that no header is ever split.
pub(crate) const BLOCK: usize = 512 * UNIT;
/// How many buffers there are.
const BLOCKS: usize = 32;

/// Decompressed bytes; the buffer goes back to its pool with the last user.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    home: Sender<Vec<u8>>,
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Nobody waits for buffers any more when the pool is gone.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// A part of a block.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) block: Arc<Block>,
    pub(crate) range: Range<usize>,
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.range.clone()]
    }
}

/// All the buffers of one run.
#[derive(Debug)]
pub(crate) struct Pool {
    home: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    made: usize,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let (home, free) = channel();
        Self {
            home,
            free,
            made: 0,
        }
    }

    /// An empty buffer; waits for one to come back when all are in use.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        if let Ok(mut bytes) = self.free.try_recv() {
            bytes.clear();
            return bytes;
        }
        if self.made < BLOCKS {
            self.made += 1;
            return Vec::with_capacity(BLOCK);
        }
        let mut bytes = self
            .free
            .recv()
            .expect("the pool itself holds a sender, so the channel is open");
        bytes.clear();
        bytes
    }

    pub(crate) fn fill(&self, bytes: Vec<u8>) -> Arc<Block> {
        Arc::new(Block {
            bytes,
            home: self.home.clone(),
        })
    }
}
