//! `rekindle` as CI calls it: over RabbitMQ, with the work done by another process.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context;
use e2e::processes::program;
use e2e::recovery::SPEC;
use e2e::site::Site;
use sandbox::clo::Operation;
use tokio::process::Command;
use tokio::time::timeout;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(240);

const DEMO_PLAN: &str = "version: 1\njobs: [{ job: demo }]\n";

/// A shell with the settings of a site, in a folder of its own.
struct Shell {
    env: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl Shell {
    fn new(site: &Site) -> anyhow::Result<Self> {
        let mut env: Vec<(String, String)> = site
            .sandbox
            .environment()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        env.push(("AMQP_URL".into(), site.broker.url().into()));
        env.push(("USER".into(), "ci".into()));
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("cluster.yaml"), SPEC)?;
        std::fs::write(folder.path().join("demo.yaml"), DEMO_PLAN)?;
        Ok(Self { env, folder })
    }

    /// Runs `rekindle` with arguments separated by blanks; what it prints and its exit code.
    async fn rekindle(&self, args: &str, code: i32) -> anyhow::Result<String> {
        let command = Command::new(program("rekindle")?)
            .args(args.split_whitespace())
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let Output {
            status,
            stdout,
            stderr,
        } = timeout(LONG, command).await.context("it does not end")??;
        let stderr = String::from_utf8_lossy(&stderr);
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        assert_eq!(
            status.code(),
            Some(code),
            "rekindle {args}\n{stdout}\n{stderr}"
        );
        Ok(stdout)
    }

    async fn json(&self, args: &str, code: i32) -> anyhow::Result<serde_json::Value> {
        let text = self
            .rekindle(&format!("{args} --output json"), code)
            .await?;
        serde_json::from_str(&text).with_context(|| text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_cli_end_to_end() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let shell = Shell::new(&site)?;
    let mut workers = site.workers(&[])?;
    workers.spawn()?;

    let recover = "recover --cluster test --spec cluster.yaml --key ci-1 --wait --timeout 3m";
    shell.rekindle(recover, 0).await?;
    assert_eq!(site.sandbox.clo.effects(Operation::CreateServer), 17);
    workers.stop().await?;
    site.broker.kill9().await?;

    // Neither broker nor worker: what happened is in the bucket.
    let status = shell.json("status --cluster test", 0).await?;
    let text = shell.rekindle("status --cluster test", 0).await?;
    for word in [
        "succeeded",
        "provision/test-web-1",
        "load-balancer",
        "report",
    ] {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
    // The same key is the same recovery: it is over, and nothing is done again.
    shell.rekindle(recover, 0).await?;
    let again = shell.json("status --cluster test", 0).await?;
    assert_eq!(again, status);
    assert_eq!(site.sandbox.clo.effects(Operation::CreateServer), 17);
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_cli_tells_by_its_exit_code_how_it_ended() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let shell = Shell::new(&site)?;
    // Nobody works: the recovery is there and waits.
    let demo = "demo --cluster test --spec cluster.yaml --steps 3 --step-ms 10 --key";
    shell
        .rekindle(&format!("{demo} a --wait --timeout 1s"), 3)
        .await?;
    let mut workers = site.workers(&[])?;
    workers.spawn()?;
    // The one that was given up waiting for is attached to.
    shell
        .rekindle(&format!("{demo} a --wait --timeout 2m"), 0)
        .await?;
    shell
        .rekindle(&format!("{demo} b --fail-at 1 --wait --timeout 2m"), 1)
        .await?;
    let status = shell.rekindle("status --cluster test", 0).await?;
    assert!(status.contains("step 1 fails"), "{status}");
    shell
        .rekindle(&format!("{demo} c --no-such-flag"), 2)
        .await?;
    workers.stop().await?;
    site.stop().await
}
