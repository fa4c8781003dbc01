//! A real stanza (`fixtures/`, made by pgBackRest 2.45 and PostgreSQL 15), and what can befall it.

mod archive;
mod choose;
mod fuzz;
mod info;
mod objects;
mod plan;
mod source;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::pgbackrest::choose::wanted_by;
use crate::pgbackrest::ini::resealed;

/// One database with a full set, a difference to it and an increment to that.
const BACKUP_INFO: &str = include_str!("../fixtures/backup.info");
const ARCHIVE_INFO: &str = include_str!("../fixtures/archive.info");

/// The same after an empty cluster was pointed at the repository: `stanza-upgrade`, and a full set of it.
const TWO_BACKUP_INFO: &str = include_str!("../fixtures/two-systems.backup.info");
const TWO_ARCHIVE_INFO: &str = include_str!("../fixtures/two-systems.archive.info");

const SYSTEM: u64 = 7_711_174_403_467_544_656;
const OTHER_SYSTEM: u64 = 7_711_174_623_377_886_675;

const FULL: &str = "20261123-013502F";
const DIFF: &str = "20261123-013502F_20261123-013508D";
const INCR: &str = "20261123-013502F_20261123-013510I";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn segment(timeline: u32, number: u64) -> Segment {
    Segment { timeline, number }
}

fn lsn(text: &str) -> Lsn {
    text.parse().expect("an LSN")
}

/// A stanza as it is read, and with it one's own disaster.
struct World {
    backup_info: String,
    archive_info: String,
    /// Labels of sets without a manifest.
    gone: Vec<&'static str>,
    archive: Archive,
    system_id: Option<u64>,
}

impl World {
    /// All is well: segments 1 to 10, one a minute after the last set.
    fn new() -> Self {
        Self {
            backup_info: BACKUP_INFO.to_owned(),
            archive_info: ARCHIVE_INFO.to_owned(),
            gone: Vec::new(),
            archive: archived(1..=10),
            system_id: None,
        }
    }

    /// The same with a text of backup.info replaced and the checksum made anew.
    fn with(find: &str, replace: &str) -> Self {
        assert!(BACKUP_INFO.contains(find), "{find}");
        let mut world = Self::new();
        world.backup_info = resealed(&BACKUP_INFO.replace(find, replace));
        world
    }

    /// The same with two databases.
    fn two_systems(system_id: Option<u64>) -> Self {
        Self {
            backup_info: TWO_BACKUP_INFO.to_owned(),
            archive_info: TWO_ARCHIVE_INFO.to_owned(),
            system_id,
            ..Self::new()
        }
    }

    fn stanza(&self) -> Stanza {
        let info = BackupInfo::parse(self.backup_info.as_bytes()).expect("backup.info");
        let archives = ArchiveInfo::parse(self.archive_info.as_bytes()).expect("archive.info");
        let database = wanted_by(&info, self.system_id).expect("a database");
        let labels = info.backups.iter().map(|(label, _)| label.clone());
        let manifests: BTreeSet<Label> = labels
            .filter(|label| !self.gone.contains(&label.as_str()))
            .collect();
        let sets = sets(&info, &database, &manifests, &self.archive);
        Stanza {
            backups: loaded(info),
            archives: loaded(archives),
            database,
            sets,
            archive: self.archive.clone(),
        }
    }

    fn choose(&self, wish: &Wish) -> Result<Choice, Refusal> {
        self.stanza().choose(wish)
    }
}

fn loaded<T>(info: T) -> Loaded<T> {
    let from_copy = None;
    Loaded { info, from_copy }
}

/// Segments of the first timeline: those of the sets within seconds of each other, then one a minute.
fn archived(numbers: impl IntoIterator<Item = u64>) -> Archive {
    let mut archive = Archive::default();
    for number in numbers {
        archive.add_segment(segment(1, number), arrival(number));
    }
    archive
}

fn arrival(number: u64) -> Timestamp {
    let seconds = match number {
        0..=7 => number,
        _ => (number - 7) * 60,
    };
    let seconds = i64::try_from(seconds).expect("few");
    at("2026-11-23T01:35:05Z") + SignedDuration::from_secs(seconds)
}

fn to(target: &str) -> Wish {
    Wish {
        target: Target::Time(at(target)),
        ..Wish::default()
    }
}

fn named(label: &str) -> Wish {
    Wish {
        set: Some(label.to_owned()),
        ..Wish::default()
    }
}
