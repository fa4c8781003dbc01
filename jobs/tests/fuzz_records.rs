//! Records from a bucket: read whatever lies there, and no way through the states but the legal ones.

mod fuzz;

use std::collections::BTreeMap;

use fuzz::{cases, damaged, spoils, spoilt};
use jiff::Timestamp;
use jobs::ids::StepKey;
use jobs::message::Job;
use jobs::record::{
    ActiveRecord, Change, Event, Failure, JobRecord, JobVersion, LeftBehind, LoadBalancerRecord,
    NodeRecord, Owner, RecoveryRecord, Retry, SpecRecord, Status, StepRecord, Versioned,
    VolumeRecord, WaitRecord,
};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

const STATUSES: [Status; 10] = [
    Status::Pending,
    Status::Running,
    Status::Waiting,
    Status::Retrying,
    Status::Succeeded,
    Status::Failed,
    Status::Quarantined,
    Status::Parked,
    Status::NeedsApproval,
    Status::Cancelled,
];

const EVENTS: [Event; 11] = [
    Event::Claim,
    Event::Yield,
    Event::Release,
    Event::Retry,
    Event::Succeed,
    Event::Fail,
    Event::Quarantine,
    Event::Park,
    Event::AskApproval,
    Event::Cancel,
    Event::Reopen,
];

/// The states as an operator knows them, written down a second time: rows are where a job stands,
/// columns are `EVENTS`; a dot is a transition that must not happen.
const MODEL: [(&str, [&str; 11]); 10] = [
    (
        "pending",
        [
            "running",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            "cancelled",
            ".",
        ],
    ),
    (
        "running",
        [
            "running",
            "waiting",
            "waiting",
            "retrying",
            "succeeded",
            "failed",
            "quarantined",
            "parked",
            "needs-approval",
            "cancelled",
            ".",
        ],
    ),
    (
        "waiting",
        [
            "running",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            "cancelled",
            "pending",
        ],
    ),
    (
        "retrying",
        [
            "running",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            ".",
            "cancelled",
            "pending",
        ],
    ),
    (
        "succeeded",
        [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "pending"],
    ),
    (
        "failed",
        [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "pending"],
    ),
    (
        "quarantined",
        [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "pending"],
    ),
    (
        "parked",
        [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "pending"],
    ),
    (
        "needs-approval",
        [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "pending"],
    ),
    (
        "cancelled",
        [".", ".", ".", ".", ".", ".", ".", ".", ".", ".", "."],
    ),
];

#[test]
fn every_transition_is_the_models() {
    for (status, (name, row)) in STATUSES.into_iter().zip(MODEL) {
        assert_eq!(status.to_string(), name);
        for (event, wanted) in EVENTS.into_iter().zip(row) {
            let next = status
                .next(event)
                .map_or_else(|_| ".".to_owned(), |s| s.to_string());
            assert_eq!(next, wanted, "{status} {event:?}");
        }
    }
}

/// What happens to a job, as workers and operators do it.
#[derive(Debug, Clone)]
enum Move {
    /// One of three workers claims it.
    Claim(u8),
    /// The turn ends.
    End(usize),
    /// A step finishes.
    Step(u8),
    /// A wait moves on.
    Wait(u8, u64),
    /// Steps begin.
    Running(Vec<u8>),
    /// An operator puts it back, from a step on or not.
    Reopen(Option<u8>),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => (0..3_u8).prop_map(Move::Claim),
        2 => (1..10_usize).prop_map(Move::End),
        6 => (0..12_u8).prop_map(Move::Step),
        3 => (0..12_u8, any::<u64>()).prop_map(|(key, ms)| Move::Wait(key, ms)),
        1 => prop::collection::vec(0..12_u8, 0..4).prop_map(Move::Running),
        1 => any::<Option<u8>>().prop_map(|from| Move::Reopen(from.map(|n| n % 12))),
    ];
    prop::collection::vec(one, 0..60)
}

fn key(n: u8) -> StepKey {
    StepKey::of("step", n)
}

fn owner(n: u8) -> Owner {
    Owner {
        worker: Uuid::from_u128(u128::from(n) + 1),
        host: format!("host-{n}"),
        realm: "boot".into(),
        pid: u32::from(n) + 100,
        started: u64::from(n),
    }
}

fn at(n: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + n).expect("in range")
}

