//! What the benchmarks work on: the embedded S3, a queue, and workers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use e2e::lab::demo;
use jobs::plan::PlannedJob;
use jobs::queue::{InProcess, Queue, Rabbit, RabbitConfig};

/// A queue and, where it is RabbitMQ, the node behind it.
pub(crate) struct Broker {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) url: Option<String>,
    folder: Option<tempfile::TempDir>,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rabbitmq");

impl Broker {
    /// RabbitMQ, or the in-process queue.
    pub(crate) fn start(rabbitmq: bool) -> anyhow::Result<Self> {
        if rabbitmq {
            Self::rabbitmq()
        } else {
            Ok(Self::in_process())
        }
    }

    fn in_process() -> Self {
        Self {
            queue: Arc::new(InProcess::new()),
            url: None,
            folder: None,
        }
    }

    /// A RabbitMQ node of our own; it ends with this process.
    fn rabbitmq() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("rekindle-bench-")
            .tempdir()?;
        let mut start = Command::new(SCRIPT);
        start
            .arg("start")
            .arg(folder.path())
            .env("WITH_PID", std::process::id().to_string());
        let output = start.output().context("run tests/rabbitmq")?;
        ensure!(
            output.status.success(),
            "tests/rabbitmq: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let url = text
            .lines()
            .find_map(|l| l.strip_prefix("AMQP_URL="))
            .context("no AMQP_URL")?
            .trim()
            .to_owned();
        let queue = Arc::new(Rabbit::new(RabbitConfig::new(url.clone()))?);
        Ok(Self {
            queue,
            url: Some(url),
            folder: Some(folder),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.url.is_some() {
            "RabbitMQ"
        } else {
            "in-process queue"
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = Command::new(SCRIPT).arg("stop").arg(folder.path()).output();
        }
    }
}

/// So many jobs of steps that do nothing for a while, for as many nodes.
pub(crate) fn demos(jobs: u32, steps: u32, step_ms: u64) -> anyhow::Result<Vec<PlannedJob>> {
    (0..jobs)
        .map(|n| demo(&format!("bench-{n}"), steps, step_ms, None, &[]))
        .collect()
}

/// A worker process; it is killed when dropped.
pub(crate) struct WorkerProcess(pub(crate) Child);

impl WorkerProcess {
    pub(crate) fn start(
        environment: &[(&'static str, String)],
        amqp: &str,
    ) -> anyhow::Result<Self> {
        let program = beside("rekindle-worker")?;
        let child = Command::new(program)
            .envs(environment.iter().cloned())
            .env("AMQP_URL", amqp)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("start rekindle-worker")?;
        Ok(Self(child))
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A binary of the workspace, which lies where this one does.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let path = me.parent().unwrap_or(Path::new(".")).join(name);
    ensure!(
        path.exists(),
        "{} is not there: build the workspace in this profile first",
        path.display()
    );
    Ok(path)
}
