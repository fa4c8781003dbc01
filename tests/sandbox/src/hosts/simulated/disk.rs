//! A volume: it outlives the machines it is plugged into, and so does everything on it.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Entry, Node, Tree};

/// What a volume is seeded with; see [`super::SimulatedHosts::seed`].
#[derive(Clone, Debug)]
pub enum Seed {
    /// An ext4 file system.
    Ext4 {
        /// Its UUID.
        uuid: String,
        /// Its label, may be empty.
        label: String,
        /// Path (`/pgdata/PG_VERSION`) → content.
        files: BTreeMap<String, Vec<u8>>,
    },
    /// An encrypted volume.
    Luks,
    /// A DOS partition table.
    PartitionTable,
    /// Bytes at this offset that no tool has a name for.
    RawBytes(u64),
}

/// What a volume looks like, for assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskView {
    /// Size in bytes.
    pub size: u64,
    /// `ext4`, `xfs`, `crypto_LUKS`, `dos`; `None` for a blank one.
    pub signature: Option<String>,
    /// The file system's UUID.
    pub uuid: Option<String>,
    /// The file system's label.
    pub label: Option<String>,
    /// How often a file system was made on it.
    pub formatted: u32,
    /// How often a file system was made over something else.
    pub overwritten: u32,
    /// The files on it.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The server it is plugged into, and as what.
    pub plugged: Option<(String, String)>,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) size: u64,
    pub(super) content: Content,
    /// Offsets of bytes that are not zero, beside those of `content`.
    pub(super) raw: BTreeSet<u64>,
    pub(super) formatted: u32,
    pub(super) overwritten: u32,
    /// Server id and device name.
    pub(super) plugged: Option<(String, String)>,
    /// Grows with each plugging, so that a mount of a pulled disk stays dead.
    pub(super) plugging: u64,
    /// Reads fail.
    pub(super) broken: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Blank,
    FileSystem(FileSystem),
    Luks { uuid: String },
    PartitionTable { uuid: String },
}

#[derive(Clone, Debug)]
pub(super) struct FileSystem {
    pub(super) kind: &'static str,
    pub(super) uuid: String,
    pub(super) label: String,
    pub(super) tree: Tree,
}

impl Disk {
    pub(super) fn blank(size: u64) -> Self {
        Self {
            size,
            content: Content::Blank,
            raw: BTreeSet::new(),
            formatted: 0,
            overwritten: 0,
            plugged: None,
            plugging: 0,
            broken: false,
        }
    }

    pub(super) fn seed(&mut self, seed: Seed) {
        match seed {
            Seed::Ext4 { uuid, label, files } => {
                let mut tree = Tree::default();
                for (path, bytes) in files {
                    let made = tree
                        .make_directories(super::tree::parent(&path))
                        .and_then(|()| tree.write(&path, bytes));
                    made.expect("a fresh tree takes any absolute path");
                }
                self.content = Content::FileSystem(FileSystem {
                    kind: "ext4",
                    uuid,
                    label,
                    tree,
                });
            }
            Seed::Luks => self.content = Content::Luks { uuid: new_uuid() },
            Seed::PartitionTable => {
                let uuid = new_uuid()[..8].to_owned();
                self.content = Content::PartitionTable { uuid };
            }
            Seed::RawBytes(at) => {
                self.raw.insert(at);
            }
        }
    }

    /// Makes a file system, whatever was there.
    pub(super) fn format(&mut self, kind: &'static str, uuid: String, label: String) {
        self.formatted += 1;
        if !matches!(self.content, Content::Blank) || !self.raw.is_empty() {
            self.overwritten += 1;
        }
        let mut tree = Tree::default();
        if kind == "ext4" {
            let mut entry = Entry::new(Node::Directory);
            entry.mode = 0o700;
            tree.put("/lost+found", entry)
                .expect("the root of a fresh tree is there");
        }
        self.raw.clear();
        self.content = Content::FileSystem(FileSystem {
            kind,
            uuid,
            label,
            tree,
        });
    }

    pub(super) fn file_system(&self) -> Option<&FileSystem> {
        match &self.content {
            Content::FileSystem(fs) => Some(fs),
            _ => None,
        }
    }

    pub(super) fn file_system_mut(&mut self) -> Option<&mut FileSystem> {
        match &mut self.content {
            Content::FileSystem(fs) => Some(fs),
            _ => None,
        }
    }

    /// What tools call that which is on it.
    pub(super) fn signature(&self) -> Option<&'static str> {
        match &self.content {
            Content::Blank => None,
            Content::FileSystem(fs) => Some(fs.kind),
            Content::Luks { .. } => Some("crypto_LUKS"),
            Content::PartitionTable { .. } => Some("dos"),
        }
    }

    /// The first byte in `from..to` that is not zero.
    pub(super) fn first_nonzero(&self, from: u64, to: u64) -> Option<u64> {
        let of_content = match &self.content {
            Content::Blank => None,
            Content::FileSystem(fs) if fs.kind == "ext4" => Some(1024),
            Content::FileSystem(_) | Content::Luks { .. } => Some(0),
            Content::PartitionTable { .. } => Some(440),
        };
        let raw = self.raw.range(from..to).next().copied();
        let found = of_content.filter(|at| (from..to).contains(at));
        [raw, found].into_iter().flatten().min()
    }

    pub(super) fn view(&self) -> DiskView {
        let fs = self.file_system();
        let files = fs.map(|fs| fs.tree.files());
        DiskView {
            size: self.size,
            signature: self.signature().map(str::to_owned),
            uuid: fs.map(|fs| fs.uuid.clone()),
            label: fs.map(|fs| fs.label.clone()),
            formatted: self.formatted,
            overwritten: self.overwritten,
            files: files
                .into_iter()
                .flatten()
                .map(|(path, bytes)| (path.to_owned(), bytes.to_vec()))
                .collect(),
            plugged: self.plugged.clone(),
        }
    }
}

pub(super) fn new_uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}
