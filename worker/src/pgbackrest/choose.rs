//! Choosing what to restore: a set, and how far to go from there. Every refusal says what to do next.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, Archived, NoWay, Reach, Stop};
use super::info::{ArchiveInfo, BackupInfo, Database, Label};
use super::repository::{Loaded, Repository, RepositoryError};
use super::sets::{Set, WalRange, sets};

/// How far recovery goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// To the end of the archived WAL: the least is lost.
    #[default]
    End,
    /// Only until the set is consistent: everything after it is lost.
    Immediate,
    /// To a moment, for example the one before somebody dropped a table.
    Time(Timestamp),
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The label of a set; the newest that fits if none is named.
    pub set: Option<String>,
    /// How far to go.
    pub target: Target,
    /// The system id of the database that is expected, if one is.
    pub system_id: Option<u64>,
    /// Go on although segments are missing in the middle of the WAL, and lose what lies behind them.
    pub accept_gap: bool,
}

/// Everything that is read before a choice: one database of a stanza, its sets and its WAL.
#[derive(Debug, Clone)]
pub struct Stanza {
    /// What `backup.info` says.
    pub backups: Loaded<BackupInfo>,
    /// What `archive.info` says.
    pub archives: Loaded<ArchiveInfo>,
    /// The database that is wanted.
    pub database: Database,
    /// All sets, oldest first.
    pub sets: Vec<Set>,
    /// The WAL of the database that is wanted.
    pub archive: Archive,
}

/// What will be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The set.
    pub set: Set,
    /// Its WAL range.
    pub wal: WalRange,
    /// How far recovery is asked to go.
    pub target: Target,
    /// How far it can go.
    pub reach: Reach,
}

/// A database that has used the stanza.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    database: Database,
    sets: usize,
    newest: Option<Timestamp>,
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

/// Why there is no choice.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// The repository could not be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// It could, and what it holds is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Stanza {
    /// Reads all that a choice needs, for the database that is wanted.
    ///
    /// # Errors
    /// When something cannot be read, and when it is not clear which database is wanted.
    pub async fn read(
        repository: &Repository,
        system_id: Option<u64>,
    ) -> Result<Self, ChooseError> {
        let backups = repository.backups().await?;
        let archives = repository.archives().await?;
        let database = wanted_by(&backups.info, system_id)?;
        if archives.info.folders(&database).is_empty() {
            return Err(Refusal::FilesDisagree {
                system_id: database.system_id,
                version: database.version,
            }
            .into());
        }
        let labels: Vec<Label> = backups
            .info
            .backups
            .iter()
            .map(|(l, _)| l.clone())
            .collect();
        let manifests: BTreeSet<Label> = repository.manifests(&labels).await?.into_iter().collect();
        let archive = repository.archive(&archives.info, &database).await?;
        let sets = sets(&backups.info, &database, &manifests, &archive);
        Ok(Self {
            backups,
            archives,
            database,
            sets,
            archive,
        })
    }

    /// Chooses.
    ///
    /// # Errors
    /// With the reason and the next thing to do.
    pub fn choose(&self, wish: &Wish) -> Result<Choice, Refusal> {
        let set = match &wish.set {
            Some(label) => self.named(label)?,
            None => self.latest(wish.target)?,
        };
        if let Target::Time(target) = wish.target
            && !finished_before(set, target)
        {
            return Err(Refusal::SetAfterTarget {
                label: set.label.clone(),
                stop: set.stop,
                target,
                older: self.newest_before(target).map(|set| set.label.clone()),
            });
        }
        let Some(wal) = set.wal else {
            return Err(self.unusable(set));
        };
        let reach = match wish.target {
            // What it needs was found when the set was judged, and nothing else is read.
            Target::Immediate => self.archive.reach_alone(wal.first),
            _ => self.reach(set, &wal)?,
        };
        let choice = Choice {
            set: set.clone(),
            wal,
            target: wish.target,
            reach,
        };
        choice.goes_far_enough(wish.accept_gap)?;
        Ok(choice)
    }

    fn named(&self, label: &str) -> Result<&Set, Refusal> {
        let Some(set) = self.sets.iter().find(|set| set.label.as_str() == label) else {
            let near = nearest(label, self.sets.iter().map(|set| &set.label));
            let label = label.to_owned();
            return Err(match self.sets.is_empty() {
                true => Refusal::Empty,
                false => Refusal::NoSuchSet { label, near },
            });
        };
        if set.system_id != Some(self.database.system_id) {
            return Err(Refusal::OtherSystem {
                label: set.label.clone(),
                found: set.system_id,
                wanted: self.database.system_id,
                other: self.newest_usable(),
            });
        }
        match set.is_usable() {
            true => Ok(set),
            false => Err(self.unusable(set)),
        }
    }

    fn latest(&self, target: Target) -> Result<&Set, Refusal> {
        if self.sets.is_empty() {
            return Err(Refusal::Empty);
        }
        let Some(oldest) = self.usable().next() else {
            let why = |set: &Set| format!("{} ({})", set.label, set.why_not());
            return Err(Refusal::NoneUsable {
                why: self.sets.iter().map(why).collect(),
            });
        };
        match target {
            Target::End | Target::Immediate => Ok(self.usable().last().unwrap_or(oldest)),
            Target::Time(target) => {
                self.newest_before(target)
                    .ok_or_else(|| Refusal::BeforeFirst {
                        target,
                        label: oldest.label.clone(),
                        stop: oldest.stop,
                    })
            }
        }
    }

    fn reach(&self, set: &Set, wal: &WalRange) -> Result<Reach, Refusal> {
        self.archive.reach(wal.first, wal.start).map_err(|why| {
            let has_way = |set: &&Set| {
                set.wal
                    .is_some_and(|wal| self.archive.reach(wal.first, wal.start).is_ok())
            };
            Refusal::NoWay {
                label: set.label.clone(),
                why,
                other: self
                    .usable()
                    .filter(has_way)
                    .last()
                    .map(|s| s.label.clone()),
            }
        })
    }

    fn usable(&self) -> impl Iterator<Item = &Set> {
        self.sets.iter().filter(|set| set.is_usable())
    }

    fn newest_usable(&self) -> Option<Label> {
        self.usable().last().map(|set| set.label.clone())
    }

    fn newest_before(&self, target: Timestamp) -> Option<&Set> {
        self.usable()
            .filter(|set| finished_before(set, target))
            .last()
    }

    fn unusable(&self, set: &Set) -> Refusal {
        Refusal::Unusable {
            label: set.label.clone(),
            why: set.why_not(),
            other: self.newest_usable(),
        }
    }
}

