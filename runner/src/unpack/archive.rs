//! The parser: blocks in, entries and slices of their contents out. It touches no file.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::Summary;
use super::block::{Block, Slice};
use super::entry::{Entry, Form, Kind, Limits};
use super::error::{Reason, UnpackError};
use super::header::{Header, UNIT};
use super::pax::{Extended, GlobalError};

/// The largest extension header, in bytes.
const EXTENSION_MAX: u64 = 1 << 20;

/// A tar archive that comes as blocks.
#[derive(Debug)]
pub(crate) struct Archive<'a> {
    blocks: &'a Receiver<Arc<Block>>,
    block: Option<Arc<Block>>,
    at: usize,
    received: u64,
    /// What is left of the current entry's contents, and of the padding behind it.
    left: u64,
    padding: u64,
    form: Form,
    limits: &'a Limits,
    held: Summary,
}

impl<'a> Archive<'a> {
    /// Adds what it holds to what the layers below held.
    pub(crate) fn new(
        blocks: &'a Receiver<Arc<Block>>,
        form: Form,
        limits: &'a Limits,
        held: Summary,
    ) -> Self {
        Self {
            blocks,
            block: None,
            at: 0,
            received: 0,
            left: 0,
            padding: 0,
            form,
            limits,
            held,
        }
    }

    /// How many blocks have come. Who holds slices must let go of them when this grows: blocks are few.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// What it held, with the layers below.
    pub(crate) fn into_held(self) -> Summary {
        self.held
    }

    /// The next entry; its contents follow as slices. `None` at the end of a sound archive.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        while self.next_slice()?.is_some() {}
        let mut extended = Extended::default();
        loop {
            let raw = self.unit()?;
            if raw.iter().all(|&byte| byte == 0) {
                if !extended.is_empty() {
                    return Err(UnpackError::archive(Reason::CutOff));
                }
                self.end()?;
                return Ok(None);
            }
            let mut header = Header::parse(&raw).map_err(UnpackError::archive)?;
            let name = header.name.clone();
            if matches!(header.kind, b'x' | b'g' | b'L' | b'K') {
                self.extension(&header, &mut extended)
                    .map_err(|error| in_entry(error, &name))?;
                continue;
            }
            self.held.dropped.xattrs += extended.xattrs();
            let entry = extended
                .apply(&mut header)
                .and_then(|()| {
                    let name = header.name.clone();
                    Entry::judge(header, self.form, &mut self.held.dropped)
                        .map_err(|reason| (name, reason))
                })
                .map_err(|(name, reason)| UnpackError::refused(&name, reason))?;
            self.count(&entry)
                .map_err(|reason| UnpackError::refused(entry.name.as_bytes(), reason))?;
            return Ok(Some(entry));
        }
    }

    /// More of the current entry's contents; `None` when there is no more.
    pub(crate) fn next_slice(&mut self) -> Result<Option<Slice>, UnpackError> {
        if self.left == 0 {
            while self.padding > 0 {
                self.padding -= self.take(self.padding)?.len() as u64;
            }
            return Ok(None);
        }
        let slice = self.take(self.left)?;
        self.left -= slice.len() as u64;
        Ok(Some(slice))
    }

    fn count(&mut self, entry: &Entry) -> Result<(), Reason> {
        self.held.entries += 1;
        self.check_count()?;
        if entry.kind == Kind::File {
            self.held.bytes = self.held.bytes.saturating_add(entry.size);
            if self.held.bytes > self.limits.bytes {
                return Err(self.limits.too_many_bytes());
            }
        }
        self.open(entry.size);
        Ok(())
    }

    fn check_count(&self) -> Result<(), Reason> {
        if self.held.entries + self.held.extensions > self.limits.entries {
            return Err(self.limits.too_many_entries());
        }
        Ok(())
    }

    fn open(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % UNIT as u64;
    }

    fn extension(&mut self, header: &Header, extended: &mut Extended) -> Result<(), UnpackError> {
        if header.size > EXTENSION_MAX {
            return Err(UnpackError::archive(Reason::ExtensionTooLarge));
        }
        self.held.extensions += 1;
        self.check_count().map_err(UnpackError::archive)?;
        self.open(header.size);
        let mut contents = Vec::new();
        while let Some(slice) = self.next_slice()? {
            contents.extend_from_slice(&slice);
        }
        let taken = match header.kind {
            b'x' => extended.pax(&contents),
            b'L' => extended.long_name(contents),
            b'K' => extended.long_link(contents),
            _ => match Extended::check_global(&contents) {
                Ok(()) => Ok(()),
                Err(GlobalError::Damaged) => Err(Reason::Extension),
                Err(GlobalError::ChangesEntries) => Err(Reason::AmbiguousExtension),
            },
        };
        taken.map_err(UnpackError::archive)
    }

    /// The second unit of zeros, and nothing but zeros behind it.
    fn end(&mut self) -> Result<(), UnpackError> {
        if self.unit()?.iter().any(|&byte| byte != 0) {
            return Err(UnpackError::archive(Reason::DataAfterEnd));
        }
        while self.fetch()? {
            let block = self.block.as_ref().expect("fetched");
            if block[self.at..].iter().any(|&byte| byte != 0) {
                return Err(UnpackError::archive(Reason::DataAfterEnd));
            }
            self.at = block.len();
        }
        Ok(())
    }

    /// The next header. Blocks are whole units long, so only an archive that is cut off splits one.
    fn unit(&mut self) -> Result<[u8; UNIT], UnpackError> {
        let slice = self.take(UNIT as u64)?;
        <[u8; UNIT]>::try_from(&*slice).map_err(|_| UnpackError::archive(Reason::CutOff))
    }

    /// Up to `most` bytes, at least one.
    fn take(&mut self, most: u64) -> Result<Slice, UnpackError> {
        if !self.fetch()? {
            return Err(UnpackError::archive(Reason::CutOff));
        }
        let block = Arc::clone(self.block.as_ref().expect("fetched"));
        let left = block.len() - self.at;
        let length = usize::try_from(most).map_or(left, |most| left.min(most));
        let range = self.at..self.at + length;
        self.at = range.end;
        Ok(Slice { block, range })
    }

    /// Makes sure that the current block has bytes left; `false` at the end of the stream.
    fn fetch(&mut self) -> Result<bool, UnpackError> {
        loop {
            if self
                .block
                .as_ref()
                .is_some_and(|block| self.at < block.len())
            {
                return Ok(true);
            }
            // Let go of the old block before waiting for a new one.
            self.block = None;
            self.at = 0;
            let Ok(block) = self.blocks.recv() else {
                return Ok(false);
            };
            self.received += 1;
            self.block = Some(block);
        }
    }
}

fn in_entry(error: UnpackError, name: &[u8]) -> UnpackError {
    match error {
        UnpackError::Refused {
            entry: None,
            reason,
        } if reason != Reason::CutOff => UnpackError::refused(name, reason),
        other => other,
    }
}
