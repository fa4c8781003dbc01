//! Places in the write-ahead log: LSNs, the segments that hold them, and the timelines that fork.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Bytes of a segment. `initdb --wal-segsize` could change it; the operator does not, and a name that
/// only another size can have is refused.
const SEGMENT_SIZE: u64 = 16 << 20;

/// Segments whose names share the middle eight digits.
const SEGMENTS_PER_LOG: u64 = (1 << 32) / SEGMENT_SIZE;

/// A place in the write-ahead log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// One file of the write-ahead log. Ordered by timeline, then by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The timeline it was written on.
    pub timeline: u32,
    /// Which one, counted from the beginning of the log.
    pub number: u64,
}

/// Not the text of what was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {0}")]
pub struct NotWal(&'static str);

impl Lsn {
    /// The number of the segment that holds it.
    pub fn segment(self) -> u64 {
        self.0 / SEGMENT_SIZE
    }
}

impl FromStr for Lsn {
    type Err = NotWal;

    /// As PostgreSQL writes it: `16/B374D848`.
    fn from_str(text: &str) -> Result<Self, NotWal> {
        let bad = NotWal("an LSN such as 16/B374D848");
        let (high, low) = text.split_once('/').ok_or(bad)?;
        let half = |text: &str| match text.len() {
            1..=8 => hex(text).map(u64::from),
            _ => None,
        };
        match (half(high), half(low)) {
            (Some(high), Some(low)) => Ok(Self((high << 32) | low)),
            _ => Err(bad),
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Segment {
    type Err = NotWal;

    /// As PostgreSQL names it: 24 hexadecimal digits.
    fn from_str(name: &str) -> Result<Self, NotWal> {
        let bad = NotWal("the name of a WAL segment of 16 MiB");
        if name.len() != 24 || !name.is_ascii() {
            return Err(bad);
        }
        let part = |from: usize| hex(&name[from..from + 8]);
        match (part(0), part(8), part(16)) {
            (Some(timeline), Some(log), Some(low)) if u64::from(low) < SEGMENTS_PER_LOG => {
                Ok(Self {
                    timeline,
                    number: u64::from(log) * SEGMENTS_PER_LOG + u64::from(low),
                })
            }
            _ => Err(bad),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (log, low) = (
            self.number / SEGMENTS_PER_LOG,
            self.number % SEGMENTS_PER_LOG,
        );
        write!(f, "{:08X}{log:08X}{low:08X}", self.timeline)
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Up to eight upper-case hexadecimal digits; a sign, which `from_str_radix` would take, is none.
fn hex(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    digits.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Where a timeline was left for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The timeline that was left.
    pub timeline: u32,
    /// The first byte that is not on it any more.
    pub at: Lsn,
}

/// A timeline's history file: its ancestors, oldest first.
///
/// # Errors
/// When it is no such file.
pub fn parse_history(text: &str) -> Result<Vec<Fork>, NotWal> {
    let bad = NotWal("a timeline's history");
    let mut forks: Vec<Fork> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(timeline), Some(at)) = (words.next(), words.next()) else {
            return Err(bad);
        };
        let fork = Fork {
            timeline: timeline.parse().map_err(|_| bad)?,
            at: at.parse().map_err(|_| bad)?,
        };
        let grows = |last: &Fork| last.timeline < fork.timeline && last.at <= fork.at;
        if !forks.last().is_none_or(grows) {
            return Err(bad);
        }
        forks.push(fork);
    }
    Ok(forks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["000000010000000000000001", "0000000A0000001F000000FF"] {
            let segment: Segment = name.parse().expect(name);
            assert_eq!(segment.to_string(), name);
        }
        for lsn in ["0/2000028", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(lsn.parse::<Lsn>().expect(lsn).to_string(), lsn);
        }
        let segment: Segment = "000000010000000100000003".parse().expect("a name");
        assert_eq!(segment.number, 0x103);
        assert_eq!("1/3000000".parse::<Lsn>().expect("an LSN").segment(), 0x103);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "00000001000000000000000",
            "0000000100000000000000011",
            "000000010000000000000100",
            "00000001000000000000000g",
            "+00000010000000000000001",
            "00000001000000000000000é",
        ] {
            assert!(bad.parse::<Segment>().is_err(), "{bad}");
        }
        for bad in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "+1/0",
            "123456789/0",
            "0/123456789",
        ] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_history_names_its_ancestors() {
        let text = "1\t0/D000000\tno recovery target specified\n\n2\t0/E0000A0\tbefore 2026\n";
        let forks = parse_history(text).expect("a history");
        assert_eq!(forks.len(), 2);
        assert_eq!((forks[1].timeline, forks[1].at.0), (2, 0xE00_00A0));
        for bad in ["1", "x\t0/1", "1\tx", "2\t0/1\n1\t0/2", "1\t0/2\n2\t0/1"] {
            assert!(parse_history(bad).is_err(), "{bad}");
        }
    }
}
