#![allow(missing_docs, clippy::unwrap_used)]
//! Stand-in until the real container is merged.
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as S};
use std::sync::Mutex;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: String,
    pub hostname: String,
    pub binds: Vec<Bind>,
    pub secrets: Vec<String>,
    pub limits: Limits,
}
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub tmpfs_bytes: u64,
    pub tmpfs_inodes: u64,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u64>,
}
#[derive(Debug)]
pub struct Stdio {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}
#[derive(Debug, thiserror::Error)]
#[error("start {0}")]
pub struct StartError(String, #[source] io::Error);
#[derive(Debug)]
pub struct Container {
    pid: u32,
    child: Mutex<Child>,
    notes: Vec<String>,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
}
pub fn start(
    spec: &Spec,
    _rootfs: &Path,
    secrets: &BTreeMap<String, Vec<u8>>,
    stdio: Stdio,
) -> Result<Container, StartError> {
    let _ = secrets.len();
    if !Path::new(&spec.args[0]).exists() {
        return Err(StartError(
            spec.args[0].clone(),
            io::Error::from(io::ErrorKind::NotFound),
        ));
    }
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args(&spec.args)
        .env_clear()
        .envs(&spec.env)
        .stdin(S::from(stdio.stdin))
        .stdout(S::from(stdio.stdout))
        .stderr(S::from(stdio.stderr))
        .spawn()
        .map_err(|e| StartError(spec.args[0].clone(), e))?;
    Ok(Container {
        pid: child.id(),
        child: Mutex::new(child),
        notes: vec!["stand-in".into()],
    })
}
impl Container {
    pub fn pid(&self) -> u32 {
        self.pid
    }
    pub fn signal(&self, s: Signal) -> io::Result<()> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid as i32), s).map_err(Into::into)
    }
    pub fn wait(&self) -> io::Result<Exit> {
        use std::os::unix::process::ExitStatusExt;
        let s = self.child.lock().unwrap().wait()?;
        Ok(s.code()
            .map_or_else(|| Exit::Signal(s.signal().unwrap()), Exit::Code))
    }
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}
