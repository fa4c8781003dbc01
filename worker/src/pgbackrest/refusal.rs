//! Why nothing is chosen. Each refusal says what to do next.

use std::fmt;

use jiff::Timestamp;

use super::archive::{Archived, NoWay, Stop};
use super::info::{Database, Label};

/// A database that has used the stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub(super) database: Database,
    pub(super) sets: usize,
    pub(super) newest: Option<Timestamp>,
}

/// Why nothing is chosen, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Two databases have used the stanza, and a guess could bring back the wrong one.
    #[error(
        "the stanza was used by several databases: {}; say which one by its system id (the younger \
         one is often an empty cluster that was pointed at this repository by mistake)", list(.known)
    )]
    SeveralSystems {
        /// Them.
        known: Vec<Known>,
    },
    /// The database that is expected has never used the stanza.
    #[error(
        "the stanza has nothing of system id {wanted}, only of {}: check the bucket and the \
         repository's path, or the system id", list(.known)
    )]
    UnknownSystem {
        /// What is expected.
        wanted: u64,
        /// What is there.
        known: Vec<Known>,
    },
    /// The stanza was created, and nothing was ever backed up.
    #[error("the stanza has no backup: check the bucket and the repository's path")]
    Empty,
    /// The archive belongs to other databases than the backups.
    #[error(
        "archive.info knows nothing of system id {system_id} with PostgreSQL {version}, which the backups \
         are of: they come from different repositories; put back the archive.info of this one"
    )]
    FilesDisagree {
        /// The backups' database.
        system_id: u64,
        /// Its version.
        version: String,
    },
    /// No set has this label.
    #[error("there is no set {label:.80}; there is {}", names(.near))]
    NoSuchSet {
        /// What was asked for.
        label: String,
        /// The labels that look most like it.
        near: Vec<Label>,
    },
    /// The set that was asked for is of no use.
    #[error("the set {label} cannot be restored: {why}; {}", instead(.other))]
    Unusable {
        /// Its label.
        label: Label,
        /// Its flaws.
        why: String,
        /// The newest set that can be.
        other: Option<Label>,
    },
    /// The set that was asked for is of another database.
    #[error(
        "the set {label} is of system id {}, and {wanted} is wanted; {}",
        .found.map_or("unknown".to_owned(), |id| id.to_string()), instead(.other)
    )]
    OtherSystem {
        /// Its label.
        label: Label,
        /// Its database.
        found: Option<u64>,
        /// The one that is wanted.
        wanted: u64,
        /// The newest set of the database that is wanted.
        other: Option<Label>,
    },
    /// There are sets, and none is of use.
    #[error("none of the {} sets can be restored: {}", .why.len(), .why.join(", "))]
    NoneUsable {
        /// Each with its flaws.
        why: Vec<String>,
    },
    /// The moment lies before everything that can be brought back.
    #[error(
        "{target} is before the end of the oldest usable set, {label}, which can bring back {stop} at \
         the earliest: take a later time"
    )]
    BeforeFirst {
        /// The moment.
        target: Timestamp,
        /// The oldest usable set.
        label: Label,
        /// When it was finished.
        stop: Timestamp,
    },
    /// The set was finished after the moment, and recovery only goes forward.
    #[error("the set {label} was finished at {stop}, not before {target}; {}", instead(.older))]
    SetAfterTarget {
        /// The set.
        label: Label,
        /// When it was finished.
        stop: Timestamp,
        /// The moment.
        target: Timestamp,
        /// The newest set that is old enough.
        older: Option<Label>,
    },
    /// The moment lies after everything that was archived. PostgreSQL would replay everything and then
    /// fail.
    #[error(
        "{target} is after the newest archived WAL ({}, archived at {}): take an earlier time, or \
         no time for all that there is", .newest.segment, .newest.at
    )]
    AfterArchive {
        /// The moment.
        target: Timestamp,
        /// The newest segment.
        newest: Archived,
    },
    /// A segment is missing in the middle of the WAL that is needed.
    #[error(
        "WAL segment {} {}: recovery would end at {reached}, and lose what was archived until {}; put \
         the segment back, or take {reached} as the time, or accept the loss",
        .stop.at, how_missing(.stop), .stop.newest.at
    )]
    Gap {
        /// Where.
        stop: Stop,
        /// How far recovery would come.
        reached: Timestamp,
    },
    /// No way leads from the set to the newest timeline.
    #[error("the set {label} cannot be recovered to the newest timeline: {why}; {}", instead(.other))]
    NoWay {
        /// The set.
        label: Label,
        /// Why.
        why: NoWay,
        /// The newest set with a way.
        other: Option<Label>,
    },
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Database {
            system_id, version, ..
        } = &self.database;
        match self.newest {
            Some(at) => write!(
                f,
                "{system_id} (PostgreSQL {version}, {} sets, the newest of {at})",
                self.sets
            ),
            None => write!(f, "{system_id} (PostgreSQL {version}, no set)"),
        }
    }
}

fn list(known: &[Known]) -> String {
    let all: Vec<String> = known.iter().map(Known::to_string).collect();
    all.join(", ")
}

fn names(labels: &[Label]) -> String {
    let labels: Vec<&str> = labels.iter().map(Label::as_str).collect();
    labels.join(", ")
}

fn instead(label: &Option<Label>) -> String {
    match label {
        Some(label) => format!("take {label} instead"),
        None => "there is no other set to take".into(),
    }
}

fn how_missing(stop: &Stop) -> &'static str {
    match stop.twice {
        true => "is archived twice with different content, and pgBackRest gives out neither",
        false => "is missing",
    }
}
