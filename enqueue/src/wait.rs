//! Following a recovery until it is settled: lines for logs, a moving line for terminals.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use jobs::ids::JobName;
use jobs::record::Status;
use jobs::store::Store;
use serde_json::json;
use tokio::time::Instant;

use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;
use crate::render;
use crate::view::{Row, Snapshot, State, View};

/// Looks this often.
const EVERY: Duration = Duration::from_secs(1);
/// Between the last job's success and the recovery's end a worker writes two records.
const FINISHING: Duration = Duration::from_secs(15);
/// Workers take a job within seconds; after this time we wonder aloud.
const NOBODY: Duration = Duration::from_secs(30);
/// Failed looks in a row until we give up; the store has tried for half a minute in each.
const FAILURES: u32 = 5;

/// Waits until the recovery is settled or the time is up.
pub(crate) async fn until_settled(
    store: &Store,
    snapshot: Snapshot,
    timeout: Option<Duration>,
    out: &mut Out,
) -> Result<ExitCode, CliError> {
    let (cluster, id) = (snapshot.record.cluster.clone(), snapshot.record.id.clone());
    let mut screen = Screen::new(out);
    let followed = follow(store, snapshot, &mut screen);
    let ended = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, followed).await,
        None => Ok(followed.await),
    };
    screen.clear();
    let Ok(ended) = ended else {
        let value = json!({"at": Timestamp::now(), "recovery": id, "timed_out": true, "exit_code": ExitCode::TimedOut as u8});
        out.line(&value, || {
            format!("recovery {id} is not settled yet; it goes on, `rekindle watch --cluster {cluster}` follows it")
        });
        return Ok(ExitCode::TimedOut);
    };
    let (view, code) = ended?;
    out.line(
        &json!({
            "at": Timestamp::now(), "recovery": id, "state": view.state,
            "progress": view.progress, "exit_code": code as u8,
        }),
        || summary(&view),
    );
    Ok(code)
}

async fn follow(
    store: &Store,
    mut snapshot: Snapshot,
    screen: &mut Screen<'_>,
) -> Result<(View, ExitCode), CliError> {
    let mut finishing: Option<Instant> = None;
    let mut failures = 0;
    let mut idle = Idle::default();
    loop {
        let view = snapshot.view();
        screen.show(&view);
        if let Some(code) = view.state.exit_code() {
            return Ok((view, code));
        }
        // Every job succeeded. When no worker comes to end the recovery, the outcome is clear all the same.
        if view.state == State::Finishing
            && finishing.get_or_insert_with(Instant::now).elapsed() >= FINISHING
        {
            return Ok((view, ExitCode::Done));
        }
        if idle.is_long(&view) {
            tracing::warn!(
                "no worker has taken a job for a while: is a `rekindle-worker` running on this bucket and queue?"
            );
        }
        tokio::time::sleep(EVERY).await;
        match snapshot.refresh(store).await {
            Ok(()) => failures = 0,
            Err(error) if error.is_transient() && failures < FAILURES => {
                failures += 1;
                tracing::warn!(%error, "cannot look at the recovery; trying on");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Notices that jobs wait and nobody comes.
#[derive(Default)]
struct Idle {
    since: Option<Instant>,
    said: bool,
}

impl Idle {
    /// True once, when nothing has been running or waiting for a while though it could.
    fn is_long(&mut self, view: &View) -> bool {
        let nobody =
            view.state == State::Running && view.progress.running + view.progress.waiting == 0;
        if !nobody {
            self.since = None;
            return false;
        }
        let long = self.since.get_or_insert_with(Instant::now).elapsed() >= NOBODY;
        long && !std::mem::replace(&mut self.said, true)
    }
}

/// The last words: what came of it, and what to do.
fn summary(view: &View) -> String {
    let id = &view.recovery.id;
    let mut text = format!(
        "recovery {id}: {}; {}",
        view.state.words(),
        render::progress(&view.progress)
    );
    let bad = |row: &&Row| row.view.status.is_stuck() && row.view.status != Status::Cancelled;
    for row in view.jobs.iter().filter(bad) {
        text += &format!("\n  {} {}: {}", row.view.job, row.stands(), row.why());
    }
    text
}

/// Shows what changed since the last look.
struct Screen<'a> {
    out: &'a mut Out,
    bar: Option<ProgressBar>,
    seen: BTreeMap<JobName, (Status, u32)>,
    begun: bool,
}

impl<'a> Screen<'a> {
    fn new(out: &'a mut Out) -> Self {
        let bar = out.is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {wide_msg}")
                .expect("the template is a constant");
            let bar = ProgressBar::new(0).with_style(style.progress_chars("=> "));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            out,
            bar,
            seen: BTreeMap::new(),
            begun: false,
        }
    }

    fn show(&mut self, view: &View) {
        let at = Timestamp::now();
        let clock = at.strftime("%H:%M:%S").to_string();
        if !self.begun {
            let value = json!({
                "at": at, "cluster": view.recovery.cluster, "recovery": view.recovery.id,
                "state": view.state, "progress": view.progress,
            });
            let text = format!(
                "{clock} recovery {} of cluster {}: {}; {}",
                view.recovery.id,
                view.recovery.cluster,
                view.state.words(),
                render::progress(&view.progress)
            );
            self.print(&value, text);
        }
        for row in &view.jobs {
            let now = (row.view.status, row.view.attempts);
            let before = self.seen.insert(row.view.job.clone(), now);
            if self.begun && before.is_some_and(|before| is_news(before, now)) {
                let value = json!({
                    "at": at, "job": row.view.job, "status": row.view.status,
                    "steps": row.view.steps, "attempts": row.view.attempts, "why": row.view.why,
                });
                self.print(&value, format!("{clock} {}", sentence(row)));
            }
        }
        self.begun = true;
        if let Some(bar) = &self.bar {
            bar.set_length(view.progress.jobs as u64);
            bar.set_position(view.progress.succeeded as u64);
            bar.set_message(moving(view));
        }
    }

    fn print(&mut self, value: &serde_json::Value, text: String) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.line(value, || text)),
            None => self.out.line(value, || text),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Going on after a wait is not news; coming to a wait is, once.
fn is_news(before: (Status, u32), now: (Status, u32)) -> bool {
    let goes_on =
        matches!(before.0, Status::Waiting | Status::Retrying) && now.0 == Status::Running;
    (before.0 != now.0 && !goes_on) || now.1 > before.1
}

fn sentence(row: &Row) -> String {
    let steps = match row.view.steps {
        0 => String::new(),
        1 => " (1 step)".into(),
        n => format!(" ({n} steps)"),
    };
    let why = match row.why() {
        "" => String::new(),
        why => format!(": {why}"),
    };
    format!("{} {}{steps}{why}", row.view.job, row.stands())
}

/// What runs right now, as far as it fits on a line.
fn moving(view: &View) -> String {
    let running = view
        .jobs
        .iter()
        .filter(|row| row.view.status == Status::Running);
    let names: Vec<String> = running
        .map(|row| format!("{} ({})", row.view.job, row.view.steps))
        .collect();
    match names.is_empty() {
        true => format!(
            "{}; {}",
            view.state.words(),
            render::progress(&view.progress)
        ),
        false => names.join(", "),
    }
}
