//! The seam between jobs and machines: run a command, get its output.
//!
//! [`Host`] is what an SSH connection is to a job, and what a scripted fake can be in its tests.
//! What can be built from running commands is in [`HostExt`], for all hosts alike.

use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::error::SshError;

/// How long a command may take unless it says otherwise. Turns are not longer either.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How much output of a command is kept; more is an error.
pub const OUTPUT_LIMIT: usize = 8 * 1024 * 1024;
/// How much of the error output stands in an error.
const STDERR_SHOWN: usize = 1000;

/// A machine that runs commands.
#[async_trait]
pub trait Host: Send + Sync {
    /// Which machine this is, for errors: `root@10.0.0.5:22`.
    fn name(&self) -> &str;

    /// Runs a command to its end. Any exit status is a success here; no exit status never is.
    async fn execute(&self, command: &Command) -> Result<Output, SshError>;
}

/// A command. Its words arrive as they are, whatever is in them. Secrets belong into the standard
/// input: everybody on the machine can read its process list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Standard input; empty means an empty one, never a terminal.
    pub stdin: Stdin,
    /// The command is given up after this.
    pub timeout: Duration,
    /// Name in errors, when the program's name says too little.
    pub label: Option<String>,
}

/// Standard input of a command. `Debug` shows only its size.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Stdin(pub bytes::Bytes);

impl std::fmt::Debug for Stdin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

impl Command {
    /// A command with an empty input and the usual timeout.
    pub fn new(argv: &[&str]) -> Self {
        Self {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            stdin: Stdin::default(),
            timeout: COMMAND_TIMEOUT,
            label: None,
        }
    }

    /// Sets the standard input.
    pub fn stdin(mut self, bytes: impl Into<bytes::Bytes>) -> Self {
        self.stdin = Stdin(bytes.into());
        self
    }

    /// Sets the timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the name in errors.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What errors call it: its label, or the program without its arguments.
    pub fn name(&self) -> &str {
        let program = || self.argv.first().map_or("", String::as_str);
        self.label.as_deref().unwrap_or_else(program)
    }
}

/// How a command ended and what it printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status.
    pub status: u32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// It ended with status 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Standard output as text; bytes that are none are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The end of the standard error: the last lines say what went wrong.
    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let text = text.trim();
        let skip = text.chars().count().saturating_sub(STDERR_SHOWN);
        match text.is_empty() {
            true => "(it printed no error)".to_owned(),
            false if skip == 0 => text.to_owned(),
            false => format!("…{}", text.chars().skip(skip).collect::<String>()),
        }
    }
}

/// What jobs do with a host.
#[async_trait]
pub trait HostExt: Host {
    /// Runs a command; its exit status is for the caller to judge.
    async fn run(&self, argv: &[&str]) -> Result<Output, SshError> {
        self.execute(&Command::new(argv)).await
    }

    /// Runs a command with a standard input.
    async fn run_with_input(&self, argv: &[&str], stdin: &[u8]) -> Result<Output, SshError> {
        let stdin = bytes::Bytes::copy_from_slice(stdin);
        self.execute(&Command::new(argv).stdin(stdin)).await
    }

    /// Runs a command that has to succeed.
    async fn run_ok(&self, argv: &[&str]) -> Result<Output, SshError> {
        self.execute_ok(&Command::new(argv)).await
    }

    /// Runs a command that has to succeed.
    async fn execute_ok(&self, command: &Command) -> Result<Output, SshError> {
        let output = self.execute(command).await?;
        if output.success() {
            return Ok(output);
        }
        Err(SshError::Failed {
            host: self.name().to_owned(),
            command: command.name().to_owned(),
            status: output.status,
            stderr: output.last_words(),
        })
    }

    /// Writes a file in one go: whoever reads `path` sees the old content or the new one. The new
    /// file belongs to the user that we are, and nobody else can read it before `mode` is set.
    /// A symbolic link at `path` is replaced. Reads back mode and content before it returns.
    /// What a worker that died left beside the file is cleared away; of two at the same file one fails.
    async fn write_file(&self, path: &str, content: &[u8], mode: u32) -> Result<(), SshError> {
        if !path.starts_with('/') || path.ends_with('/') || mode > 0o7777 {
            return Err(SshError::BadArgument {
                host: self.name().to_owned(),
                what: format!("the path {path} with mode {mode:o}"),
                reason: "a file needs an absolute path and a mode of at most 7777",
            });
        }
        let label = format!("write {path}");
        let beside = format!("{path}.rekindle-{}", uuid::Uuid::new_v4().simple());
        let written = self
            .write_beside(path, &beside, content, mode, &label)
            .await;
        if written.is_err() {
            // What failed is worth more than whether the rest of it could be removed.
            let _ = self.run(&["rm", "-f", "--", &beside]).await;
        }
        written?;
        let script = r#"stat -c %a -- "$1" && sha256sum <"$1""#;
        let found = self
            .execute_ok(&Command::new(&["sh", "-c", script, "sh", path]).label(&label))
            .await?;
        let found: Vec<String> = found.text().split_whitespace().map(str::to_owned).collect();
        let want = [format!("{mode:o}"), hex::encode(Sha256::digest(content))];
        if found.iter().take(2).ne(&want) {
            return Err(SshError::WrittenDifferently {
                host: self.name().to_owned(),
                path: path.to_owned(),
                got: found.join(" "),
            });
        }
        Ok(())
    }

    #[doc(hidden)]
    async fn write_beside(
        &self,
        path: &str,
        beside: &str,
        content: &[u8],
        mode: u32,
        label: &str,
    ) -> Result<(), SshError> {
        // A large file takes its time: at least 256 KiB/s is expected.
        let extra = Duration::from_secs(content.len() as u64 / (256 * 1024));
        let script = r#"umask 077 && rm -f -- "$1".rekindle-* && cat >"$2""#;
        let write = Command::new(&["sh", "-c", script, "sh", path, beside])
            .stdin(bytes::Bytes::copy_from_slice(content))
            .timeout(COMMAND_TIMEOUT + extra)
            .label(label);
        self.execute_ok(&write).await?;
        let mode = format!("{mode:o}");
        self.execute_ok(&Command::new(&["chmod", &mode, beside]).label(label))
            .await?;
        // -T: a folder at `path` is an error, not a place to move the file into.
        self.execute_ok(&Command::new(&["mv", "-f", "-T", "--", beside, path]).label(label))
            .await?;
        Ok(())
    }
}

impl<T: Host + ?Sized> HostExt for T {}