impl Choice {
    /// The moment that recovery brings back, as far as the bucket can tell. A transaction is older than
    /// the object that holds it, so the truth may lie a little before; what is surely in the set is not lost.
    pub fn recovers_to(&self) -> Timestamp {
        match self.target {
            Target::Immediate => self.set.stop,
            Target::Time(target) => target,
            Target::End => self.reached(),
        }
    }

    fn reached(&self) -> Timestamp {
        let last = self.reach.last.map(|last| last.at);
        last.map_or(self.set.stop, |at| at.max(self.set.stop))
    }

    fn goes_far_enough(&self, accept_gap: bool) -> Result<(), Refusal> {
        let reached = self.reached();
        match (self.target, self.reach.stop) {
            (Target::Immediate, _) => Ok(()),
            (Target::Time(target), _) if target <= reached => Ok(()),
            (Target::Time(_), Some(stop)) => Err(Refusal::Gap { stop, reached }),
            (Target::Time(target), None) => match self.reach.last {
                Some(newest) => Err(Refusal::AfterArchive { target, newest }),
                None => Ok(()),
            },
            (Target::End, Some(stop)) if !accept_gap => Err(Refusal::Gap { stop, reached }),
            (Target::End, _) => Ok(()),
        }
    }
}

/// pgBackRest's own rule: finished before the second of the moment. A set's end is written down in whole
/// seconds, and PostgreSQL refuses a moment at which the set is not consistent yet.
fn finished_before(set: &Set, moment: Timestamp) -> bool {
    set.stop.as_second() < moment.as_second()
}

/// The database that is wanted: the expected one, or the only one.
pub(super) fn wanted_by(info: &BackupInfo, system_id: Option<u64>) -> Result<Database, Refusal> {
    let known = || {
        info.history
            .iter()
            .map(|database| known(info, database))
            .collect()
    };
    match system_id {
        // The newest of the numbers that it has had.
        Some(wanted) => {
            let found = info.history.iter().rfind(|d| d.system_id == wanted);
            found.cloned().ok_or_else(|| Refusal::UnknownSystem {
                wanted,
                known: known(),
            })
        }
        None => {
            let only = info.current.system_id;
            match info.history.iter().all(|d| d.system_id == only) {
                true => Ok(info.current.clone()),
                false => Err(Refusal::SeveralSystems { known: known() }),
            }
        }
    }
}

fn known(info: &BackupInfo, database: &Database) -> Known {
    let sets = info.backups.iter().filter(|(_, e)| e.db_id == database.id);
    Known {
        database: database.clone(),
        sets: sets.clone().count(),
        newest: sets.map(|(_, entry)| entry.backup_timestamp_stop).max(),
    }
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

/// The three labels that have most characters at the same places.
fn nearest<'a>(wanted: &str, labels: impl Iterator<Item = &'a Label>) -> Vec<Label> {
    let same = |label: &&Label| {
        let pairs = label.as_str().bytes().zip(wanted.bytes());
        let equal = pairs.filter(|(one, other)| one == other).count();
        Reverse((equal, Reverse(label.as_str().len().abs_diff(wanted.len()))))
    };
    let mut labels: Vec<&Label> = labels.collect();
    labels.sort_by_key(same);
    labels.into_iter().take(3).cloned().collect()
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
