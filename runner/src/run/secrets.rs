//! Where secrets come from: files that only their owner reads, or stdin.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::launch::Secrets;

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
    let mut contents = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut contents)
        .map_err(failed)?;
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
    let mut text = Vec::new();
    input
        .take(16 * LARGEST)
        .read_to_end(&mut text)
        .map_err(|_| SecretError::Stdin)?;
    // The parser's message may repeat a part of the input.
    let all: BTreeMap<String, String> =
        serde_json::from_slice(&text).map_err(|_| SecretError::Stdin)?;
    for (name, text) in all {
        add(secrets, &name, text.into_bytes())?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), SecretError> {
    let good = name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && name.len() <= 100
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if good {
        Ok(())
    } else {
        Err(SecretError::Name(name.to_owned()))
    }
}

fn add(secrets: &mut Secrets, name: &str, contents: Vec<u8>) -> Result<(), SecretError> {
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
        assert_eq!(secrets["b.c-d_e"], b"y\n");
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
}
