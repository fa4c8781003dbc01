#![expect(clippy::unwrap_used, reason = "tests")]

use jiff::Timestamp;
use jobs::ids::{ClusterName, RecoveryId, StepKey};
use jobs::message::{Job, LoadTest, Restore};
use jobs::record::{Flags, Inputs, JobRecord, RecoveryRecord, Requester, Status, StepRecord};
use jobs::spec::ClusterSpec;
use serde_json::{Value, json};

use super::document::{Recorded, Report, Sources, Verdict};
use super::page::render;

fn at(minute: i64) -> Timestamp {
    let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    start + jiff::SignedDuration::from_mins(minute)
}

fn spec(targets: &str) -> ClusterSpec {
    let yaml = format!(
        "version: 1\ncluster: test\n{targets}\nservers: {{ image: {{ distribution: u, version: \"1\" }}, keypair: k }}\n\
         groups:\n  - {{ prefix: web, role: worker, instances: {{ 1: true }}, vcpus: 1, ram_gb: 2, boot_disk: {{ size_gb: 20 }} }}\n"
    );
    ClusterSpec::parse(&yaml).unwrap()
}

/// A job that ran from one minute to another.
fn job(payload: Job, from: i64, to: i64, status: Status, steps: &[(&str, Value)]) -> Recorded {
    let mut record = JobRecord::new(payload.name(), payload);
    record.status = status;
    record.started = Some(at(from));
    record.ended = (status != Status::Running).then(|| at(to));
    for (n, (key, output)) in (1..).zip(steps) {
        let step = StepRecord {
            n,
            output: output.clone(),
            at: at(to),
            ms: 5,
            epoch: 1,
        };
        record.steps.insert(StepKey::new(*key).unwrap(), step);
    }
    (record.job.clone(), Some(record))
}

fn restored(lost: i64) -> Recorded {
    let chosen = json!({"set": "20260301-000000F", "wal": "all of it"});
    let query = json!({
        "name": "orders", "query": "select 1", "expected": "at least 3", "holds": true,
        "observed": "<script>alert(1)</script>",
    });
    let data = json!({"rpo": jiff::SignedDuration::from_secs(lost), "proofs": [query]});
    let payload = Job::Restore(Restore::default());
    let steps = [("choose", chosen), ("data", data)];
    job(payload, 40, 90, Status::Succeeded, &steps)
}

fn report(targets: &str, records: &[Recorded]) -> Report {
    let recovery = RecoveryRecord {
        id: RecoveryId::new("r-1").unwrap(),
        cluster: ClusterName::new("test").unwrap(),
        purpose: "recover".into(),
        key: None,
        inputs: Inputs {
            spec: "0a".repeat(32),
            plan: "0b".repeat(32),
            secrets: None,
            flux: Some("0c".repeat(32)),
        },
        requester: Requester {
            user: "<ann>".into(),
            ..Requester::default()
        },
        created: at(0),
        flags: Flags::default(),
        finished: None,
    };
    Report::of(Sources {
        recovery: &recovery,
        spec: &spec(targets),
        records,
        nodes: vec![],
        volumes: vec![],
        load_balancer: None,
        writer: RecoveryId::new("r-1").unwrap(),
        now: at(120),
    })
}

const TARGETS: &str = "targets: { rto: 2h, rpo: 5m }";

#[test]
fn a_recovery_that_keeps_its_targets_passes() {
    let records = [
        job(Job::LoadBalancer, 1, 2, Status::Succeeded, &[]),
        restored(180),
    ];
    let report = report(TARGETS, &records);
    assert_eq!(report.verdict, Verdict::Passed);
    assert_eq!(report.conditions, Vec::<String>::new());
    // Until the last proof, not until the report was written.
    assert_eq!(report.rto.actual_seconds, Some(90 * 60));
    assert_eq!(report.rto_seconds, 90 * 60);
    assert_eq!(report.rto.met, Some(true));
    let rpo = report.rpo.unwrap();
    assert_eq!(
        (rpo.target_seconds, rpo.actual_seconds, rpo.met),
        (Some(300), Some(180), Some(true))
    );
    assert_eq!(report.backup.unwrap()["set"], "20260301-000000F");
    let proofs: Vec<&str> = report.proofs.iter().map(|p| p.proof.as_str()).collect();
    assert_eq!(proofs, ["data/orders"]);
    let phases: Vec<_> = report
        .phases
        .iter()
        .map(|p| (p.kind.as_str(), p.seconds))
        .collect();
    assert_eq!(
        phases,
        [("load-balancer", Some(60)), ("restore", Some(50 * 60))]
    );
}

#[test]
fn a_missed_target_is_a_condition_and_no_plain_success() {
    let missed = report("targets: { rto: 1h, rpo: 2m }", &[restored(180)]);
    assert_eq!(missed.verdict, Verdict::PassedWithConditions);
    assert_eq!(
        missed.conditions,
        [
            "recovery took 1 h 30 min, the target is 1 h 00 min",
            "data were lost of 3 min 00 s, the target is 2 min 00 s",
        ]
    );
    // Nothing was aimed at, so nothing is missed.
    let none = report("", &[restored(180)]);
    assert_eq!((none.verdict, none.rto.met), (Verdict::Passed, None));
}

