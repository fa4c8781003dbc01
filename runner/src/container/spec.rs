//! What runs, and in what surroundings.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The contents of secrets, by name. Their memory is wiped when they are let go.
pub type Secrets = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// What runs, and in what surroundings. Holds no secret, so it can be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The program and its arguments. A name without `/` is looked for in the `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// The directory to begin in, absolute.
    pub cwd: String,
    /// The host name that the program sees.
    pub hostname: String,
    /// Files and directories of the host that the program may see, in this order.
    #[serde(default)]
    pub binds: Vec<Bind>,
    /// The names of the secrets. Their contents come apart, and appear as `/run/secrets/NAME`.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// How much the program may use.
    #[serde(default)]
    pub limits: Limits,
}

/// A file or directory of the host inside the container, with all that is mounted below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// What to show. Links are followed, so it must not be in the hands of a stranger.
    pub source: PathBuf,
    /// Where, absolute. Made when the image has nothing there; a symbolic link on the way is refused.
    pub target: String,
    /// Whether the program may only read it.
    pub read_only: bool,
}

/// How much a container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes that it may write to its root, which is in memory and thrown away at the end.
    pub tmpfs_bytes: u64,
    /// Files that it may make there.
    pub tmpfs_inodes: u64,
    /// Memory in bytes, with what it wrote to its root; where the host has cgroups.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once; where the host has cgroups.
    pub pids: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tmpfs_bytes: 1 << 30,
            tmpfs_inodes: 1 << 18,
            memory_bytes: None,
            pids: None,
        }
    }
}

/// Where nothing of the host may be shown: the kernel's own file systems would be hidden.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

impl Spec {
    /// What is wrong with it, with the secrets that it is started with.
    pub(crate) fn check(&self, secrets: &Secrets) -> Result<(), String> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err("`args` names no program".to_owned());
        }
        no_nul("args", &self.args)?;
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') {
                return Err(format!("`env` has the name {name:?}"));
            }
            no_nul("env", [name, value])?;
        }
        if !self.cwd.starts_with('/') {
            return Err(format!("`cwd` {:?} is not absolute", self.cwd));
        }
        no_nul("cwd", [&self.cwd])?;
        if !is_host_name(&self.hostname) {
            return Err(format!("`hostname` {:?} is no host name", self.hostname));
        }
        for bind in &self.binds {
            target(&bind.target)?;
            if !bind.source.is_absolute() {
                return Err(format!("the bind of {:?} is not absolute", bind.source));
            }
        }
        for name in &self.secrets {
            if !is_secret_name(name) {
                return Err(format!("the secret's name {name:?} is no file name"));
            }
            if !secrets.contains_key(name) {
                return Err(format!("the secret {name:?} has no contents"));
            }
        }
        match secrets.keys().find(|name| !self.secrets.contains(name)) {
            Some(name) => Err(format!("the secret {name:?} is not in `secrets`")),
            None => Ok(()),
        }
    }
}

/// Letters, digits, `.` and `-`, at most 64.
pub(crate) fn is_host_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

/// Letters, digits, `.`, `_` and `-`, at most 100, not `.` or `-` first: a file name everywhere.
pub(crate) fn is_secret_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && text.len() <= 100
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn no_nul<T: AsRef<str>>(field: &str, texts: impl IntoIterator<Item = T>) -> Result<(), String> {
    match texts.into_iter().find(|text| text.as_ref().contains('\0')) {
        Some(text) => Err(format!("`{field}` has a NUL in {:?}", text.as_ref())),
        None => Ok(()),
    }
}

fn target(target: &str) -> Result<(), String> {
    let path = Path::new(target);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || path.parent().is_none() || !plain || target.contains('\0') {
        return Err(format!("the target {target:?} is no absolute path below /"));
    }
    match KERNEL.iter().find(|taken| path.starts_with(taken)) {
        Some(taken) => Err(format!("the target {target:?} is in {taken}")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            args: vec!["true".to_owned()],
            env: BTreeMap::new(),
            cwd: "/".to_owned(),
            hostname: "box".to_owned(),
            binds: Vec::new(),
            secrets: Vec::new(),
            limits: Limits::default(),
        }
    }

    fn bind(target: &str) -> Vec<Bind> {
        vec![Bind {
            source: "/srv".into(),
            target: target.to_owned(),
            read_only: true,
        }]
    }

    #[test]
    fn a_sound_spec_is_taken_and_survives_json() {
        let mut spec = spec();
        spec.binds = bind("/job/in");
        spec.secrets = vec!["key".to_owned()];
        let secrets = Secrets::from([("key".to_owned(), b"x".to_vec().into())]);
        assert_eq!(spec.check(&secrets), Ok(()));
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |change: &dyn Fn(&mut Spec), reason: &str| {
            let mut spec = spec();
            change(&mut spec);
            let error = spec.check(&Secrets::new()).unwrap_err();
            assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        };
        check(&|spec| spec.args.clear(), "names no program");
        check(&|spec| spec.args.push("a\0".into()), "NUL");
        check(
            &|spec| drop(spec.env.insert("A=B".into(), "".into())),
            "A=B",
        );
        check(
            &|spec| drop(spec.env.insert("A".into(), "\0".into())),
            "NUL",
        );
        check(&|spec| spec.cwd = "work".into(), "not absolute");
        check(&|spec| spec.hostname = "a b".into(), "host name");
        check(&|spec| spec.hostname = "-a".into(), "host name");
        check(&|spec| spec.hostname = "a".repeat(65), "host name");
        for target in ["work", "/", "/a/../b", "", "/a\0"] {
            check(&|spec| spec.binds = bind(target), "no absolute path");
        }
        for target in ["/proc", "/proc/sys", "/dev/sda", "/sys/x"] {
            check(&|spec| spec.binds = bind(target), "is in");
        }
        for name in ["", ".", "..", "a/b", "a/", "/a", "a\0", "-a"] {
            check(&|spec| spec.secrets = vec![name.into()], "no file name");
        }
        check(&|spec| spec.secrets = vec!["key".into()], "no contents");
        let stray = Secrets::from([("key".to_owned(), Vec::new().into())]);
        assert!(spec().check(&stray).unwrap_err().contains("not in"));
    }
}
