//! Where a heavy test over SQS takes place: a sandbox, an emulator of SQS of its own
//! (tests/ministack), and workers as processes.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use jobs::queue::{Queue, Sqs, SqsConfig};
use jobs::store::{Credentials, Secret};
use sandbox::world::{Options, Sandbox};
use tokio::process::Command;
use tokio::time::timeout;

use crate::processes::{Workers, program};
use crate::recovery::{Begun, SPEC, begin};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ministack");

/// The first start on a machine installs it.
const SCRIPT_TIME: Duration = Duration::from_secs(300);

/// `rekindle --wait` waits for a whole recovery.
const COMMAND_TIME: Duration = Duration::from_secs(300);

const QUEUE: &str = "rekindle-jobs";
const ACCESS: &str = "test";
const SECRET: &str = "test-secret";

/// An emulator of one's own. Dropping it ends it.
#[derive(Debug)]
pub struct Emulator {
    dir: PathBuf,
    endpoint: String,
}

impl Emulator {
    /// Starts one on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // tests/run sweeps up directories of this name.
        let dir = format!("rekindle-ministack-e2e-{}-{number}", std::process::id());
        let mut emulator = Self {
            dir: std::env::temp_dir().join(dir),
            endpoint: String::new(),
        };
        let said = emulator.script("start").await?;
        let endpoint = said.lines().find_map(|l| l.strip_prefix("SQS_ENDPOINT="));
        emulator.endpoint = endpoint.context("the script prints no URL")?.to_owned();
        Ok(emulator)
    }

    /// Ends it as a power cut would and starts it again on the same port, without what it held.
    pub async fn wipe(&self) -> anyhow::Result<()> {
        self.script("kill").await?;
        self.script("restart").await.map(|_| ())
    }

    /// The work queue as an operator's command line sees it.
    pub fn queue(&self) -> anyhow::Result<Arc<dyn Queue>> {
        Ok(Arc::new(Sqs::new(SqsConfig {
            endpoint: Some(self.endpoint.clone()),
            credentials: Credentials::Keys {
                access: ACCESS.into(),
                secret: Secret::new(SECRET),
            },
            ..SqsConfig::new(QUEUE)
        })?))
    }

    fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("SQS_QUEUE", QUEUE),
            ("SQS_ENDPOINT", &self.endpoint),
            ("SQS_ACCESS_KEY", ACCESS),
            ("SQS_SECRET_KEY", SECRET),
        ]
    }

    async fn script(&self, verb: &str) -> anyhow::Result<String> {
        let mut script = Command::new(SCRIPT);
        script
            .arg(verb)
            .arg(&self.dir)
            .env("WITH_PID", std::process::id().to_string())
            .stdin(Stdio::null());
        let ended = timeout(SCRIPT_TIME, script.output()).await;
        let out = ended.with_context(|| format!("tests/ministack {verb} does not end"))??;
        let words = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "tests/ministack {verb}: {words}");
        Ok(String::from_utf8(out.stdout)?)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let mut stop = std::process::Command::new(SCRIPT);
        let stopped = stop.arg("stop").arg(&self.dir).status();
        if stopped.is_ok_and(|status| status.success()) {
            // What stays is swept up by tests/run.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// A sandbox and SQS.
#[derive(Debug)]
pub struct SqsSite {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// SQS.
    pub emulator: Emulator,
}

impl SqsSite {
    /// Starts both.
    pub async fn with(options: Options) -> anyhow::Result<Self> {
        worker::telemetry::init("e2e");
        worker::install_crypto();
        let (sandbox, emulator) = tokio::try_join!(Sandbox::start(options), Emulator::start())?;
        Ok(Self { sandbox, emulator })
    }

    /// Begins a recovery of the reference cluster.
    pub async fn begin(&self) -> anyhow::Result<Begun> {
        let queue = self.emulator.queue()?;
        let store = self.sandbox.store().await?;
        let begun = begin(&store, queue.as_ref(), SPEC, None).await?;
        queue.close().await;
        Ok(begun)
    }

    /// No workers yet; `args` is their command line.
    pub fn workers(&self, args: &[&str]) -> anyhow::Result<Workers> {
        Workers::on(&self.sandbox, &self.emulator.environment(), args)
    }

    /// Runs `rekindle` with arguments separated by blanks, in a folder with the reference cluster's
    /// spec; it has to end well. What it prints.
    pub async fn rekindle(&self, args: &str) -> anyhow::Result<String> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("cluster.yaml"), SPEC)?;
        let command = Command::new(program("rekindle")?)
            .args(args.split_whitespace())
            .env_clear()
            .env("USER", "ci")
            .envs(self.sandbox.environment())
            .envs(self.emulator.environment())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let out = timeout(COMMAND_TIME, command).await;
        let out = out.context("it does not end")??;
        let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "rekindle {args}\n{stdout}\n{stderr}");
        Ok(stdout)
    }

    /// Takes everything down.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.sandbox.stop().await
    }
}
