//! A real PostgreSQL that a real pgBackRest restored answers the proof of its data: through the tunnel of a master, by TLS,
//! with the newest commit that came back. The operator around it is the stand-in, which knows its repository.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::lab::{LONG, Lab};
use jiff::{SignedDuration, Timestamp};
use jobs::message::{Job, Restore};
use sandbox::operators::percona::Archives;
use sandbox::s3::S3Server;
use serde_json::json;
use tempfile::TempDir;

use super::{JOB, output};
use crate::world::{Life, SERVICE, SOURCE, Scene};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pgbackrest/lab.sh");
const PASSWORD: &str = "of-the-first-life";

/// PostgreSQL and pgBackRest in a folder that goes away.
struct Real {
    // Fields are dropped in this order.
    serving: Option<Child>,
    root: TempDir,
}

impl Real {
    /// Somebody lived, and made backups.
    fn lived() -> anyhow::Result<Self> {
        // PostgreSQL's socket lies in it, and the path of one is short.
        let root = TempDir::with_prefix("pg-")?;
        let serving = None;
        let real = Self { serving, root };
        let made = real.command(&["make"]).env("PASSWORD", PASSWORD).output()?;
        let errors = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "make: {errors}");
        Ok(real)
    }

    /// PostgreSQL does not run as root, so for it we are somebody else; and in a process namespace of its own, nothing of
    /// it outlives this test.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let user = ["--map-user=postgres", "--map-group=postgres"];
        command
            .args(["--pdeathsig", "KILL", "unshare", "--user"])
            .args(user);
        command
            .args(["--pid", "--fork", "--kill-child", SCRIPT])
            .arg(self.root.path());
        command.args(words);
        command
    }

    /// Restores, and answers with this certificate; where.
    fn serve(&mut self, certificate: &str, key: &str) -> anyhow::Result<SocketAddr> {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let mut options = std::fs::OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            std::io::Write::write_all(
                &mut options.open(self.root.path().join(name))?,
                text.as_bytes(),
            )?;
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let mut command = self.command(&["serve", &port.to_string()]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        let stdout = child.stdout.take().context("its output")?;
        self.serving = Some(child);
        BufReader::new(stdout).read_line(&mut said)?;
        ensure!(said == "ready\n", "it said `{said}`");
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if let Some(mut child) = self.serving.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Puts a folder into the bucket, as pgBackRest's own S3 driver would have.
fn upload(s3: &S3Server, folder: &Path, key: &str) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let key = format!("{key}/{}", entry.file_name().to_string_lossy());
        match entry.file_type()? {
            kind if kind.is_dir() => upload(s3, &entry.path(), &key)?,
            kind if kind.is_file() => {
                s3.put_object(&key, std::fs::read(entry.path())?);
            }
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_a_real_restored_postgres_answers_the_proof_of_its_data() -> anyhow::Result<()> {
    let before = Timestamp::now();
    let mut real = Real::lived()?;
    let lived = Timestamp::now();
    let lab = Lab::start().await?;
    let source = SOURCE.trim_start_matches('/');
    upload(&lab.sandbox.s3, &real.root.path().join("repo"), source)?;
    // What it was the real one says, later.
    let life = Life {
        system_id: 0,
        newest: lived,
        between: (lived, lived),
    };
    let scene = Scene::after(lab, Archives::default(), life).await?;
    let signed = &scene.certificate;
    let at = real.serve(&signed.certificate, &signed.key)?;
    scene
        .lab
        .hosts()
        .route(format!("{SERVICE}:5432").parse()?, at);
    // Its roles came back with it; their Secrets lie in Git.
    let data = json!({"password": BASE64.encode(PASSWORD)});
    scene.sim.put(
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
        "metadata": {"namespace": "pg", "name": "pg-db-pguser-postgres"}}),
    )?;

    let failed_at = lived + SignedDuration::from_secs(60);
    let spec = spec(&scene);
    let job = |failed_at| {
        Job::Restore(Restore {
            failed_at: Some(failed_at),
            ..Restore::default()
        })
    };
    let begun = scene.begin(&spec, job(failed_at)).await?;
    let worker = scene.worker().await?;
    begun.finished(LONG).await.with_context(|| scene.errors())?;
    worker.stop().await?;
    let record = scene.record(&begun, JOB).await?;
    let said = output(&record, "data");
    let proofs = said["proofs"].as_array().context("proofs")?;
    assert!(
        proofs.iter().all(|proof| proof["holds"] == true),
        "{proofs:?}"
    );
    let names: Vec<&str> = proofs
        .iter()
        .filter_map(|proof| proof["name"].as_str())
        .collect();
    assert_eq!(names, ["system-id", "timeline", "rows", "late"]);
    assert_eq!(said["timeline"], 2);
    // The row that only the WAL had is the newest commit.
    let newest: Timestamp = serde_json::from_value(said["newest"].clone())?;
    ensure!(
        before < newest && newest < lived,
        "{before} {newest} {lived}"
    );
    let rpo: SignedDuration = serde_json::from_value(said["rpo"].clone())?;
    assert_eq!(rpo, failed_at.duration_since(newest));
    scene.lab.sandbox.stop().await
}

/// The spec with what this database has; it has no column that says when a row was made.
fn spec(scene: &Scene) -> String {
    let spec = scene.spec();
    let (from, to) = (spec.find("  proofs:"), spec.find("applications:"));
    let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
    let proofs = "  proofs:
    - { name: rows, database: postgres, sql: \"select count(*) from rows\", equals: \"3\" }
    - { name: late, database: postgres, sql: \"select count(*) from rows where name = 'late'\", at_least: 1 }
";
    let spec = format!("{}{proofs}{}", &spec[..from], &spec[to..]);
    // The application counts the rows of the stand-in's disk, which has none.
    spec.replace("12 orders", "0 orders")
}