/// Makes a move as the engine does. A step of a job that nobody runs does not happen.
fn make(record: &mut JobRecord, step: &Move, now: Timestamp) {
    let running = record.status == Status::Running;
    match step {
        Move::Claim(who) => drop(record.claim(owner(*who), now)),
        Move::End(event) => drop(record.release(EVENTS[*event], now)),
        Move::Step(n) if running && !record.steps.contains_key(&key(*n)) => {
            let done = StepRecord {
                n: record.next_step_number(),
                output: json!({"n": n}),
                at: now,
                ms: 5,
                epoch: record.epoch,
            };
            record.apply(Change::Step {
                key: key(*n),
                record: done,
            });
        }
        Move::Wait(n, waited_ms) if running && !record.steps.contains_key(&key(*n)) => {
            let record_ = WaitRecord {
                waited_ms: *waited_ms,
                polls: 1,
                seen: "nothing".into(),
            };
            record.apply(Change::Wait {
                key: key(*n),
                record: record_,
            });
        }
        Move::Running(keys) if running => {
            record.apply(Change::Running {
                keys: keys.iter().map(|n| key(*n)).collect(),
            });
        }
        Move::Reopen(from) => drop(record.reopen(Retry {
            by: "me".into(),
            reason: "again".into(),
            at: now,
            from: from.map(key),
            failure: None,
        })),
        Move::Step(_) | Move::Wait(..) | Move::Running(_) => {}
    }
}

fn fresh() -> JobRecord {
    JobRecord::new(Job::Report.name(), Job::Report)
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    value: &T,
) -> Result<(), TestCaseError> {
    let text = serde_json::to_vec(value).expect("plain data");
    let back: T = serde_json::from_slice(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(&back, value);
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn whatever_happens_a_job_record_makes_sense(moves in moves()) {
        let mut record = fresh();
        let mut before = record.clone();
        for (n, step) in moves.iter().enumerate() {
            make(&mut record, step, at(n as i64));
            prop_assert!(record.epoch >= before.epoch && record.turn == record.epoch);
            prop_assert!(record.generation >= before.generation);
            prop_assert_eq!(record.owner.is_some(), record.status == Status::Running, "{:?}", step);
            if record.status != before.status {
                let legal = EVENTS.iter().any(|event| before.status.next(*event) == Ok(record.status));
                prop_assert!(legal, "{} became {} by {:?}", before.status, record.status, step);
            }
            let settled = record.status.is_settled();
            prop_assert!(!settled || record.ended.is_some(), "settled without an end: {:?}", step);
            prop_assert_eq!(record.retries.len(), record.generation as usize);
            let numbers: std::collections::BTreeSet<u64> = record.steps.values().map(|s| s.n).collect();
            prop_assert_eq!(numbers.len(), record.steps.len(), "two steps have one number");
            prop_assert_eq!(record.next_step_number(), numbers.last().map_or(1, |n| n + 1));
            prop_assert!(record.waits.keys().all(|key| !record.steps.contains_key(key)), "it waits for what is done");
            before = record.clone();
        }
        survives(&record)?;
        survives(&JobVersion::Full(Box::new(record)))?;
    }

    #[test]
    fn changes_survive_their_round_trip(moves in moves()) {
        let mut record = fresh();
        record.claim(owner(0), at(0)).expect("pending");
        let mut changes = Vec::new();
        for step in &moves {
            let change = match step {
                Move::Step(n) => Change::Step { key: key(*n), record: StepRecord { n: 1, output: json!([n, null, "x"]), at: at(1), ms: u64::MAX, epoch: u64::MAX } },
                Move::Wait(n, waited_ms) => Change::Wait { key: key(*n), record: WaitRecord { waited_ms: *waited_ms, polls: u64::MAX, seen: "key".into() } },
                Move::Running(keys) => Change::Running { keys: keys.iter().map(|n| key(*n)).collect() },
                _ => continue,
            };
            changes.push(change);
        }
        survives(&JobVersion::Delta { base: u64::MAX, epoch: 7, changes })?;
    }

    #[test]
    fn any_spoilt_record_is_a_record_or_an_error(which in 0..samples().len(), spoils in spoils()) {
        let (kind, good) = samples().swap_remove(which);
        let body = spoilt(&good, &spoils);
        reads(kind, body.to_string().as_bytes())?;
        let versioned = json!({"schema": 1, "writer": Uuid::nil(), "nonce": Uuid::nil(), "body": body});
        drop(serde_json::from_value::<Versioned<Value>>(spoilt(&versioned, &spoils)));
    }

    #[test]
    fn any_damaged_record_is_a_record_or_an_error(
        (kind, body) in (0..samples().len()).prop_flat_map(|which| {
            let (kind, good) = samples().swap_remove(which);
            (Just(kind), damaged(good.to_string()))
        }),
    ) {
        reads(kind, &body)?;
    }
}

/// A good record of every kind, as it lies in the bucket.
fn samples() -> Vec<(&'static str, Value)> {
    let mut job = fresh();
    job.claim(owner(1), at(0)).expect("pending");
    for n in 1..4 {
        make(&mut job, &Move::Step(n), at(1));
    }
    make(&mut job, &Move::Wait(9, 5000), at(2));
    job.failure = Some(Failure {
        step: Some(key(4)),
        chain: vec!["a".into(), "b".into()],
        left_behind: LeftBehind::Unknown,
        at: at(3),
        host: "h".into(),
    });
    let delta = json!({"version": "delta", "base": 3, "epoch": 2, "changes": [
        {"change": "step", "key": "a/b", "n": 1, "output": null, "at": at(1), "ms": 1, "epoch": 1},
        {"change": "wait", "key": "c", "waited_ms": 1, "polls": 1, "seen": "x"},
        {"change": "running", "keys": ["a"]},
    ]});
    let address = json!({"id": "a-1", "ip": "10.0.0.1"});
    vec![
        (
            "job",
            serde_json::to_value(JobVersion::Full(Box::new(job))).expect("plain data"),
        ),
        ("job", delta),
        (
            "recovery",
            json!({
                "id": "r-1", "cluster": "test", "purpose": "recover", "key": "ci-1",
                "inputs": {"spec": "ab", "plan": "cd"},
                "requester": {"user": "u", "host": "h", "ci_run": "https://ci"},
                "created": at(0), "flags": {"paused": "p", "cancelled": "c"},
                "finished": {"outcome": "cancelled", "at": at(1)},
            }),
        ),
        (
            "node",
            json!({
                "node": "test-web-1", "server": "s-1", "internal": address, "external": address,
                "host_keys": ["ssh-ed25519 AAAA"], "ssh_user": "root", "volumes": {"data": "v-1"},
                "recovery": "r-1", "epoch": 3,
            }),
        ),
        (
            "volume",
            json!({
                "id": "v-1", "name": "test-web-1-data", "node": "test-web-1", "disk": "data", "size_gb": 10,
                "storage": "network", "origin": {"from": "created-blank", "recovery": "r-1"},
                "fs_uuid": "u", "formatted": true, "mount": "/mnt/disks/data", "protected": true,
            }),
        ),
        (
            "load balancer",
            json!({
                "id": "l-1", "name": "test-main-lb", "address": address, "recovery": "r-1",
                "rules": [{"port": 80, "node": "test-web-1", "to": 30080}],
            }),
        ),
        ("active", json!({"recovery": "r-1", "since": at(0)})),
        ("spec", json!({"digest": "ab", "recovery": "r-1"})),
    ]
}

/// Reads a body as a record of a kind; what was read survives its round trip.
fn reads(kind: &str, body: &[u8]) -> Result<bool, TestCaseError> {
    fn one<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
        body: &[u8],
    ) -> Result<bool, TestCaseError> {
        match serde_json::from_slice::<T>(body) {
            Ok(value) => survives(&value).map(|()| true),
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                Ok(false)
            }
        }
    }
    match kind {
        "job" => one::<JobVersion>(body),
        "recovery" => one::<RecoveryRecord>(body),
        "node" => one::<NodeRecord>(body),
        "volume" => one::<VolumeRecord>(body),
        "load balancer" => one::<LoadBalancerRecord>(body),
        "active" => one::<ActiveRecord>(body),
        "spec" => one::<SpecRecord>(body),
        other => panic!("{other}"),
    }
}

