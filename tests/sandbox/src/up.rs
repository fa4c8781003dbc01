//! `sandbox up`: the world for work by hand.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use sandbox::say::line;
use sandbox::world::{Options, Sandbox};

/// Starts the world, prints its environment, and keeps it until a signal.
pub(crate) async fn run(options: Options, rabbitmq: bool) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(options).await?;
    let broker = match rabbitmq.then(Broker::start).transpose() {
        Ok(broker) => broker,
        Err(e) => {
            sandbox.stop().await?;
            return Err(e);
        }
    };
    line(&format!(
        "# The world is up (hosts: {}). In another terminal:",
        sandbox.hosts.kind()
    ));
    for (name, value) in sandbox.environment() {
        line(&format!("export {name}='{value}'"));
    }
    match &broker {
        Some(broker) => line(&format!("export AMQP_URL='{}'", broker.url)),
        None => line(
            "# No broker: use `--here`, or start this with --rabbitmq, or export AMQP_URL of yours.",
        ),
    }
    line("# cargo run --release -p enqueue -- doctor");
    line("# cargo run --release -p worker &");
    line(
        "# cargo run --release -p enqueue -- recover --cluster test --spec deploy/examples/cluster.yaml --wait",
    );
    line("# Ctrl-C ends the world and everything in it.");
    worker::shutdown_signal().await;
    drop(broker);
    sandbox.stop().await
}

/// A RabbitMQ node of our own, by the script that the tests use.
struct Broker {
    folder: tempfile::TempDir,
    url: String,
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rabbitmq");

impl Broker {
    fn start() -> anyhow::Result<Self> {
        ensure!(
            Path::new(SCRIPT).exists(),
            "tests/rabbitmq is not there: run this from a checkout"
        );
        let folder = tempfile::Builder::new()
            .prefix("rekindle-rabbitmq-")
            .tempdir()?;
        let output = Command::new(SCRIPT)
            .arg("start")
            .arg(folder.path())
            .output()
            .context("run tests/rabbitmq")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "tests/rabbitmq start failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let url = text
            .lines()
            .find_map(|l| l.strip_prefix("AMQP_URL="))
            .context("tests/rabbitmq printed no AMQP_URL")?;
        Ok(Self {
            url: url.trim().to_owned(),
            folder,
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing can be done about a node that does not stop; its folder names it.
        let _ = Command::new(SCRIPT)
            .arg("stop")
            .arg(self.folder.path())
            .output();
    }
}
