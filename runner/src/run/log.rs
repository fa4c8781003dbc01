//! The log of a run: one file that the program itself appends to, so no one has to read for it to go
//! on, and no one's death stops it.
//!
//! An offset names the same byte for ever. When the log grows beyond its limit the supervisor gives the
//! space of the oldest bytes back to the file system (fallocate(2), FALLOC_FL_PUNCH_HOLE), and the file
//! keeps its length. Nothing is copied or truncated, so a byte written meanwhile cannot be lost.
//! `log.start` holds the oldest kept offset and is made durable before the hole, so a reader never takes
//! the hole's zeros for output. Where the file system makes no holes, the log has no limit.
//!
//! Offsets never go back, although the file may get shorter: by a power cut, or when the program truncates
//! it. Then it is made as long as it was, and begins there.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// Holes begin and end on these, which are multiples of the blocks of all common file systems.
const GRAIN: u64 = 64 << 10;
/// A number of fixed width is overwritten in place: that works on a full disk, too.
const START_DIGITS: usize = 20;
/// The most bytes that are moved when a program truncated its log: what it wrote within a second.
const MOVED: u64 = 1 << 20;

/// What a reader got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The offset of the first byte.
    pub from: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The oldest kept offset.
    pub oldest: u64,
    /// Where the log ended.
    pub end: u64,
}

impl Chunk {
    /// Where to read on.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }
}

/// The log, to read.
#[derive(Debug)]
pub struct Reader {
    log: File,
    start: File,
}

impl Reader {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            log: File::open(folder.join("log"))?,
            start: File::open(folder.join("log.start"))?,
        })
    }

    /// Puts on disk what was written so far, so that no power cut takes back what is read now.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.log.sync_data()
    }

    /// The oldest kept offset, and the end.
    pub(crate) fn range(&self) -> io::Result<(u64, u64)> {
        // In this order: the start never passes an end that was read later.
        let start = read_start(&self.start)?;
        Ok((start, self.log.metadata()?.len().max(start)))
    }

    /// At most `limit` bytes from an offset on, or from the oldest kept one. Less at the end.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn read(&self, from: u64, limit: usize) -> io::Result<Chunk> {
        let mut at = from;
        loop {
            let (oldest, end) = self.range()?;
            at = at.max(oldest);
            let length = end.saturating_sub(at).min(limit as u64);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(limit)];
            let mut filled = 0;
            while filled < bytes.len() {
                match self.log.read_at(&mut bytes[filled..], at + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(filled);
            // What was let go while we read may have come as zeros.
            if read_start(&self.start)? <= at {
                return Ok(Chunk {
                    from: at,
                    bytes,
                    oldest,
                    end,
                });
            }
        }
    }
}

/// The log as its supervisor has it.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    start: File,
    limit: u64,
}

impl Log {
    /// Opens the log, or begins it. What an earlier attempt wrote stays.
    pub(crate) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).read(true).mode(0o600);
        let file = options.clone().append(true).open(folder.join("log"))?;
        let start = options
            .write(true)
            .truncate(false)
            .open(folder.join("log.start"))?;
        if start.metadata()?.len() == 0 {
            write_start(&start, 0)?;
        }
        // After a power cut the end may be missing. What is appended below the start nobody would see.
        let oldest = read_start(&start)?;
        if file.metadata()?.len() < oldest {
            file.set_len(oldest)?;
        }
        Ok(Self { file, start, limit })
    }

    /// For the program: each write goes to the end, whoever else writes.
    pub(crate) fn writer(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(crate) fn end(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Makes a log that the program truncated as long as it was before, and lets it begin there: its
    /// offsets stand for other bytes. What was written since goes behind.
    pub(crate) fn mend(&self, longest: u64) -> io::Result<()> {
        let end = self.end()?;
        if end >= longest {
            return Ok(());
        }
        let mut since = vec![0; usize::try_from(end.min(MOVED)).unwrap_or(0)];
        let from = end - since.len() as u64;
        self.file.read_exact_at(&mut since, from)?;
        write_start(&self.start, longest)?;
        // Unlike set_len, this never makes it shorter: the program may have gone on meanwhile.
        fallocate(&self.file, FallocateFlags::empty(), signed(longest - 1)?, 1)?;
        (&self.file).write_all(&since)?;
        match punch(&self.file, 0, longest) {
            // It only takes more space than it needs.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Gives back the space of what is over the limit. `false` when the file system cannot.
    pub(crate) fn trim(&self) -> io::Result<bool> {
        let start = read_start(&self.start)?;
        let Some(wanted) = new_start(start, self.end()?, self.limit) else {
            return Ok(true);
        };
        // Asked before the start moves, because what cannot be given back stays readable. Asked of the
        // other file, far behind its end, where nobody ever writes.
        match punch(&self.start, GRAIN, GRAIN) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(false),
            result => result?,
        }
        write_start(&self.start, wanted)?;
        // From the very beginning: a crash may have come between the start and its hole.
        punch(&self.file, 0, wanted)?;
        Ok(true)
    }
}

fn punch(file: &File, from: u64, length: u64) -> Result<(), Errno> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, flags, signed(from)?, signed(length)?)
}

fn signed(number: u64) -> Result<i64, Errno> {
    i64::try_from(number).map_err(|_| Errno::EFBIG)
}

