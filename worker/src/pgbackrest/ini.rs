//! The form of pgBackRest's info files: INI whose values are JSON, with a checksum over what they say.
//!
//! The checksum is SHA-1 over the entries written as one JSON text, `{"section":{"key":value,…},…}`, the
//! values byte for byte as they stand in the file and without the checksum itself (pgBackRest's
//! `src/info/info.c`). It finds a file that was cut or edited; it proves nothing about who wrote it.

use serde::de::{DeserializeOwned, IgnoredAny};
use sha1::{Digest, Sha1};

/// The section that says how the file is made, and its keys.
const BACKREST: &str = "backrest";
const CHECKSUM: &str = "backrest-checksum";
const FORMAT: &str = "backrest-format";

/// The only format there is since pgBackRest 1.0 (`REPOSITORY_FORMAT`).
const KNOWN_FORMAT: u64 = 5;

/// How OpenSSL, and so pgBackRest, begins what it encrypted.
const ENCRYPTED: &[u8] = b"Salted__";

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// The repository is encrypted: Rekindle has no key for it.
    #[error("it is encrypted, and Rekindle does not read encrypted repositories")]
    Encrypted,
    /// It is longer than such a file can be.
    #[error("it has {bytes} bytes, more than the {most} that are read")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// What it says does not match its checksum, or the checksum is not there.
    #[error("truncated or changed: {reason}")]
    Changed {
        /// What does not match.
        reason: String,
    },
    /// It is whole, but of a format that this build does not know.
    #[error("it has an unknown format: {reason}")]
    UnknownFormat {
        /// What is unknown.
        reason: String,
    },
}

impl InfoError {
    fn changed(reason: impl Into<String>) -> Self {
        Self::Changed {
            reason: reason.into(),
        }
    }

    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self::UnknownFormat {
            reason: reason.into(),
        }
    }
}

/// A file whose checksum is right.
#[derive(Debug)]
pub(super) struct Ini<'a> {
    entries: Vec<Entry<'a>>,
}

#[derive(Debug)]
struct Entry<'a> {
    section: &'a str,
    key: &'a str,
    /// JSON, byte for byte as in the file.
    value: &'a str,
}

impl<'a> Ini<'a> {
    /// Reads a file and verifies it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, InfoError> {
        if bytes.starts_with(ENCRYPTED) {
            return Err(InfoError::Encrypted);
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| InfoError::changed("it is not text (is the repository encrypted?)"))?;
        let entries = entries(text)?;
        let ini = Self { entries };
        // Before the checksum, which another format may make in another way.
        match ini.number(BACKREST, FORMAT) {
            Ok(KNOWN_FORMAT) => ini.verify()?,
            Ok(other) => {
                let reason = format!("{FORMAT} is {other}, and {KNOWN_FORMAT} is known");
                return Err(InfoError::unknown(reason));
            }
            Err(_) => return Err(InfoError::changed(format!("its {FORMAT} is missing"))),
        }
        // With it, everything that the file leads to is encrypted.
        let encrypted = ini.section("cipher").next().is_some();
        match encrypted {
            true => Err(InfoError::Encrypted),
            false => Ok(ini),
        }
    }

    /// The keys and raw values of a section, in the file's order.
    fn section(&self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let of = self.entries.iter().filter(move |e| e.section == name);
        of.map(|entry| (entry.key, entry.value))
    }

    /// The keys and values of a section, in the file's order.
    pub(super) fn objects<T: DeserializeOwned>(
        &self,
        section: &str,
    ) -> Result<Vec<(&'a str, T)>, InfoError> {
        let read = |(key, value)| Ok((key, decode(section, key, value)?));
        self.section(section).map(read).collect()
    }

    /// One value.
    pub(super) fn value<T: DeserializeOwned>(
        &self,
        section: &str,
        key: &str,
    ) -> Result<T, InfoError> {
        let found = self.section(section).find(|(name, _)| *name == key);
        let missing = || InfoError::unknown(format!("[{section}] has no {key}"));
        decode(section, key, found.ok_or_else(missing)?.1)
    }

    /// One number; system ids need all of its 64 bits.
    pub(super) fn number(&self, section: &str, key: &str) -> Result<u64, InfoError> {
        self.value(section, key)
    }

    fn verify(&self) -> Result<(), InfoError> {
        let Ok(expected) = self.value::<String>(BACKREST, CHECKSUM) else {
            return Err(InfoError::changed("its checksum is missing"));
        };
        let actual = checksum(&self.entries);
        match actual == expected {
            true => Ok(()),
            false => Err(InfoError::changed(format!(
                "its checksum says {expected:.40}, and what it says has {actual}"
            ))),
        }
    }
}

fn decode<T: DeserializeOwned>(section: &str, key: &str, value: &str) -> Result<T, InfoError> {
    serde_json::from_str(value)
        .map_err(|error| InfoError::unknown(format!("[{section}] {key:.60}: {error}")))
}

/// Splits a file into its entries. A value is JSON and never an array, so a line in brackets is a section.
fn entries(text: &str) -> Result<Vec<Entry<'_>>, InfoError> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut section = None;
    for (at, line) in text.split('\n').enumerate() {
        let bad = |what: &str| InfoError::changed(format!("line {}: {what}", at + 1));
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = Some(name).filter(|name| !name.is_empty());
            continue;
        }
        let section = section.ok_or_else(|| bad("it stands in no section"))?;
        let (key, value) = line.split_once('=').ok_or_else(|| bad("it has no ="))?;
        if key.is_empty() {
            return Err(bad("its key is empty"));
        }
        serde_json::from_str::<IgnoredAny>(value).map_err(|_| bad("its value is not JSON"))?;
        entries.push(Entry {
            section,
            key,
            value,
        });
    }
    Ok(entries)
}

/// The checksum that pgBackRest would write behind these entries.
fn checksum(entries: &[Entry<'_>]) -> String {
    let mut hash = Sha1::new();
    let mut last: Option<&str> = None;
    hash.update("{");
    let counted = |entry: &&Entry<'_>| !(entry.section == BACKREST && entry.key == CHECKSUM);
    for entry in entries.iter().filter(counted) {
        match last {
            Some(section) if section == entry.section => hash.update(","),
            Some(_) => hash.update("},"),
            None => {}
        }
        if last != Some(entry.section) {
            hash.update(format!("\"{}\":{{", entry.section));
            last = Some(entry.section);
        }
        hash.update(serde_json::Value::from(entry.key).to_string());
        hash.update(":");
        hash.update(entry.value);
    }
    hash.update("}}");
    hex::encode(hash.finalize())
}

/// Writes the checksum anew, for files that tests change.
#[cfg(test)]
pub(super) fn resealed(text: &str) -> String {
    let sealed = |line: &&str| !line.starts_with(CHECKSUM);
    let open = text
        .split('\n')
        .filter(sealed)
        .collect::<Vec<_>>()
        .join("\n");
    let open = open.trim_end().trim_end_matches("[backrest]").trim_end();
    let sum = checksum(&entries(open).expect("what tests make is INI"));
    format!("{open}\n\n[{BACKREST}]\n{CHECKSUM}=\"{sum}\"\n")
}
