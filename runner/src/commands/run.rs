//! `run` and `attach`: starting a program, and exiting as it does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use super::logs::skipped;
use super::runs::{line, signal_name};
use super::{CommandError, usage};
use crate::cli::{Attach, Run};
use crate::container::{Exit, Limits, PATH, Secrets, Spec};
use crate::exit::ExitCode;
use crate::out::Out;
use crate::run::secrets::{self, SecretError};
use crate::run::{Followed, Launched, Request, Rootfs, RunError, RunId, Runs, State};

/// What a program sees when nobody says otherwise.
const ENVIRONMENT: [(&str, &str); 3] = [("HOME", "/root"), ("LANG", "C.UTF-8"), ("PATH", PATH)];

pub(super) fn start(args: &Run, out: &mut Out) -> Result<(), CommandError> {
    let runs = Runs::open(&args.store.store)?;
    let launched = launch(&runs, args)?;
    let view = runs.view(&args.id)?;
    out.show(&json!({ "new": launched.new, "run": view }), || {
        let how = match (launched.new, view.status.state) {
            (true, _) => "started",
            (false, State::Starting | State::Running) => "runs already",
            (false, State::Exited | State::Lost) => "ran already",
        };
        format!(
            "{how}: {}\n`rekindle-runner attach {}` follows it",
            line(&view),
            args.id
        )
    });
    Ok(())
}

pub(super) fn start_and_follow(args: &Run, out: &mut Out) -> Result<ExitCode, CommandError> {
    let runs = Runs::open(&args.store.store)?;
    let launched = launch(&runs, args)?;
    follow(&runs, &args.id, launched.status.log_from, out)
}

pub(super) fn attach(args: &Attach, out: &mut Out) -> Result<ExitCode, CommandError> {
    let runs = Runs::open(&args.store.store)?;
    let from = match args.from {
        Some(from) => from,
        None => runs.view(&args.id)?.status.log_from,
    };
    follow(&runs, &args.id, from, out)
}

fn launch(runs: &Runs, args: &Run) -> Result<Launched, CommandError> {
    let mut secrets = Secrets::new();
    for (name, path) in &args.secret {
        secrets::add_file(&mut secrets, name, path)?;
    }
    if args.secrets_stdin {
        secrets::add_json(&mut secrets, io::stdin().lock())?;
    }
    let request = request(args, &secrets)?;
    Ok(runs.launch(&args.id, &request, &secrets, args.log_limit)?)
}

fn request(args: &Run, secrets: &Secrets) -> Result<Request, CommandError> {
    let rootfs = match (args.image, &args.root) {
        (Some(digest), _) => Rootfs::Image(digest),
        (None, Some(root)) => Rootfs::Tree(tree(root)?),
        (None, None) => return Err(usage("give --image or --root")),
    };
    for bind in &args.bind {
        if let Err(error) = fs::metadata(&bind.source) {
            let source = bind.source.display();
            return Err(usage(&format!("failed to bind {source}: {error}")));
        }
    }
    let mut env: BTreeMap<_, _> = ENVIRONMENT
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for path in &args.env_file {
        env.extend(read_env(path)?);
    }
    env.extend(args.env.iter().cloned());
    let spec = Spec {
        args: args.argv.clone(),
        env,
        cwd: args.cwd.clone(),
        hostname: args.hostname.clone(),
        binds: args.bind.clone(),
        secrets: secrets.keys().cloned().collect(),
        limits: Limits {
            tmpfs_bytes: args.tmpfs_size,
            tmpfs_inodes: args.tmpfs_inodes,
            memory_bytes: args.memory,
            pids: args.pids,
        },
    };
    // Here it is a wrong command line; later it would be a container that does not start.
    spec.check(secrets).map_err(|why| usage(&why))?;
    Ok(Request::new(rootfs, spec))
}

fn tree(root: &Path) -> Result<PathBuf, CommandError> {
    match fs::canonicalize(root) {
        Ok(path) if path.is_dir() => Ok(path),
        Ok(_) => Err(usage(&format!("--root {} is no directory", root.display()))),
        Err(error) => Err(usage(&format!(
            "failed to use --root {}: {error}",
            root.display()
        ))),
    }
}

