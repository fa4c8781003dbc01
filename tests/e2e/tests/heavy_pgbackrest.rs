//! A real PostgreSQL with a real pgBackRest: what we read of its repository is what pgBackRest says
//! itself, and the options that we give the operator bring back what the plan promised.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use jobs::store::{Credentials, Secret, StoreConfig};
use sandbox::s3::{S3Options, S3Server};
use serde_json::Value;
use tempfile::TempDir;
use worker::pgbackrest::{
    Choice, ChooseError, Location, Refusal, Repository, RestorePlan, Set, Source, Stanza, Target,
    Values, Wish,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pgbackrest/lab.sh");

/// A database and its repository in a folder that goes away.
struct Lab {
    root: TempDir,
}

impl Lab {
    fn new() -> Result<Self> {
        // PostgreSQL's socket lies in it, and the path of one is short.
        let root = TempDir::with_prefix("pg-")?;
        Ok(Self { root })
    }

    /// Runs a command of the script. PostgreSQL does not run as root, so for it we are somebody else; and
    /// in a process namespace of its own, nothing of it outlives this test.
    fn run(&self, command: &[&str]) -> Result<String> {
        let output = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--user",
                "--map-user=postgres",
            ])
            .args(["--map-group=postgres", "--pid", "--fork", "--kill-child"])
            .arg(SCRIPT)
            .arg(self.root.path())
            .args(command)
            .output()
            .context("run the script")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{command:?}: {} {errors}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The rows that a restore brings back.
    fn restore(&self, name: &str, choice: &Choice) -> Result<Vec<String>> {
        let options = options(choice)?.join(" ");
        let rows = self.run(&["restore", name, &options])?;
        Ok(rows.lines().map(str::to_owned).collect())
    }

    fn repo(&self) -> PathBuf {
        self.root.path().join("repo")
    }
}

/// The options as they stand in the values that the operator gets.
fn options(choice: &Choice) -> Result<Vec<String>> {
    let location = Location {
        bucket: "pgbak".into(),
        endpoint: "s3.example.org".into(),
        region: "us-east-1".into(),
        path: "/pgbackrest/repo1".into(),
    };
    let new = Location {
        path: "/pgbackrest/new/repo1".into(),
        ..location.clone()
    };
    let source = Source {
        location,
        stanza: "db".into(),
        repo: "repo1".into(),
        secret: "s3".into(),
        path_style: false,
        tolerations: Vec::new(),
    };
    let values = serde_json::to_value(Values::restoring(
        &source,
        &choice.set.label,
        choice.target,
        &new,
    )?)?;
    let options = values["dataSource"]["pgbackrest"]["options"].clone();
    Ok(serde_json::from_value(options)?)
}

