//! Data directories, and the disks that they lie on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// The disks of a cluster's databases by name, and who runs on them. Clones share them; they outlive operators.
#[derive(Debug, Clone, Default)]
pub struct Disks(Arc<Mutex<BTreeMap<String, Disk>>>);

/// The disk of a primary.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// What lies on it.
    pub content: Content,
    /// Whether PostgreSQL runs on it and takes connections.
    pub running: bool,
    /// How often living data on it were written over.
    pub destroyed: u32,
}

/// What lies on a disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Content {
    /// Nothing.
    #[default]
    Empty,
    /// Some files of a restore that did not come to its end: no database starts on them.
    Half,
    /// A data directory.
    Data(Box<Data>),
}

/// What PostgreSQL calls a database cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// The id that `initdb` gave it.
    pub system_id: u64,
    /// Its timeline: one more with each recovery that ended in a promotion.
    pub timeline: u32,
    /// Whether it is in recovery.
    pub in_recovery: bool,
    /// Whether it keeps the moments of commits (`track_commit_timestamp`).
    pub commit_timestamps: bool,
    /// The newest commit since PostgreSQL was started: it is kept in memory, and a clean start forgets it.
    pub last_commit: Option<Timestamp>,
    /// The number of its current WAL segment.
    pub segment: u32,
    /// Who may log in, by name.
    pub roles: BTreeMap<String, Role>,
    /// Its databases, by name: their tables by schema and name.
    pub databases: BTreeMap<String, BTreeMap<(String, String), Table>>,
}

/// Someone who may log in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Role {
    /// The password; without one nobody gets in.
    pub password: Option<String>,
    /// Whether all is allowed.
    pub superuser: bool,
}

/// A table: one column, and in each row the moment it was committed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// The column's name.
    pub column: String,
    /// The rows, oldest first.
    pub rows: Vec<Timestamp>,
    /// Who may read it beside superusers.
    pub readers: BTreeSet<String>,
}

impl Disks {
    /// Looks at a disk, or changes it; one that was never heard of is empty.
    pub fn with<T>(&self, name: &str, work: impl FnOnce(&mut Disk) -> T) -> T {
        work(self.lock().entry(name.to_owned()).or_default())
    }

    /// The disk as it is now.
    pub fn get(&self, name: &str) -> Disk {
        self.with(name, |disk| disk.clone())
    }

    /// Commits a row into a table of a running database, and makes the table if there is none; whether it
    /// was there to take it. The moment is to be later than those of other rows.
    pub fn insert(&self, disk: &str, database: &str, table: &str, at: Timestamp) -> bool {
        self.with(disk, |disk| {
            let Some(data) = disk.data_mut().filter(|data| !data.in_recovery) else {
                return false;
            };
            let tables = data.databases.entry(database.to_owned()).or_default();
            let table = tables
                .entry(("public".to_owned(), table.to_owned()))
                .or_insert_with(|| Table {
                    column: "ts".to_owned(),
                    ..Table::default()
                });
            // PostgreSQL counts microseconds.
            let at = Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
            table.rows.push(at);
            data.last_commit = Some(at);
            true
        })
    }

    /// Lets somebody read a table.
    pub fn grant(&self, disk: &str, database: &str, table: &str, role: &str) {
        self.with(disk, |disk| {
            let key = ("public".to_owned(), table.to_owned());
            let data = disk.data_mut();
            let table = data.and_then(|data| data.databases.get_mut(database)?.get_mut(&key));
            if let Some(table) = table {
                table.readers.insert(role.to_owned());
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Disk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// The data directory, if PostgreSQL runs on it.
    pub fn data(&self) -> Option<&Data> {
        match &self.content {
            Content::Data(data) if self.running => Some(data),
            _ => None,
        }
    }

    fn data_mut(&mut self) -> Option<&mut Data> {
        match &mut self.content {
            Content::Data(data) if self.running => Some(data),
            _ => None,
        }
    }
}

impl Data {
    /// What `initdb` makes.
    pub fn initdb() -> Self {
        // PostgreSQL puts the clock into the upper half, and so may two of one moment differ only below.
        let clock = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let superuser = Role {
            password: None,
            superuser: true,
        };
        Self {
            system_id: clock << 32 | u64::from(rand::random::<u32>()),
            timeline: 1,
            in_recovery: false,
            commit_timestamps: true,
            last_commit: None,
            segment: 1,
            roles: BTreeMap::from([("postgres".to_owned(), superuser)]),
            databases: BTreeMap::from([("postgres".to_owned(), BTreeMap::new())]),
        }
    }

    /// The same as it was at a moment.
    #[must_use]
    pub fn at(&self, moment: Timestamp) -> Self {
        let mut then = self.clone();
        for table in then.databases.values_mut().flat_map(BTreeMap::values_mut) {
            table.rows.retain(|row| *row <= moment);
        }
        then
    }

    /// How many rows there are in all tables.
    pub fn rows(&self) -> usize {
        let tables = self.databases.values().flat_map(BTreeMap::values);
        tables.map(|table| table.rows.len()).sum()
    }
}
