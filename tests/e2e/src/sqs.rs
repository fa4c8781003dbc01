//! Where a heavy test over SQS takes place: a sandbox, an emulator of SQS of its own
//! (tests/ministack), and workers as processes.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use jobs::queue::{Queue, Sqs, SqsConfig};
use jobs::store::{Credentials, Secret};
use sandbox::world::{Options, Sandbox};
use tokio::process::Command;
use tokio::time::timeout;

use crate::processes::{Workers, program};
use crate::recovery::{Begun, SPEC, begin};
use crate::script::Script;

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
    script: Script,
    endpoint: String,
}

impl Emulator {
    /// Starts one on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        let script = Script::new("ministack", "rekindle-ministack", SCRIPT_TIME);
        let endpoint = script.start("SQS_ENDPOINT").await?;
        Ok(Self { script, endpoint })
    }

    /// Ends it as a power cut would and starts it again on the same port, without what it held.
    pub async fn wipe(&self) -> anyhow::Result<()> {
        self.script.run("kill").await?;
        self.script.run("restart").await.map(|_| ())
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
