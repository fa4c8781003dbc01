//! What somebody asked for under the name of a run. It never changes while the name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::container::{Bind, Limits, Spec};
use crate::digest::Digest;

/// The tree that a run has as its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// An image of the store.
    Image(Digest),
    /// A directory of this host.
    Tree(PathBuf),
}

impl fmt::Display for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(digest) => digest.fmt(f),
            Self::Tree(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What to run, on what. Secrets are in it by name only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The root.
    pub rootfs: Rootfs,
    /// The program, and what it sees.
    pub spec: Spec,
    /// Names the arguments in logs and reports without repeating them.
    pub argv_sha256: String,
}

/// A digest of arguments. Each one is preceded by its length, so no two lists are one text.
fn argv_sha256(args: &[String]) -> String {
    let mut hasher = sha2::Sha256::new();
    for arg in args {
        hasher.update((arg.len() as u64).to_be_bytes());
        hasher.update(arg);
    }
    hex::encode(hasher.finalize())
}

impl Request {
    /// A request.
    #[must_use]
    pub fn new(rootfs: Rootfs, spec: Spec) -> Self {
        Self {
            rootfs,
            argv_sha256: argv_sha256(&spec.args),
            spec,
        }
    }

    /// What another request under the same name would change, in words; empty when nothing. Values of
    /// the environment are not repeated.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self {
            rootfs,
            spec,
            argv_sha256: _,
        } = self;
        let Spec {
            args,
            env,
            cwd,
            hostname,
            binds,
            secrets,
            limits,
        } = spec;
        let mut all = Vec::new();
        if *rootfs != other.rootfs {
            all.push(format!("the image ({rootfs}, not {})", other.rootfs));
        }
        if *args != other.spec.args {
            all.push("the program's arguments".to_owned());
        }
        let names = changed_names(env, &other.spec.env);
        if !names.is_empty() {
            all.push(format!("the environment ({})", names.join(", ")));
        }
        for (what, this, other) in [
            ("the directory", cwd, &other.spec.cwd),
            ("the host name", hostname, &other.spec.hostname),
        ] {
            if this != other {
                all.push(format!("{what} ({this}, not {other})"));
            }
        }
        if *binds != other.spec.binds {
            let targets = |binds: &[Bind]| list(binds.iter().map(|bind| bind.target.as_str()));
            let (this, other) = (targets(binds), targets(&other.spec.binds));
            all.push(format!("the binds ({this}, not {other})"));
        }
        if *secrets != other.spec.secrets {
            let names = |names: &[String]| list(names.iter().map(String::as_str));
            let (this, other) = (names(secrets), names(&other.spec.secrets));
            all.push(format!("the names of secrets ({this}, not {other})"));
        }
        all.extend(changed_limits(limits, &other.spec.limits));
        all
    }
}

fn changed_names(this: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<_> = this.keys().chain(other.keys()).collect();
    names
        .into_iter()
        .filter(|name| this.get(*name) != other.get(*name))
        .cloned()
        .collect()
}

fn changed_limits(this: &Limits, other: &Limits) -> Option<String> {
    (this != other).then(|| "the limits (memory, pids or tmpfs)".to_owned())
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(" ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn request() -> Request {
        let spec = Spec {
            args: vec!["/bin/true".to_owned()],
            env: BTreeMap::from([("A".to_owned(), "secret-ish".to_owned())]),
            cwd: "/".to_owned(),
            hostname: "h".to_owned(),
            binds: Vec::new(),
            secrets: Vec::new(),
            limits: Limits {
                tmpfs_bytes: 1,
                tmpfs_inodes: 1,
                memory_bytes: None,
                pids: None,
            },
        };
        Request::new(Rootfs::Tree("/r".into()), spec)
    }

    #[test]
    fn every_difference_is_named_and_no_value_of_the_environment_is() {
        fn check(words: &str, change: impl Fn(&mut Request)) {
            let mut other = request();
            change(&mut other);
            let found = request().differences(&other).join("; ");
            assert!(found.contains(words), "{words}: {found}");
            assert!(!found.contains("secret-ish"), "{found}");
        }
        assert!(request().differences(&request()).is_empty());
        check("the image (/r, not /s)", |other| {
            other.rootfs = Rootfs::Tree("/s".into());
        });
        check("arguments", |other| other.spec.args.push("x".to_owned()));
        check("environment (A, B)", |other| {
            other.spec.env = BTreeMap::from([("B".to_owned(), "secret-ish".to_owned())]);
        });
        check("directory (/, not /tmp)", |other| {
            other.spec.cwd = "/tmp".to_owned();
        });
        check("host name (h, not i)", |other| {
            other.spec.hostname = "i".to_owned();
        });
        check("binds (none, not /b)", |other| {
            other.spec.binds.push(Bind {
                source: "/a".into(),
                target: "/b".to_owned(),
                read_only: true,
            });
        });
        check("secrets (none, not key)", |other| {
            other.spec.secrets.push("key".to_owned());
        });
        check("limits", |other| other.spec.limits.pids = Some(1));
    }

    #[test]
    fn arguments_that_are_cut_elsewhere_have_another_digest() {
        let digest = |args: &[&str]| {
            let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
            argv_sha256(&args)
        };
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(digest(&[]), digest(&[""]));
    }
}
