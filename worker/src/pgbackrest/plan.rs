//! What a restore will do, and what it will lose, before anything is done: as data and as text.

use std::fmt::{self, Write};

use jiff::{SignedDuration, SpanRound, Timestamp, Unit};
use serde::{Deserialize, Serialize};

use super::archive::{Archived, Stop};
use super::choose::{Choice, Stanza, Target};
use super::info::{Database, Label};
use super::sets::Set;
use super::wal::Segment;

/// What a restore will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestorePlan {
    /// The database that is brought back.
    pub database: Database,
    /// All sets of the stanza, oldest first.
    pub sets: Vec<Set>,
    /// The one that is taken.
    pub chosen: Label,
    /// How far recovery goes.
    pub target: Target,
    /// The WAL that is replayed.
    pub wal: Replay,
    /// Bytes to download for the set.
    pub download: u64,
    /// Bytes that the database takes on disk, before WAL.
    pub size: u64,
    /// What is lost.
    pub loss: Loss,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// The WAL that is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// From this segment on.
    pub first: Segment,
    /// To this one at the latest.
    pub last: Option<Archived>,
    /// How many there are at the most.
    pub segments: u64,
    /// The timeline it ends on; the restored database opens a new one.
    pub timeline: u32,
    /// Where it ends too early.
    pub stop: Option<Stop>,
}

/// What is lost: the expected recovery point, and how far it lies behind the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When the database was lost.
    pub failure: Timestamp,
    /// The moment that is brought back.
    pub recovers_to: Timestamp,
    /// What lies between.
    pub rpo: SignedDuration,
}

impl Loss {
    /// The expected loss of a choice when the database was lost at `failure`.
    pub fn of(choice: &Choice, failure: Timestamp) -> Self {
        let recovers_to = choice.recovers_to().min(failure);
        Self {
            failure,
            recovers_to,
            rpo: failure.duration_since(recovers_to),
        }
    }
}

impl RestorePlan {
    /// The plan for a choice.
    pub fn new(stanza: &Stanza, choice: &Choice, failure: Timestamp) -> Self {
        let segments = match choice.target {
            Target::Immediate => choice.wal.last.number - choice.wal.first.number + 1,
            _ => choice.reach.segments,
        };
        let last = match choice.target {
            Target::Immediate => stanza.archive.modified(choice.wal.last).map(|at| Archived {
                segment: choice.wal.last,
                at,
            }),
            _ => choice.reach.last,
        };
        Self {
            database: stanza.database.clone(),
            sets: stanza.sets.clone(),
            chosen: choice.set.label.clone(),
            target: choice.target,
            wal: Replay {
                first: choice.wal.first,
                last,
                segments,
                timeline: choice.reach.timeline,
                stop: choice.reach.stop,
            },
            download: choice.set.repo_size,
            size: choice.set.size,
            loss: Loss::of(choice, failure),
            notes: notes(stanza, choice),
        }
    }
}

/// The longest time between a set's end and the arrival of its last segment that is not strange.
const ARCHIVED_WITHIN: SignedDuration = SignedDuration::from_hours(6);

fn notes(stanza: &Stanza, choice: &Choice) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, copy) in [
        ("backup.info", &stanza.backups.from_copy),
        ("archive.info", &stanza.archives.from_copy),
    ] {
        if let Some(why) = copy {
            notes.push(format!(
                "{name} could not be used ({why}); its copy was read, which may know one set less"
            ));
        }
    }
    if let Some(stop) = choice.reach.stop {
        notes.push(format!(
            "WAL ends at segment {}, though there is more up to {}: that is lost",
            stop.at, stop.newest.segment
        ));
    }
    let newer = stanza.sets.iter().filter(|set| set.stop > choice.set.stop);
    for set in newer.filter(|set| !set.is_usable()) {
        notes.push(format!(
            "the newer set {} cannot be used: {}",
            set.label,
            set.why_not()
        ));
    }
    if matches!(choice.target, Target::Time(_)) {
        notes.push(
            "PostgreSQL stops at the first transaction after the time; without one it does not start"
                .into(),
        );
    }
    let arrived = stanza.archive.modified(choice.wal.last);
    if arrived.is_some_and(|at| at.duration_since(choice.set.stop) > ARCHIVED_WITHIN) {
        notes.push(
            "the WAL came to the bucket long after it was written (was the bucket copied?): the \
             expected loss cannot be told from it"
                .into(),
        );
    }
    notes
}

impl fmt::Display for RestorePlan {
    /// The plan as an operator reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Database {
            system_id, version, ..
        } = &self.database;
        writeln!(
            f,
            "Restore of PostgreSQL {version}, system id {system_id}\n"
        )?;
        writeln!(
            f,
            "  {:<33}  {:<4}  {:<20}  {:>9}  {:>9}  STATE",
            "SET", "TYPE", "FINISHED", "DATABASE", "DOWNLOAD"
        )?;
        for set in &self.sets {
            let chosen = if set.label == self.chosen { '>' } else { ' ' };
            let state = match set.is_usable() {
                true => "usable".to_owned(),
                false => set.why_not(),
            };
            let mut row = String::new();
            write!(
                row,
                "{chosen} {:<33}  {:<4}  {:<20}  {:>9}  {:>9}  {state}",
                set.label,
                set.kind,
                set.stop.to_string(),
                size(set.size),
                size(set.repo_size),
            )?;
            writeln!(f, "{}", row.trim_end())?;
        }
        writeln!(f, "\nSet       {}", self.chosen)?;
        writeln!(f, "Target    {}", self.target)?;
        writeln!(
            f,
            "Download  {} for {} on disk",
            size(self.download),
            size(self.size)
        )?;
        let Replay {
            first,
            last,
            segments,
            ..
        } = self.wal;
        match last {
            Some(last) => writeln!(
                f,
                "WAL       {first} to {} ({segments} segments, the last archived at {})",
                last.segment, last.at
            )?,
            None => writeln!(f, "WAL       only what the set holds itself")?,
        }
        writeln!(f, "Back to   about {}", self.loss.recovers_to)?;
        writeln!(
            f,
            "Loss      about {} (failure at {})",
            duration(self.loss.rpo),
            self.loss.failure
        )?;
        for note in &self.notes {
            writeln!(f, "Note      {note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end of the archived WAL"),
            Self::Immediate => f.write_str("the end of the set; all later WAL is dropped"),
            Self::Time(at) => write!(f, "{at}"),
        }
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut unit, mut whole, mut tenths) = (0, bytes, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{whole} B"),
        _ => format!("{whole}.{tenths} {}", UNITS[unit]),
    }
}

/// A duration for people: to the minute when it is long.
fn duration(of: SignedDuration) -> String {
    let smallest = if of.as_hours() >= 1 {
        Unit::Minute
    } else {
        Unit::Second
    };
    let round = SpanRound::new()
        .largest(Unit::Day)
        .smallest(smallest)
        .days_are_24_hours();
    let span = jiff::Span::try_from(of).and_then(|span| span.round(round));
    span.map_or_else(|_| format!("{of:#}"), |span| format!("{span:#}"))
}
