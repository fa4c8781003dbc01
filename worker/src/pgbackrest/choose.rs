//! Choosing what to restore: a set, and how far to go from there.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, Reach};
use super::info::{ArchiveInfo, BackupInfo, Database, Label};
use super::refusal::{Known, Refusal};
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