#[test]
fn the_samples_are_good_ones() {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, good) in samples() {
        let read = reads(kind, good.to_string().as_bytes()).expect("it survives");
        assert!(read, "{kind}: {good}");
        *kinds.entry(kind).or_default() += 1;
    }
    assert_eq!(kinds.len(), 7);
}

/// A volume's record decides whether it may be formatted: what protects it is never guessed.
#[test]
fn a_volume_record_without_its_origin_or_with_another_one_is_an_error() {
    let (_, good) = samples()
        .into_iter()
        .find(|(kind, _)| *kind == "volume")
        .expect("there");
    for origin in [
        Value::Null,
        json!({}),
        json!("created-blank"),
        json!({"from": "created"}),
        json!({"from": "created-blank"}),
        json!({"from": null, "recovery": "r-1"}),
    ] {
        let mut record = good.clone();
        record["origin"] = origin;
        assert!(
            serde_json::from_value::<VolumeRecord>(record.clone()).is_err(),
            "{record}"
        );
    }
    for field in ["formatted", "protected"] {
        for value in [Value::Null, json!("true"), json!(1)] {
            let mut record = good.clone();
            record[field] = value;
            assert!(
                serde_json::from_value::<VolumeRecord>(record.clone()).is_err(),
                "{record}"
            );
        }
    }
}
