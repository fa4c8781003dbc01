//! The backup sets of a stanza, each with what it is and, when a restore cannot use it, exactly why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::archive::Archive;
use super::info::{BackupInfo, Database, Entry, Kind, Label};
use super::wal::{Lsn, Segment};

/// One backup set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Set {
    /// Its name; the time in it is UTC, as the operator's containers have it.
    pub label: Label,
    /// What it holds.
    pub kind: Kind,
    /// When it was begun.
    pub start: Timestamp,
    /// When it was finished. It cannot bring back an earlier moment.
    pub stop: Timestamp,
    /// The number of its database in `backup.info`.
    pub db_id: u64,
    /// Its database's system id, if the file knows the number.
    pub system_id: Option<u64>,
    /// The WAL without which it is not consistent.
    pub wal: Option<WalRange>,
    /// Bytes of the database.
    pub size: u64,
    /// Bytes that it takes in the repository with all sets that it needs: what a restore downloads.
    pub repo_size: u64,
    /// Bytes that it takes alone.
    pub repo_size_delta: u64,
    /// The sets that hold parts of it.
    pub references: Vec<String>,
    /// What its maker wrote on it.
    pub annotations: BTreeMap<String, String>,
    /// Why it is of no use; empty when it is good.
    pub flaws: Vec<Flaw>,
}

/// The part of the WAL that was written while a set was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WalRange {
    /// The segment it begins in.
    pub first: Segment,
    /// The segment it ends in.
    pub last: Segment,
    /// Where it begins.
    pub start: Lsn,
    /// Where it ends.
    pub stop: Lsn,
}

/// Why a set is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// pgBackRest saw pages with wrong checksums when it made it.
    PageErrors,
    /// A set that holds a part of it is gone.
    NoReference(String),
    /// It is of another database than the one that is wanted.
    OtherDatabase {
        /// The number of its database.
        db_id: u64,
        /// Its system id, if it is known.
        system_id: Option<u64>,
    },
    /// It was never finished, or was deleted by half.
    NoManifest,
    /// It does not say which WAL it needs.
    NoWalRange,
    /// A segment of the WAL that it needs cannot be got.
    NoWal(Segment),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageErrors => f.write_str("damaged pages were found when it was made"),
            Self::NoReference(label) => write!(f, "it needs the set {label}, which is gone"),
            Self::OtherDatabase {
                db_id,
                system_id: Some(system_id),
            } => write!(f, "it is of database {db_id} (system id {system_id})"),
            Self::OtherDatabase { db_id, .. } => {
                write!(
                    f,
                    "it is of database {db_id}, which backup.info does not know"
                )
            }
            Self::NoManifest => f.write_str("its backup.manifest is missing"),
            Self::NoWalRange => f.write_str("it does not say which WAL it needs"),
            Self::NoWal(segment) => write!(f, "WAL segment {segment}, which it needs, is missing"),
        }
    }
}

impl Set {
    /// Whether a restore can use it.
    pub fn is_usable(&self) -> bool {
        self.flaws.is_empty()
    }

    /// Its flaws as one text.
    pub fn why_not(&self) -> String {
        let flaws: Vec<String> = self.flaws.iter().map(Flaw::to_string).collect();
        flaws.join("; ")
    }
}

/// The sets of a stanza, oldest first, judged for a restore of one database.
pub fn sets(
    info: &BackupInfo,
    wanted: &Database,
    manifests: &BTreeSet<Label>,
    archive: &Archive,
) -> Vec<Set> {
    let listed: BTreeSet<&str> = info
        .backups
        .iter()
        .map(|(label, _)| label.as_str())
        .collect();
    let whole: BTreeSet<&str> = manifests.iter().map(Label::as_str).collect();
    let is_there = |label: &str| listed.contains(label) && whole.contains(label);
    let mut sets: Vec<Set> = Vec::new();
    for (label, entry) in &info.backups {
        let mut set = Set::of(label, entry);
        set.system_id = info
            .database(entry.db_id)
            .map(|database| database.system_id);
        let mut flaws = Vec::new();
        if set.system_id != Some(wanted.system_id) {
            flaws.push(Flaw::OtherDatabase {
                db_id: set.db_id,
                system_id: set.system_id,
            });
        }
        if entry.backup_error == Some(true) {
            flaws.push(Flaw::PageErrors);
        }
        if !whole.contains(label.as_str()) {
            flaws.push(Flaw::NoManifest);
        }
        let needs = set.references.iter().chain(&entry.backup_prior);
        let gone: BTreeSet<&String> = needs.filter(|label| !is_there(label)).collect();
        flaws.extend(gone.into_iter().cloned().map(Flaw::NoReference));
        match set.wal {
            None => flaws.push(Flaw::NoWalRange),
            // Of another database's WAL nothing was listed, and a set may carry its own.
            Some(_) if set.system_id != Some(wanted.system_id) || entry.option_archive_copy => {}
            Some(wal) => {
                flaws.extend(archive.missing(wal.first, wal.last).map(Flaw::NoWal));
            }
        }
        set.flaws = flaws;
        sets.push(set);
    }
    sets.sort_by(|one, other| (one.stop, &one.label).cmp(&(other.stop, &other.label)));
    sets
}

impl Set {
    /// What the file says of a set, before it is judged.
    fn of(label: &Label, entry: &Entry) -> Self {
        Self {
            label: label.clone(),
            kind: entry.backup_type,
            start: entry.backup_timestamp_start,
            stop: entry.backup_timestamp_stop,
            db_id: entry.db_id,
            system_id: None,
            wal: wal_range(entry),
            size: entry.backup_info_size,
            repo_size: entry.backup_info_repo_size,
            repo_size_delta: entry.backup_info_repo_size_delta,
            references: entry.backup_reference.clone().unwrap_or_default(),
            annotations: entry.backup_annotation.clone().unwrap_or_default(),
            flaws: Vec::new(),
        }
    }
}

/// The WAL range of a set; none when a part of it is missing or the parts contradict each other.
fn wal_range(entry: &Entry) -> Option<WalRange> {
    let range = WalRange {
        first: entry.backup_archive_start.as_deref()?.parse().ok()?,
        last: entry.backup_archive_stop.as_deref()?.parse().ok()?,
        start: entry.backup_lsn_start.as_deref()?.parse().ok()?,
        stop: entry.backup_lsn_stop.as_deref()?.parse().ok()?,
    };
    let good = range.first.timeline == range.last.timeline
        && range.first.number <= range.last.number
        && range.start <= range.stop;
    good.then_some(range)
}
