//! What `backup.info` and `archive.info` say: the databases that a stanza has seen, and its backup sets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ini::{InfoError, Ini};

/// Most bytes of an info file that are read. A set takes about a kilobyte, so this is many years.
pub(super) const MOST_BYTES: u64 = 16 << 20;

/// One PostgreSQL cluster that has used the stanza.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Its number in this file; sets and archive folders refer to it.
    pub id: u64,
    /// PostgreSQL's own id of it, made by `initdb`.
    pub system_id: u64,
    /// PostgreSQL's version as pgBackRest writes it: `17`, `9.6`.
    pub version: String,
}

/// `backup.info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupInfo {
    /// The database that backs up here now.
    pub current: Database,
    /// All that ever did, in the order they came; the current one is among them.
    pub history: Vec<Database>,
    /// The backups that were finished and not expired, by label.
    pub backups: Vec<(Label, Entry)>,
}

/// `archive.info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveInfo {
    /// The database that archives here now.
    pub current: Database,
    /// All that ever did.
    pub history: Vec<Database>,
}

/// The name of a backup set: `20261123-013502F`, or `20261123-013502F_20261123-013510I` for one that
/// needs others. It goes into a shell command of the operator, so nothing else passes for one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Everything.
    Full,
    /// What changed since the last full one.
    Diff,
    /// What changed since the last one of any kind.
    Incr,
}

/// One set as `backup.info` has it. Fields that we do not use are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// What it holds.
    pub backup_type: Kind,
    /// When it was begun, in Unix seconds.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub backup_timestamp_start: Timestamp,
    /// When it was finished.
    #[serde(with = "jiff::fmt::serde::timestamp::second::required")]
    pub backup_timestamp_stop: Timestamp,
    /// The first WAL segment that a restore needs.
    #[serde(default)]
    pub backup_archive_start: Option<String>,
    /// The last WAL segment without which it is not consistent.
    #[serde(default)]
    pub backup_archive_stop: Option<String>,
    /// Where in the WAL it begins.
    #[serde(default)]
    pub backup_lsn_start: Option<String>,
    /// Where in the WAL it is consistent.
    #[serde(default)]
    pub backup_lsn_stop: Option<String>,
    /// The set that this one is a difference to.
    #[serde(default)]
    pub backup_prior: Option<String>,
    /// All sets that hold a part of it.
    #[serde(default)]
    pub backup_reference: Option<Vec<String>>,
    /// Whether pages with wrong checksums were seen while it was made. Old versions do not say.
    #[serde(default)]
    pub backup_error: Option<bool>,
    /// What its maker wrote on it.
    #[serde(default)]
    pub backup_annotation: Option<BTreeMap<String, String>>,
    /// Bytes of the database.
    pub backup_info_size: u64,
    /// Bytes of it that this set alone holds.
    pub backup_info_size_delta: u64,
    /// Bytes in the repository, compressed, with all sets that it needs.
    pub backup_info_repo_size: u64,
    /// Bytes in the repository of this set alone.
    pub backup_info_repo_size_delta: u64,
    /// The database it is of.
    pub db_id: u64,
    /// Whether the WAL that it needs was copied into it.
    #[serde(default)]
    pub option_archive_copy: bool,
    /// Whether it was taken from a running database: else it needs no WAL.
    #[serde(default = "yes")]
    pub option_online: bool,
}

fn yes() -> bool {
    true
}

/// A database in `backup.info`'s history.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OfBackup {
    db_system_id: u64,
    db_version: String,
}

/// The same in `archive.info`, where the system id is called `db-id`: a slip that pgBackRest cannot
/// repair without a new format.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OfArchive {
    db_id: u64,
    db_version: String,
}

