//! Runs the virtual users: k6's executor `per-vu-iterations`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::network::Network;
use crate::samples::Samples;
use crate::say;
use crate::test::Test;

/// How long iterations that have begun may go on when time is up.
const GRACE: Duration = Duration::from_secs(30);

/// What goes wrong, from `SANDBOX_TROUBLE`: `kill` after the first iteration, as the kernel does when memory is
/// exhausted; `silent`, without a summary; or `slow`, a pause of so many milliseconds in each iteration: `slow:200`.
/// `throw` is the script's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    kill: bool,
    silent: bool,
    slow: Duration,
}

impl Trouble {
    pub(crate) fn read(environment: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut read = Self::default();
        match environment.get("SANDBOX_TROUBLE").map(String::as_str) {
            None | Some("") => {}
            Some("kill") => read.kill = true,
            Some("silent") => read.silent = true,
            Some(other) => {
                let pause = other.strip_prefix("slow:").map(str::parse);
                let Some(Ok(pause)) = pause else {
                    return Err(format!("SANDBOX_TROUBLE: nobody knows {other:?}"));
                };
                read.slow = Duration::from_millis(pause);
            }
        }
        Ok(read)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All is done, or time was up.
    Done,
    /// Somebody wanted it to end.
    Aborted,
}

/// A test that was run.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) samples: Samples,
    pub(crate) ended: Ended,
    pub(crate) took: Duration,
    /// Virtual users of this runner.
    pub(crate) users: u64,
    pub(crate) silent: bool,
}

/// When virtual users end before they are done.
#[derive(Debug, Clone, Default)]
struct Stop {
    /// No iteration begins any more.
    soon: CancellationToken,
    /// What has begun is given up.
    now: CancellationToken,
}

/// Runs a test with so many virtual users.
pub(crate) async fn play(test: &Test, users: u64, network: Network, trouble: Trouble) -> Played {
    let network = Arc::new(network);
    let stop = Stop::default();
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..users {
        let client = Client::new(Arc::clone(&network));
        running.spawn(user(client, test.clone(), trouble, stop.clone()));
    }
    let watch = watch(test.max_duration, stop);
    tokio::pin!(watch);
    let mut samples = Samples::default();
    let mut ended = Ended::Done;
    let mut watching = true;
    loop {
        tokio::select! {
            done = running.join_next() => match done {
                Some(done) => samples.merge(done.unwrap_or_default()),
                None => break,
            },
            how = &mut watch, if watching => {
                (ended, watching) = (how, false);
            }
        }
    }
    let all = users * test.iterations;
    if ended == Ended::Done {
        samples.dropped = all - samples.begun;
    }
    Played {
        samples,
        ended,
        took: began.elapsed(),
        users,
        silent: trouble.silent,
    }
}

/// Stops the virtual users when time is up, or when somebody wants it.
async fn watch(max_duration: Duration, stop: Stop) -> Ended {
    let asked = async {
        let (Ok(mut terminate), Ok(mut interrupt)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
        ) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let time_is_up = async {
        tokio::time::sleep(max_duration).await;
        stop.soon.cancel();
        tokio::time::sleep(GRACE).await;
    };
    let ended = tokio::select! {
        () = asked => Ended::Aborted,
        () = time_is_up => Ended::Done,
    };
    stop.soon.cancel();
    stop.now.cancel();
    ended
}

/// One virtual user.
async fn user(mut client: Client, test: Test, trouble: Trouble, stop: Stop) -> Samples {
    let mut samples = Samples::default();
    for _ in 0..test.iterations {
        if stop.soon.is_cancelled() {
            break;
        }
        samples.begun += 1;
        let began = Instant::now();
        let iteration = iteration(&mut client, &test, trouble, &mut samples);
        if stop.now.run_until_cancelled(iteration).await.is_none() {
            break;
        }
        samples.iteration.add(began.elapsed().as_secs_f64() * 1000.0);
        if trouble.kill {
            // It cannot fail: there is such a signal, and we may send it to ourselves.
            let _ = raise(Signal::SIGKILL);
        }
    }
    samples
}

/// Once through the script.
async fn iteration(client: &mut Client, test: &Test, trouble: Trouble, samples: &mut Samples) {
    let answer = client.get(&test.target).await;
    if let Some(why) = &answer.error {
        say::request_failed(&test.target, why);
    }
    // A URL that is none ends the iteration by an exception.
    if let Some(request) = &answer.request {
        samples.request(request);
        samples.checks.add(!request.failed);
    }
    if !trouble.slow.is_zero() {
        tokio::time::sleep(trouble.slow).await;
    }
}