/// Where the log should begin, if that is worth a hole: an eighth of the limit at a time, so that there
/// are few of them.
fn new_start(start: u64, end: u64, limit: u64) -> Option<u64> {
    let wanted = end.saturating_sub(limit) / GRAIN * GRAIN;
    (wanted >= start + (limit / 8).max(GRAIN)).then_some(wanted)
}

fn write_start(file: &File, start: u64) -> io::Result<()> {
    file.write_all_at(format!("{start:0START_DIGITS$}\n").as_bytes(), 0)?;
    file.sync_data()
}

/// Two equal looks, because a reader may see half of a write.
fn read_start(file: &File) -> io::Result<u64> {
    let look = || -> io::Result<[u8; START_DIGITS]> {
        let mut text = [0; START_DIGITS];
        file.read_exact_at(&mut text, 0)?;
        Ok(text)
    };
    let mut last = look()?;
    loop {
        let text = look()?;
        if text == last {
            return std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| io::Error::other("log.start is not a number"));
        }
        last = text;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_hole_is_made_only_when_it_is_worth_it_and_never_into_what_is_kept() {
        let limit = 8 * GRAIN;
        assert_eq!(new_start(0, 0, limit), None);
        assert_eq!(new_start(0, limit, limit), None);
        assert_eq!(new_start(0, limit + GRAIN - 1, limit), None);
        assert_eq!(new_start(0, limit + GRAIN, limit), Some(GRAIN));
        assert_eq!(new_start(GRAIN, limit + GRAIN, limit), None);
        assert_eq!(
            new_start(GRAIN, limit + 9 * GRAIN + 5, limit),
            Some(9 * GRAIN)
        );
    }

    #[test]
    fn what_is_kept_is_read_whole_and_what_is_not_is_never_read_as_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), 4 * GRAIN).unwrap();
        let reader = Reader::open(folder.path()).unwrap();
        let mut writer = log.writer().unwrap();
        let line = |number: u64| format!("line {number:>10}\n");
        let width = line(0).len() as u64;
        let lines = 20 * GRAIN / width;
        for number in 0..lines {
            writer.write_all(line(number).as_bytes()).unwrap();
            if number % 1000 == 0 {
                assert!(log.trim().unwrap());
            }
        }
        log.trim().unwrap();
        let chunk = reader.read(0, usize::MAX >> 1).unwrap();
        assert_eq!(chunk.from, chunk.oldest);
        assert!(chunk.from >= 15 * GRAIN, "{}", chunk.from);
        assert_eq!(chunk.next(), lines * width);
        let whole: String = (0..lines).map(line).collect();
        assert!(whole.as_bytes()[chunk.from as usize..] == chunk.bytes);
        let used = folder.path().join("log").metadata().unwrap().blocks() * 512;
        assert!(used <= 6 * GRAIN, "{used} bytes on disk");
        // In the middle, and at and beyond the end.
        let part = reader.read(chunk.from + 7, 100).unwrap();
        assert_eq!(part.bytes, chunk.bytes[7..107]);
        assert!(reader.read(chunk.end, 100).unwrap().bytes.is_empty());
        assert!(reader.read(chunk.end + 5, 100).unwrap().bytes.is_empty());
    }

    /// A log whose oldest bytes were let go.
    fn trimmed(folder: &Path) -> (Log, Reader) {
        let log = Log::open(folder, 4 * GRAIN).unwrap();
        let bytes = vec![b'x'; 10 * GRAIN as usize];
        log.writer().unwrap().write_all(&bytes).unwrap();
        assert!(log.trim().unwrap());
        let reader = Reader::open(folder).unwrap();
        assert_eq!(reader.range().unwrap(), (6 * GRAIN, 10 * GRAIN));
        (log, reader)
    }

    #[test]
    fn after_a_power_cut_nothing_is_written_below_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (log, reader) = trimmed(folder.path());
        log.file.set_len(GRAIN).unwrap();
        let log = Log::open(folder.path(), 4 * GRAIN).unwrap();
        assert_eq!(log.end().unwrap(), 6 * GRAIN);
        log.writer().unwrap().write_all(b"next attempt").unwrap();
        let chunk = reader.read(0, 100).unwrap();
        assert_eq!(chunk.from, 6 * GRAIN);
        assert_eq!(chunk.bytes, b"next attempt");
    }

    #[test]
    fn a_truncated_log_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (log, reader) = trimmed(folder.path());
        let longest = log.end().unwrap();
        log.mend(longest).unwrap();
        assert_eq!(reader.range().unwrap(), (6 * GRAIN, longest));
        for round in 0..3_u64 {
            let longest = longest + 10 * round;
            log.file.set_len(0).unwrap();
            let mut writer = log.writer().unwrap();
            writer.write_all(b"since").unwrap();
            log.mend(longest).unwrap();
            writer.write_all(b"later").unwrap();
            let chunk = reader.read(longest - 1, 100).unwrap();
            assert_eq!((chunk.from, chunk.oldest), (longest, longest));
            assert_eq!(chunk.bytes, b"sincelater");
            let used = folder.path().join("log").metadata().unwrap().blocks() * 512;
            assert!(used <= GRAIN, "{used} bytes on disk");
        }
    }
}
