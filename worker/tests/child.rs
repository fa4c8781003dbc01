//! Programs of the worker, run as it runs them: what they see, what is kept, and that nothing of them
//! is left.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use worker::child::{ChildError, Ended, Finished, Program};

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Program {
    Program::new("sh")
        .arg("-c")
        .arg(script)
        .supervised_by(Path::new(env!("CARGO_BIN_EXE_rekindle-worker")))
}

async fn run(program: Program) -> Result<Finished, ChildError> {
    program.run(|| LONG).await
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !look() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A script whose processes carry a word: itself, a child, and a daemon in a session of its own.
fn family() -> (String, Program) {
    let word = format!("81{}.5", Uuid::new_v4().as_u128() % 1_000_000_000);
    let script = format!("sleep {word} & (setsid sleep {word} &) ; sleep {word}");
    (word, shell(&script))
}

/// Processes with this word on their command line.
fn processes(word: &str) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(word)
    })
    .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    .collect()
}

/// The supervisor, the shell, and three that sleep.
const FAMILY: usize = 5;

#[tokio::test]
async fn output_and_exit_code_are_the_programs_own() {
    let finished = run(shell("echo out; echo err >&2; exit 7")).await.unwrap();
    assert_eq!(finished.ended, Ended::Exited(7));
    assert!(!finished.is_success());
    assert_eq!(text(&finished.stdout.tail), "out\n");
    assert_eq!(text(&finished.stderr.tail), "err\n");
    assert_eq!(finished.stderr.dropped, 0);
    let finished = run(shell("kill -TERM $$")).await.unwrap();
    assert_eq!(finished.ended, Ended::Signalled(15));
}

#[tokio::test]
async fn a_program_reads_its_secret_and_finds_no_environment_of_ours() {
    // More than a pipe holds.
    let secret = "s".repeat(300_000);
    let program = shell("wc -c; env | cut -d= -f1 | sort | tr '\\n' ' '").stdin(secret);
    let finished = run(program.env("GIVEN", "1")).await.unwrap();
    let said = text(&finished.stdout.tail);
    let (count, names) = said.split_once('\n').unwrap();
    assert_eq!(count, "300000");
    let allowed = [
        "GIVEN", "HOME", "LANG", "LC_ALL", "PATH", "PWD", "SHLVL", "OLDPWD", "TMPDIR", "TZ", "_",
    ];
    for name in names.split_whitespace() {
        assert!(allowed.contains(&name), "{name} is passed on");
    }
    assert!(names.contains("GIVEN") && names.contains("PATH"));
    let silent = run(shell("cat")).await.unwrap();
    assert!(silent.is_success() && silent.stdout.tail.is_empty());
}

#[tokio::test]
async fn only_the_end_of_much_output_is_kept() {
    let program = shell("seq 1 200000; seq 1 200000 >&2").keep(1000);
    let finished = run(program).await.unwrap();
    for captured in [finished.stdout, finished.stderr] {
        assert!(captured.tail.len() >= 900 && captured.tail.len() <= 1600);
        assert!(captured.tail.ends_with(b"\n200000\n"));
        assert!(captured.dropped > 1_000_000);
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let program = Program::new("/nowhere/program");
    let worker = Path::new(env!("CARGO_BIN_EXE_rekindle-worker"));
    let error = run(program.supervised_by(worker)).await.unwrap_err();
    assert!(matches!(error, ChildError::Start { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("/nowhere/program") && said.contains("No such file"));
}

#[tokio::test]
async fn a_binary_that_is_no_supervisor_is_never_taken_for_success() {
    let program = Program::new("sleep").supervised_by(Path::new("/bin/true"));
    let error = run(program).await.unwrap_err();
    assert!(matches!(error, ChildError::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn nothing_outlives_a_dropped_step() {
    let (word, program) = family();
    let running = tokio::spawn(run(program));
    until("all run", || processes(&word).len() == FAMILY).await;
    running.abort();
    until("all are gone", || processes(&word).is_empty()).await;
}

#[tokio::test]
async fn a_supervisor_that_is_told_to_end_stays_until_its_work_is_done() {
    let (word, program) = family();
    let running = tokio::spawn(run(program));
    until("all run", || processes(&word).len() == FAMILY).await;
    // As a service manager that ends all processes of a service.
    for pid in processes(&word) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let finished = running.await.unwrap().unwrap();
    assert_eq!(finished.ended, Ended::Signalled(15));
    assert!(processes(&word).is_empty());
}

#[tokio::test]
async fn nothing_outlives_its_deadline() {
    let (word, program) = family();
    let error = run(program.deadline(Duration::from_secs(1))).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ChildError::Late { .. }), "{error}");
    assert!(processes(&word).is_empty());
}

#[tokio::test]
async fn nothing_outlives_the_lease() {
    let (word, program) = family();
    // As of a lease that is renewed a few times and then no more.
    let over = Instant::now() + Duration::from_secs(2);
    let leash = move || over.saturating_duration_since(Instant::now());
    let error = program.run(leash).await.unwrap_err();
    assert!(matches!(error, ChildError::Unknown { .. }), "{error}");
    assert!(Instant::now() >= over);
    assert!(processes(&word).is_empty());
}

#[tokio::test]
async fn a_daemon_does_not_outlive_the_program_that_left_it_behind() {
    let word = format!("82{}.5", Uuid::new_v4().as_u128() % 1_000_000_000);
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there").display().to_string();
    // It says that it has a session of its own; only then does the program leave it behind.
    let daemon = format!("setsid sh -c 'touch {there}; exec sleep {word}' &");
    let wait = format!("until [ -e {there} ]; do sleep 0.01; done; exit 0");
    let program = shell(&format!("{daemon} {wait}"));
    let finished = run(program).await.unwrap();
    assert!(finished.is_success());
    assert!(processes(&word).is_empty());
}
