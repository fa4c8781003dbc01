//! Calls of the machine's own tools (`losetup`, `ip`, `unshare`, …).
//!
//! Namespaces, mounts and loop devices are driven through util-linux and iproute2: this process
//! has many threads and no unsafe code, so it must not fork and work on by itself.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

/// Not the caller's: a user's PATH often lacks the sbin folders.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a tool to its end and returns what it wrote on stdout.
pub(super) async fn run<A: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = A>,
) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    finish(program, command.output()).await
}

/// Waits for a started tool; its own words are the error.
pub(super) async fn finish(
    program: &str,
    output: impl Future<Output = std::io::Result<std::process::Output>>,
) -> anyhow::Result<String> {
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .with_context(|| format!("wait for {program}"))?
        .with_context(|| format!("run {program}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} ended with {}: {}",
        output.status,
        stderr.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The beginning of a command that dies with the thread that starts it, and so with us.
pub(crate) fn bound_to_us() -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        // A Ctrl-C is for us; we take the children down in order.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Where a tool is, if it is installed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
}
