//! Workers that must not work: what is wrong is said in clear words and by an exit code, and no
//! secret is among the words.

use std::time::Duration;

use e2e::processes::until;
use e2e::site::{Site, demo};
use sandbox::s3::{Misbehave, S3Options};
use sandbox::world::Options;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(90);

/// Starts a worker that has to end by itself; its exit code and what it said.
async fn refused(site: &Site, name: &str, value: Option<&str>) -> anyhow::Result<(i32, String)> {
    let mut workers = site.workers(&[])?;
    workers.set(name, value);
    let pid = workers.spawn()?;
    let (status, log) = workers.ended(pid, LONG).await?;
    Ok((status.code().unwrap_or(-1), log))
}

#[track_caller]
fn check((code, log): &(i32, String), expected: i32, words: &[&str], secrets: &[String]) {
    assert_eq!(*code, expected, "{log}");
    for word in words {
        assert!(log.contains(word), "no `{word}` in {log}");
    }
    for secret in secrets {
        assert!(!log.contains(secret), "a secret is in {log}");
    }
}

/// What no log may show.
fn secrets(site: &Site) -> Vec<String> {
    let secret = |name: &str| {
        let all = site.sandbox.environment();
        let found = all.into_iter().find(|(there, _)| *there == name);
        found.expect("the sandbox sets it").1
    };
    let key = std::fs::read_to_string(site.sandbox.key_file()).expect("the sandbox wrote it");
    let line = key.lines().nth(1).expect("a key has lines").to_owned();
    vec![
        secret("S3_SECRET_KEY"),
        secret("CLO_AUTH_TOKEN"),
        line,
        "PRIVATE KEY".into(),
        "guest:guest".into(),
        "not-the-".into(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_worker_refuses_wrong_settings_and_credentials() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let secrets = secrets(&site);
    let wrong_password = site.broker.url().replace(":guest@", ":not-the-password@");
    assert_ne!(wrong_password, site.broker.url());
    for (name, value, code, words) in [
        ("S3_BUCKET", None, 2, ["S3_BUCKET", "--s3-bucket"]),
        ("S3_SECRET_KEY", Some("not-the-secret"), 1, ["403", "store"]),
        (
            "S3_SECRET_KEY",
            None,
            2,
            ["S3_ACCESS_KEY is set", "S3_SECRET_KEY"],
        ),
        ("S3_BUCKET", Some("elsewhere"), 1, ["NoSuchBucket", "store"]),
        ("AMQP_URL", None, 2, ["AMQP_URL", "--amqp-url"]),
        (
            "AMQP_URL",
            Some("http://guest:not-the-password@localhost"),
            2,
            ["AMQP_URL", "amqp://"],
        ),
        (
            "AMQP_URL",
            Some(&wrong_password),
            1,
            ["take jobs", "refused"],
        ),
        (
            "CLO_OBJECT_ID",
            None,
            2,
            ["CLO_AUTH_TOKEN is set", "CLO_OBJECT_ID"],
        ),
        (
            "SSH_PRIVATE_KEY_FILE",
            Some("/nowhere/key"),
            2,
            ["/nowhere/key", "No such file"],
        ),
        (
            "SSH_PRIVATE_KEY",
            Some("not-the-key"),
            2,
            ["SSH_PRIVATE_KEY", "both"],
        ),
    ] {
        eprintln!("{name} is {value:?}");
        check(&refused(&site, name, value).await?, code, &words, &secrets);
    }
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_worker_refuses_an_unsafe_bucket() -> anyhow::Result<()> {
    for misbehave in [Misbehave::IgnoreConditions, Misbehave::RaceConditions] {
        let s3 = S3Options {
            misbehave,
            ..S3Options::default()
        };
        let site = Site::with(Options {
            s3,
            ..Options::default()
        })
        .await?;
        let refused = refused(&site, "RUST_BACKTRACE", None).await?;
        check(&refused, 5, &["store"], &secrets(&site));
        site.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_worker_waits_for_a_broker_that_is_not_there_yet() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    site.broker.kill9().await?;
    let mut workers = site.workers(&[])?;
    // Everything that it logs, as somebody would who looks for the trouble.
    workers.set("RUST_LOG", Some("debug,lapin=debug"));
    let pid = workers.spawn()?;
    until("it complains about the broker", LONG, async || {
        Ok(workers.logs()?.contains("the broker is away").then_some(()))
    })
    .await?;
    assert!(workers.fallen()?.is_empty(), "it waits for the broker");
    site.broker.restart().await?;
    let begun = site.begin(Some(vec![demo("a", 5, 10, None)])).await?;
    begun.finished(LONG).await?;
    assert_eq!(workers.pids(), [pid]);
    check(
        &(0, workers.logs()?),
        0,
        &["ready for jobs"],
        &secrets(&site),
    );
    workers.stop().await?;
    site.stop().await
}
