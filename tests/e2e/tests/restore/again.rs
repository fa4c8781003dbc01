//! A moment that is asked for, and a restore that failed and goes on.

use anyhow::ensure;
use e2e::lab::LONG;
use jobs::message::{Job, Restore, Until};
use jobs::record::Status;
use sandbox::operators::percona::Fault;
use serde_json::{Value, json};

use super::{JOB, nothing_is_taken_for_restored, output, restore};
use crate::world::{EARLY, ROWS, SAVED, Scene};

/// The spec of a database that has so many rows.
fn with_rows(scene: &Scene, rows: usize) -> String {
    let spec = scene.spec();
    let spec = spec.replace(&format!("at_least: {ROWS}"), &format!("at_least: {rows}"));
    let spec = spec.replace(
        &format!("equals: \"{ROWS}\""),
        &format!("equals: \"{rows}\""),
    );
    spec.replace(&format!("{ROWS} orders"), &format!("{rows} orders"))
}

async fn until(scene: &Scene, until: Until, rows: usize) -> anyhow::Result<Value> {
    let job = Job::Restore(Restore {
        until,
        ..Restore::default()
    });
    let begun = scene.begin(&with_rows(scene, rows), job).await?;
    let worker = scene.worker().await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    let record = scene.record(&begun, JOB).await?;
    assert_eq!(
        output(&record, "url/slr")["found"],
        json!(format!("{rows} orders"))
    );
    Ok(output(&record, "data").clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_comes_back_as_it_was_at_a_moment() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let (moment, newest) = scene.between;
    let data = until(&scene, Until::Time(moment), EARLY).await?;
    assert_eq!(scene.rows(), EARLY);
    assert_eq!(data["newest"], json!(newest));
    ensure!(newest < scene.newest, "the moment is before the last row");
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_comes_back_with_no_more_than_its_backup_has() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    until(&scene, Until::Consistent, SAVED).await?;
    assert_eq!(scene.rows(), SAVED);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moment_after_the_last_wal_is_refused_before_anything_is_touched() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let source = scene.source();
    let job = Job::Restore(Restore {
        until: Until::Time("2999-01-01T00:00:00Z".parse()?),
        ..Restore::default()
    });
    let (_, why) = scene.fails(&scene.spec(), job).await?;
    ensure!(why.contains("2999-01-01T00:00:00Z"), "{why}");
    nothing_is_taken_for_restored(&scene, &source).await?;
    assert_eq!(scene.switch("slr", "slr-values-switch"), None);
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_restore_tells_its_last_words_and_goes_on_when_its_objects_are_deleted()
-> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let source = scene.source();
    let key = scene.lab.sandbox.s3.secret_key().to_owned();
    let words =
        format!("P00   INFO: restore begins\nP00  ERROR: [082]: unable to get WAL with {key}");
    scene.faults.set(Fault::RestoreJobFails(words.clone()));
    let (begun, why) = scene.fails(&scene.spec(), restore()).await?;
    ensure!(
        why.contains("its log: P00  ERROR: [082]: unable to get WAL with …"),
        "{why}"
    );
    for name in [
        "PerconaPGCluster pg/pg-db",
        "PerconaPGRestore pg/pg-db-bootstrap",
    ] {
        ensure!(why.contains(name), "{name} is not in: {why}");
    }
    for (name, body) in scene.lab.sandbox.s3.objects("clusters/") {
        let text = String::from_utf8_lossy(&body);
        ensure!(!text.contains(&key), "{name} holds the key");
    }

    // Once more, and it fails once more.
    delete(&scene);
    again(&scene, &begun, None, &[Status::Failed]).await?;
    nothing_is_taken_for_restored(&scene, &source).await?;
    // What told of the first restore is left: nobody takes it for the next one.
    scene.faults.clear();
    scene.sim.remove("PerconaPGCluster", "pg", "pg-db");
    again(&scene, &begun, None, &[Status::Failed]).await?;
    let record = scene.record(&begun, JOB).await?;
    let why = record
        .failure
        .map(|failure| failure.to_string())
        .unwrap_or_default();
    ensure!(why.contains("pg-db-bootstrap"), "{why}");
    nothing_is_taken_for_restored(&scene, &source).await?;

    delete(&scene);
    again(&scene, &begun, Some("choose"), &[Status::Succeeded]).await?;
    assert_eq!((scene.rows(), scene.destroyed()), (ROWS, 0));
    assert!(!scene.is_frozen());
    ensure!(scene.source() == source, "the source was written");
    scene.lab.sandbox.stop().await
}

/// What the failure says: by hand.
fn delete(scene: &Scene) {
    scene.sim.remove("PerconaPGCluster", "pg", "pg-db");
    scene
        .sim
        .remove("PerconaPGRestore", "pg", "pg-db-bootstrap");
}

/// `rekindle retry`, until it has ended so.
async fn again(
    scene: &Scene,
    begun: &e2e::recovery::Begun,
    from: Option<&str>,
    ends: &[Status],
) -> anyhow::Result<()> {
    scene.lab.retry(begun, JOB, from).await?;
    let worker = scene.worker().await?;
    begun.reaches(JOB, ends, LONG).await?;
    worker.stop().await
}
