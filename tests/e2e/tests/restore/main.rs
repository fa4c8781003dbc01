//! A database from its backups in the bucket to the application that works with it, and everything that must not pass
//! for one.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod again;
mod cluster;
mod real;
mod world;

use std::time::Duration;

use anyhow::ensure;
use e2e::lab::{LONG, steps_are_recorded_once, until};
use e2e::recovery::Begun;
use jobs::ids::StepKey;
use jobs::message::{Backup, Job, Restore};
use jobs::record::JobRecord;
use sandbox::kube_sim::KubeFault;
use sandbox::operators::percona::Fault;
use serde_json::{Value, json};

use world::{ROWS, SOURCE, Scene};

const JOB: &str = "restore";

fn restore() -> Job {
    Job::Restore(Restore::default())
}

fn output<'a>(record: &'a JobRecord, step: &str) -> &'a Value {
    &record.steps[&StepKey::new(step).unwrap()].output
}

/// What must hold however a restore failed: nobody works with data that are not proven, and the source is untouched.
async fn nothing_is_taken_for_restored(
    scene: &Scene,
    source: &[(String, Vec<u8>)],
) -> anyhow::Result<()> {
    let record = scene.database().await?;
    let restored = record.and_then(|record| record.restored);
    ensure!(
        restored.is_none_or(|restored| !restored.proven),
        "it is called proven"
    );
    ensure!(scene.source() == source, "the source was written");
    let switch = scene.switch("slr", "slr-values-switch");
    ensure!(
        switch.is_none() || scene.is_frozen(),
        "the application runs: {switch:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_comes_back_with_all_of_its_rows_and_its_application() -> anyhow::Result<()>
{
    let scene = Scene::new().await?;
    let source = scene.source();
    let begun = scene.done(restore()).await?;

    assert_eq!(scene.rows(), ROWS);
    assert_eq!(scene.destroyed(), 0);
    assert!(!scene.is_frozen());
    assert_eq!(scene.source(), source);
    // What it writes goes to a place of its own, which stays when the source is gone from the switch.
    let generation = format!("/pgbackrest/test/{}", begun.id);
    assert_eq!(
        scene.switch("pg", "pg-db-values-switch"),
        Some(json!({"backups": {"pgbackrest": {"global": {
            "repo1-path": generation, "repo1-s3-uri-style": "path"}}}}))
    );
    let object = scene.sim.get("PerconaPGCluster", "pg", "pg-db").unwrap();
    assert_eq!(object["spec"].get("dataSource"), None);
    let record = scene.database().await?.unwrap();
    assert_eq!(record.source, None);
    let restored = record.restored.unwrap();
    assert!(restored.proven);
    assert_eq!(
        (restored.from.as_str(), restored.generation),
        (SOURCE, generation)
    );

    let record = scene.record(&begun, JOB).await?;
    assert_eq!(output(&record, "data")["newest"], json!(scene.newest));
    assert_eq!(
        output(&record, "data")["system_id"],
        json!(scene.system_id.to_string())
    );
    let proofs = output(&record, "data")["proofs"].as_array().unwrap();
    let names: Vec<&str> = proofs.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["system-id", "timeline", "orders", "never-empty", "newest"]
    );
    assert!(proofs.iter().all(|proof| proof["holds"] == true));
    assert_eq!(
        output(&record, "url/slr")["found"],
        json!(format!("{ROWS} orders"))
    );
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_is_backed_up_and_only_then_promoted() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let (_, why) = scene.fails(&scene.spec(), Job::Promote).await?;
    assert!(why.contains("no database was restored"), "{why}");
    let restored = scene.done(restore()).await?;
    let generation = format!("/pgbackrest/test/{}", restored.id);

    let backup = scene.done(Job::Backup(Backup::default())).await?;
    let record = scene.record(&backup, "backup").await?;
    let proof = output(&record, "prove/backup");
    assert_eq!(proof["observed"]["in"], json!(generation));
    assert_eq!(proof["observed"]["set"]["kind"], "full");

    for _ in 0..2 {
        scene.done(Job::Promote).await?;
        let record = scene.database().await?.unwrap();
        assert_eq!(record.source.as_deref(), Some(generation.as_str()));
    }
    scene.lab.sandbox.stop().await
}

/// A restore that goes wrong like this fails with these words.
async fn is_caught(fault: Fault, words: &str) -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let source = scene.source();
    scene.faults.set(fault);
    let (_, why) = scene.fails(&scene.spec(), restore()).await?;
    ensure!(why.contains(words), "{why}");
    ensure!(why.contains("stay frozen: slr"), "{why}");
    nothing_is_taken_for_restored(&scene, &source).await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_that_is_ready_is_not_a_restored_one() -> anyhow::Result<()> {
    let words = "it may be a new, empty one";
    is_caught(Fault::EmptyDatabaseThatIsReady, words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_without_its_rows_is_not_proven() -> anyhow::Result<()> {
    let words = "orders: `select count(*) from orders` should give at least 12, and gave `0`";
    is_caught(Fault::ReadyWithoutData, words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_that_is_another_one_is_not_proven() -> anyhow::Result<()> {
    let words = "system-id: `select system_identifier from pg_control_system()`";
    is_caught(Fault::WrongSystemId, words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_is_told_with_what_its_container_ended() -> anyhow::Result<()> {
    let words = "ERROR: [082]: unable to get 0000000100000000000000A1";
    is_caught(Fault::RestoreJobFails(words.into()), "ended with 82").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_restored_is_refused_before_anything_is_touched() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let source = scene.source();
    let spec = scene.spec();
    let other = spec.replace(
        "    secret: clo-s3-secret",
        "    secret: clo-s3-secret\n    system_id: \"7412345678901234567\"",
    );
    let (_, why) = scene.fails(&other, restore()).await?;
    assert!(why.contains("7412345678901234567"), "{why}");
    let gone = Job::Restore(Restore {
        set: Some("20250101-000000F".into()),
        ..Restore::default()
    });
    let (_, why) = scene.fails(&spec, gone).await?;
    assert!(why.contains("there is no set 20250101-000000F"), "{why}");
    let nowhere = spec.replace(SOURCE, "/pgbackrest/nothing");
    let (_, why) = scene.fails(&nowhere, restore()).await?;
    assert!(why.contains("backup.info"), "{why}");

    let s3 = &scene.lab.sandbox.s3;
    for copy in ["", ".copy"] {
        let key = format!("pgbackrest/repo1/backup/db/backup.info{copy}");
        let half = s3.object(&key).unwrap();
        s3.put_object(&key, half.slice(..half.len() / 2));
    }
    let (_, why) = scene.fails(&spec, restore()).await?;
    assert!(why.contains("backup.info"), "{why}");
    for (key, body) in &source {
        s3.put_object(key, body.clone());
    }

    nothing_is_taken_for_restored(&scene, &source).await?;
    assert_eq!(scene.database().await?, None);
    assert_eq!(scene.switch("pg", "pg-db-values-switch"), None);
    assert_eq!(scene.switch("slr", "slr-values-switch"), None);
    assert_eq!(scene.sim.get("PerconaPGCluster", "pg", "pg-db"), None);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lives_is_never_restored_over() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.make_a_new_database().await?;
    let source = scene.source();
    let switch = scene.switch("pg", "pg-db-values-switch");
    let (_, why) = scene.fails(&scene.spec(), restore()).await?;
    assert!(why.contains("PerconaPGCluster pg/pg-db is there"), "{why}");
    assert!(why.contains("it was not made from a backup"), "{why}");
    assert_eq!(scene.database().await?, None);
    assert_eq!(scene.switch("pg", "pg-db-values-switch"), switch);
    assert_eq!((scene.rows(), scene.destroyed()), (1, 0));
    nothing_is_taken_for_restored(&scene, &source).await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restored_once_is_not_taken_for_another_restore() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.done(restore()).await?;
    let before = scene.database().await?;
    let switch = scene.switch("pg", "pg-db-values-switch");
    let (_, why) = scene.fails(&scene.spec(), restore()).await?;
    assert!(why.contains("it was restored before"), "{why}");
    // The record still says which repository the living one writes.
    assert_eq!(scene.database().await?, before);
    assert_eq!(scene.switch("pg", "pg-db-values-switch"), switch);
    assert_eq!((scene.rows(), scene.destroyed()), (ROWS, 0));
    assert!(!scene.is_frozen());
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_in_the_cluster_is_named_and_waited_for() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let secret = scene.sim.get("Secret", "pg", "clo-s3-secret").unwrap();
    scene.sim.remove("Secret", "pg", "clo-s3-secret");
    scene.sim.remove("Namespace", "", "slr");
    let begun = scene.begin(&scene.spec(), restore()).await?;
    let worker = scene.worker().await?;
    scene.says(&begun, JOB, "there is no namespace slr").await?;
    let metadata = json!({"name": "slr"});
    scene
        .sim
        .put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))?;
    scene
        .says(&begun, JOB, "there is no Secret pg/clo-s3-secret")
        .await?;
    assert_eq!(scene.switch("pg", "pg-db-values-switch"), None);
    assert!(scene.is_frozen());
    scene.sim.put(secret)?;
    begun.finished(LONG).await?;
    assert_eq!(scene.rows(), ROWS);
    worker.stop().await?;
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_again_and_again_restores_once() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let begun = scene.begin(&scene.spec(), restore()).await?;
    for key in ["freeze/slr", "values", "restored", "data", "running"] {
        let worker = scene.worker().await?;
        reaches(&begun, key).await?;
        worker.kill();
    }
    let worker = scene.worker().await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    steps_are_recorded_once(&scene.lab, &begun).await?;
    assert_eq!((scene.rows(), scene.destroyed()), (ROWS, 0));
    assert!(!scene.is_frozen());
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_fail_or_whose_answers_are_lost_are_made_once() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let place = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps");
    let (pg, slr) = (place("pg"), place("slr"));
    for fault in [
        KubeFault::on("POST", &slr).cut(),
        KubeFault::on("POST", &pg).after().cut(),
        KubeFault::on("PATCH", &format!("{pg}/pg-db-values-switch")).after(),
        KubeFault::on("PATCH", &format!("{slr}/slr-values-switch")).unavailable(),
    ] {
        scene.sim.faults().add(fault);
    }
    let begun = scene.begin(&scene.spec(), restore()).await?;
    let worker = scene.worker().await?;
    // The API server itself goes away for a while, in the middle of it.
    reaches(&begun, "values").await?;
    scene.sim.restart(Duration::from_millis(300)).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;

    assert_eq!(scene.sim.faults().unused(), Vec::<String>::new());
    let wrote = |method: &str, path: &str| {
        let log = scene.sim.log();
        let ours = log.iter().filter(|asked| {
            let good = asked.arrived && asked.method == method && asked.path.starts_with(path);
            good && asked.user == "kubernetes-admin" && matches!(asked.code, 200 | 201 | 500)
        });
        ours.count()
    };
    // The source is written once and taken away once: a second text would start the restore again.
    assert_eq!((wrote("POST", &pg), wrote("PATCH", &pg)), (1, 1));
    assert_eq!((wrote("POST", &slr), wrote("PATCH", &slr)), (1, 1));
    assert_eq!((scene.rows(), scene.destroyed()), (ROWS, 0));
    assert!(!scene.is_frozen());
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_another_authority_is_not_asked() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let source = scene.source();
    scene.expect_another_authority()?;
    let (_, why) = scene.fails(&scene.spec(), restore()).await?;
    assert!(why.contains("trust the database at"), "{why}");
    nothing_is_taken_for_restored(&scene, &source).await?;
    scene.lab.sandbox.stop().await
}

/// Waits until a step is on record.
async fn reaches(begun: &Begun, step: &str) -> anyhow::Result<()> {
    until(step, async || {
        let record = begun.record(JOB).await?;
        let key = StepKey::new(step)?;
        Ok(record.is_some_and(|record| record.steps.contains_key(&key)))
    })
    .await
}
