//! Views as text for people. Pure: the clock comes in as a parameter.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jobs::plan::Plan;
use jobs::record::{JobRecord, RecoveryRecord, StepRecord};

use crate::render_load;
use crate::view::{Progress, Row, View};

/// A recovery and a line for each of its jobs. `fit` wraps long lines to the terminal.
pub(crate) fn status(view: &View, now: Timestamp, fit: bool) -> String {
    let mut text = head(view, now);
    text.push('\n');
    let mut rows = table(fit, &["JOB", "STATUS", "STEPS", "ATTEMPTS", "TIME", "WHY"]);
    for row in &view.jobs {
        rows.add_row([
            row.view.job.to_string(),
            row.stands(),
            row.view.steps.to_string(),
            dash(row.view.attempts),
            took(row, now),
            row.why().to_owned(),
        ]);
    }
    text += &lines(&rows);
    if let Some(result) = &view.load {
        let _ = write!(text, "\n{}", render_load::load(result, fit));
    }
    text
}

/// Who, when, and how far.
pub(crate) fn head(view: &View, now: Timestamp) -> String {
    let RecoveryRecord {
        id,
        cluster,
        purpose,
        requester,
        flags,
        finished,
        ..
    } = &view.recovery;
    let mut text = format!(
        "recovery {id} of cluster {cluster}: {purpose}, asked for by {}@{} {} ago\n",
        requester.user,
        requester.host,
        span(now.duration_since(view.recovery.created).as_millis()),
    );
    if let Some(run) = &requester.ci_run {
        let _ = writeln!(text, "CI run: {run}");
    }
    let _ = writeln!(text, "{}; {}", view.state.words(), progress(&view.progress));
    match finished {
        Some(end) => {
            let took = end.at.duration_since(view.recovery.created).as_millis();
            let _ = writeln!(
                text,
                "ended {} ago, after {}",
                span(now.duration_since(end.at).as_millis()),
                span(took)
            );
        }
        None if !view.active => text.push_str("it does not hold the cluster\n"),
        None => {}
    }
    if let Some(reason) = &flags.cancelled {
        let _ = writeln!(text, "cancelled: {reason}");
    }
    if let Some(reason) = flags.paused.as_ref().filter(|_| finished.is_none()) {
        let _ = writeln!(text, "paused: {reason} (`rekindle resume` lets it go on)");
    }
    text
}

/// How many jobs stand where, leaving out what is nowhere.
pub(crate) fn progress(progress: &Progress) -> String {
    let mut text = format!("{} of {} jobs done", progress.succeeded, progress.jobs);
    for (n, word) in [
        (progress.running, "running"),
        (progress.waiting, "waiting"),
        (progress.stuck, "failed"),
        (progress.cancelled, "cancelled"),
        (progress.blocked, "blocked"),
        (progress.pending, "not begun"),
    ] {
        if n > 0 {
            let _ = write!(text, ", {n} {word}");
        }
    }
    text
}

/// One job with all that its record knows.
pub(crate) fn job(row: &Row, record: Option<&JobRecord>, now: Timestamp, fit: bool) -> String {
    let mut text = format!("job {}: {}", row.view.job, row.stands());
    if !row.why().is_empty() {
        let _ = write!(text, "; {}", row.why());
    }
    text.push('\n');
    let Some(record) = record else { return text };
    let _ = writeln!(
        text,
        "turn {}, epoch {}, attempts {}, crashes {}, retries {}",
        record.turn, record.epoch, record.attempts, record.crashes.in_a_row, record.generation
    );
    if let Some(owner) = &record.owner {
        let _ = writeln!(
            text,
            "lease: {} (pid {}), worker {}",
            owner.host, owner.pid, owner.worker
        );
    }
    if let Some(due) = record.due {
        let _ = writeln!(text, "next turn: {due}");
    }
    if !record.crashes.running.is_empty() {
        let keys: Vec<&str> = record
            .crashes
            .running
            .iter()
            .map(|key| key.as_str())
            .collect();
        let _ = writeln!(
            text,
            "began, and not known to have ended: {}",
            keys.join(", ")
        );
    }
    steps(&mut text, record, now, fit);
    if let Some(failure) = &record.failure {
        let step = failure
            .step
            .as_ref()
            .map_or_else(String::new, |step| format!(" at `{step}`"));
        let left = serde_json::to_value(failure.left_behind).unwrap_or_default();
        let _ = writeln!(
            text,
            "\nfailed{step} on {} {} ago; left behind: {}",
            failure.host,
            span(now.duration_since(failure.at).as_millis()),
            left.as_str().unwrap_or("unknown"),
        );
        for (depth, cause) in failure.chain.iter().enumerate() {
            let _ = writeln!(text, "{:indent$}{cause}", "", indent = 2 * (depth + 1));
        }
    }
    for retry in &record.retries {
        let from = retry
            .from
            .as_ref()
            .map_or_else(String::new, |step| format!(" from `{step}`"));
        let _ = writeln!(
            text,
            "\nput back{from} by {} at {}: {}",
            retry.by, retry.at, retry.reason
        );
        if let Some(failure) = &retry.failure {
            let _ = writeln!(text, "  it had failed {failure}");
        }
    }
    text
}