#[test]
fn what_did_not_succeed_is_a_failure_whatever_the_targets_say() {
    let unfinished = [
        job(Job::LoadBalancer, 1, 2, Status::Running, &[]),
        job(Job::LoadBalancer, 1, 2, Status::Failed, &[]),
        (Job::LoadBalancer.name(), None),
    ];
    for record in unfinished {
        let failed = report(TARGETS, &[restored(180), record]);
        assert_eq!(failed.verdict, Verdict::Failed);
        assert_eq!(failed.not_succeeded.len(), 1);
        assert_eq!((failed.rto.actual_seconds, failed.rto.met), (None, None));
        assert_eq!(failed.rto_seconds, 120 * 60, "it goes on");
    }
}

#[test]
fn the_page_says_it_all_and_escapes_what_comes_from_outside() {
    let report = report("targets: { rto: 1h }", &[restored(180)]);
    let page = render(&report, &"0d".repeat(32)).unwrap();
    for text in [
        "passed with conditions",
        "recovery took 1 h 30 min, the target is 1 h 00 min",
        "20260301-000000F",
        "does not hold",
        &"0a".repeat(32),
        &"0d".repeat(32),
    ] {
        let there = page.contains(text);
        assert_eq!(there, text != "does not hold", "{text}: {page}");
    }
    assert!(
        !page.contains("<script") && !page.contains("<ann>"),
        "{page}"
    );
    // One file: nothing is loaded from anywhere.
    for outside in ["src=", "href=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn a_long_value_is_cut_on_the_page_and_whole_in_the_record() {
    let long = "ä".repeat(5000);
    let proof = json!({"expected": long, "observed": long, "holds": false});
    let records = [job(
        Job::LoadBalancer,
        1,
        2,
        Status::Succeeded,
        &[("prove/rules", proof)],
    )];
    let report = report("", &records);
    assert_eq!(report.proofs[0].result["observed"], long);
    let page = render(&report, "").unwrap();
    assert!(
        page.contains("does not hold") && page.len() < 10_000,
        "{}",
        page.len()
    );
}

fn loaded(p95: f64) -> Recorded {
    let result = json!({
        "run": "load-r-1-0", "driver": "yandex", "target": "https://dsf.${DOMAIN}/<b>",
        "virtual_users": 1000, "iterations": 5,
        "runners": [{"name": "load-r-1-0-1", "exit_code": 0}],
        "total": {
            "requests": 5000, "failed": 3, "iterations": 5000, "duration_ms": 10_000.0,
            "latency": {"min": 1.0, "avg": 2.0, "med": 2.0, "p90": 3.0, "p95": p95, "max": 4.0},
        },
        "thresholds": [{"name": "p95_ms", "expected": "at most 2000", "observed": p95, "holds": p95 <= 2000.0}],
    });
    let network =
        json!({"operation": "op", "made": {"kind": "network", "name": "n", "id": "enp1"}});
    let payload = Job::LoadTest(LoadTest::default());
    let status = match p95 <= 2000.0 {
        true => Status::Succeeded,
        false => Status::Failed,
    };
    job(
        payload,
        95,
        110,
        status,
        &[("network/0", network), ("result/0", result)],
    )
}

fn cleaned(left: Value) -> Recorded {
    let proof = json!({
        "expected": {"left": []}, "holds": left == json!([]),
        "observed": {"left": left, "deleted": [{"kind": "network", "name": "n", "id": "enp1"}]},
    });
    let status = Status::Succeeded;
    job(
        Job::LoadTestCleanUp,
        110,
        115,
        status,
        &[("prove/clean", proof)],
    )
}

#[test]
fn a_load_test_has_its_verdict_and_does_not_count_as_time_to_recover() {
    let records = [restored(180), loaded(1500.0), cleaned(json!([]))];
    let report = report(TARGETS, &records);
    assert_eq!(report.verdict, Verdict::Passed);
    assert_eq!(
        report.rto.actual_seconds,
        Some(90 * 60),
        "to the proven application"
    );
    let load = report.load.as_ref().unwrap();
    assert!(load.passed);
    assert_eq!(load.requests_per_second, Some(500.0));
    let temporary = report.temporary.as_ref().unwrap();
    assert_eq!(temporary.created, temporary.deleted);
    assert_eq!(temporary.left.as_deref(), Some(&[][..]));
    let page = render(&report, "").unwrap();
    for text in [
        "500 requests/s",
        "at most 2000",
        "1500.0 ms",
        "enp1",
        "Nothing of it is left",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("<b>"), "{page}");
}

#[test]
fn a_failed_load_test_fails_the_report_and_what_is_left_is_named() {
    let left = json!([{"kind": "subnet", "name": "s", "id": "e9b1"}]);
    let records = [restored(180), loaded(2500.0), cleaned(left)];
    let failed = report(TARGETS, &records);
    assert_eq!(failed.verdict, Verdict::Failed);
    assert_eq!(
        failed.rto.actual_seconds,
        Some(90 * 60),
        "the application was there"
    );
    assert!(!failed.load.as_ref().unwrap().passed);
    let page = render(&failed, "").unwrap();
    assert!(
        page.contains("e9b1") && !page.contains("Nothing of it is left"),
        "{page}"
    );
    // A clean-up that never ran knows nothing.
    let unknown = report(TARGETS, &[restored(180), loaded(1500.0)]);
    let page = render(&unknown, "").unwrap();
    assert!(page.contains("not known what is left"), "{page}");
}
