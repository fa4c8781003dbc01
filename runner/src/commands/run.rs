//! `run`, `status`, `logs`, `attach`, `stop`, `list`, `gc`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use super::{CommandError, age, size, usage};
use crate::cli::{Attach, ListRuns, Logs, OneRun, Run, RunGc, Stop};
use crate::container::{Exit, Limits, Spec};
use crate::exit::ExitCode;
use crate::out::Out;
use crate::run::secrets::{self, SecretError};
use crate::run::{
    Followed, Launched, Listed, Request, Rootfs, RunError, RunId, Runs, Secrets, State, View,
};

/// What a program sees when nobody says otherwise.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
];
/// What `logs` reads at once, and what a JSON document holds at most.
const CHUNK: u64 = 1 << 20;

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

fn skipped(out: &Out, count: u64) {
    out.note(&format!("({count} bytes are not kept any more)"));
}

pub(super) fn status(args: &OneRun, out: &mut Out) -> Result<(), CommandError> {
    let view = Runs::open(&args.store.store)?.view(&args.id)?;
    out.show(&view, || describe(&view));
    Ok(())
}

pub(super) fn logs(args: &Logs, out: &mut Out) -> Result<(), CommandError> {
    let runs = Runs::open(&args.store.store)?;
    let id = &args.id;
    let view = runs.view(id)?;
    if args.from > view.log.end {
        return Err(usage(&format!(
            "the log of {id} ends at {}, before {}",
            view.log.end, args.from
        )));
    }
    if out.is_json() {
        if args.follow {
            return Err(usage(
                "--follow has no end to make one JSON document of; poll with --from",
            ));
        }
        return log_document(&runs, args, out);
    }
    if args.follow {
        runs.follow(id, args.from, &mut out.bytes(), |count| skipped(out, count))?;
        return Ok(());
    }
    let Some(log) = runs.log(id)? else {
        return Ok(());
    };
    // What is there now: a run that writes as fast as we read would never let us end.
    let mut at = args.from;
    let mut left = args.limit.unwrap_or(u64::MAX);
    loop {
        let most = left.min(CHUNK).min(view.log.end.saturating_sub(at));
        let chunk = read(&log, &view, at, most)?;
        if chunk.bytes.is_empty() {
            return Ok(());
        }
        if chunk.from > at {
            skipped(out, chunk.from - at);
        }
        at = chunk.next();
        left -= chunk.bytes.len() as u64;
        let mut to = out.bytes();
        match to.write_all(&chunk.bytes).and_then(|()| to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => {
                result.map_err(|error| failed(&format!("failed to print the log: {error}")))?
            }
        }
    }
}

fn read(
    log: &crate::run::Reader,
    view: &View,
    from: u64,
    most: u64,
) -> Result<crate::run::Chunk, CommandError> {
    log.read(from, usize::try_from(most).unwrap_or(usize::MAX))
        .map_err(|error| {
            failed(&format!(
                "failed to read the log of {}: {error}",
                view.status.id
            ))
        })
}

/// A part of the log as JSON. It is text, so a character that is cut at the end waits for the next part.
fn log_document(runs: &Runs, args: &Logs, out: &mut Out) -> Result<(), CommandError> {
    let view = runs.view(&args.id)?;
    let limit = args.limit.unwrap_or(CHUNK).min(CHUNK);
    let mut chunk = match runs.log(&args.id)? {
        Some(log) => read(&log, &view, args.from, limit)?,
        None => crate::run::Chunk {
            from: 0,
            bytes: Vec::new(),
            oldest: 0,
            end: 0,
        },
    };
    if chunk.next() < chunk.end || view.status.is_live() {
        let whole = whole_characters(&chunk.bytes);
        chunk.bytes.truncate(whole);
    }
    let value = json!({
        "from": chunk.from,
        "next": chunk.next(),
        "oldest": chunk.oldest,
        "end": chunk.end,
        "skipped": chunk.from - args.from.min(chunk.from),
        "over": !view.status.is_live(),
        "text": String::from_utf8_lossy(&chunk.bytes),
    });
    out.show(&value, String::new);
    Ok(())
}

/// The length without a character that is cut at the end; all of it when there would be nothing else.
fn whole_characters(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    // Only the beginning of a character is cut; other bytes are no text at all.
    let cut = last.map_or(0, |last| {
        let invalid = last.invalid();
        match std::str::from_utf8(invalid) {
            Err(error) if error.error_len().is_none() => invalid.len(),
            _ => 0,
        }
    });
    if cut == bytes.len() {
        bytes.len()
    } else {
        bytes.len() - cut
    }
}

pub(super) fn stop(args: &Stop, out: &mut Out) -> Result<(), CommandError> {
    let view = Runs::open(&args.store.store)?.stop(&args.id, args.grace)?;
    out.show(&view, || line(&view));
    Ok(())
}

