//! The operator's objects, in the form that version 2.8 writes them.

use serde_json::{Value, json};

use super::*;
use crate::pgbackrest::finished::{Objects, Restoring, judge};

const ID: &str = "~pgo-bootstrap-pg-db";

fn cluster(state: &str, ready: u32) -> Value {
    json!({
        "apiVersion": "pgv2.percona.com/v2",
        "kind": "PerconaPGCluster",
        "metadata": { "name": "pg-db", "namespace": "pg" },
        "spec": { "dataSource": { "pgbackrest": {} }, "backups": { "pgbackrest": { "repos": [] } } },
        "status": {
            "state": state,
            "host": "pg-db-pgbouncer.pg.svc",
            "postgres": { "size": 3, "ready": ready, "instances": [{ "name": "instance1", "size": 3, "ready": ready }] },
            "pgbouncer": { "size": 3, "ready": ready },
            "pgbackrest": { "restore": { "id": ID, "finished": true, "succeeded": 1 } },
        },
    })
}

fn inner(status: &str, reason: &str) -> Value {
    json!({
        "kind": "PostgresCluster",
        "metadata": { "name": "pg-db" },
        "status": { "conditions": [
            { "type": "PGBackRestRepoHostReady", "status": "True", "reason": "RepoHostReady", "message": "" },
            { "type": "PGBackRestReplicaRepoReady", "status": "True", "reason": "StanzaCreated", "message": "" },
            { "type": "PostgresDataInitialized", "status": status, "reason": reason, "message": "pgBackRest restore" },
        ] },
    })
}

fn restore(state: &str) -> Value {
    json!({
        "kind": "PerconaPGRestore",
        "metadata": { "name": "pg-db-bootstrap" },
        "spec": { "pgCluster": "pg-db", "repoName": "repo1" },
        "status": { "state": state },
    })
}

fn job(status: Value) -> Value {
    json!({ "kind": "Job", "metadata": { "name": "pg-db-pgbackrest-restore" }, "status": status })
}

fn pod(status: Value) -> Value {
    json!({ "kind": "Pod", "metadata": { "name": "pg-db-pgbackrest-restore-x7k" }, "status": status })
}

/// All that a finished restore leaves.
fn done() -> Objects {
    Objects {
        cluster: Some(cluster("ready", 3)),
        inner: Some(inner("True", "PGBackRestRestoreComplete")),
        restore: Some(restore("Succeeded")),
        job: None,
        pods: Vec::new(),
    }
}

fn judged(objects: &Objects) -> Restoring {
    judge("pg-db", objects).expect("objects")
}

fn progress(objects: &Objects) -> String {
    match judged(objects) {
        Restoring::Running { progress, .. } => progress,
        other => panic!("{other:?}"),
    }
}

fn trouble(pods: Vec<Value>) -> Option<String> {
    let objects = Objects {
        restore: Some(restore("Running")),
        cluster: Some(cluster("initializing", 0)),
        pods,
        ..Objects::default()
    };
    match judged(&objects) {
        Restoring::Running { trouble, .. } => trouble,
        other => panic!("{other:?}"),
    }
}