fn read_env(path: &Path) -> Result<Vec<(String, String)>, CommandError> {
    let text = fs::read_to_string(path)
        .map_err(|error| usage(&format!("failed to read {}: {error}", path.display())))?;
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let variable = crate::cli::variable(line)
            .map_err(|why| usage(&format!("{}:{}: {why}", path.display(), number + 1)))?;
        all.push(variable);
    }
    Ok(all)
}

/// Copies the log to stdout until the run is over, and ends as it did.
fn follow(runs: &Runs, id: &RunId, from: u64, out: &mut Out) -> Result<ExitCode, CommandError> {
    say_when_interrupted(id);
    let followed = if out.is_json() {
        // One document, at the end; `logs` has the bytes.
        runs.follow(id, u64::MAX, &mut io::sink(), |_| {})?
    } else {
        runs.follow(id, from, &mut out.bytes(), |count| skipped(out, count))?
    };
    let Followed::Over(view) = followed else {
        return Ok(ExitCode::NotRun);
    };
    if out.is_json() {
        out.show(&view, String::new);
    } else if view.status.state == State::Lost {
        out.note(&format!("error: {}", line(&view)));
        out.note("hint: the same `run` command starts it again, as its next attempt");
    } else if let Some(Exit::Signal(number)) = view.status.exit {
        out.note(&format!("{id} was ended by {}", signal_name(number)));
    }
    Ok(view.exit_code.map_or(ExitCode::NotRun, ExitCode::Program))
}

/// Ctrl-C ends this command only, and says so. HUP does, too, but there is nobody left to tell.
fn say_when_interrupted(id: &RunId) {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    if signals.thread_block().is_err() {
        return;
    }
    let id = id.clone();
    thread::spawn(move || {
        if signals.wait().is_ok() {
            let _ = writeln!(
                io::stderr(),
                "{id} goes on: `rekindle-runner attach {id}` follows it again, `rekindle-runner stop {id}` ends it"
            );
            std::process::exit(ExitCode::NotRun.number().into());
        }
    });
}

impl From<RunError> for CommandError {
    fn from(error: RunError) -> Self {
        let pull;
        let (kind, hint) = match &error {
            RunError::File { .. } | RunError::Store(_) => (
                ExitCode::Failed,
                Some("the store is --store DIR; only its owner may use it"),
            ),
            RunError::NoImage { digest, .. } => {
                pull =
                    format!("get it with `rekindle-runner image pull --digest {digest} --url URL`");
                (ExitCode::Unknown, Some(pull.as_str()))
            }
            RunError::Unknown(_) => (
                ExitCode::Unknown,
                Some("`rekindle-runner list` has the runs of this host"),
            ),
            RunError::Differs { .. } => (
                ExitCode::Refused,
                Some(
                    "give another --id; a name stands for one thing as long as its folder is there",
                ),
            ),
            RunError::StillAlive { .. } => (
                ExitCode::Failed,
                Some("try again; if it stays, find out what that process waits for"),
            ),
            RunError::Damaged { .. } => (
                ExitCode::Refused,
                Some("give another --id, or look into the folder and remove it"),
            ),
            RunError::Busy(_) => (ExitCode::Failed, Some("try again")),
            RunError::NotStarted { .. } => (
                ExitCode::Failed,
                Some("no program runs; the same command may be tried again"),
            ),
            RunError::Supervisor { .. } => (
                ExitCode::Failed,
                Some(
                    "when `status` shows it hanging, KILL its supervisor: the container dies with it, and the run is lost",
                ),
            ),
            RunError::NotStopped(_) => (
                ExitCode::Failed,
                Some("its processes may wait for a device or a network file system"),
            ),
        };
        Self::new(&error, kind, hint)
    }
}

impl From<SecretError> for CommandError {
    fn from(error: SecretError) -> Self {
        let hint = matches!(error, SecretError::Readable { .. }).then_some("chmod 600 it");
        Self::new(&error, ExitCode::Usage, hint)
    }
}
