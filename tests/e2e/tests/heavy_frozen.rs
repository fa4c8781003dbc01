//! Workers that stand still for a while (SIGSTOP) and then go on as if nothing had been: whoever lost
//! its lease meanwhile does nothing any more, and nothing that it had started goes on without it.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::processes::{Workers, descendants, is_running, until};
use e2e::recovery::Begun;
use e2e::site::{Site, demo, demo_with_programs};
use e2e::tap::Tap;
use e2e::{history, writers};
use jobs::ids::JobName;
use jobs::keys;
use jobs::record::{JobRecord, Status};
use sandbox::s3::{Gate, Op, Rule, What, When};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(120);

/// The lease of all workers here, in words of their command line.
const LEASE: Duration = Duration::from_secs(4);
const ARGS: [&str; 4] = ["--lease", "4", "--sweep", "1"];

/// A worker behind a tap.
async fn tapped(site: &Site, workers: &mut Workers) -> anyhow::Result<(u32, Tap)> {
    let tap = Tap::start(site.broker.url()).await?;
    workers.set("AMQP_URL", Some(tap.url()));
    // The broker goes on to send messages to a frozen one. With a single one at a time there are none.
    workers.set("REKINDLE_CONCURRENCY", Some("1"));
    let pid = workers.spawn()?;
    workers.set("REKINDLE_CONCURRENCY", None);
    workers.set("AMQP_URL", Some(site.broker.url()));
    Ok((pid, tap))
}

/// Waits until a process owns the job.
async fn owned_by(begun: &Begun, job: &str, pid: u32) -> anyhow::Result<JobRecord> {
    let what = format!("{pid} owns {job}");
    until(&what, LONG, async || {
        let record = begun.record(job).await?;
        Ok(record.filter(|r| r.owner.as_ref().is_some_and(|o| o.pid == pid)))
    })
    .await
}

fn owner(record: &JobRecord) -> anyhow::Result<Uuid> {
    Ok(record.owner.as_ref().context("it has an owner")?.worker)
}

/// Waits until a job's record has just changed. The instant is one before it had.
async fn changed(site: &Site, begun: &Begun, job: &str) -> anyhow::Result<Instant> {
    let store = site.sandbox.store().await?;
    let series = keys::job(&begun.cluster, &begun.id, &JobName::new(job)?);
    let before = store.last_version(&series).await?;
    let mut looked = Instant::now();
    until("a heartbeat", LONG, async || {
        let now = Instant::now();
        if store.last_version(&series).await? != before {
            return Ok(Some(looked));
        }
        looked = now;
        Ok(None)
    })
    .await
}

/// Waits until none of these processes runs.
async fn all_gone(pids: &[u32]) -> anyhow::Result<()> {
    until("its programs are gone", LONG, async || {
        Ok((!pids.iter().any(|pid| is_running(*pid))).then_some(()))
    })
    .await
}

