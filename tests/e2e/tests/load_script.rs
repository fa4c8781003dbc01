//! Our k6 script as a real k6 runs it: what it counts is what the application counted, and its summary is one that
//! the worker reads, of the very shape that the stand-in for k6 writes.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use e2e::load::Counter;
use e2e::processes::program;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use worker::load::k6::{Log, Told, read};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/loadtest/test.js");

/// The program, which `tests/run` installs.
async fn k6() -> anyhow::Result<Command> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../k6");
    let found = Command::new(script).arg("install").output().await?;
    let said = String::from_utf8_lossy(&found.stderr);
    ensure!(found.status.success(), "tests/k6 install: {said}");
    let folder = String::from_utf8(found.stdout)?;
    let mut command = Command::new(format!("{}/k6", folder.trim()));
    // It asks nobody whether there is a newer one, and tells nobody that it ran.
    command.env("K6_NO_USAGE_REPORT", "true").kill_on_drop(true);
    command.args(["run", "--quiet"]);
    Ok(command)
}

/// What the script is told.
fn environment(command: &mut Command, port: u16) {
    let target = format!("http://127.0.0.1:{port}/");
    command.env("TARGET", target).envs([
        ("VUS", "10"),
        ("ITERATIONS", "3"),
        ("MAX_DURATION", "60s"),
        ("P95_MS", "20000"),
        ("ERROR_RATE", "0.01"),
        ("CHECKS", "0.99"),
    ]);
}

/// Exit code, the summary's text, and what is read of it.
async fn run(mut command: Command) -> anyhow::Result<(Option<i32>, String, Told)> {
    let output = command.output().await?;
    let log = Log::of(&String::from_utf8_lossy(&output.stdout));
    let summary = log.summary().with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("{:?} {errors}", log.end())
    })?;
    Ok((output.status.code(), summary.to_owned(), read(summary)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_k6_counts_what_the_application_counts() -> anyhow::Result<()> {
    let app = Arc::new(Counter::default());
    let port = app.start().await?;
    let mut command = k6().await?;
    environment(&mut command, port);
    command.arg(SCRIPT);
    let (code, text, told) = run(command).await?;
    assert_eq!((code, told.broken.len(), app.asked()), (Some(0), 0, 30));
    let summary = &told.summary;
    assert_eq!((summary.requests, summary.failed), (30, 0));
    assert_eq!((summary.iterations, summary.dropped), (30, 0));
    assert_eq!((summary.checks_held, summary.checks_failed), (30, 0));
    let latency = &summary.latency;
    ensure!(
        latency.min > 0.0 && latency.p95 <= latency.max,
        "{latency:?}"
    );
    ensure!(
        !text.contains("127.0.0.1"),
        "the target is a secret: {text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_k6_ends_with_99_where_nothing_answers_well() -> anyhow::Result<()> {
    let app = Arc::new(Counter::default());
    let port = app.start().await?;
    app.breaks();
    let mut command = k6().await?;
    environment(&mut command, port);
    command.arg(SCRIPT);
    let (code, _, told) = run(command).await?;
    assert_eq!((code, app.asked()), (Some(99), 30));
    assert_eq!((told.summary.requests, told.summary.failed), (30, 30));
    assert_eq!(told.summary.checks_failed, 30);
    ensure!(told.broken.len() == 2, "{:?}", told.broken);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_says_it_as_a_real_k6_does() -> anyhow::Result<()> {
    let app = Arc::new(Counter::default());
    let port = app.start().await?;
    let mut real = k6().await?;
    environment(&mut real, port);
    real.arg(SCRIPT);
    let (_, real, _) = run(real).await?;

    let mut stand_in = Command::new(program("k6-stand-in")?);
    environment(&mut stand_in, port);
    stand_in
        .args(["run", "--quiet", "test.js"])
        .kill_on_drop(true);
    let (code, stand_in, _) = run_stand_in(stand_in).await?;
    assert_eq!(code, Some(0));
    let (real, stand_in): (Value, Value) = (
        serde_json::from_str(&real)?,
        serde_json::from_str(&stand_in)?,
    );
    let mut missing = Vec::new();
    differs("", &real, &stand_in, &mut missing);
    ensure!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}

/// The stand-in gets its files by the first line of its input, which stays open as long as it may live.
async fn run_stand_in(mut command: Command) -> anyhow::Result<(Option<i32>, String, Told)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("a pipe")?;
    let files = json!({"test.js": std::fs::read_to_string(SCRIPT)?});
    input.write_all(format!("{files}\n").as_bytes()).await?;
    let output = child.wait_with_output().await?;
    drop(input);
    let log = Log::of(&String::from_utf8_lossy(&output.stdout));
    let summary = log.summary().with_context(|| format!("{:?}", log.end()))?;
    Ok((output.status.code(), summary.to_owned(), read(summary)?))
}

/// What the stand-in's summary has that the real one has not, or has of another kind.
fn differs(at: &str, real: &Value, stand_in: &Value, found: &mut Vec<String>) {
    match (real, stand_in) {
        (Value::Object(real), Value::Object(fields)) => {
            for (key, value) in fields {
                let at = format!("{at}/{key}");
                match real.get(key) {
                    Some(real) => differs(&at, real, value, found),
                    None => found.push(format!("{at} is not in the real one")),
                }
            }
        }
        (Value::Array(real), Value::Array(items)) => {
            if let (Some(real), Some(item)) = (real.first(), items.first()) {
                differs(&format!("{at}[]"), real, item, found);
            }
        }
        (Value::Number(_), Value::Number(_)) | (Value::Bool(_), Value::Bool(_)) => {}
        (real, other) if real == other || real.is_string() && other.is_string() => {}
        (real, other) => found.push(format!("{at}: {other} instead of {real}")),
    }
}
