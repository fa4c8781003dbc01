//! Processes that end when we do, however we end.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

use crate::hosts::real::keeper::Keeper;
use crate::hosts::real::tool;

const END: Duration = Duration::from_secs(30);

/// Running programs by name, each with a log in the folder.
#[derive(Debug)]
pub(super) struct Processes {
    running: BTreeMap<String, Child>,
    folder: PathBuf,
    /// The parent of all of them: a thread that stays.
    keeper: Keeper,
}

impl Processes {
    pub(super) fn new(folder: &Path) -> anyhow::Result<Self> {
        let keeper = Keeper::start("kube-api", false).context("start a thread")?;
        Ok(Self {
            running: BTreeMap::new(),
            folder: folder.to_owned(),
            keeper,
        })
    }

    pub(super) async fn start(
        &mut self,
        name: &str,
        program: &Path,
        args: &[String],
    ) -> anyhow::Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{name}.log")))
            .with_context(|| format!("open the log of {name}"))?;
        let mut command = tool::bound_to_us();
        command
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = self.keeper.spawn(command).await;
        let child = child.with_context(|| format!("start {name}"))?;
        self.running.insert(name.to_owned(), child);
        Ok(())
    }

    /// How a process ended, if it did.
    pub(super) fn ended(&mut self, name: &str) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.running.get_mut(name);
        Ok(child.with_context(|| format!("find {name}"))?.try_wait()?)
    }

    /// Kills a process, if it runs, and waits for its end.
    pub(super) async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(mut child) = self.running.remove(name) else {
            return Ok(());
        };
        let ended = tokio::time::timeout(END, child.kill()).await;
        ended.with_context(|| format!("wait for the end of {name}"))??;
        Ok(())
    }

    pub(super) fn freeze(&self, name: &str, frozen: bool) -> anyhow::Result<()> {
        let id = self.running.get(name).and_then(Child::id);
        let id = id.with_context(|| format!("find {name} running"))?;
        let signal = match frozen {
            true => Signal::SIGSTOP,
            false => Signal::SIGCONT,
        };
        let pid = Pid::from_raw(id.try_into().context("read a process id")?);
        kill(pid, signal).with_context(|| format!("send {signal} to {name}"))
    }

    /// The last words of a process.
    pub(super) fn log(&self, name: &str) -> String {
        let file = self.folder.join(format!("{name}.log"));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("; ")
    }
}
