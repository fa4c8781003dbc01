//! The compressor: bytes in, independent zstd frames out, in order, on all processors.
//!
//! Each frame holds the same number of bytes and depends on nothing before it, so the result does not
//! depend on the number of processors, and a reader may decompress several frames at once.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use crate::digest::{Digest, Hasher};

/// Bytes of the archive in one frame.
const FRAME: usize = 4 << 20;

/// One frame to compress, and where its result is waited for.
type Order = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// A writer that compresses.
#[derive(Debug)]
pub(crate) struct Frames<W> {
    out: W,
    hasher: Hasher,
    written: u64,
    buffer: Vec<u8>,
    orders: SyncSender<Order>,
    results: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    ahead: usize,
}

impl<W: Write> Frames<W> {
    pub(crate) fn new(out: W, level: i32) -> Self {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let (orders, queue) = sync_channel::<Order>(workers);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..workers {
            let queue = Arc::clone(&queue);
            thread::spawn(move || work(&queue, level));
        }
        Self {
            out,
            hasher: Hasher::default(),
            written: 0,
            buffer: Vec::with_capacity(FRAME),
            orders,
            results: VecDeque::new(),
            ahead: workers * 2,
        }
    }

    /// Writes the last frame; gives the digest and the length of the file, and the file.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64, W)> {
        if !self.buffer.is_empty() {
            self.order()?;
        }
        while !self.results.is_empty() {
            self.write_oldest()?;
        }
        self.out.flush()?;
        Ok((self.hasher.digest(), self.written, self.out))
    }

    fn order(&mut self) -> io::Result<()> {
        let bytes = std::mem::replace(&mut self.buffer, Vec::with_capacity(FRAME));
        let (result, waiting) = sync_channel(1);
        self.orders.send((bytes, result)).map_err(gone)?;
        self.results.push_back(waiting);
        if self.results.len() > self.ahead {
            self.write_oldest()?;
        }
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        if let Some(waiting) = self.results.pop_front() {
            let frame = waiting.recv().map_err(gone)??;
            self.hasher.update(&frame);
            self.written += frame.len() as u64;
            self.out.write_all(&frame)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(FRAME - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() == FRAME {
            self.order()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gone<E>(_: E) -> io::Error {
    io::Error::other("the compressor stopped")
}

fn work(queue: &Mutex<Receiver<Order>>, level: i32) {
    loop {
        let order = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((bytes, result)) = order else { return };
        let frame = compress(&bytes, level);
        // The builder may have given up.
        let _ = result.send(frame);
    }
}

fn compress(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(level)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.compress(bytes)
}