pub(super) fn list(args: &ListRuns, out: &mut Out) -> Result<(), CommandError> {
    let Listed { runs, damaged } = Runs::open(&args.store.store)?.list()?;
    let damaged: Vec<_> = damaged
        .into_iter()
        .map(|(id, error)| (id, super::chain(&error)))
        .collect();
    let value = json!({
        "runs": runs,
        "damaged": damaged
            .iter()
            .map(|(id, why)| json!({ "id": id, "error": why }))
            .collect::<Vec<_>>(),
    });
    out.show(&value, || {
        if runs.is_empty() && damaged.is_empty() {
            return "no runs; start one with `rekindle-runner run`".to_owned();
        }
        let mut text = String::new();
        for view in &runs {
            let _ = writeln!(text, "{}", line(view));
        }
        for (id, why) in &damaged {
            let _ = writeln!(text, "{id}  damaged: {why}");
        }
        text
    });
    Ok(())
}

pub(super) fn collect(args: &RunGc, out: &mut Out) -> Result<(), CommandError> {
    let gone = Runs::open(&args.store.store)?.collect(args.older_than)?;
    out.show(&gone, || {
        let mut text = String::new();
        for id in &gone.removed {
            let _ = writeln!(text, "removed {id}");
        }
        for id in &gone.live {
            let _ = writeln!(text, "lives   {id}");
        }
        for (path, why) in &gone.foreign {
            let _ = writeln!(text, "left alone {}: {why}", path.display());
        }
        let _ = writeln!(text, "{} runs are kept", gone.kept.len());
        text
    });
    Ok(())
}

/// A run on one line.
fn line(view: &View) -> String {
    let status = &view.status;
    let mut text = format!("{}  {}", status.id, outcome(view));
    if status.attempt > 1 {
        let _ = write!(text, ", attempt {}", status.attempt);
    }
    let (what, since) = match status.ended_at {
        Some(ended_at) => ("ended", Some(ended_at)),
        None => ("started", status.started_at),
    };
    if let Some(since) = since {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
        let _ = write!(
            text,
            ", {what} {} ago",
            age(since.elapsed().unwrap_or_default())
        );
    }
    text
}

fn outcome(view: &View) -> String {
    let status = &view.status;
    let stopped = if status.stopped { " after stop" } else { "" };
    match (status.state, status.exit) {
        (State::Starting, _) => "starting".to_owned(),
        (State::Running, _) => "running".to_owned(),
        (State::Exited, Some(Exit::Code(code))) => format!("exited with {code}{stopped}"),
        (State::Exited, Some(Exit::Signal(number))) => {
            format!("ended by {}{stopped}", signal_name(number))
        }
        (State::Exited, None) => "exited, nobody knows how".to_owned(),
        (State::Lost, _) => {
            let reason = status.reason.as_deref().unwrap_or_default();
            format!("lost: {}", reason.escape_debug())
        }
    }
}

fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |name| name.to_string())
}

fn describe(view: &View) -> String {
    let status = &view.status;
    let mut text = format!("{}\n", line(view));
    // As JSON: arguments may hold blanks, and what a terminal would obey.
    let argv = serde_json::to_string(&status.argv).expect("texts are JSON");
    let _ = writeln!(text, "program  {argv}");
    let _ = writeln!(text, "image    {}", status.rootfs);
    if let Some(process) = status.process.filter(|_| status.is_live()) {
        let _ = writeln!(text, "process  {}", process.pid);
    }
    let (oldest, end) = (view.log.oldest, view.log.end);
    let _ = writeln!(
        text,
        "log      {}, bytes {oldest} to {end}",
        size(end - oldest)
    );
    if let Some(seconds) = view.heartbeat_age {
        let _ = writeln!(text, "seen     {seconds} s ago by its supervisor");
    }
    for former in &view.former {
        let reason = former.reason.as_deref().unwrap_or("nobody knows why");
        let _ = writeln!(
            text,
            "attempt {} was lost: {}",
            former.attempt,
            reason.escape_debug()
        );
    }
    for note in &status.notes {
        let _ = writeln!(text, "note: {}", note.escape_debug());
    }
    text
}

fn failed(message: &str) -> CommandError {
    CommandError {
        kind: ExitCode::Failed,
        ..usage(message)
    }
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
                ExitCode::Refused,
                Some("end that process, or find out what it waits for, and try again"),
            ),
            RunError::Damaged { .. } => (
                ExitCode::Refused,
                Some("give another --id, or look into the folder and remove it"),
            ),
            RunError::Busy(_) => (ExitCode::Failed, Some("try again")),
            RunError::NotStarted { .. } => (
                ExitCode::Failed,
                Some("nothing was started, and the name is free as before"),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_cut_character_waits_and_other_bytes_do_not() {
        assert_eq!(whole_characters(b""), 0);
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(&"€".as_bytes()[..2]), 2);
        assert_eq!(whole_characters(b"a\xff"), 2);
        assert_eq!(whole_characters(b"a\xe2\x82"), 1);
    }
}
