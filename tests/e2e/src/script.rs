//! Services of one's own that a script of tests/ starts in a directory, and ends.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// A script and the directory of one service. Dropping it ends the service and removes its data.
#[derive(Debug)]
pub(crate) struct Script {
    name: &'static str,
    dir: PathBuf,
    patience: Duration,
}

impl Script {
    /// Nothing runs yet. `directory` is what tests/run knows the directories by and sweeps up;
    /// `patience` is longer than any verb takes on any machine.
    pub(crate) fn new(name: &'static str, directory: &str, patience: Duration) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = format!("{directory}-e2e-{}-{number}", std::process::id());
        Self {
            name,
            dir: std::env::temp_dir().join(dir),
            patience,
        }
    }

    /// Where the service keeps what it has.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    fn path(&self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "..", self.name]
            .iter()
            .collect()
    }

    /// Runs a verb and gives what it prints. What it starts ends with this process.
    pub(crate) async fn run(&self, verb: &str) -> anyhow::Result<String> {
        let name = self.name;
        let mut script = Command::new(self.path());
        script
            .arg(verb)
            .arg(&self.dir)
            .env("WITH_PID", std::process::id().to_string())
            .stdin(Stdio::null());
        let ended = timeout(self.patience, script.output()).await;
        let out = ended.with_context(|| format!("tests/{name} {verb} does not end"))??;
        let words = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "tests/{name} {verb}: {words}");
        Ok(String::from_utf8(out.stdout)?)
    }

    /// Starts the service and gives what it says behind `what=`.
    pub(crate) async fn start(&self, what: &str) -> anyhow::Result<String> {
        let said = self.run("start").await?;
        let mut values = said
            .lines()
            .filter_map(|line| line.strip_prefix(what)?.strip_prefix('='));
        let value = values.next();
        let value = value.with_context(|| format!("tests/{} prints no {what}", self.name))?;
        Ok(value.to_owned())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let mut stop = std::process::Command::new(self.path());
        let stopped = stop.arg("stop").arg(&self.dir).status();
        if stopped.is_ok_and(|status| status.success()) {
            // What stays is swept up by tests/run.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