/// Waits until a worker runs programs: the supervisor, a shell and what the shell has started.
async fn programs(pid: u32) -> anyhow::Result<Vec<u32>> {
    until("it runs programs", LONG, async || {
        Ok(Some(descendants(pid)).filter(|all| all.len() >= 3))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_frozen_worker_is_taken_over_and_wakes_up_to_nothing() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = site.workers(&ARGS)?;
    let (first, tap) = tapped(&site, &mut workers).await?;
    let plan = vec![demo_with_programs("a", 2, 5000)];
    let begun = site.begin(Some(plan)).await?;
    let frozen_one = owner(&owned_by(&begun, "demo/a", first).await?)?;
    let second = workers.spawn()?;
    let programs = programs(first).await?;

    let last_sign = changed(&site, &begun, "demo/a").await?;
    workers.freeze(first)?;
    let frozen = Instant::now();
    let said = tap.said();
    let gone = async {
        all_gone(&programs).await?;
        anyhow::Ok(frozen.elapsed())
    };
    let taken = async {
        owned_by(&begun, "demo/a", second).await?;
        anyhow::Ok(Instant::now())
    };
    let (gone, taken) = tokio::try_join!(gone, taken)?;
    eprintln!(
        "a lease of {LEASE:?}: its programs are gone after {gone:?}, taken over after {:?}",
        taken - frozen
    );
    ensure!(taken - last_sign >= LEASE, "it was taken over too soon");
    let wrote = writers::objects_by(&site.sandbox, frozen_one);
    assert_eq!(tap.said(), said, "it is frozen");

    // It wakes up and is asked to end: it takes no further message, so that all that it says is about
    // the job that it had.
    workers.thaw(first)?;
    let status = workers.terminate(first, LONG).await?;
    assert_eq!(status.code(), Some(0), "{status}");
    let now = tap.said();
    assert_eq!((now.publishes, now.acks), (said.publishes, said.acks));
    assert_eq!(writers::objects_by(&site.sandbox, frozen_one), wrote);
    let logs = workers.logs()?;
    let words = ["the lease ran out", "lost the lease"];
    ensure!(words.iter().any(|word| logs.contains(word)), "it says so");

    let record = begun.reaches("demo/a", &[Status::Succeeded], LONG).await?;
    assert_eq!((record.epoch, record.attempts), (2, 0));
    let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    assert_eq!((history.steps, history.takeovers), (3, 1));
    let writers = writers::of_job(&site.sandbox, &begun, "demo/a")?;
    assert_eq!(writers.len(), 2);
    assert_eq!(writers[0], frozen_one);
    begun.finished(LONG).await?;
    ensure!(descendants(second).is_empty(), "a program is left");
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_worker_frozen_for_less_than_its_lease_goes_on() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = site.workers(&["--lease", "20", "--sweep", "1"])?;
    let first = workers.spawn()?;
    let begun = site
        .begin(Some(vec![demo_with_programs("a", 1, 6000)]))
        .await?;
    owned_by(&begun, "demo/a", first).await?;
    workers.spawn()?;
    let programs = programs(first).await?;
    workers.freeze(first)?;
    // The other one sweeps once a second and finds nothing to do: what does not happen cannot be
    // waited for.
    sleep(Duration::from_secs(2)).await;
    for pid in &programs {
        ensure!(is_running(*pid), "the program of a short freeze is gone");
    }
    workers.thaw(first)?;
    let record = begun.reaches("demo/a", &[Status::Succeeded], LONG).await?;
    assert_eq!((record.epoch, record.attempts), (1, 0));
    let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    assert_eq!((history.steps, history.takeovers, history.turns), (2, 0, 1));
    assert_eq!(
        writers::of_job(&site.sandbox, &begun, "demo/a")?.len(),
        1,
        "nobody else touched it"
    );
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_worker_frozen_with_a_write_under_way_is_not_heard_any_more() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = site.workers(&ARGS)?;
    for (name, hold) in [("a", true), ("b", false)] {
        let job = format!("demo/{name}");
        let first = workers.spawn()?;
        let begun = site.begin(Some(vec![demo(name, 12, 500, None)])).await?;
        let frozen_one = owner(&owned_by(&begun, &job, first).await?)?;
        // The first: the write is on its way and reaches the store when somebody else owns the job. The
        // second: it is in the store, but nobody tells the frozen one.
        let gate = Gate::new();
        let held = gate.clone();
        site.sandbox.s3.faults().add(Rule {
            op: Some(Op::Put),
            key: Some(format!("/jobs/{job}/")),
            when: When::Next(1),
            what: if hold {
                What::HoldRequest(held)
            } else {
                What::HoldAnswer(held)
            },
        });
        timeout(LONG, gate.reached(1)).await?;
        workers.freeze(first)?;
        let second = workers.spawn()?;
        owned_by(&begun, &job, second).await?;
        let wrote = writers::objects_by(&site.sandbox, frozen_one);
        gate.open();
        workers.thaw(first)?;
        let record = begun.reaches(&job, &[Status::Succeeded], LONG).await?;
        assert_eq!((record.epoch, record.attempts), (2, 0), "{job}");
        let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
        assert_eq!((history.steps, history.takeovers), (13, 1), "{job}");
        assert_eq!(writers::of_job(&site.sandbox, &begun, &job)?.len(), 2);
        begun.finished(LONG).await?;
        // The end of the recovery, two objects, may have been written by either: it lives.
        let late = writers::objects_by(&site.sandbox, frozen_one) - wrote;
        ensure!(late <= 2, "{job}: the woken one wrote {late} objects");
        workers.terminate(first, LONG).await?;
        workers.terminate(second, LONG).await?;
    }
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_workers_frozen_in_turn_do_each_step_once() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = site.workers(&ARGS)?;
    // One message at a time: a frozen one that has its message gets no others.
    workers.set("REKINDLE_CONCURRENCY", Some("1"));
    let pids = [workers.spawn()?, workers.spawn()?];
    // Steps so short that some are frozen within, some between and some while they are written.
    let begun = site.begin(Some(vec![demo("a", 300, 20, None)])).await?;
    let mut frozen = 0;
    let finished = begun.finished(LONG);
    tokio::pin!(finished);
    loop {
        // Whoever has the job.
        let record = begun.record("demo/a").await?;
        let owner = record.and_then(|r| r.owner).map(|o| o.pid);
        let Some(pid) = owner.filter(|pid| pids.contains(pid)) else {
            match timeout(Duration::from_millis(50), &mut finished).await {
                Ok(done) => break done?,
                Err(_) => continue,
            }
        };
        // The moment of the freeze: somewhere in the middle of a step.
        let pause = sleep(Duration::from_millis(500));
        tokio::select! {
            done = &mut finished => break done?,
            () = pause => workers.freeze(pid)?,
        }
        frozen += 1;
        // Longer than the lease; the other one works.
        let done = timeout(LEASE + Duration::from_secs(4), &mut finished).await;
        workers.thaw(pid)?;
        if let Ok(done) = done {
            break done?;
        }
    }
    let history = history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    eprintln!("frozen {frozen} times: {history:?}");
    assert_eq!(history.steps, 300 + 1);
    ensure!(history.takeovers > 0, "nobody was taken over");
    writers::of_job(&site.sandbox, &begun, "demo/a")?;
    let record = begun.record("demo/a").await?.context("it has a record")?;
    assert_eq!((record.status, record.attempts), (Status::Succeeded, 0));
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_programs_do_not_outlive_their_worker_or_its_lease() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = site.workers(&ARGS)?;
    let begun = site
        .begin(Some(vec![demo_with_programs("a", 1, 8000)]))
        .await?;
    // Killed.
    let killed = workers.spawn()?;
    let of_killed = programs(killed).await?;
    workers.kill9(killed).await?;
    all_gone(&of_killed).await?;

    // Cut off from the store, and so from its lease.
    let cut_off = workers.spawn()?;
    let of_cut_off = programs(cut_off).await?;
    site.sandbox.s3.faults().set_down(true);
    all_gone(&of_cut_off).await?;
    ensure!(is_running(cut_off), "the worker itself lives");
    site.sandbox.s3.faults().set_down(false);

    // Asked to end: the step gets its time, then nothing is left.
    let last = programs(cut_off).await?;
    workers.terminate(cut_off, LONG).await?;
    all_gone(&last).await?;
    let record = begun.record("demo/a").await?.context("it has a record")?;
    assert_eq!((record.owner.as_ref(), record.steps.len()), (None, 1));

    workers.spawn()?;
    begun.finished(LONG).await?;
    history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    workers.stop().await?;
    site.stop().await
}
