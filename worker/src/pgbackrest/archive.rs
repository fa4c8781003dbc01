//! The archived WAL: which segments are there, how far recovery can go from a set on, and where it would stop.
//!
//! Recovery follows the newest timeline. At the end of the archive it ends and the database opens,
//! and a segment that is missing in the middle looks to PostgreSQL just like the end: everything
//! behind the gap would be lost without a word. So gaps are found here, before.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::wal::{Fork, Lsn, Segment};

/// The archived WAL of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    segments: BTreeMap<Segment, Stored>,
    histories: BTreeMap<u32, Vec<Fork>>,
    partial: Vec<Segment>,
}

/// A segment in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    modified: Timestamp,
    /// Objects of this name. With more than one, of different content, pgBackRest gives out none.
    copies: u32,
}

/// What a key below a database's folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A whole segment.
    Segment(Segment),
    /// The beginning of one, archived when its timeline was left. Recovery does not read it.
    Partial(Segment),
    /// A timeline's history file.
    History(u32),
    /// Something else: the `.backup` files, for example.
    Other,
}

impl Name {
    /// Tells what a file is by its name, without folders.
    pub fn of(name: &str) -> Self {
        if let Some(timeline) = name.strip_suffix(".history") {
            // A history is named by the first eight digits of a segment's name.
            let segment = format!("{timeline}{:016}", 0).parse::<Segment>();
            return segment.map_or(Self::Other, |s| Self::History(s.timeline));
        }
        let Some((Ok(segment), rest)) = name.split_at_checked(24).map(|(s, r)| (s.parse(), r))
        else {
            return Self::Other;
        };
        let (partial, rest) = match rest.strip_prefix(".partial") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let sum = rest.strip_prefix('-').and_then(|rest| rest.get(..40));
        match (
            partial,
            sum.is_some_and(|s| s.bytes().all(|b| b.is_ascii_hexdigit())),
        ) {
            (_, false) => Self::Other,
            (true, true) => Self::Partial(segment),
            (false, true) => Self::Segment(segment),
        }
    }
}

/// A segment and when it came to the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Archived {
    /// Its name.
    pub segment: Segment,
    /// When it was written, by the bucket's clock. Every transaction in it is older.
    pub at: Timestamp,
}

/// How far recovery can go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// The timeline that recovery ends on.
    pub timeline: u32,
    /// The first segment it reads.
    pub first: Segment,
    /// The last one that it reaches; none when already the first is missing.
    pub last: Option<Archived>,
    /// Why it cannot read more, though there is more.
    pub stop: Option<Stop>,
    /// How many segments it reads.
    pub segments: u64,
}

/// A place where recovery ends too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// The segment that it cannot get.
    pub at: Segment,
    /// Whether it is there twice, with different content, instead of not at all.
    pub twice: bool,
    /// The newest segment behind it, which is out of reach.
    pub newest: Archived,
}

/// Why no way leads from a set to the newest timeline. pgBackRest refuses such a restore since 2.55,
/// and PostgreSQL would give up after all files were copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// The newest timeline left the set's before the set was made: something was promoted by accident, or
    /// a copy was started with archiving on.
    #[error("timeline {newest} left timeline {own} at {at}, before the set at {set}")]
    ForkedBefore {
        /// The newest timeline.
        newest: u32,
        /// The set's.
        own: u32,
        /// Where it was left.
        at: Lsn,
        /// Where the set begins.
        set: Lsn,
    },
    /// The set's timeline is not among the ancestors of the newest one.
    #[error("timeline {own} of the set is not in the history of timeline {newest}")]
    NotAnAncestor {
        /// The newest timeline.
        newest: u32,
        /// The set's.
        own: u32,
    },
}

impl Archive {
    /// Takes in a segment.
    pub fn add_segment(&mut self, segment: Segment, modified: Timestamp) {
        let stored = self.segments.entry(segment).or_insert(Stored {
            modified,
            copies: 0,
        });
        stored.copies += 1;
        stored.modified = stored.modified.max(modified);
    }

    /// Takes in a segment that is not whole.
    pub fn add_partial(&mut self, segment: Segment) {
        self.partial.push(segment);
    }

    /// Takes in a timeline's history.
    pub fn add_history(&mut self, timeline: u32, forks: Vec<Fork>) {
        self.histories.insert(timeline, forks);
    }

    /// How many segments there are.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether nothing was archived.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Segments of which only the beginning was archived.
    pub fn partial(&self) -> &[Segment] {
        &self.partial
    }

