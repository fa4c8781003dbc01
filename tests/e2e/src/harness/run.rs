//! Runs a job once for every point, and compares.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, stream};
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys;
use jobs::queue::{Outgoing, Queue};
use jobs::record::{JobRecord, JobVersion, RecoveryRecord, Status, Versioned};
use sandbox::kube_sim::KubeSim;
use sandbox::operators::cert_manager::CertManager;
use serde_json::json;
use tokio::time::Instant;

use super::kinds::{CERTIFICATE, SECRETS, SPEC, Scenario, scenario};
use super::outcome::{Outcome, state, versions};
use super::place::Place;
use super::point::{self, Call, Often, Point, Trouble};
use super::queue::Parked;
use super::tap::Tap;
use crate::history;
use crate::recovery::begin;

/// A run that takes longer has hung. Far above what it takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// The shortest and the longest lease. Every crash costs one, and the heartbeats of several workers
/// must come through in time, however busy the machine is.
const LEASES: [Duration; 2] = [Duration::from_millis(600), Duration::from_secs(10)];

/// Points of a kind that are tried when not all are asked for.
const SAMPLE: usize = 40;

/// Worlds at a time: runs mostly wait for leases.
const AT_ONCE: usize = 6;

/// A world in which everything is ready for one job.
struct Prepared {
    scenario: Scenario,
    place: Place,
    cluster: ClusterName,
    recovery: RecoveryId,
    messages: Vec<Outgoing>,
    /// As long as several undisturbed runs take.
    lease: Duration,
}

/// What one run came to.
struct Ran {
    outcome: Outcome,
    calls: Vec<Call>,
    /// Whether the point was reached.
    struck: bool,
}

