//! Secrets: as they are, or as the content of a file.

use std::path::PathBuf;

use jobs::store::{Credentials, Secret};

use super::{SettingError, given, half};

/// A secret as clap keeps it: it shows in no `Debug` output and in no error message.
#[derive(Clone)]
pub(super) struct Hidden(pub(super) String);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// A pair of keys, or AWS' own chain. Each comes with the names of its variable and its flag.
pub(super) fn credentials(
    (access_name, access_flag, access): (&str, &str, &Option<String>),
    (secret_name, secret_flag, secret): (&str, &str, &Option<Hidden>),
) -> Result<Credentials, SettingError> {
    let secret = secret.as_ref().filter(|key| !key.0.is_empty());
    match (given(access), secret) {
        (Some(access), Some(secret)) => Ok(Credentials::Keys {
            access,
            secret: Secret::new(secret.0.clone()),
        }),
        (None, None) => Ok(Credentials::Aws),
        (Some(_), None) => Err(half(access_name, secret_name, secret_flag)),
        (None, Some(_)) => Err(half(secret_name, access_name, access_flag)),
    }
}

/// A secret as it is, or as the content of a file: an environment can be read by whoever may look
/// into the process, and is passed on to its children by mistake.
pub(super) fn one_of(
    given: Option<&Hidden>,
    file: Option<&PathBuf>,
    name: &str,
) -> Result<Option<Hidden>, SettingError> {
    let given = given.filter(|secret| !secret.0.is_empty());
    match (given, file.filter(|path| !path.as_os_str().is_empty())) {
        (Some(_), Some(_)) => Err(SettingError::new(format!(
            "{name} and {name}_FILE are both set"
        ))
        .hint("set one of them")),
        (Some(secret), None) => Ok(Some(secret.clone())),
        (None, Some(path)) => {
            let wrong = |why: String| {
                let path = path.display();
                SettingError::new(format!("failed to read {name}_FILE, {path}: {why}"))
            };
            let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
            // Editors end a file with a line end.
            let secret = text.trim_end_matches(['\r', '\n']);
            if secret.is_empty() {
                return Err(wrong("it is empty".into()));
            }
            Ok(Some(Hidden(secret.to_owned())))
        }
        (None, None) => Ok(None),
    }
}
