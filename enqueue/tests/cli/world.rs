//! The world of the tests: the sandbox's S3 server, and the built binary run against it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jobs::store::{Credentials, Secret, Store, StoreConfig};
use sandbox::s3::{S3Options, S3Server};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The spec that most tests use: no load balancer, two nodes.
pub(crate) const SPEC: &str = "\
version: 1
cluster: test
servers: { image: { distribution: ubuntu, version: \"22.04\" }, keypair: k }
groups:
  - prefix: web
    role: worker
    instances: { 1: true, 2: true }
    vcpus: 2
    ram_gb: 2
    boot_disk: { size_gb: 20 }
";

/// What a spec with a way in has at its end.
pub(crate) const LOAD_BALANCER: &str =
    "    forward: [{ port: 2205, to: 22 }]\nload_balancer: { algorithm: round_robin }\n";

/// A plan that needs no cloud.
pub(crate) const DEMO_PLAN: &str = "version: 1\njobs: [{ job: demo }]\n";

/// A store, a directory for files, and the binary.
pub(crate) struct World {
    pub(crate) s3: S3Server,
    pub(crate) files: TempDir,
}

/// What a run of the binary came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        let s3 = S3Server::start(S3Options::default()).await.unwrap();
        let files = tempfile::tempdir().unwrap();
        let world = Self { s3, files };
        world.file("cluster.yaml", SPEC);
        world.file("plan.yaml", DEMO_PLAN);
        world
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs the binary; arguments are separated by blanks.
    pub(crate) async fn run(&self, args: &str) -> Run {
        self.run_with(args, &[]).await
    }

    /// Runs the binary with more environment.
    pub(crate) async fn run_with(&self, args: &str, env: &[(&str, &str)]) -> Run {
        let more = env.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let env: Vec<(&str, String)> = self.environment().into_iter().chain(more).collect();
        run(args, self.files.path(), &env).await
    }

    /// Starts the binary and leaves it running.
    pub(crate) fn spawn(&self, args: &str) -> Child {
        let mut command = command(args, self.files.path(), &self.environment());
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("S3_ENDPOINT", self.s3.endpoint()),
            ("S3_BUCKET", self.s3.bucket().to_owned()),
            ("S3_ACCESS_KEY", self.s3.access_key().to_owned()),
            ("S3_SECRET_KEY", self.s3.secret_key().to_owned()),
        ]
    }

    /// The same bucket, as the tests see it.
    pub(crate) async fn store(&self) -> Store {
        let config = StoreConfig {
            endpoint: Some(self.s3.endpoint()),
            bucket: self.s3.bucket().into(),
            credentials: Credentials::Keys {
                access: self.s3.access_key().into(),
                secret: Secret::new(self.s3.secret_key()),
            },
            region: "us-east-1".into(),
            prefix: String::new(),
            path_style: true,
            timeout: Duration::from_secs(10),
        };
        Store::connect(&config).await.unwrap()
    }

    /// How many objects have keys with this beginning.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.s3.objects(prefix).len()
    }

    pub(crate) fn path(&self) -> &Path {
        self.files.path()
    }
}

fn command(args: &str, folder: &Path, env: &[(&str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command
        .args(args.split_whitespace())
        .env_clear()
        .env("USER", "alice")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs the binary in a folder, with this environment and nothing else.
pub(crate) async fn run(args: &str, folder: &Path, env: &[(&str, String)]) -> Run {
    let mut command = command(args, folder, env);
    let ran = tokio::time::timeout(Duration::from_secs(120), command.output());
    let output = ran.await.expect("the command ends").unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Run {
    /// Checks the exit code and gives the run back.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Checks that stderr says something.
    #[track_caller]
    pub(crate) fn complains(self, what: &str) -> Self {
        assert!(self.stderr.contains(what), "no `{what}` in {self:#?}");
        self
    }

    /// Checks that stdout says something.
    #[track_caller]
    pub(crate) fn says(self, what: &str) -> Self {
        assert!(self.stdout.contains(what), "no `{what}` in {self:#?}");
        self
    }

    /// Stdout as the one JSON document it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in {self:#?}"))
    }

    /// Stdout as JSON lines.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {self:#?}")))
            .collect()
    }
}
