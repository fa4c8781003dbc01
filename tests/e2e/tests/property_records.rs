//! A job's record is read back as it was, however its versions are cut into full ones and deltas.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use jiff::Timestamp;
use jobs::ids::{ClusterName, RecoveryId, StepKey};
use jobs::keys;
use jobs::message::Job;
use jobs::record::{Change, Event, JobRecord, JobVersion, Owner, Retry, StepRecord, WaitRecord};
use jobs::store::Appended;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sandbox::world::{Options, Sandbox};
use uuid::Uuid;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

/// A change of a running job.
fn change(dice: &mut StdRng, record: &JobRecord) -> Change {
    let key = |dice: &mut StdRng| StepKey::of("step", dice.random_range(0..8));
    match dice.random_range(0..4) {
        0 => Change::Running {
            keys: (0..dice.random_range(0..3)).map(|_| key(dice)).collect(),
        },
        1 => Change::Wait {
            key: key(dice),
            record: WaitRecord {
                waited_ms: dice.random(),
                polls: dice.random_range(0..9),
                seen: "not yet".into(),
            },
        },
        _ => Change::Step {
            key: key(dice),
            record: StepRecord {
                n: record.next_step_number(),
                output: serde_json::json!({"n": dice.random_range(0..9), "none": null}),
                at: Timestamp::UNIX_EPOCH,
                ms: dice.random_range(0..99),
                epoch: record.epoch,
            },
        },
    }
}

/// Something that is written in full: claims, ends of turns, retries.
fn turn(dice: &mut StdRng, record: &mut JobRecord) {
    let now = Timestamp::UNIX_EPOCH;
    let owner = Owner {
        worker: Uuid::from_u128(dice.random_range(1..4)),
        host: "h".into(),
        realm: "r".into(),
        pid: 1,
        started: 1,
    };
    let retry = Retry {
        by: "me".into(),
        reason: "again".into(),
        at: now,
        from: None,
        failure: None,
    };
    // What is not legal now does not happen.
    let _ = match dice.random_range(0..6) {
        0..=2 => record.claim(owner, now),
        3 => record.release(Event::Yield, now),
        4 => record.release(Event::Fail, now),
        _ => record.reopen(retry),
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn full_versions_and_deltas_say_the_same_as_full_versions_alone() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options::default()).await?;
    let store = sandbox.store().await?;
    let cluster = ClusterName::new("test")?;
    let (first, cases) = (
        setting("REKINDLE_SEED", 1),
        setting("REKINDLE_FUZZ_CASES", 20),
    );
    for seed in first..first + cases {
        let mut dice = StdRng::seed_from_u64(seed);
        let id = RecoveryId::new(format!("r-{seed}"))?;
        let series = keys::job(&cluster, &id, &Job::Report.name());
        let mut record = JobRecord::new(Job::Report.name(), Job::Report);
        let (mut version, mut base) = (0, 0);
        for _ in 0..dice.random_range(1..25) {
            let running = record.owner.is_some();
            // A worker that holds the job writes deltas, and now and then all of it.
            let body = if base > 0 && running && dice.random_bool(0.7) {
                let mut changes = Vec::new();
                for _ in 0..dice.random_range(0..4) {
                    let change = change(&mut dice, &record);
                    record.apply(change.clone());
                    changes.push(change);
                }
                JobVersion::Delta {
                    base,
                    epoch: record.epoch,
                    changes,
                }
            } else {
                turn(&mut dice, &mut record);
                base = version + 1;
                JobVersion::Full(Box::new(record.clone()))
            };
            version += 1;
            let appended = store.append(&series, version, &body).await?;
            assert_eq!(appended, Appended::Won, "REKINDLE_SEED={seed}");
            let read = store.read_job(&series).await?.unwrap();
            assert_eq!(
                (read.version, read.base),
                (version, base),
                "REKINDLE_SEED={seed}"
            );
            assert_eq!(
                read.record, record,
                "REKINDLE_SEED={seed} at version {version}"
            );
        }
    }
    sandbox.stop().await
}

/// Whoever writes into the bucket by hand, or loses an object there, gets an error and no guess.
#[tokio::test(flavor = "multi_thread")]
async fn a_series_with_a_hole_or_a_wrong_base_is_an_error() -> anyhow::Result<()> {
    let sandbox = Sandbox::start(Options::default()).await?;
    let store = sandbox.store().await?;
    let cluster = ClusterName::new("test")?;
    let full = || JobVersion::Full(Box::new(JobRecord::new(Job::Report.name(), Job::Report)));
    let delta = |base| JobVersion::Delta {
        base,
        epoch: 1,
        changes: vec![],
    };
    for (name, versions) in [
        ("no full version", vec![(1, delta(0))]),
        (
            "a base that is no full version",
            vec![(1, full()), (2, delta(1)), (3, delta(2))],
        ),
        ("a base that is newer", vec![(1, full()), (2, delta(3))]),
        ("a base that is itself", vec![(1, full()), (2, delta(2))]),
        ("a hole", vec![(1, full()), (3, delta(1))]),
        ("a lost base", vec![(4, delta(1)), (5, delta(1))]),
    ] {
        let id = RecoveryId::new(format!("r-{}", name.replace(' ', "-")))?;
        let series = keys::job(&cluster, &id, &Job::Report.name());
        for (n, body) in versions {
            store.append(&series, n, &body).await?;
        }
        let read = store.read_job(&series).await;
        assert!(read.is_err(), "{name}: {read:?}");
    }
    sandbox.stop().await
}
