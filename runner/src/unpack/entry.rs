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

/// What the names of whiteouts begin with.
const WHITEOUT: &[u8] = b".wh.";
/// What hides all that the layers below have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

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
    /// What the layers below have under this name is gone.
    Whiteout(Name),
    /// What the layers below have in this directory is gone.
    Opaque(Name),
}

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A whole tree.
    Image,
    /// What changes in the tree of the layers below.
    Layer,
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
    pub(crate) fn judge(header: Header, form: Form, dropped: &mut Dropped) -> Result<Self, Reason> {
        let name = Name::parse(&header.name)?;
        let whiteout = match form {
            Form::Image if name.leaf().starts_with(WHITEOUT) => return Err(Reason::Whiteout),
            Form::Image => None,
            Form::Layer => whiteout(&name)?,
        };
        let kind = match whiteout {
            None => kind(&header)?,
            Some(kind) if matches!(header.kind, b'0' | b'7' | 0) && header.size == 0 => kind,
            Some(_) => return Err(Reason::BadWhiteout),
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

fn kind(header: &Header) -> Result<Kind, Reason> {
    Ok(match header.kind {
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
            Kind::Symlink(header.link.clone())
        }
        b'3' | b'4' | b'6' => Kind::Node,
        b'5' => Kind::Directory,
        b'S' => return Err(Reason::Sparse),
        other => return Err(Reason::UnknownType(other)),
    })
}

/// What a name of a layer hides; `None` for the name of an entry.
fn whiteout(name: &Name) -> Result<Option<Kind>, Reason> {
    let is_whiteout = |component: &[u8]| component.starts_with(WHITEOUT);
    if name.parent().split(|&byte| byte == b'/').any(is_whiteout) {
        return Err(Reason::BadWhiteout);
    }
    if name.leaf() == OPAQUE {
        return Ok(Some(Kind::Opaque(name.beside(b""))));
    }
    match name.leaf().strip_prefix(WHITEOUT) {
        None => Ok(None),
        // `.wh..wh.…` is reserved; older programs kept their own notes there.
        Some(b"" | b"." | b"..") => Err(Reason::BadWhiteout),
        Some(leaf) if is_whiteout(leaf) => Err(Reason::BadWhiteout),
        Some(leaf) => Ok(Some(Kind::Whiteout(name.beside(leaf)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Result<Option<(char, &str)>, Reason>) {
        let name = Name::parse(raw.as_bytes()).expect("a name");
        let found = whiteout(&name).map(|kind| match kind {
            None => None,
            Some(Kind::Whiteout(name)) => Some(('w', name.to_string())),
            Some(Kind::Opaque(name)) => Some(('o', name.to_string())),
            Some(other) => panic!("{other:?}"),
        });
        assert_eq!(
            found,
            expected.map(|kind| kind.map(|(k, n)| (k, n.to_owned())))
        );
    }

    #[test]
    fn whiteouts_name_what_they_hide() {
        check("a/.wh.b", Ok(Some(('w', "a/b"))));
        check("./.wh.b", Ok(Some(('w', "b"))));
        check(".wh....", Ok(Some(('w', "..."))));
        check("a/b/.wh..wh..opq", Ok(Some(('o', "a/b"))));
        check(".wh..wh..opq", Ok(Some(('o', ""))));
        check("a/b.wh.c", Ok(None));
        check(".wh", Ok(None));
    }

    #[test]
    fn whiteouts_that_lead_elsewhere_are_refused() {
        for name in [
            ".wh.",
            ".wh..",
            ".wh...",
            "a/.wh..",
            "a/.wh...",
            ".wh..wh.plnk",
            ".wh..wh.aufs",
            ".wh.a/b",
            "a/.wh..wh..opq/b",
            ".wh..wh..opq.x",
        ] {
            check(name, Err(Reason::BadWhiteout));
        }
    }
}
