//! A store of its own for each test, a small tree to run programs on, and the end of all that was
//! started, also when the test is killed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_rekindle-runner");

pub(crate) struct World {
    // Dropped before the folder goes.
    watchdog: Watchdog,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The container's root may look at it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("shared")).unwrap();
        tree(&folder.path().join("root"));
        let watchdog = Watchdog::start(folder.path());
        Self { watchdog, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// A file of a run's folder.
    pub(crate) fn file(&self, id: &str, name: &str) -> PathBuf {
        self.store().join("runs").join(id).join(name)
    }

    /// What programs see as /shared.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.path("shared").join(name)
    }

    /// The binary, with nothing of this test's surroundings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .env("REKINDLE_RUNNER_STORE", self.store())
            .stdin(Stdio::null());
        command
    }

    /// `run` of a shell script on the small tree, with more options.
    pub(crate) fn run_with(&self, id: &str, options: &[&str], script: &str) -> Command {
        let root = self.path("root");
        let shared = format!("{}:/shared:rw", self.path("shared").display());
        let mut args = vec!["run", "--output", "json", "--id", id, "--bind", &shared];
        let root = root.to_str().unwrap();
        if !options.contains(&"--image") {
            args.extend(["--root", root]);
        }
        args.extend(options);
        args.extend(["--", "/bin/sh", "-c", script]);
        self.command(&args)
    }

    pub(crate) fn start(&self, id: &str, script: &str) -> Value {
        ended(&self.run_with(id, &["-d"], script).output().unwrap(), 0)
    }

    /// A command with a JSON answer.
    pub(crate) fn ask(&self, code: i32, args: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(args);
        ended(&self.command(&all).output().unwrap(), code)
    }

    pub(crate) fn status(&self, id: &str) -> Value {
        self.ask(0, &["status", id])
    }

    pub(crate) fn log(&self, id: &str) -> String {
        let output = self.command(&["logs", id]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until a run is in a state.
    #[track_caller]
    pub(crate) fn wait_for(&self, id: &str, state: &str) -> Value {
        let mut status = Value::Null;
        wait_for(&format!("{id} to be {state}"), || {
            status = self.status(id);
            status["state"] == state
        });
        status
    }

    #[track_caller]
    pub(crate) fn wait_for_shared(&self, name: &str) {
        wait_for(name, || self.shared(name).exists());
    }

    /// No process has anything of this world open, mounted or as its program's argument.
    #[track_caller]
    pub(crate) fn assert_nothing_lives(&self) {
        let mut left = BTreeSet::new();
        wait_for("all processes to be gone", || {
            left = self.processes();
            if !left.is_empty() {
                thread::sleep(Duration::from_millis(20));
            }
            left.is_empty()
        });
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.folder.path().to_str().unwrap()),
            "{mounts}"
        );
    }

    /// Processes that have a file of this world open, but for the watchdog and this one.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let ours = [std::process::id(), self.watchdog.child.id()];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if ours.contains(&pid) {
                continue;
            }
            let files = fs::read_dir(entry.path().join("fd")).into_iter().flatten();
            let open = files
                .flatten()
                .filter_map(|file| fs::read_link(file.path()).ok())
                .any(|target| target.starts_with(self.folder.path()));
            if open {
                found.insert(pid);
            }
        }
        found
    }
}

pub(crate) fn pid_of(status: &Value, name: &str) -> Pid {
    let pid = status[name]["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap())
}

pub(crate) fn signal(status: &Value, name: &str, signal: Signal) {
    kill(pid_of(status, name), signal).unwrap();
}

/// Ends all runs when the test does, however it does: it reads from a pipe that ends with the test.
struct Watchdog {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Watchdog {
    fn start(folder: &Path) -> Self {
        let script = r#"
            cat
            cd /
            for run in "$FOLDER"/store/runs/[!.]*; do
                [ -e "$run" ] || continue
                "$RUNNER" stop "${run##*/}" --grace 0s --store "$FOLDER/store" || true
            done
            umount -l "$FOLDER/small" || true
            rm -rf --one-file-system "$FOLDER"
        "#;
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .env("FOLDER", folder)
            .env("RUNNER", BINARY)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal for the test and all of its group must not end this one.
            .process_group(0)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        Self { child, stdin }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// A root with a shell and a few programs, and the libraries that they need.
fn tree(root: &Path) {
    for name in ["bin", "etc", "root", "tmp", "proc", "sys", "dev", "run"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let programs = ["sh", "sleep", "cat", "seq", "env", "flock"];
    for name in programs {
        let path = which(name);
        copy(&path, &root.join("bin").join(name));
        let listed = Command::new("ldd").arg(&path).output().unwrap();
        for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            if word.starts_with('/') {
                copy(Path::new(word), &root.join(word.trim_start_matches('/')));
            }
        }
    }
}

fn which(name: &str) -> PathBuf {
    ["/usr/bin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap()
}

fn copy(from: &Path, to: &Path) {
    if !to.exists() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
pub(crate) fn ended(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON document")
}

#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
