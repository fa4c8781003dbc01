//! A directory tree in memory: what a file system holds.
//!
//! Paths here are absolute within the tree, without a trailing slash; the root is `/`. Symbolic
//! links are entries like others and are followed by [`super::machine`], which knows the mounts.

use std::collections::BTreeMap;

use thiserror::Error;

/// Why a file operation failed; prints as the C library would say it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum FsError {
    #[error("No such file or directory")]
    NotFound,
    #[error("Is a directory")]
    IsDirectory,
    #[error("Not a directory")]
    NotDirectory,
    #[error("File exists")]
    Exists,
    #[error("Directory not empty")]
    NotEmpty,
    #[error("Read-only file system")]
    ReadOnly,
    #[error("Operation not permitted")]
    NotPermitted,
    #[error("Device or resource busy")]
    Busy,
    #[error("Input/output error")]
    Io,
    #[error("Too many levels of symbolic links")]
    Loop,
    #[error("Invalid argument")]
    Invalid,
}

/// A file, directory or symbolic link with its owner and mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) node: Node,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    /// `chattr +i`
    pub(super) immutable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(Vec<u8>),
    Directory,
    Link(String),
    /// `/dev/<name>`; only ever made by the machine itself.
    Block(String),
    /// `/dev/null`, `/dev/zero`
    Character,
}

impl Entry {
    /// Kind, owner, mode and content in one line.
    pub(super) fn describe(&self) -> String {
        let what = match &self.node {
            Node::File(bytes) => format!("file {:?}", String::from_utf8_lossy(bytes)),
            Node::Directory => "directory".to_owned(),
            Node::Link(to) => format!("link to {to}"),
            Node::Block(name) => format!("block device {name}"),
            Node::Character => "character device".to_owned(),
        };
        format!("{}:{} {:04o} {what}", self.uid, self.gid, self.mode)
    }

    pub(super) fn new(node: Node) -> Self {
        let mode = match node {
            Node::Directory => 0o755,
            Node::File(_) => 0o644,
            Node::Link(_) => 0o777,
            Node::Block(_) => 0o660,
            Node::Character => 0o666,
        };
        Self {
            node,
            uid: 0,
            gid: 0,
            mode,
            immutable: false,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tree(BTreeMap<String, Entry>);

impl Default for Tree {
    fn default() -> Self {
        let root = Entry::new(Node::Directory);
        Self(BTreeMap::from([("/".to_owned(), root)]))
    }
}

impl Tree {
    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(path)
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Entry> {
        self.0.get_mut(path)
    }

    pub(super) fn is_empty_directory(&self, path: &str) -> bool {
        self.children(path).next().is_none()
    }

    /// Names of the direct children.
    pub(super) fn children<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> {
        let prefix = below(path);
        self.0
            .range(prefix.clone()..)
            .map(|(path, _)| path.as_str())
            .map_while(move |path| path.strip_prefix(prefix.as_str()))
            .filter(|name| !name.is_empty() && !name.contains('/'))
    }

    /// Everything with its path, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// All files with their paths.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().filter_map(|(path, entry)| match &entry.node {
            Node::File(bytes) => Some((path.as_str(), bytes.as_slice())),
            _ => None,
        })
    }

    /// Adds or replaces an entry; its directory must exist.
    pub(super) fn put(&mut self, path: &str, entry: Entry) -> Result<(), FsError> {
        let parent = self.0.get(parent(path)).ok_or(FsError::NotFound)?;
        if parent.node != Node::Directory {
            return Err(FsError::NotDirectory);
        }
        if parent.immutable && !self.0.contains_key(path) {
            return Err(FsError::NotPermitted);
        }
        if self.0.get(path).is_some_and(|e| e.immutable) {
            return Err(FsError::NotPermitted);
        }
        self.0.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Writes a file, keeping owner and mode of one that is there.
    pub(super) fn write(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), FsError> {
        let entry = match self.0.get(path) {
            Some(Entry {
                node: Node::Directory,
                ..
            }) => return Err(FsError::IsDirectory),
            Some(known) => Entry {
                node: Node::File(bytes),
                ..known.clone()
            },
            None => Entry::new(Node::File(bytes)),
        };
        self.put(path, entry)
    }

    /// Makes a directory and all above it.
    pub(super) fn make_directories(&mut self, path: &str) -> Result<(), FsError> {
        for (at, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            let path = &path[..at];
            match self.0.get(path).map(|e| &e.node) {
                Some(Node::Directory) => {}
                Some(_) => return Err(FsError::NotDirectory),
                None if path.is_empty() => {}
                None => self.put(path, Entry::new(Node::Directory))?,
            }
        }
        Ok(())
    }

    /// Removes an entry and everything below it.
    pub(super) fn remove(&mut self, path: &str) -> Result<(), FsError> {
        let entry = self.0.get(path).ok_or(FsError::NotFound)?;
        let parent = self.0.get(parent(path));
        if entry.immutable || parent.is_some_and(|p| p.immutable) {
            return Err(FsError::NotPermitted);
        }
        let prefix = below(path);
        self.0
            .retain(|known, _| known != path && !known.starts_with(&prefix));
        Ok(())
    }

    /// Takes a subtree out, with paths relative to `path` (the first is empty).
    pub(super) fn take(&mut self, path: &str) -> Result<Vec<(String, Entry)>, FsError> {
        let prefix = below(path);
        let taken = self
            .0
            .iter()
            .filter(|(known, _)| *known == path || known.starts_with(&prefix))
            .map(|(known, entry)| (known[path.len()..].to_owned(), entry.clone()))
            .collect();
        self.remove(path)?;
        Ok(taken)
    }
}

fn below(path: &str) -> String {
    match path {
        "/" => "/".to_owned(),
        path => format!("{path}/"),
    }
}

/// The directory of a path.
pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// The last part of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
