//! `logs`: what a run wrote, for people and for programs.

use std::io::{self, Write as _};

use serde_json::json;

use super::{CommandError, usage};
use crate::cli::Logs;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::run::{Chunk, Reader, Runs, View};

/// What `logs` reads at once, and what a JSON document holds at most.
const CHUNK: u64 = 1 << 20;

pub(super) fn logs(args: &Logs, out: &mut Out) -> Result<(), CommandError> {
    let runs = Runs::open(&args.store.store)?;
    let id = &args.id;
    let view = runs.view(id)?;
    if args.from > view.log.end {
        return Err(usage(&format!(
            "the log of {id} ends at {}, before {}",
            view.log.end, args.from
        )));
    }
    if out.is_json() {
        if args.follow {
            return Err(usage(
                "--follow has no end to make one JSON document of; poll with --from",
            ));
        }
        return log_document(&runs, &view, args, out);
    }
    if args.follow {
        runs.follow(id, args.from, &mut out.bytes(), |count| skipped(out, count))?;
        return Ok(());
    }
    let Some(log) = synced(&runs, &view)? else {
        return Ok(());
    };
    // What is there now: a run that writes as fast as we read would never let us end.
    let mut at = args.from;
    let mut left = args.limit.unwrap_or(u64::MAX);
    loop {
        let most = left.min(CHUNK).min(view.log.end.saturating_sub(at));
        let chunk = read(&log, &view, at, most)?;
        if chunk.bytes.is_empty() {
            return Ok(());
        }
        if chunk.from > at {
            if args.exact {
                return Err(gone(args, &chunk));
            }
            skipped(out, chunk.from - at);
        }
        at = chunk.next();
        left -= chunk.bytes.len() as u64;
        let mut to = out.bytes();
        match to.write_all(&chunk.bytes).and_then(|()| to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => {
                result.map_err(|error| failed(&format!("failed to print the log: {error}")))?
            }
        }
    }
}

/// The log, as far as the view has it on disk: whoever keeps what we print need not fear that a power cut
/// gives its offsets to other bytes.
fn synced(runs: &Runs, view: &View) -> Result<Option<Reader>, CommandError> {
    let id = &view.status.id;
    let log = runs.log(id)?;
    match log.as_ref().map_or(Ok(()), Reader::sync) {
        Ok(()) => Ok(log),
        Err(error) => Err(failed(&format!("failed to sync the log of {id}: {error}"))),
    }
}

fn read(log: &Reader, view: &View, from: u64, most: u64) -> Result<Chunk, CommandError> {
    log.read(from, usize::try_from(most).unwrap_or(usize::MAX))
        .map_err(|error| {
            failed(&format!(
                "failed to read the log of {}: {error}",
                view.status.id
            ))
        })
}

/// A part of the log as JSON. It is text, so a character that is cut at the end waits for the next part.
fn log_document(runs: &Runs, view: &View, args: &Logs, out: &mut Out) -> Result<(), CommandError> {
    let limit = args.limit.unwrap_or(CHUNK).min(CHUNK);
    let there = view.log.end - args.from.max(view.log.oldest);
    let mut chunk = match synced(runs, view)? {
        Some(log) => read(&log, view, args.from, limit.min(there))?,
        None => Chunk {
            from: 0,
            bytes: Vec::new(),
            oldest: 0,
            end: 0,
        },
    };
    if args.exact && chunk.from > args.from {
        return Err(gone(args, &chunk));
    }
    if chunk.next() < chunk.end || view.status.is_live() {
        let whole = whole_characters(&chunk.bytes);
        // A limit that is shorter than a character cuts it: the next part must begin later than this one.
        if whole > 0 || (chunk.bytes.len() as u64) < limit {
            chunk.bytes.truncate(whole);
        }
    }
    let value = json!({
        "from": chunk.from,
        "next": chunk.next(),
        "oldest": chunk.oldest,
        "end": chunk.end,
        "skipped": chunk.from - args.from.min(chunk.from),
        "over": !view.status.is_live(),
        "text": String::from_utf8_lossy(&chunk.bytes),
    });
    out.show(&value, String::new);
    Ok(())
}

/// The length without a character that is cut at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    // Only the beginning of a character is cut; other bytes are no text at all.
    let cut = last.map_or(0, |last| {
        let invalid = last.invalid();
        match std::str::from_utf8(invalid) {
            Err(error) if error.error_len().is_none() => invalid.len(),
            _ => 0,
        }
    });
    bytes.len() - cut
}

/// Says that a part of the log is gone.
pub(super) fn skipped(out: &Out, count: u64) {
    out.note(&format!("({count} bytes are not kept any more)"));
}

/// `--exact`, and the log begins later by now.
fn gone(args: &Logs, chunk: &Chunk) -> CommandError {
    let message = format!(
        "failed to print the log of {} from {}: it is kept from {} on",
        args.id, args.from, chunk.oldest
    );
    CommandError {
        hint: Some("go on from there".to_owned()),
        ..failed(&message)
    }
}

fn failed(message: &str) -> CommandError {
    CommandError {
        kind: ExitCode::Failed,
        ..usage(message)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_cut_character_waits_and_other_bytes_do_not() {
        assert_eq!(whole_characters(b""), 0);
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(&"€".as_bytes()[..2]), 0);
        assert_eq!(whole_characters(b"a\xff"), 2);
        assert_eq!(whole_characters(b"a\xe2\x82"), 1);
    }
}
