//! Where a heavy test takes place: a sandbox and a broker of its own, and workers as processes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use jobs::ids::NodeName;
use jobs::message::{Demo, Job};
use jobs::plan::PlannedJob;
use sandbox::clo::CloOptions;
use sandbox::s3::S3Options;
use sandbox::world::{HostKind, Options, Sandbox};
use tokio::process::Command;
use tokio::time::timeout;

use crate::processes::{Broker, Workers, program};
use crate::recovery::{Begun, SPEC, begin};

/// A sandbox and a broker.
#[derive(Debug)]
pub struct Site {
    /// The sandbox.
    pub sandbox: Sandbox,
    /// The broker.
    pub broker: Broker,
}

impl Site {
    /// In-process hosts that boot at once: for tests of workers and broker.
    pub async fn quick() -> anyhow::Result<Self> {
        Self::with(Options::default()).await
    }

    /// Real hosts, in a cloud that takes its time.
    pub async fn real(boot_time: Duration) -> anyhow::Result<Self> {
        let clo = CloOptions {
            boot_time,
            settle_time: Duration::from_millis(200),
            ..CloOptions::default()
        };
        let hosts = HostKind::Namespaces;
        Self::with(Options {
            hosts,
            clo,
            ..Options::default()
        })
        .await
    }

    /// Any other.
    pub async fn with(options: Options) -> anyhow::Result<Self> {
        Self::of(options, Broker::start()).await
    }

    /// One with a broker that takes a delivery back after a while.
    pub async fn impatient(consumer_timeout: Duration) -> anyhow::Result<Self> {
        Self::of(Options::default(), Broker::impatient(consumer_timeout)).await
    }

    /// One whose store and broker want these secrets.
    pub async fn with_secrets(s3: &str, broker: &str) -> anyhow::Result<Self> {
        let s3 = S3Options {
            secret_key: s3.to_owned(),
            ..S3Options::default()
        };
        let options = Options {
            s3,
            ..Options::default()
        };
        Self::of(options, Broker::with_password(broker)).await
    }

    async fn of(
        options: Options,
        broker: impl Future<Output = anyhow::Result<Broker>>,
    ) -> anyhow::Result<Self> {
        worker::telemetry::init("e2e");
        worker::install_crypto();
        let (sandbox, broker) = tokio::try_join!(Sandbox::start(options), broker)?;
        Ok(Self { sandbox, broker })
    }

    /// Begins a recovery of the reference cluster by way of the broker, as `rekindle` does.
    pub async fn begin(&self, plan: Option<Vec<PlannedJob>>) -> anyhow::Result<Begun> {
        self.begin_with(SPEC, plan).await
    }

    /// The same of any cluster.
    pub async fn begin_with(
        &self,
        spec: &str,
        plan: Option<Vec<PlannedJob>>,
    ) -> anyhow::Result<Begun> {
        let queue = self.broker.queue()?;
        let store = self.sandbox.store().await?;
        let begun = begin(&store, queue.as_ref(), spec, plan).await?;
        queue.close().await;
        Ok(begun)
    }

    /// Runs `rekindle` with the workers' settings and others; what it printed, and its exit code.
    pub async fn rekindle(
        &self,
        folder: &Path,
        settings: &[(&str, &str)],
        args: &str,
    ) -> anyhow::Result<(i32, String)> {
        let mut command = Command::new(program("rekindle")?);
        command
            .args(args.split_whitespace())
            .env_clear()
            .envs(self.sandbox.environment())
            .env("AMQP_URL", self.broker.url())
            .envs(settings.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(Duration::from_secs(120), command.output());
        let output = output.await.context("rekindle does not end")??;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code().unwrap_or(-1), said))
    }

    /// No workers yet; `args` is their command line.
    pub fn workers(&self, args: &[&str]) -> anyhow::Result<Workers> {
        Workers::new(&self.sandbox, &self.broker, args)
    }

    /// Takes everything down.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.sandbox.stop().await
    }
}

/// A demo job without needs, told apart from others by a node name.
///
/// # Panics
/// When the name is none.
pub fn demo(node: &str, steps: u32, step_ms: u64, abort_at: Option<u32>) -> PlannedJob {
    let node = NodeName::new(node).expect("the tests use good names");
    let payload = Job::Demo(Demo {
        steps,
        step_ms,
        abort_at,
        fail_at: None,
        child: false,
        node: Some(node),
    });
    PlannedJob {
        name: payload.name(),
        payload,
        needs: Vec::new(),
        always: false,
    }
}

/// The same with steps that spend their time in a program.
///
/// # Panics
/// When the name is none.
pub fn demo_with_programs(node: &str, steps: u32, step_ms: u64) -> PlannedJob {
    let mut job = demo(node, steps, step_ms, None);
    if let Job::Demo(demo) = &mut job.payload {
        demo.child = true;
    }
    job
}