    /// The newest segment of each timeline, oldest timeline first.
    pub fn newest(&self) -> Vec<Archived> {
        let mut newest: BTreeMap<u32, Archived> = BTreeMap::new();
        for (segment, stored) in &self.segments {
            newest.insert(segment.timeline, archived(*segment, stored));
        }
        newest.into_values().collect()
    }

    /// When a segment came to the bucket.
    pub fn modified(&self, segment: Segment) -> Option<Timestamp> {
        self.segments.get(&segment).map(|stored| stored.modified)
    }

    /// The first segment from one to another on the same timeline that recovery cannot get.
    pub fn missing(&self, from: Segment, to: Segment) -> Option<Segment> {
        let of = |number| Segment {
            timeline: from.timeline,
            number,
        };
        let mut all = (from.number..=to.number).map(of);
        all.find(|segment| !self.readable(*segment))
    }

    /// How far recovery goes from a set on that begins in `first`, at `lsn`.
    ///
    /// # Errors
    /// When no way leads from there to the newest timeline.
    pub fn reach(&self, first: Segment, lsn: Lsn) -> Result<Reach, NoWay> {
        let line = self.line(first.timeline, lsn)?;
        Ok(self.follow(first, &line))
    }

    /// The same when recovery stays on the set's own timeline, as with `--type=immediate`.
    pub fn reach_alone(&self, first: Segment) -> Reach {
        self.follow(first, &[(first.timeline, first.number)])
    }

    /// The timelines that recovery goes through from a set on, each with the segment that it begins with.
    /// pgBackRest verifies the way to the highest timeline; PostgreSQL counts up from the set's own and
    /// follows the last one before a number is missing. They are nearly always the same.
    fn line(&self, own: u32, set: Lsn) -> Result<Vec<(u32, u64)>, NoWay> {
        let highest = self.histories.keys().copied().max().unwrap_or(own);
        self.way(own, set, highest)?;
        let mut newest = own;
        while let Some(next) = newest
            .checked_add(1)
            .filter(|n| self.histories.contains_key(n))
        {
            newest = next;
        }
        self.way(own, set, newest)
    }

    fn way(&self, own: u32, set: Lsn, newest: u32) -> Result<Vec<(u32, u64)>, NoWay> {
        let mut line = vec![(own, set.segment())];
        let Some(forks) = self.histories.get(&newest).filter(|_| newest > own) else {
            return Ok(line);
        };
        let Some(left) = forks.iter().position(|fork| fork.timeline == own) else {
            return Err(NoWay::NotAnAncestor { newest, own });
        };
        let at = forks[left].at;
        if at <= set {
            return Err(NoWay::ForkedBefore {
                newest,
                own,
                at,
                set,
            });
        }
        for (at, fork) in forks.iter().enumerate().skip(left) {
            let next = forks.get(at + 1).map_or(newest, |next| next.timeline);
            line.push((next, fork.at.segment()));
        }
        Ok(line)
    }

    /// Walks from segment to segment. Each is taken from the newest timeline that has begun by then: its
    /// first segment repeats what the older timeline had of it.
    fn follow(&self, first: Segment, line: &[(u32, u64)]) -> Reach {
        let of = |number: u64| {
            let begun = line.iter().rev().find(|(_, from)| *from <= number);
            Segment {
                timeline: begun.map_or(first.timeline, |(timeline, _)| *timeline),
                number,
            }
        };
        let mut number = first.number;
        let mut last = None;
        while let Some(stored) = self.segments.get(&of(number)).filter(|s| s.copies == 1) {
            last = Some(archived(of(number), stored));
            number += 1;
        }
        let on_line = |segment: &Segment| of(segment.number) == *segment;
        let mut behind = self.segments.iter().filter(|(segment, _)| on_line(segment));
        let stop =
            behind
                .rfind(|(segment, _)| segment.number >= number)
                .map(|(segment, stored)| Stop {
                    at: of(number),
                    twice: self.segments.contains_key(&of(number)),
                    newest: archived(*segment, stored),
                });
        Reach {
            timeline: line
                .last()
                .map_or(first.timeline, |(timeline, _)| *timeline),
            first,
            last,
            stop,
            segments: number - first.number,
        }
    }

    fn readable(&self, segment: Segment) -> bool {
        self.segments.get(&segment).is_some_and(|s| s.copies == 1)
    }
}

fn archived(segment: Segment, stored: &Stored) -> Archived {
    Archived {
        segment,
        at: stored.modified,
    }
}
