//! `status`, `stop`, `list`, `gc`, and how a run is told to people.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{CommandError, age, size};
use crate::chain::chain;
use crate::cli::{ListRuns, OneRun, RunGc, Stop};
use crate::container::Exit;
use crate::out::Out;
use crate::run::{Listed, Runs, State, View};

pub(super) fn status(args: &OneRun, out: &mut Out) -> Result<(), CommandError> {
    let view = Runs::open(&args.store.store)?.view(&args.id)?;
    out.show(&view, || describe(&view));
    Ok(())
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
        .map(|(id, error)| (id, format!("failed to {}", chain(&error))))
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
pub(super) fn line(view: &View) -> String {
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

pub(super) fn signal_name(number: i32) -> String {
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