/// Tries a kind at its points.
///
/// # Errors
/// With every point that made a difference, and the difference.
pub async fn check(kind: &str) -> anyhow::Result<()> {
    // Hundreds of runs say too much; one alone is run to be listened to.
    if std::env::var_os("REKINDLE_POINT").is_some() {
        worker::telemetry::init("e2e");
    }
    worker::install_crypto();
    let scenario = scenario(kind).context("the harness has no such kind")?;
    let mut prepared = Prepared::new(scenario).await.context("prepare the world")?;
    let began = Instant::now();
    let plain = prepared.run(None).await.context("the undisturbed run")?;
    prepared.lease = (4 * began.elapsed()).clamp(LEASES[0], LEASES[1]);
    let prepared = Arc::new(prepared);
    let again = prepared
        .run(None)
        .await
        .context("the undisturbed run, again")?;
    let difference = again.outcome.difference(&plain.outcome);
    ensure!(
        difference.is_empty(),
        "two undisturbed runs differ:\n{}",
        difference.join("\n")
    );

    let all = point::all(
        &prepared.calls_of_job(&plain.calls),
        prepared.scenario.job.name.as_str(),
    );
    let (points, how) = chosen(&all)?;
    say(&format!(
        "harness: {kind}: {} of {} points ({how})",
        points.len(),
        all.len()
    ));
    let expected = &plain.outcome;
    let tried: Vec<(Point, anyhow::Result<bool>)> = stream::iter(points)
        .map(|point| {
            let prepared = Arc::clone(&prepared);
            async move {
                let tried = prepared.try_one(&point, expected).await;
                (point, tried)
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let reached = tried
        .iter()
        .filter(|(_, t)| !matches!(t, Ok(false)))
        .count();
    let failures: Vec<String> = tried
        .iter()
        .filter_map(|(point, tried)| Some((point, tried.as_ref().err()?)))
        .map(|(point, error)| format!("{point}\n{error:#}\n  alone: REKINDLE_POINT='{point}' cargo nextest run -p e2e --test harness_jobs {}", kind.replace('-', "_")))
        .collect();
    say(&format!("harness: {kind}: {reached} points tried"));
    report(kind, reached, all.len())?;
    ensure!(
        failures.is_empty(),
        "{kind}: {} of {reached} points made a difference\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    // A poll less, and the last one has no point; but a harness that strikes nothing proves nothing.
    ensure!(
        reached * 10 >= tried.len() * 9,
        "only {reached} of {} points were reached",
        tried.len()
    );
    Ok(())
}

/// Which points are tried, and how they were chosen.
fn chosen(all: &[Point]) -> anyhow::Result<(Vec<Point>, String)> {
    if let Ok(one) = std::env::var("REKINDLE_POINT") {
        return Ok((vec![one.parse()?], "REKINDLE_POINT".into()));
    }
    let full = std::env::var("REKINDLE_HARNESS").is_ok_and(|how| how == "full");
    if full || all.len() <= SAMPLE {
        return Ok((all.to_vec(), "all".into()));
    }
    let seed: usize = match std::env::var("REKINDLE_SEED") {
        Ok(seed) => seed.parse().context("REKINDLE_SEED")?,
        Err(_) => 0,
    };
    // Spread over the whole run: every so-manyth, beginning at the seed.
    let len = all.len();
    let picked = (0..SAMPLE).map(|n| all[(n * len / SAMPLE + seed) % len].clone());
    Ok((picked.collect(), format!("REKINDLE_SEED={seed}")))
}

impl Prepared {
    async fn new(scenario: Scenario) -> anyhow::Result<Self> {
        let place = Place::new().await?;
        let parked = Parked::new(scenario.job.name.clone());
        let worker = place
            .worker(&Tap::listening(), LEASES[1], Some(parked.clone()))
            .await?;
        let store = place.store().await?;
        let queue =
            super::queue::Tapped::new(place.queue.clone(), Tap::listening(), Some(parked.clone()));
        let begun = begin(&store, &queue, SPEC, Some(scenario.plan.clone())).await?;
        // The jobs before the one that is tried need none.
        let secrets = SECRETS.map(|name| (name, format!("the value of {name}")));
        begun.give(&place.identity, &secrets, None).await?;
        eventually("the jobs before it", || Ok(!parked.messages().is_empty())).await?;
        idle(&place).await?;
        worker.kill();
        if scenario.kubernetes {
            let kube = place.install_kubernetes(SPEC)?;
            put_certificate(&kube)?;
        }
        let (cluster, recovery) = (begun.cluster, begun.id);
        let messages = parked.messages();
        Ok(Self {
            scenario,
            place,
            cluster,
            recovery,
            messages,
            lease: LEASES[1],
        })
    }

    /// Tries one point; `false` when it was not reached.
    async fn try_one(&self, point: &Point, expected: &Outcome) -> anyhow::Result<bool> {
        let ran = self.run(Some(point)).await?;
        let difference = ran.outcome.difference(expected);
        ensure!(difference.is_empty(), "  {}", difference.join("\n  "));
        Ok(ran.struck)
    }

    /// Runs the job on a copy of the world, disturbed or not, until the recovery has ended.
    async fn run(&self, point: Option<&Point>) -> anyhow::Result<Ran> {
        let place = self.place.copy().await?;
        let tap = match point {
            Some(Point::At(trouble, call)) => Tap::armed(call.clone(), trouble.blow()),
            _ => Tap::listening(),
        };
        let often = match point {
            Some(Point::Delivered(often)) => Some(*often),
            _ => None,
        };
        place.queue.set_redeliver(often == Some(Often::AfterAck));
        self.post(&place).await?;
        if matches!(often, Some(Often::Twice | Often::ToTwo)) {
            self.post(&place).await?;
        }
        let mut workers = vec![place.worker(&tap, self.lease, None).await?];
        if matches!(often, Some(Often::ToTwo | Often::AfterAck)) {
            workers.push(place.worker(&tap, self.lease, None).await?);
        }
        if let Some(Point::At(trouble, _)) = point {
            tokio::select! {
                () = tap.struck() => {}
                ended = self.ended(&place) => ended?,
            }
            if tap.has_struck() {
                self.disturb(*trouble, &place, &tap, &mut workers).await?;
            }
        }
        let result = self.settle(&place).await;
        let calls = tap.log();
        result.with_context(|| last_words(&calls))?;
        if often == Some(Often::Late) {
            self.post(&place).await?;
            self.settle(&place).await?;
        }
        place.queue.set_redeliver(false);
        idle(&place).await?;
        workers.into_iter().for_each(super::place::Hand::kill);
        let dead = place.queue.dead(10).await?;
        ensure!(dead.is_empty(), "in the dead queue: {dead:?}");
        history::check_in(&place.s3, &self.cluster, &self.recovery)?;
        self.in_order(&place)?;
        Ok(Ran {
            outcome: Outcome::of(&place)?,
            calls,
            struck: often.is_some() || tap.has_struck(),
        })
    }

    /// What happens around the call that was struck.
    async fn disturb(
        &self,
        trouble: Trouble,
        place: &Place,
        tap: &Tap,
        workers: &mut Vec<super::place::Hand>,
    ) -> anyhow::Result<()> {
        match trouble {
            Trouble::FailBefore | Trouble::FailAfter => {}
            Trouble::CrashBefore | Trouble::CrashAfter => {
                workers.drain(..).for_each(super::place::Hand::kill);
                workers.push(place.worker(tap, self.lease, None).await?);
            }
            Trouble::Late => {
                workers.drain(..).for_each(super::place::Hand::kill);
                workers.push(place.worker(tap, self.lease, None).await?);
                self.settle(place).await?;
                tap.release();
                let landed = tokio::time::timeout(LONG, tap.landed()).await;
                landed.context("the call that was held never arrived")?;
            }
            Trouble::StolenBefore | Trouble::StolenAfter => {
                workers.push(place.worker(tap, self.lease, None).await?);
                self.post(place).await?;
                self.ended(place).await?;
                tap.release();
            }
            Trouble::Twin => {
                let before = tap.log().len();
                workers.push(place.worker(tap, self.lease, None).await?);
                self.post(place).await?;
                eventually("the twin looks", || Ok(tap.log().len() > before)).await?;
                tap.release();
            }
        }
        Ok(())
    }

    async fn post(&self, place: &Place) -> anyhow::Result<()> {
        for message in &self.messages {
            place.queue.publish(message, Duration::ZERO).await?;
        }
        Ok(())
    }

    async fn settle(&self, place: &Place) -> anyhow::Result<()> {
        self.ended(place).await?;
        idle(place).await
    }

    /// Waits until the recovery has ended well.
    async fn ended(&self, place: &Place) -> anyhow::Result<()> {
        let series = keys::recovery(&self.cluster, &self.recovery);
        let waited = eventually("the recovery ends", || {
            for (_, body) in place.s3.objects(series.prefix()) {
                let version: Versioned<RecoveryRecord> = serde_json::from_slice(&body)?;
                if let Some(finished) = version.body.finished {
                    ensure!(
                        finished.outcome == jobs::record::Outcome::Succeeded,
                        "{finished:?}"
                    );
                    return Ok(true);
                }
            }
            self.is_stuck(place)?;
            Ok(false)
        });
        waited.await?;
        // Whoever writes the end has seen every job done, so it is on record by now.
        for job in &self.scenario.plan {
            let status = self.record(place, &job.name)?.status;
            ensure!(
                status == Status::Succeeded,
                "the recovery has ended, and {} is {status}",
                job.name
            );
        }
        Ok(())
    }

    fn record(&self, place: &Place, job: &JobName) -> anyhow::Result<JobRecord> {
        let series = keys::job(&self.cluster, &self.recovery, job);
        state(&versions(place, series.prefix()))?.with_context(|| format!("{job} has no record"))
    }

    /// No job has begun before those that it needs were done, on record.
    fn in_order(&self, place: &Place) -> anyhow::Result<()> {
        for job in &self.scenario.plan {
            let started = self.record(place, &job.name)?.started;
            for need in &job.needs {
                let ended = self.record(place, need)?.ended;
                ensure!(
                    ended.is_some() && ended <= started,
                    "{} began at {started:?}, and {need}, which it needs, ended at {ended:?}",
                    job.name
                );
            }
        }
        Ok(())
    }

    /// An error when a job has failed for good.
    fn is_stuck(&self, place: &Place) -> anyhow::Result<()> {
        for job in &self.scenario.plan {
            let series = keys::job(&self.cluster, &self.recovery, &job.name);
            let Some((_, body)) = versions(place, series.prefix()).pop() else {
                continue;
            };
            let version: Versioned<JobVersion> = serde_json::from_slice(&body)?;
            if let JobVersion::Full(record) = version.body
                && record.status.is_stuck()
            {
                let failure = record.failure.map(|f| f.to_string()).unwrap_or_default();
                bail!("{} is {}: {failure}", job.name, record.status);
            }
        }
        Ok(())
    }

    /// The calls of the job itself, up to its acknowledgement: what follows it has points of its own.
    fn calls_of_job(&self, calls: &[Call]) -> Vec<Call> {
        let follows = format!("s3 put jobs/{}/", self.scenario.follower);
        let until = calls
            .iter()
            .position(|call| call.what.starts_with(&follows));
        let of_both = &calls[..until.unwrap_or(calls.len())];
        let last = of_both.iter().rposition(|call| call.what == "queue ack");
        of_both[..last.map_or(0, |last| last + 1)].to_vec()
    }
}

/// Waits until no message is ready, on its way or late.
async fn idle(place: &Place) -> anyhow::Result<()> {
    eventually("the queue is empty", || {
        let text = format!("{:?}", place.queue);
        Ok(["ready: 0", "delayed: 0", "unacked: 0"]
            .iter()
            .all(|part| text.contains(part)))
    })
    .await
}

async fn eventually(
    what: &str,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + LONG;
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what}: not within {LONG:?}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    Ok(())
}

fn last_words(calls: &[Call]) -> String {
    let from = calls.len().saturating_sub(12);
    let last: Vec<String> = calls[from..].iter().map(ToString::to_string).collect();
    format!("the last calls were: {}", last.join(", "))
}

#[expect(
    clippy::print_stdout,
    reason = "the numbers are for whoever reads the test's output"
)]
fn say(line: &str) {
    println!("{line}");
}

/// Leaves the numbers where the docs' numbers come from.
fn report(kind: &str, tried: usize, of: usize) -> anyhow::Result<()> {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")),
        PathBuf::from,
    );
    let folder = folder.join("harness");
    std::fs::create_dir_all(&folder)?;
    let numbers = serde_json::json!({"kind": kind, "tried": tried, "points": of});
    Ok(std::fs::write(
        folder.join(format!("{kind}.json")),
        numbers.to_string(),
    )?)
}

/// cert-manager's kind, a certificate that it has issued, and its Secret.
fn put_certificate(kube: &KubeSim) -> anyhow::Result<()> {
    for definition in CertManager::definitions() {
        kube.put(definition)?;
    }
    let (namespace, name) = CERTIFICATE.split_once('/').context("two names")?;
    let certificate = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "dnsNames": ["demo.example.org"], "secretName": name },
        "status": {
            "notAfter": "2100-01-01T00:00:00Z", "revision": 1,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "Ready", "observedGeneration": 1 }],
        },
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "namespace": namespace, "name": name },
        "data": { "tls.crt": "YSBjZXJ0aWZpY2F0ZQ==", "tls.key": "aXRzIGtleQ==" },
    });
    kube.put(secret)?;
    // A kind is served a moment after its definition.
    for _ in 0..500 {
        if kube.put(certificate.clone()).is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    kube.put(certificate)
}
