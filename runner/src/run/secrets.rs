//! Where secrets come from: files that only their owner reads, or stdin.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::container::{Secrets, is_secret_name};

/// More than any key has; a larger file is a mistake.
const LARGEST: u64 = 1 << 20;

/// Why a secret is not taken. Never repeats what it is.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The name would not do as a file name.
    #[error("read secrets: a name is letters, digits, `.`, `_` and `-`, and {0:?} is none")]
    Name(String),
    /// Twice the same name.
    #[error("read secrets: {0} is given twice")]
    Twice(String),
    /// The file cannot be read.
    #[error("read the secret in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        #[source]
        /// Why not.
        source: io::Error,
    },
    /// Others can read the file.
    #[error(
        "read the secret in {}: its mode is {mode:04o}, so others than its owner can read it",
        path.display()
    )]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Too large, or no file.
    #[error("read the secret in {}: it is no file of at most 1 MiB", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// Stdin is something else.
    #[error("read secrets from stdin: it is no JSON object of names and texts")]
    Stdin,
}

/// Adds a secret that a file holds.
///
/// # Errors
/// When it cannot be read, or others can read it, too.
pub fn add_file(secrets: &mut Secrets, name: &str, path: &Path) -> Result<(), SecretError> {
    check_name(name)?;
    let failed = |source| SecretError::File {
        path: path.to_owned(),
        source,
    };
    let no_file = || SecretError::NoFile {
        path: path.to_owned(),
    };
    // A pipe would have us wait for its writer.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(no_file());
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(no_file());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(SecretError::Readable {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    let contents = read_whole(file.take(LARGEST + 1)).map_err(failed)?;
    if contents.len() as u64 > LARGEST {
        return Err(no_file());
    }
    add(secrets, name, contents)
}

/// Adds the secrets of a JSON object, name and text.
///
/// # Errors
/// When it is something else.
pub fn add_json(secrets: &mut Secrets, input: impl Read) -> Result<(), SecretError> {
    let text = read_whole(input.take(16 * LARGEST)).map_err(|_| SecretError::Stdin)?;
    // The parser's message may repeat a part of the input.
    let all: BTreeMap<String, String> =
        serde_json::from_slice(&text).map_err(|_| SecretError::Stdin)?;
    for (name, text) in all {
        add(secrets, &name, Zeroizing::new(text.into_bytes()))?;
    }
    Ok(())
}

/// Reads to the end. A vector that grows by itself would leave copies behind in memory.
pub(crate) fn read_whole(mut input: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(vec![0; 1 << 16]);
    let mut filled = 0;
    loop {
        if filled == text.len() {
            let mut larger = Zeroizing::new(vec![0; 2 * filled]);
            larger[..filled].copy_from_slice(&text);
            text = larger;
        }
        match input.read(&mut text[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(filled);
    Ok(text)
}

fn check_name(name: &str) -> Result<(), SecretError> {
    if is_secret_name(name) {
        Ok(())
    } else {
        Err(SecretError::Name(name.to_owned()))
    }
}

fn add(secrets: &mut Secrets, name: &str, contents: Zeroizing<Vec<u8>>) -> Result<(), SecretError> {
    check_name(name)?;
    match secrets.insert(name.to_owned(), contents) {
        Some(_) => Err(SecretError::Twice(name.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "hunter2").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let mut secrets = Secrets::new();
            let added = add_file(&mut secrets, "key", &path);
            assert_eq!(added.is_ok(), good, "{mode:o}");
            assert_eq!(secrets.len(), usize::from(good));
        }
        let mut secrets = Secrets::new();
        assert!(matches!(
            add_file(&mut secrets, "key", folder.path()),
            Err(SecretError::NoFile { .. })
        ));
        assert!(matches!(
            add_file(&mut secrets, "key", &folder.path().join("none")),
            Err(SecretError::File { .. })
        ));
    }

    #[test]
    fn stdin_is_names_and_texts_and_an_error_repeats_none_of_them() {
        let mut secrets = Secrets::new();
        add_json(&mut secrets, br#"{"a":"x","b.c-d_e":"y\n"}"#.as_slice()).unwrap();
        assert_eq!(*secrets["b.c-d_e"], b"y\n");
        for bad in [r#"{"a":"again"}"#, r#"{"../a":"x"}"#, r#"{"":"x"}"#] {
            assert!(add_json(&mut secrets, bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in [
            "",
            "hunter2",
            r#"["hunter2"]"#,
            r#"{"c":"hunter2""#,
            r#"{"c":7}"#,
        ] {
            let error = add_json(&mut secrets, bad.as_bytes()).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("hunter2"));
        }
        assert_eq!(secrets.len(), 2);
    }

    #[test]
    fn what_is_read_is_whole_however_long_it_is() {
        for length in [0, 1, 1 << 16, (1 << 16) + 1, 300_000] {
            let text: Vec<u8> = (0..length).map(|at| at as u8).collect();
            assert!(*read_whole(&text[..]).unwrap() == text, "{length}");
        }
    }
}