fn failure(objects: &Objects) -> String {
    match judged(objects) {
        Restoring::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

fn contradiction(objects: &Objects) -> String {
    match judged(objects) {
        Restoring::Contradiction { what } => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_restore_is_finished_when_everything_agrees() {
    assert_eq!(judged(&done()), Restoring::Finished);
}

#[test]
fn every_single_sign_is_needed() {
    type Change = fn(&mut Objects);
    let changes: [(Change, &str); 9] = [
        (
            |o| {
                o.inner.as_mut().expect("one")["status"]["conditions"][1]["status"] = json!("False")
            },
            "its new repository is not",
        ),
        (
            |o| o.restore = Some(restore("Running")),
            "Job does not exist",
        ),
        (|o| o.inner = None, "not initialized"),
        (|o| o.inner = Some(inner("False", "x")), "not initialized"),
        (
            |o| o.cluster = Some(cluster("initializing", 3)),
            "3 of 3 databases are ready",
        ),
        (
            |o| o.cluster = Some(cluster("initializing", 1)),
            "1 of 3 databases are ready (initializing)",
        ),
        (
            |o| o.cluster = Some(cluster("ready", 2)),
            "2 of 3 databases",
        ),
        (
            |o| {
                o.cluster.as_mut().expect("one")["status"]["pgbackrest"]["restore"]["succeeded"] =
                    json!(0)
            },
            "not recorded",
        ),
        (
            |o| {
                o.cluster.as_mut().expect("one")["status"]["pgbackrest"]["restore"]["finished"] =
                    json!(false)
            },
            "not recorded",
        ),
    ];
    for (change, says) in changes {
        let mut objects = done();
        change(&mut objects);
        let progress = progress(&objects);
        assert!(progress.contains(says), "{progress}");
    }
    let nothing = progress(&Objects::default());
    assert!(nothing.contains("does not exist yet"), "{nothing}");
}

#[test]
fn an_empty_database_that_is_ready_is_a_contradiction() {
    for state in [None, Some(restore("")), Some(restore("Starting"))] {
        let mut objects = done();
        objects.restore = state;
        let what = contradiction(&objects);
        assert!(what.contains("new, empty"), "{what}");
    }
    let mut objects = done();
    objects.cluster.as_mut().expect("one")["status"]["pgbackrest"]["restore"]["id"] =
        json!("monday");
    let what = contradiction(&objects);
    assert!(
        what.contains("`monday`, not `~pgo-bootstrap-pg-db`"),
        "{what}"
    );
}

#[test]
fn the_restore_of_an_earlier_cluster_says_nothing() {
    let mut objects = done();
    let mut set = |cluster: &str, restore: &str| {
        let stamp = |object: &mut Seen, at: &str| {
            object.as_mut().expect("one")["metadata"]["creationTimestamp"] = json!(at);
        };
        stamp(&mut objects.cluster, cluster);
        stamp(&mut objects.restore, restore);
        judged(&objects)
    };
    assert_eq!(
        set("2026-11-23T01:00:00Z", "2026-11-23T01:00:01Z"),
        Restoring::Finished
    );
    assert_eq!(
        set("2026-11-23T01:00:00Z", "2026-11-23T01:00:00Z"),
        Restoring::Finished
    );
    let stale = set("2026-11-23T01:00:00Z", "2026-11-22T23:00:00Z");
    assert!(
        matches!(stale, Restoring::Contradiction { .. }),
        "{stale:?}"
    );
}

#[test]
fn a_running_restore_says_how_far_it_is() {
    let with = |state: &str, status: Value| Objects {
        cluster: Some(cluster("initializing", 0)),
        restore: Some(restore(state)),
        job: Some(job(status)),
        ..Objects::default()
    };
    assert_eq!(
        progress(&with("", json!({}))),
        "the operator has not begun the restore"
    );
    let first = progress(&with("Running", json!({ "active": 1 })));
    assert_eq!(first, "files are copied and WAL is replayed");
    let second = progress(&with("Running", json!({ "active": 1, "failed": 2 })));
    assert_eq!(second, "files are copied and WAL is replayed, attempt 3");
}

#[test]
fn a_failed_job_is_told_with_its_last_words() {
    let died = json!({ "containerStatuses": [{
        "name": "pgbackrest-restore",
        "restartCount": 0,
        "state": { "terminated": {
            "exitCode": 37, "reason": "Error",
            "message": "ERROR: [037]: restore command requires option: pg1-path",
        } },
    }] });
    let failed = json!({ "failed": 7, "conditions": [
        { "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often" },
    ] });
    let mut objects = done();
    objects.cluster = Some(cluster("initializing", 0));
    objects.inner = None;
    objects.restore = Some(restore("Running"));
    objects.job = Some(job(failed));
    objects.pods = vec![pod(died)];
    let reason = failure(&objects);
    for part in [
        "BackoffLimitExceeded",
        "pgbackrest-restore",
        "37",
        "pg1-path",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    objects.job = None;
    objects.restore = Some(restore("Failed"));
    assert!(failure(&objects).contains("the operator says"));
    objects.restore = Some(restore("Running"));
    objects.inner = Some(inner("False", "PGBackRestRestoreFailed"));
    assert!(failure(&objects).contains("PGBackRestRestoreFailed"));
    // Also when the database of before still counts as ready.
    objects.cluster = Some(cluster("ready", 3));
    assert!(failure(&objects).contains("PGBackRestRestoreFailed"));
}

#[test]
fn a_crash_loop_is_a_failure_after_some_tries() {
    let looping = |restarts: u32| {
        pod(json!({ "containerStatuses": [{
            "name": "database",
            "restartCount": restarts,
            "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } },
            "lastState": { "terminated": { "exitCode": 1, "reason": "Error",
                "message": format!("{}FATAL: log directory does not exist", "x".repeat(5000)) } },
        }] }))
    };
    let mut objects = done();
    objects.cluster = Some(cluster("initializing", 0));
    objects.pods = vec![looping(3)];
    let reason = failure(&objects);
    assert!(
        reason.contains("started 3 times") && reason.ends_with("log directory does not exist)"),
        "{reason}"
    );
    assert!(reason.len() < 1000, "{}", reason.len());
    assert!(
        trouble(vec![looping(2)])
            .expect("trouble")
            .contains("CrashLoopBackOff")
    );
}

#[test]
fn a_taint_that_nothing_tolerates_is_a_failure_and_one_that_passes_is_not() {
    let pending = |message: &str| {
        pod(json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message },
        ] }))
    };
    let mut objects = done();
    objects.cluster = Some(cluster("initializing", 0));
    objects.restore = Some(restore("Running"));
    objects.pods = vec![pending(
        "0/5 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, \
         3 node(s) had untolerated taint {postgresqltaint: yestaint}. preemption: 0/5 nodes are available",
    )];
    let reason = failure(&objects);
    assert!(
        reason.contains("tolerates no taint {postgresqltaint: yestaint}"),
        "{reason}"
    );
    for passing in [
        "0/5 nodes are available: 5 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.",
        "0/5 nodes are available: 2 Insufficient cpu, 3 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }.",
        "0/5 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
    ] {
        let trouble = trouble(vec![pending(passing)]).expect("trouble");
        assert!(trouble.contains(passing), "{trouble}");
    }
}

#[test]
fn an_image_that_does_not_come_is_trouble() {
    let waiting = pod(json!({ "initContainerStatuses": [{
        "name": "nss-wrapper-init",
        "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } },
    }] }));
    let trouble = trouble(vec![waiting]).expect("trouble");
    assert!(
        trouble.contains("nss-wrapper-init") && trouble.contains("ImagePullBackOff"),
        "{trouble}"
    );
    assert_eq!(super::objects::trouble(vec![pod(json!({}))]), None);
}

#[test]
fn an_object_that_is_none_is_an_error() {
    let mut objects = done();
    objects.cluster = Some(json!({ "status": { "state": 1 } }));
    let error = judge("pg-db", &objects).expect_err("a number").to_string();
    assert!(error.starts_with("PerconaPGCluster: "), "{error}");
}

fn danger(cluster: Option<Value>) -> Danger {
    Danger::of("pg-db", &cluster).expect("a cluster")
}

#[test]
fn a_source_may_be_written_where_no_cluster_is_or_one_that_came_from_it() {
    assert_eq!(danger(None), Danger::Creates);
    assert_eq!(danger(Some(cluster("ready", 3))), Danger::Nothing);
    assert!(Danger::Creates.allows() && Danger::Nothing.allows());
}

#[test]
fn a_living_cluster_that_came_from_no_backup_is_never_given_a_source() {
    let mut living = cluster("ready", 3);
    living["spec"]["dataSource"].take();
    for restore in [
        json!(null),
        json!({ "id": "", "finished": false }),
        json!({ "id": "monday", "finished": true }),
    ] {
        living["status"]["pgbackrest"]["restore"] = restore;
        let danger = danger(Some(living.clone()));
        assert!(
            matches!(danger, Danger::Destroys { .. }) && !danger.allows(),
            "{danger:?}"
        );
    }
    // Nor when it is not ready just now, and looks like a new one.
    living["status"] = json!({ "state": "initializing" });
    let down = danger(Some(living.clone()));
    assert!(matches!(down, Danger::Destroys { .. }), "{down:?}");
    // Nor when somebody wrote the source already, and it is not obeyed yet.
    living["spec"]["dataSource"] = json!({ "pgbackrest": {} });
    living["status"]["pgbackrest"] = json!({ "restore": { "id": "monday", "finished": true } });
    let obeys = danger(Some(living.clone()));
    assert!(matches!(obeys, Danger::Destroys { .. }), "{obeys:?}");
    living["status"] = json!({ "state": "ready", "postgres": { "size": 3, "ready": 3 } });
    let obeys = danger(Some(living));
    assert!(matches!(obeys, Danger::Destroys { .. }), "{obeys:?}");
}

#[test]
fn a_restore_on_its_way_is_not_started_again() {
    let mut new = cluster("initializing", 0);
    new["status"] = json!({});
    assert!(matches!(danger(Some(new.clone())), Danger::Running { .. }));
    new["status"] = json!({ "pgbackrest": { "restore": { "id": ID, "finished": false } } });
    assert!(matches!(danger(Some(new.clone())), Danger::Running { .. }));
    new["status"]["pgbackrest"]["restore"] = json!({ "id": ID, "finished": true, "failed": 7 });
    let failed = danger(Some(new));
    assert!(matches!(&failed, Danger::Running { progress } if progress == "its restore failed"));
    assert!(!failed.allows());
}

#[test]
fn a_restore_in_place_that_was_asked_for_is_danger() {
    for group in ["pgv2.percona.com", "postgres-operator.crunchydata.com"] {
        let mut asked = cluster("ready", 3);
        asked["metadata"]["annotations"] = json!({ format!("{group}/pgbackrest-restore"): "x" });
        assert!(!danger(Some(asked)).allows(), "{group}");
    }
    let mut enabled = cluster("ready", 3);
    enabled["spec"]["backups"]["pgbackrest"]["restore"] =
        json!({ "enabled": true, "repoName": "repo1" });
    assert!(!danger(Some(enabled)).allows());
    let error = Danger::of("other", &Some(cluster("ready", 3))).expect_err("another one");
    assert!(
        error.to_string().contains("`pg-db`, not `other`"),
        "{error}"
    );
}

fn backup(kind: Kind) -> Backup {
    Backup {
        name: "r-1-before".into(),
        namespace: "pg".into(),
        cluster: "pg-db".into(),
        repo: "repo1".into(),
        kind,
    }
}

#[test]
fn the_type_of_a_backup_stands_in_its_options() {
    insta::assert_json_snapshot!("backup", backup(Kind::Full).object());
}

#[test]
fn a_backup_is_what_its_object_says() {
    let ours = backup(Kind::Full);
    let judged = |status: Value| {
        let mut object = ours.object();
        object["status"] = status;
        ours.judge(&Some(object)).expect("ours")
    };
    assert_eq!(ours.judge(&None), Ok(BackingUp::Absent));
    for state in ["", "Starting", "Running"] {
        assert!(matches!(
            judged(json!({ "state": state })),
            BackingUp::Running { .. }
        ));
    }
    assert!(matches!(judged(json!({})), BackingUp::Running { .. }));
    let nameless = judged(json!({ "state": "Succeeded" }));
    assert!(matches!(nameless, BackingUp::Running { .. }));
    let done = judged(json!({ "state": "Succeeded", "backupName": FULL }));
    assert_eq!(done, BackingUp::Succeeded { label: FULL.into() });
    let failed = judged(json!({ "state": "Failed", "error": "no space" }));
    assert_eq!(
        failed,
        BackingUp::Failed {
            reason: "no space".into()
        }
    );
    assert!(matches!(
        judged(json!({ "state": "Failed" })),
        BackingUp::Failed { .. }
    ));
    let mut other = ours.object();
    other["spec"]["pgCluster"] = json!("pg-other");
    assert!(
        ours.judge(&Some(other))
            .expect_err("not ours")
            .to_string()
            .contains("`pg-other`")
    );
    let mut strange = ours.object();
    strange["status"] = json!({ "state": "Dancing" });
    assert!(ours.judge(&Some(strange)).is_err());
}

#[test]
fn a_backup_is_confirmed_by_what_lies_in_the_bucket() {
    let mut world = World::new();
    let sets = world.stanza().sets;
    let found = backup(Kind::Full).confirm(FULL, &sets).expect("a full set");
    assert_eq!(found.size, 22_992_595);
    assert_eq!(found.wal.expect("a range").stop.to_string(), "0/2000100");
    // The reference asked for a full one and got this.
    let other = backup(Kind::Full)
        .confirm(INCR, &sets)
        .expect_err("incremental");
    assert!(matches!(other, NotThere::OtherKind { .. }), "{other}");
    assert!(backup(Kind::Incr).confirm(INCR, &sets).is_ok());
    assert!(backup(Kind::Incr).confirm(FULL, &sets).is_ok());
    let gone = backup(Kind::Full)
        .confirm("20261124-000000F", &sets)
        .expect_err("not there");
    assert!(matches!(gone, NotThere::NotListed { .. }), "{gone}");
    world.gone = vec![FULL];
    let broken = backup(Kind::Full)
        .confirm(FULL, &world.stanza().sets)
        .expect_err("no manifest");
    assert!(matches!(broken, NotThere::Unusable { .. }), "{broken}");
}