/// Puts a folder into a bucket, as pgBackRest's own S3 driver would have.
fn upload(server: &S3Server, folder: &Path, key: &str) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let key = format!("{key}/{}", name.to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            upload(server, &entry.path(), &key)?;
        } else if kind.is_file() {
            server.put_object(&key, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// A bucket with the repository as it is now.
async fn bucket(lab: &Lab) -> Result<(S3Server, Repository)> {
    let server = S3Server::start(S3Options::default()).await?;
    upload(&server, &lab.repo(), "pgbackrest/repo1")?;
    let place = StoreConfig {
        endpoint: Some(server.endpoint()),
        bucket: server.bucket().to_owned(),
        credentials: Credentials::Keys {
            access: server.access_key().to_owned(),
            secret: Secret::new(server.secret_key()),
        },
        region: "us-east-1".into(),
        prefix: "pgbackrest/repo1".into(),
        path_style: true,
        timeout: Duration::from_secs(10),
    };
    let repository = Repository::connect(&place, "db").await?;
    Ok((server, repository))
}

/// One set as pgBackRest tells of it.
fn told(set: &Set) -> Value {
    let wal = set.wal.expect("it was made online");
    serde_json::json!({
        "label": set.label,
        "type": set.kind,
        "timestamp": { "start": set.start.as_second(), "stop": set.stop.as_second() },
        "archive": { "start": wal.first, "stop": wal.last },
        "lsn": { "start": wal.start, "stop": wal.stop },
        "size": set.size,
        "repo-size": set.repo_size,
        "repo-delta": set.repo_size_delta,
        "reference": set.references,
        "database": set.db_id,
        "annotation": set.annotations,
    })
}

/// The same out of its own words.
fn said(backup: &Value) -> Value {
    let or = |value: &Value, other: Value| {
        if value.is_null() {
            other
        } else {
            value.clone()
        }
    };
    serde_json::json!({
        "label": backup["label"],
        "type": backup["type"],
        "timestamp": backup["timestamp"],
        "archive": backup["archive"],
        "lsn": backup["lsn"],
        "size": backup["info"]["size"],
        "repo-size": backup["info"]["repository"]["size"],
        "repo-delta": backup["info"]["repository"]["delta"],
        "reference": or(&backup["reference"], serde_json::json!([])),
        "database": backup["database"]["id"],
        "annotation": or(&backup["annotation"], serde_json::json!({})),
    })
}

fn is_as_pgbackrest_says(stanza: &Stanza, info: &str) -> Result<()> {
    let info: Value = serde_json::from_str(info)?;
    let info = &info[0];
    assert_eq!(info["status"]["code"], 0, "{info}");
    let theirs: Vec<Value> = info["backup"]
        .as_array()
        .context("sets")?
        .iter()
        .map(said)
        .collect();
    let ours: Vec<Value> = stanza.sets.iter().map(told).collect();
    assert_eq!(ours, theirs);
    let database = &info["db"][0];
    assert_eq!(database["system-id"], stanza.database.system_id);
    assert_eq!(database["version"], stanza.database.version);
    let newest = stanza.archive.newest();
    let newest = newest.last().context("WAL")?;
    assert_eq!(info["archive"][0]["max"], newest.segment.to_string());
    assert_eq!(
        info["archive"][0]["id"],
        format!("{}-1", stanza.database.version)
    );
    Ok(())
}

fn to(target: Target) -> Wish {
    Wish {
        target,
        ..Wish::default()
    }
}

#[tokio::test]
async fn heavy_a_real_repository_is_read_and_restored_as_planned() -> Result<()> {
    let lab = Lab::new()?;
    let times = lab.run(&["make"])?;
    let between: Timestamp = times
        .trim()
        .strip_prefix("between=")
        .context("a time")?
        .parse()?;
    let info = lab.run(&["info"])?;

    let (server, repository) = bucket(&lab).await?;
    let before = server.objects("");
    let stanza = Stanza::read(&repository, None).await?;
    is_as_pgbackrest_says(&stanza, &info)?;
    assert!(stanza.sets.iter().all(Set::is_usable), "{:?}", stanza.sets);
    assert_eq!(
        (&stanza.backups.from_copy, &stanza.archives.from_copy),
        (&None, &None)
    );

    let set = "before the last set";
    let end = stanza.choose(&to(Target::End))?;
    assert_eq!(end.reach.stop, None);
    assert_eq!(lab.restore("end", &end)?, [set, "early", "late"]);
    let time = stanza.choose(&to(Target::Time(between)))?;
    assert_eq!(lab.restore("time", &time)?, [set, "early"]);
    let immediate = stanza.choose(&to(Target::Immediate))?;
    assert_eq!(lab.restore("immediate", &immediate)?, [set]);
    let plan = RestorePlan::new(&stanza, &immediate, between);
    assert!(plan.loss.recovers_to < between && plan.loss.rpo.is_positive());

    // The segment of the last row is lost: PostgreSQL does not mind, and we do.
    let last = end.reach.last.context("WAL")?.segment.to_string();
    let late = server.objects("pgbackrest/repo1/archive/db/");
    let second = late.iter().rev().map(|(key, _)| key).find(|key| {
        let name = key.rsplit('/').next().unwrap_or_default();
        name.len() > 24 && name.as_bytes()[24] == b'-' && !name.starts_with(&last)
    });
    let second = second.context("a segment before the last")?;
    assert!(server.delete_object(second));
    let file = lab
        .root
        .path()
        .join(second.replacen("pgbackrest/repo1", "repo", 1));
    std::fs::rename(&file, lab.root.path().join("segment"))?;
    let gapped = Stanza::read(&repository, None).await?;
    let refused = gapped.choose(&Wish::default()).expect_err("a gap");
    assert!(matches!(refused, Refusal::Gap { .. }), "{refused}");
    let accepted = Wish {
        accept_gap: true,
        ..Wish::default()
    };
    let rows = lab.restore("gap", &gapped.choose(&accepted)?)?;
    assert!(!rows.contains(&"late".to_owned()), "{rows:?}");
    std::fs::rename(lab.root.path().join("segment"), &file)?;

    // Reading changed nothing in the bucket.
    let after = server.objects("");
    assert!(after.iter().all(|object| before.contains(object)) && after.len() + 1 == before.len());
    Ok(())
}

#[tokio::test]
async fn heavy_a_promotion_and_a_second_database_are_seen_in_a_real_repository() -> Result<()> {
    let lab = Lab::new()?;
    lab.run(&["make"])?;
    lab.run(&["promote"])?;
    let (_server, repository) = bucket(&lab).await?;
    let stanza = Stanza::read(&repository, None).await?;
    is_as_pgbackrest_says(&stanza, &lab.run(&["info"])?)?;
    let choice = stanza.choose(&Wish::default())?;
    assert_eq!((choice.reach.timeline, choice.reach.stop), (2, None));
    let rows = lab.restore("second", &choice)?;
    assert_eq!(rows, ["before the last set", "early", "late", "promoted"]);

    let original = stanza.database.system_id;
    lab.run(&["upgrade"])?;
    let (_server, repository) = bucket(&lab).await?;
    let error = Stanza::read(&repository, None)
        .await
        .expect_err("two databases");
    let several = matches!(error, ChooseError::Refused(Refusal::SeveralSystems { .. }));
    assert!(several, "{error}");
    // pgBackRest itself would take the newest set, which is of the empty cluster.
    let stanza = Stanza::read(&repository, Some(original)).await?;
    let again = stanza.choose(&Wish::default())?;
    assert_eq!(again.set.label, choice.set.label);
    let rows = lab.restore("original", &again)?;
    assert!(rows.contains(&"promoted".to_owned()), "{rows:?}");
    let young = stanza.sets.last().context("the empty cluster's set")?;
    assert!(!young.is_usable() && young.db_id == 2, "{young:?}");
    Ok(())
}
