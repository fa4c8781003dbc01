//! What an entry of an archive asks for, and the limits on all of them together.

use super::error::Reason;
use super::header::Header;
use super::name::{Name, plain};

/// How much an image may hold. An archive says how large it is only as it goes, so a hostile one is
/// stopped when it passes a limit, and what was written is removed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Entries of any kind.
    pub entries: u64,
}

impl Default for Limits {
    /// Ten times what an image with all of Ansible needs.
    fn default() -> Self {
        Self {
            bytes: 8 << 30,
            entries: 600_000,
        }
    }
}

impl Limits {
    /// How long the decompressed archive may be: files, and three units of headers and padding each.
    pub(crate) fn stream(&self) -> u64 {
        self.bytes.saturating_add(self.entries.saturating_mul(1536))
    }

    pub(crate) fn too_many_bytes(&self) -> Reason {
        Reason::Limit {
            what: "bytes",
            limit: self.bytes,
        }
    }

    pub(crate) fn too_many_entries(&self) -> Reason {
        Reason::Limit {
            what: "entries",
            limit: self.entries,
        }
    }
}

/// One entry, checked: what it names lies inside the tree as far as its text can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) attributes: Attributes,
}

/// Owner, mode and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits; the sticky bit for directories. Never setuid or setgid.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    /// A symbolic link to this text, whatever it says: it is followed inside the tree only.
    Symlink(Vec<u8>),
    HardLink(Name),
    /// Not made: a device node or a FIFO.
    Node,
}

/// What was left out, because a run has no use for it and an attacker might.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dropped {
    /// Device nodes and FIFOs. A run gets its own /dev.
    pub nodes: u64,
    /// Setuid and setgid bits of files and directories; the entries themselves are kept.
    pub setid: u64,
    /// Extended attributes: file capabilities, overlay markers, ACLs, labels.
    pub xattrs: u64,
}

impl Entry {
    /// Judges a header, with its extensions applied.
    pub(crate) fn judge(header: Header, dropped: &mut Dropped) -> Result<Self, Reason> {
        let name = Name::parse(&header.name)?;
        if name.leaf().starts_with(b".wh.") {
            return Err(Reason::Whiteout);
        }
        let kind = match header.kind {
            b'0' | b'7' | 0 => Kind::File,
            b'1' => {
                plain(&header.link)?;
                Kind::HardLink(Name::parse(&header.link)?)
            }
            b'2' => {
                if header.link.is_empty() {
                    return Err(Reason::EmptyName);
                }
                plain(&header.link)?;
                Kind::Symlink(header.link)
            }
            b'3' | b'4' | b'6' => Kind::Node,
            b'5' => Kind::Directory,
            b'S' => return Err(Reason::Sparse),
            other => return Err(Reason::UnknownType(other)),
        };
        if kind != Kind::Directory {
            if name.is_root() {
                return Err(Reason::ReplacesRoot);
            }
            if header.name.ends_with(b"/") || header.name.ends_with(b"/.") {
                return Err(Reason::NotADirectory);
            }
        }
        if kind != Kind::File && header.size != 0 {
            return Err(Reason::UnexpectedContents);
        }
        let kept = match kind {
            Kind::Directory => 0o1777,
            _ => 0o777,
        };
        match kind {
            Kind::Node => dropped.nodes += 1,
            Kind::File | Kind::Directory if header.mode & 0o6000 != 0 => dropped.setid += 1,
            _ => {}
        }
        Ok(Self {
            name,
            kind,
            size: header.size,
            attributes: Attributes {
                mode: header.mode & kept,
                uid: header.uid,
                gid: header.gid,
                mtime: header.mtime,
            },
        })
    }
}