impl BackupInfo {
    /// Reads `backup.info`.
    ///
    /// # Errors
    /// When it is encrypted, not whole, or of another format.
    pub fn parse(bytes: &[u8]) -> Result<Self, InfoError> {
        let ini = within_bounds(bytes)?;
        let history = history(&ini, |of: OfBackup| (of.db_system_id, of.db_version))?;
        let current = current(&ini, &history)?;
        let mut seen = BTreeSet::new();
        let mut backups = Vec::new();
        for (label, entry) in ini.objects::<Entry>("backup:current")? {
            let bad = || InfoError::unknown(format!("`{label:.60}` is not the label of a backup"));
            let label = Label::parse(label).ok_or_else(bad)?;
            if !seen.insert(label.clone()) {
                return Err(InfoError::unknown(format!("the set {label} stands twice")));
            }
            backups.push((label, entry));
        }
        Ok(Self {
            current,
            history,
            backups,
        })
    }

    /// A database by its number.
    pub fn database(&self, id: u64) -> Option<&Database> {
        self.history.iter().find(|database| database.id == id)
    }
}

impl ArchiveInfo {
    /// Reads `archive.info`.
    ///
    /// # Errors
    /// When it is encrypted, not whole, or of another format.
    pub fn parse(bytes: &[u8]) -> Result<Self, InfoError> {
        let ini = within_bounds(bytes)?;
        let history = history(&ini, |of: OfArchive| (of.db_id, of.db_version))?;
        let current = current(&ini, &history)?;
        Ok(Self { current, history })
    }

    /// The folders below the archive that hold a database's WAL. pgBackRest looks into each whose
    /// version and system id are the database's.
    pub fn folders(&self, database: &Database) -> Vec<String> {
        let same =
            |d: &&Database| d.system_id == database.system_id && d.version == database.version;
        let folder = |d: &Database| format!("{}-{}", d.version, d.id);
        self.history.iter().filter(same).map(folder).collect()
    }
}

fn within_bounds(bytes: &[u8]) -> Result<Ini<'_>, InfoError> {
    let length = bytes.len() as u64;
    if length > MOST_BYTES {
        return Err(InfoError::TooLarge {
            bytes: length,
            most: MOST_BYTES,
        });
    }
    Ini::parse(bytes)
}

fn history<T: serde::de::DeserializeOwned>(
    ini: &Ini<'_>,
    read: impl Fn(T) -> (u64, String),
) -> Result<Vec<Database>, InfoError> {
    let mut databases: Vec<Database> = Vec::new();
    for (id, of) in ini.objects::<T>("db:history")? {
        let (system_id, version) = read(of);
        let bad = || {
            InfoError::unknown(format!(
                "[db:history] `{id:.60}` is not a number of its own"
            ))
        };
        let id = id.parse().map_err(|_| bad())?;
        if databases.iter().any(|database| database.id == id) {
            return Err(bad());
        }
        // It becomes a part of a key in the bucket.
        if version.is_empty() || !version.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            let reason = format!("`{version:.60}` is not a version of PostgreSQL");
            return Err(InfoError::unknown(reason));
        }
        databases.push(Database {
            id,
            system_id,
            version,
        });
    }
    Ok(databases)
}

fn current(ini: &Ini<'_>, history: &[Database]) -> Result<Database, InfoError> {
    let id = ini.number("db", "db-id")?;
    let system_id = ini.number("db", "db-system-id")?;
    let found = history
        .iter()
        .find(|d| d.id == id && d.system_id == system_id);
    let missing =
        || InfoError::unknown(format!("[db:history] has no database {id} as [db] has it"));
    found.cloned().ok_or_else(missing)
}

impl Label {
    /// Reads a label.
    pub fn parse(text: &str) -> Option<Self> {
        let time = |text: &str| {
            let digit = |(at, byte): (usize, u8)| match at {
                8 => byte == b'-',
                _ => byte.is_ascii_digit(),
            };
            text.len() == 15 && text.bytes().enumerate().all(digit)
        };
        let (full, rest) = text.split_once('F')?;
        let good = match rest.strip_prefix('_') {
            None => rest.is_empty(),
            Some(rest) => rest.strip_suffix(['D', 'I']).is_some_and(time),
        };
        (time(full) && good).then(|| Self(text.to_owned()))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text:.80}` is not the name of a set"))
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Full => "full",
            Self::Diff => "diff",
            Self::Incr => "incr",
        })
    }
}
