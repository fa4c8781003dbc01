//! The decompressor: zstd frames in, blocks out.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use zstd::zstd_safe::{self, DCtx, DParameter, InBuffer, OutBuffer};

use super::Limits;
use super::block::{BLOCK, Block, Pool};
use super::error::{Reason, UnpackError};

/// The largest window that is taken, as a power of two: 128 MiB. A hostile frame could ask for 2 GiB.
const WINDOW_LOG: u32 = 27;

/// Decompresses until the chunks end. Ends early, and well, when nobody wants the blocks any more.
pub(crate) fn inflate(
    chunks: &Receiver<Vec<u8>>,
    blocks: &SyncSender<Arc<Block>>,
    limits: &Limits,
) -> Result<(), UnpackError> {
    let mut pool = Pool::new();
    let mut context = DCtx::create();
    context
        .set_parameter(DParameter::WindowLogMax(WINDOW_LOG))
        .map_err(damaged)?;
    let mut out = pool.take();
    let mut produced = 0_u64;
    // What the decoder still expects; 0 between two frames.
    let mut missing = 1;
    while let Ok(chunk) = chunks.recv() {
        let mut input = InBuffer::around(&chunk);
        // A full block may leave output behind in the decoder, though all input is taken.
        let mut behind = false;
        while input.pos() < chunk.len() || behind {
            let filled = out.len();
            missing = context
                .decompress_stream(&mut OutBuffer::around_pos(&mut out, filled), &mut input)
                .map_err(damaged)?;
            produced += (out.len() - filled) as u64;
            if produced > limits.stream() {
                return Err(UnpackError::archive(limits.too_many_bytes()));
            }
            let full = out.len() == BLOCK;
            behind = full && missing != 0;
            if full {
                if blocks.send(pool.fill(out)).is_err() {
                    return Ok(());
                }
                out = pool.take();
            }
        }
    }
    if missing != 0 {
        return Err(UnpackError::archive(Reason::CutOff));
    }
    // Whether somebody still listens does not matter at the end.
    let _ = blocks.send(pool.fill(out));
    Ok(())
}

fn damaged(code: usize) -> UnpackError {
    UnpackError::archive(Reason::Zstd(zstd_safe::get_error_name(code)))
}
