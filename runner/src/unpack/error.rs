//! Why an archive was not unpacked.

use std::io;

use nix::errno::Errno;

use super::name::{Name, printable};

/// Why an archive was not unpacked. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is broken or hostile: trying again does not help.
    #[error("accept {}: {reason}", subject(.entry))]
    Refused {
        /// The entry, made safe to print; `None` when it is about the archive as a whole.
        entry: Option<String>,
        /// What is wrong with it.
        reason: Reason,
    },
    /// The archive could not be read to its end.
    #[error("read the archive")]
    Read(#[source] io::Error),
    /// The tree could not be written: no space, no permission.
    #[error("{operation} `{path}`")]
    Write {
        /// What we were doing.
        operation: &'static str,
        /// The path below the target, made safe to print.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Not zstd, or damaged, or with a window larger than 128 MiB.
    #[error("it is not a sound zstd stream ({0})")]
    Zstd(&'static str),
    /// Not gzip, or damaged.
    #[error("it is not a sound gzip stream")]
    Gzip,
    /// The end is missing.
    #[error("it is cut off: the end is missing")]
    CutOff,
    /// Something stands behind the end of the archive.
    #[error("there is data behind its end")]
    DataAfterEnd,
    /// The sum of a header is wrong.
    #[error("a header is damaged: its checksum is wrong")]
    Checksum,
    /// A field of a header is no number.
    #[error("its header has no sound number for {0}")]
    Number(&'static str),
    /// A size is negative.
    #[error("its size is negative")]
    NegativeSize,
    /// A link, directory or node that has contents.
    #[error("it is not a file, but has contents")]
    UnexpectedContents,
    /// The header and its extension disagree.
    #[error("header and extended header disagree about the size")]
    Desync,
    /// Extension headers that different programs read differently.
    #[error("its extension headers are ambiguous")]
    AmbiguousExtension,
    /// An extension header above 1 MiB.
    #[error("its extension header is larger than 1 MiB")]
    ExtensionTooLarge,
    /// A record of an extended header cannot be read.
    #[error("its extended header is damaged")]
    Extension,
    /// A sparse file.
    #[error("it is a sparse file")]
    Sparse,
    /// A kind of entry that images do not have.
    #[error("its type {} is unknown", printable(&[*.0]))]
    UnknownType(u8),
    /// No name.
    #[error("its name is empty")]
    EmptyName,
    /// A name with `..`.
    #[error("its name has a `..`")]
    LeadsOut,
    /// NUL, newline, escape and the like in a name or link target.
    #[error("its name or target has a control character")]
    ControlCharacter,
    /// A component above 255 bytes.
    #[error("a part of its name is longer than 255 bytes")]
    NameTooLong,
    /// A path above 4,095 bytes.
    #[error("its path is longer than 4095 bytes")]
    PathTooLong,
    /// More than 128 levels.
    #[error("its path is deeper than 128 directories")]
    TooDeep,
    /// A file or link named like a directory.
    #[error("its name ends with `/`, but it is no directory")]
    NotADirectory,
    /// Something else than a directory in place of the root.
    #[error("it would replace the root of the image")]
    ReplacesRoot,
    /// A file over a directory with contents.
    #[error("it would replace a directory that is not empty")]
    ReplacesDirectory,
    /// A parent is a file, or a loop of links.
    #[error("its parent is not a directory")]
    Parent,
    /// A hard link to nothing.
    #[error("it is a hard link to `{0}`, which is not in the image")]
    MissingTarget(String),
    /// A hard link to a directory or the like.
    #[error("it is a hard link to `{0}`, which is not a file")]
    LinkToNoFile(String),
    /// A whiteout: this is a layer, not an image.
    #[error("it is the whiteout of a layer; flatten the image first")]
    Whiteout,
    /// A whiteout that hides nothing that can be: `.`, `..`, no name; or one with contents.
    #[error("it is no sound whiteout")]
    BadWhiteout,
    /// Above a limit of ours.
    #[error("the image has more than {limit} {what}; raise the limit if it is meant to")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
}

fn subject(entry: &Option<String>) -> String {
    match entry {
        Some(name) => format!("entry `{name}`"),
        None => "the archive".to_owned(),
    }
}

impl UnpackError {
    pub(crate) fn refused(raw: &[u8], reason: Reason) -> Self {
        Self::Refused {
            entry: Some(printable(raw)),
            reason,
        }
    }

    pub(crate) fn archive(reason: Reason) -> Self {
        Self::Refused {
            entry: None,
            reason,
        }
    }

    /// What the kernel said about a path of the tree.
    pub(crate) fn kernel(operation: &'static str, name: &Name, errno: Errno) -> Self {
        Self::Write {
            operation,
            path: name.to_string(),
            source: errno.into(),
        }
    }
}
