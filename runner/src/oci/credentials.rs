//! Who we are for a registry: docker's `config.json`, as `docker login` and Kubernetes' pull secrets
//! write it. Helper programs that such a file may name are not run.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Repository;
use crate::image::DownloadError;

/// A user and a password. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// The value of the header `Authorization`.
    pub(super) fn basic(&self) -> String {
        let both = format!("{}:{}", self.user, self.password);
        format!("Basic {}", STANDARD.encode(both))
    }

    /// Looks a repository up in a file; `None` when the file does not know it.
    pub(super) fn find(
        path: &Path,
        repository: &Repository,
    ) -> Result<Option<Self>, DownloadError> {
        let found = fs::read(path).and_then(|text| look_up(&text, repository));
        found.map_err(|source| DownloadError::Credentials {
            path: path.to_owned(),
            source,
        })
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

fn look_up(text: &[u8], repository: &Repository) -> io::Result<Option<Credentials>> {
    // The error of the parser may repeat what it stumbled over.
    let file: File = serde_json::from_slice(text)
        .map_err(|error| bad(format!("line {} is not as docker writes it", error.line())))?;
    let matching = file.auths.iter().filter_map(|(key, entry)| {
        let place = place(key);
        covers(place, repository).then_some((place.len(), entry))
    });
    match matching.max_by_key(|(length, _)| *length) {
        None => Ok(None),
        Some((_, entry)) => entry.credentials().map(Some),
    }
}

impl Entry {
    fn credentials(&self) -> io::Result<Credentials> {
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Ok(Credentials {
                user: user.clone(),
                password: password.clone(),
            });
        }
        let decoded = self
            .auth
            .as_ref()
            .and_then(|auth| STANDARD.decode(auth.trim()).ok());
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let both = text.as_ref().and_then(|text| text.split_once(':'));
        let (user, password) =
            both.ok_or_else(|| bad("the registry's entry has no user and password".to_owned()))?;
        Ok(Credentials {
            user: user.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        })
    }
}

fn bad(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A key is a host, maybe as a URL, maybe with the beginning of a repository's name.
fn place(key: &str) -> &str {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1")
        .or(key.strip_suffix("/v2"))
        .unwrap_or(key)
}

fn covers(place: &str, repository: &Repository) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let name = repository.name();
    let below = name.strip_prefix(path);
    host == repository.registry()
        && (path.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, url: &str, expected: Option<(&str, &str)>) {
        let repository: Repository = url.parse().expect("a repository");
        let found = look_up(text.as_bytes(), &repository).expect("a sound file");
        let found = found.as_ref().map(|found| (&*found.user, &*found.password));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_entry_that_says_most_counts() {
        let file = r#"{"auths": {
            "r.example": {"auth": "YWxpY2U6b3BlbjpzZXNhbWU="},
            "https://r.example/team": {"username": "bob", "password": "p"},
            "https://index.docker.io/v1/": {"auth": "aHViOnA="}
        }, "credsStore": "desktop"}"#;
        check(file, "oci://r.example/a", Some(("alice", "open:sesame")));
        check(file, "oci://r.example/team/a", Some(("bob", "p")));
        check(
            file,
            "oci://r.example/teams",
            Some(("alice", "open:sesame")),
        );
        check(file, "oci://docker.io/library/debian", Some(("hub", "p")));
        check(file, "oci://r.example:5000/a", None);
        check(file, "oci://sub.r.example/a", None);
        check("{}", "oci://r.example/a", None);
    }

    #[test]
    fn a_broken_file_is_an_error_that_repeats_nothing() {
        let repository: Repository = "oci://r.example/a".parse().expect("a repository");
        for text in [
            "hunter2",
            r#"{"auths": {"r.example": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"r.example": {"identitytoken": "hunter2"}}}"#,
            r#"{"auths": {"r.example": "hunter2"}}"#,
        ] {
            let error = look_up(text.as_bytes(), &repository).expect_err(text);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