fn steps(text: &mut String, record: &JobRecord, now: Timestamp, fit: bool) {
    if !record.steps.is_empty() {
        let mut steps: Vec<_> = record.steps.iter().collect();
        steps.sort_by_key(|(_, step)| step.n);
        let mut rows = table(fit, &["STEP", "TOOK", "AGO", "EPOCH", "RESULT"]);
        for (key, step) in steps {
            let StepRecord { at, ms, epoch, .. } = step;
            rows.add_row([
                key.to_string(),
                took_ms(*ms),
                span(now.duration_since(*at).as_millis()),
                epoch.to_string(),
                // A digest is shown whole.
                cut(&step.output.to_string(), 80),
            ]);
        }
        text.push('\n');
        text.push_str(&lines(&rows));
    }
    if !record.waits.is_empty() {
        let mut rows = table(fit, &["WAIT", "FOR", "POLLS", "SEEN"]);
        for (key, wait) in &record.waits {
            let waited = span(i128::from(wait.waited_ms));
            rows.add_row([
                key.to_string(),
                waited,
                wait.polls.to_string(),
                wait.seen.clone(),
            ]);
        }
        text.push('\n');
        text.push_str(&lines(&rows));
    }
}

/// The jobs of a plan, in waves: a wave needs nothing but the waves before it.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut waves: Vec<Vec<String>> = Vec::new();
    let mut wave_of = std::collections::BTreeMap::new();
    for job in plan.jobs() {
        let wave = job
            .needs
            .iter()
            .filter_map(|need| wave_of.get(need))
            .max()
            .map_or(0, |n: &usize| n + 1);
        wave_of.insert(&job.name, wave);
        if waves.len() <= wave {
            waves.resize(wave + 1, Vec::new());
        }
        let needs: Vec<&str> = job.needs.iter().map(|need| need.as_str()).collect();
        let needs = match needs.as_slice() {
            [] => String::new(),
            few if few.len() <= 4 => format!("  after {}", few.join(", ")),
            [a, b, rest @ ..] => format!("  after {a}, {b} and {} more", rest.len()),
            [_] => unreachable!("one is few"),
        };
        let always = if job.always {
            ", also when they failed"
        } else {
            ""
        };
        waves[wave].push(format!("  {}{needs}{always}", job.name));
    }
    let mut text = String::new();
    for (n, wave) in waves.iter().enumerate() {
        let _ = writeln!(text, "wave {}: {}", n + 1, jobs(wave.len()));
        for line in wave {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// `1 job`, `2 jobs`.
pub(crate) fn jobs(n: usize) -> String {
    match n {
        1 => "1 job".into(),
        n => format!("{n} jobs"),
    }
}

/// A table without lines.
pub(crate) fn table(fit: bool, header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().copied());
    if fit {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A table's text without the blanks at the ends of its lines.
pub(crate) fn lines(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// A time in its two largest units.
pub(crate) fn span(ms: i128) -> String {
    let s = (ms / 1000).max(0);
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

fn took_ms(ms: u64) -> String {
    if ms < 10_000 {
        format!("{ms} ms")
    } else {
        span(i128::from(ms))
    }
}

/// How long a job has taken so far, or took.
fn took(row: &Row, now: Timestamp) -> String {
    match row.started {
        Some(started) => span(row.ended.unwrap_or(now).duration_since(started).as_millis()),
        None => "-".into(),
    }
}

fn dash(n: u32) -> String {
    if n == 0 { "-".into() } else { n.to_string() }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use jobs::ids::{ClusterName, JobName, RecoveryId, StepKey};
    use jobs::plan::{DEFAULT_PLAN, PlanFile};
    use jobs::record::{
        Change, Event, Failure, Finished, Flags, Inputs, LeftBehind, Outcome, Owner, Requester,
        Retry, Status, WaitRecord,
    };
    use jobs::spec::ClusterSpec;
    use jobs::store::StoredJob;

    use super::*;
    use crate::view::{Snapshot, State};

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minute).expect("in range")
    }

    /// A recovery of the reference cluster that nobody has touched.
    fn fresh() -> Snapshot {
        let spec = ClusterSpec::parse(include_str!("../../deploy/examples/cluster.yaml"));
        let plan = PlanFile::parse(DEFAULT_PLAN).expect("valid");
        let plan = plan.expand(&spec.expect("valid")).expect("valid");
        let inputs = Inputs {
            spec: "s".into(),
            plan: "p".into(),
            secrets: None,
            flux: None,
        };
        Snapshot {
            record: RecoveryRecord {
                id: RecoveryId::new("r-1").expect("valid"),
                cluster: ClusterName::new("test").expect("valid"),
                purpose: "recover".into(),
                key: None,
                inputs,
                requester: Requester {
                    user: "alice".into(),
                    host: "ci-1".into(),
                    ci_run: Some("https://github.com/o/r/actions/runs/1".into()),
                },
                created: at(0),
                flags: Flags::default(),
                finished: None,
            },
            plan: Arc::new(plan),
            active: true,
            jobs: BTreeMap::new(),
        }
    }

    /// Lets a job run, and perhaps end.
    fn run(snapshot: &mut Snapshot, name: &str, end: Option<Event>) {
        let name = JobName::new(name).expect("valid");
        let payload = snapshot
            .plan
            .job(&name)
            .expect("in the plan")
            .payload
            .clone();
        let mut record = JobRecord::new(name.clone(), payload);
        let owner = Owner {
            worker: uuid::Uuid::nil(),
            host: "worker-1".into(),
            realm: "r".into(),
            pid: 42,
            started: 1,
        };
        record.claim(owner, at(1)).expect("pending");
        for n in 1..=2 {
            let output = serde_json::json!({ "server": format!("srv-{n}") });
            let record_of = StepRecord {
                n,
                output,
                at: at(1),
                ms: 1500 * n,
                epoch: 1,
            };
            record.apply(Change::Step {
                key: StepKey::of("step", n),
                record: record_of,
            });
        }
        if let Some(event) = end {
            record.release(event, at(3)).expect("running");
        }
        let failed = Failure {
            step: Some("create".into()),
            chain: vec![
                "create server test-web-1".into(),
                "409 quota exceeded".into(),
            ],
            left_behind: LeftBehind::Resources,
            at: at(3),
            host: "worker-1".into(),
        };
        match record.status {
            Status::Waiting => {
                let wait = WaitRecord {
                    waited_ms: 95_000,
                    polls: 12,
                    seen: "connection refused".into(),
                };
                record.waits.insert("ssh".into(), wait);
            }
            Status::Retrying => {
                record.attempts = 2;
                record.failure = Some(failed);
            }
            status if status.is_stuck() => record.failure = Some(failed),
            _ => {}
        }
        let stored = StoredJob {
            version: 9,
            base: 9,
            record,
        };
        snapshot.jobs.insert(name, stored);
    }

    /// A recovery in the middle of everything.
    fn middle() -> Snapshot {
        let mut snapshot = fresh();
        for node in ["test-bastion-1", "test-web-2", "test-cache-1", "test-slr-1"] {
            run(
                &mut snapshot,
                &format!("provision/{node}"),
                Some(Event::Succeed),
            );
        }
        run(&mut snapshot, "provision/test-masterbig-1", None);
        run(
            &mut snapshot,
            "provision/test-masterbig-2",
            Some(Event::Yield),
        );
        run(
            &mut snapshot,
            "provision/test-masterbig-3",
            Some(Event::Retry),
        );
        run(&mut snapshot, "provision/test-web-1", Some(Event::Fail));
        run(
            &mut snapshot,
            "provision/test-cache-2",
            Some(Event::Quarantine),
        );
        run(
            &mut snapshot,
            "provision/test-cache-3",
            Some(Event::AskApproval),
        );
        snapshot
    }

    #[test]
    fn status_shows_why_each_job_stands_where_it_stands() {
        insta::assert_snapshot!(status(&middle().view(), at(5), false));
    }

    #[test]
    fn a_job_is_shown_with_all_that_is_known() {
        let mut snapshot = middle();
        let name = JobName::new("provision/test-web-1").expect("valid");
        let stored = snapshot.jobs.get_mut(&name).expect("there");
        let before = stored.record.clone();
        let retry = Retry {
            by: "bob@laptop".into(),
            reason: "quota raised".into(),
            at: at(2),
            from: Some(StepKey::of("step", 2)),
            failure: None,
        };
        stored.record.reopen(retry).expect("failed");
        stored.record = JobRecord {
            retries: stored.record.retries.clone(),
            generation: 1,
            ..before
        };
        let mut text = String::new();
        for name in [
            "provision/test-web-1",
            "provision/test-masterbig-1",
            "provision/test-masterbig-2",
        ] {
            let view = snapshot.view();
            let row = view
                .jobs
                .iter()
                .find(|row| row.view.job.as_str() == name)
                .expect("there");
            let record = snapshot
                .jobs
                .get(&row.view.job)
                .map(|stored| &stored.record);
            text += &job(row, record, at(5), false);
            text += "---\n";
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_recovery_has_one_state() {
        let check = |change: &dyn Fn(&mut Snapshot), want: State| {
            let mut snapshot = fresh();
            change(&mut snapshot);
            assert_eq!(snapshot.view().state, want);
        };
        let all = |snapshot: &mut Snapshot, event: Event| {
            let names: Vec<String> = snapshot
                .plan
                .jobs()
                .iter()
                .map(|j| j.name.to_string())
                .collect();
            names
                .iter()
                .for_each(|name| run(snapshot, name, Some(event)));
        };
        let end = |snapshot: &mut Snapshot, outcome| {
            let at = at(9);
            snapshot.record.finished = Some(Finished { outcome, at });
        };
        check(&|_| {}, State::Running);
        check(&|s| s.record.flags.paused = Some("x".into()), State::Paused);
        check(
            &|s| s.record.flags.cancelled = Some("x".into()),
            State::Cancelling,
        );
        check(&|s| all(s, Event::Succeed), State::Finishing);
        check(&|s| all(s, Event::AskApproval), State::NeedsApproval);
        check(&|s| end(s, Outcome::Succeeded), State::Succeeded);
        check(&|s| end(s, Outcome::Cancelled), State::Cancelled);
        let one_failed = |s: &mut Snapshot| {
            all(s, Event::Succeed);
            run(s, "provision/test-web-1", Some(Event::Fail));
        };
        check(&one_failed, State::Failed);
        check(
            &|s| {
                one_failed(s);
                s.record.flags.paused = Some("x".into());
            },
            State::Failed,
        );
        // Blocked jobs are settled, but the report still has to sum up.
        let blocked = |s: &mut Snapshot| {
            one_failed(s);
            for name in ["load-balancer", "reachability/test-web-1", "report"] {
                s.jobs.remove(name);
            }
        };
        check(&blocked, State::Running);
        check(
            &|s| {
                blocked(s);
                run(s, "report", Some(Event::Succeed));
            },
            State::Failed,
        );
    }

    #[test]
    fn the_plan_is_shown_in_waves() {
        insta::assert_snapshot!(plan(&fresh().plan));
    }

    #[test]
    fn times_have_two_units() {
        let s = 1000;
        for (ms, want) in [
            (-5, "0s"),
            (59 * s, "59s"),
            (61 * s, "1m 1s"),
            (3_700 * s, "1h 1m"),
            (90_000 * s, "1d 1h"),
        ] {
            assert_eq!(span(ms), want);
        }
    }
}
