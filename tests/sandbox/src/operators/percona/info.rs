//! pgBackRest's info files: INI whose values are JSON, with a SHA-1 over what they say.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

/// The version that writes them here.
const PGBACKREST: &str = "2.56.0";

/// Sections by name, each with its values by key: pgBackRest writes both in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Info(BTreeMap<String, BTreeMap<String, Value>>);

impl Info {
    /// A file about the first database that uses a stanza.
    pub(super) fn new() -> Self {
        let mut info = Self::default();
        info.set("backrest", "backrest-format", json!(5));
        info.set("backrest", "backrest-version", json!(PGBACKREST));
        info
    }

    pub(super) fn set(&mut self, section: &str, key: &str, value: Value) {
        self.0
            .entry(section.to_owned())
            .or_default()
            .insert(key.to_owned(), value);
    }

    pub(super) fn section(&self, name: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.0.get(name).into_iter().flatten()
    }

    pub(super) fn value(&self, section: &str, key: &str) -> Option<&Value> {
        self.0.get(section)?.get(key)
    }

    /// Reads a file, and refuses one whose checksum is not right.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut info = Self::default();
        let mut section = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                Some(name) => name.clone_into(&mut section),
                None => {
                    let (key, value) = line
                        .split_once('=')
                        .context("key/value found outside of section")?;
                    info.set(
                        &section,
                        key,
                        serde_json::from_str(value).context("invalid JSON")?,
                    );
                }
            }
        }
        let backrest = info.0.get_mut("backrest").context("missing section")?;
        let checksum = backrest
            .remove("backrest-checksum")
            .context("missing checksum")?;
        let actual = info.checksum();
        ensure!(
            checksum == actual.as_str(),
            "invalid checksum, actual '{actual}' but expected {checksum}"
        );
        Ok(info)
    }

    /// The file. The checksum stands last, in a section of its own as everything that is found out at the end.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (section, values) in &self.0 {
            text += &format!("[{section}]\n");
            for (key, value) in values {
                text += &format!("{key}={value}\n");
            }
            text.push('\n');
        }
        format!(
            "{text}[backrest]\nbackrest-checksum=\"{}\"\n",
            self.checksum()
        )
    }

    fn checksum(&self) -> String {
        let whole = serde_json::to_vec(&self.0).expect("text and JSON is JSON");
        hex::encode(Sha1::digest(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_file_is_read_and_written_as_it_was() {
        for real in [
            include_str!("../../../../../worker/src/pgbackrest/fixtures/backup.info"),
            include_str!("../../../../../worker/src/pgbackrest/fixtures/two-systems.archive.info"),
        ] {
            let info = Info::parse(real).expect("it is real");
            assert_eq!(info.text(), real);
            let changed = real.replace("\"15\"", "\"16\"");
            assert!(Info::parse(&changed).is_err());
        }
    }
}
