//! The store fails in every way a store may, and the recovery ends in the same world. What the store
//! itself owes under each fault is the suite in `store_conformance`, run by `store_sandbox` and
//! `store_ministack`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use anyhow::ensure;
use e2e::lab::{LONG, Lab, demo, quick, steps_are_recorded_once, until};
use e2e::recovery::SPEC;
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys;
use jobs::record::{JobVersion, RecoveryRecord, Status};
use jobs::store::{Appended, Credentials, Secret, Store, StoreConfig, StoreError};
use sandbox::s3::{Failure, Gate, Misbehave, Op, Rule, S3Options, What, When};
use sandbox::world::Options;

/// The whole reference cluster while every tenth write is disturbed.
async fn recovered_while_every_tenth_put(what: What) -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let rule = lab.sandbox.s3.faults().on(Op::Put, When::Every(10), what);
    let worker = lab.worker().await?;
    let begun = lab.recover(SPEC).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    ensure!(
        lab.sandbox.s3.faults().fired_by(rule) >= 20,
        "the fault struck"
    );
    lab.sandbox.s3.faults().clear();
    lab.is_whole(17, 7, 5)?;
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tenth_write_is_refused_with_500_and_had_no_effect() -> anyhow::Result<()> {
    recovered_while_every_tenth_put(What::Fail(Failure::Internal)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tenth_write_takes_effect_and_is_answered_with_500() -> anyhow::Result<()> {
    recovered_while_every_tenth_put(What::FailAfterEffect(Failure::Internal)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tenth_write_takes_effect_and_is_never_answered() -> anyhow::Result<()> {
    recovered_while_every_tenth_put(What::LoseAnswer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_away_for_longer_than_a_lease_and_the_recovery_goes_on() -> anyhow::Result<()>
{
    let lab = Lab::start().await?;
    let worker = lab.worker().await?;
    let begun = lab.recover(SPEC).await?;
    lab.sandbox
        .clo
        .wait_until("half of the servers", |s| s.servers.len() >= 8)
        .await;
    lab.sandbox.s3.faults().set_down(true);
    // Not a wait for something to happen: the outage must outlast the lease.
    tokio::time::sleep(quick().lease * 2).await;
    lab.sandbox.s3.faults().set_down(false);
    begun.finished(LONG).await?;
    worker.stop().await?;
    lab.is_whole(17, 7, 5)?;
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_at_one_job_have_it_one_after_the_other_and_its_versions_have_no_gap()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.queue.set_duplicate(true);
    let (one, two) = (lab.worker().await?, lab.worker().await?);
    let begun = lab.run(vec![demo("a", 60, 10, None, &[])?]).await?;
    until("it runs", || async {
        Ok(begun.record("demo/a").await?.is_some())
    })
    .await?;
    lab.queue.set_duplicate(false);
    begun.finished(LONG).await?;
    one.stop().await?;
    two.stop().await?;
    let mut epoch = 0;
    let mut writer_of_epoch = None;
    for (i, (n, version)) in lab.history(&begun, "demo/a")?.into_iter().enumerate() {
        assert_eq!(n, i as u64 + 1, "versions count without a gap");
        let of = match &version.body {
            JobVersion::Full(record) => record.epoch,
            JobVersion::Delta { epoch, .. } => *epoch,
        };
        assert!(of >= epoch, "version {n} is of epoch {of} after {epoch}");
        if of > epoch {
            (epoch, writer_of_epoch) = (of, Some(version.writer));
        }
        assert_eq!(
            Some(version.writer),
            writer_of_epoch,
            "one writer an epoch, version {n}"
        );
    }
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_write_hangs_for_longer_than_its_lease_writes_nothing_afterwards()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let frozen = lab.worker().await?;
    let begun = lab.run(vec![demo("a", 40, 50, None, &[])?]).await?;
    until("it has steps", || async {
        Ok(begun
            .record("demo/a")
            .await?
            .is_some_and(|r| r.steps.len() >= 5))
    })
    .await?;
    // The next write of the job arrives only after another worker has taken over.
    let gate = Gate::new();
    lab.sandbox.s3.faults().add(Rule {
        op: Some(Op::Put),
        key: Some("/jobs/demo/a/".into()),
        when: When::Next(1),
        what: What::HoldRequest(gate.clone()),
    });
    tokio::time::timeout(LONG, gate.reached(1)).await?;
    let other = lab.worker().await?;
    let series = keys::job(&begun.cluster, &begun.id, &JobName::new("demo/a")?);
    until("the job has changed hands or ended", || async {
        let stored = lab.store.read_job(&series).await?;
        Ok(stored.is_some_and(|s| s.record.epoch > 1))
    })
    .await?;
    gate.open();
    begun.finished(LONG).await?;
    frozen.stop().await?;
    other.stop().await?;
    steps_are_recorded_once(&lab, &begun).await?;
    let record = begun.record("demo/a").await?.unwrap();
    assert_eq!(record.steps.len(), 41);
    lab.sandbox.stop().await
}

async fn probed(misbehave: Misbehave, versioned: bool) -> anyhow::Result<Result<(), StoreError>> {
    let lab = Lab::with(Options {
        s3: S3Options {
            misbehave,
            ..S3Options::default()
        },
        ..Options::default()
    })
    .await?;
    lab.sandbox.s3.set_versioned(versioned);
    let verdict = lab.store.probe().await;
    let left = lab.sandbox.s3.objects(".probe/");
    ensure!(left.is_empty(), "the probe leaves {} objects", left.len());
    lab.sandbox.stop().await?;
    Ok(verdict)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_lets_two_create_one_object_is_refused_at_the_start() -> anyhow::Result<()> {
    for (misbehave, versioned) in [
        (Misbehave::IgnoreConditions, false),
        (Misbehave::RaceConditions, false),
        (Misbehave::IgnoreWhenVersioned, true),
    ] {
        match probed(misbehave, versioned).await? {
            Err(StoreError::Unsafe { .. }) => {}
            other => panic!("{misbehave:?}, versioned {versioned}: {other:?}"),
        }
    }
    for (misbehave, versioned) in [
        (Misbehave::No, false),
        (Misbehave::No, true),
        (Misbehave::IgnoreIfMatch, false),
        (Misbehave::IgnoreWhenVersioned, false),
        (Misbehave::WantsUnquotedETag, false),
    ] {
        let verdict = probed(misbehave, versioned).await?;
        assert!(verdict.is_ok(), "{misbehave:?}, {versioned}: {verdict:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_18_a_read_that_failed_is_an_error_and_never_nothing_there() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let begun = lab.run(vec![demo("a", 1, 0, None, &[])?]).await?;
    let (cluster, id) = (&begun.cluster, &begun.id);
    let series = keys::job(cluster, id, &JobName::new("demo/a")?);
    lab.rewrite(&begun, "demo/a", |_| {}).await?;
    let faults = lab.sandbox.s3.faults();
    // Refused, cut off in the middle, or from a bucket that is not there: an error each time.
    for what in [
        What::Fail(Failure::Denied),
        What::Fail(Failure::Precondition),
    ] {
        for op in [Op::Get, Op::List] {
            faults.clear();
            faults.on(op, When::Always, what.clone());
            assert!(lab.store.read_job(&series).await.is_err(), "{op:?}");
            assert!(lab.store.recovery_record(cluster, id).await.is_err());
            assert!(lab.store.active(cluster).await.is_err());
            if op == Op::List {
                assert!(lab.store.settled(cluster, id).await.is_err());
                assert!(lab.store.clusters().await.is_err());
                assert!(lab.store.last_version(&series).await.is_err());
            } else {
                assert!(lab.store.get("not-there").await.is_err());
            }
        }
    }
    faults.clear();
    // A hiccup is waited out.
    faults.on(Op::Get, When::Next(3), What::LoseAnswer);
    faults.on(Op::List, When::Next(3), What::Fail(Failure::Internal));
    assert!(lab.store.read_job(&series).await?.is_some());
    faults.clear();
    assert_eq!(lab.store.get("not-there").await?, None);
    let elsewhere = Store::connect(&StoreConfig {
        endpoint: Some(lab.sandbox.s3.endpoint()),
        bucket: "no-such-bucket".into(),
        credentials: Credentials::Keys {
            access: lab.sandbox.s3.access_key().to_owned(),
            secret: Secret::new(lab.sandbox.s3.secret_key()),
        },
        region: "us-east-1".into(),
        prefix: String::new(),
        path_style: true,
        timeout: Duration::from_secs(4),
    })
    .await?;
    let missing = elsewhere.get("not-there").await;
    assert!(
        matches!(missing, Err(StoreError::Refused { .. })),
        "{missing:?}"
    );
    assert!(elsewhere.read_job(&series).await.is_err());
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_build_or_a_damaged_one_is_named_and_not_overwritten()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let cluster = ClusterName::new("demo")?;
    let id = RecoveryId::new("r-1")?;
    let series = keys::recovery(&cluster, &id);
    let newer = r#"{"schema":2,"writer":"x","body":{"strange":true}}"#;
    lab.sandbox.s3.put_object(&series.version(1), newer);
    match lab.store.recovery_record(&cluster, &id).await {
        Err(StoreError::NewerSchema {
            key,
            found: 2,
            known: 1,
        }) => assert_eq!(key, series.version(1)),
        other => panic!("{other:?}"),
    }
    for (n, broken) in [(2, ""), (3, "{"), (4, r#"{"schema":1}"#), (5, "[]")] {
        lab.sandbox.s3.put_object(&series.version(n), broken);
        match lab.store.recovery_record(&cluster, &id).await {
            Err(StoreError::Damaged { key, .. }) => assert_eq!(key, series.version(n)),
            other => panic!("{broken:?}: {other:?}"),
        }
        let changed = lab
            .store
            .update(&series, |r: Option<RecoveryRecord>| Ok::<_, StoreError>(r))
            .await;
        assert!(changed.is_err(), "nothing is written on top of it");
    }
    // A delta whose base is gone, and one that names a base that cannot be.
    let begun = lab.run(vec![demo("a", 1, 0, None, &[])?]).await?;
    let job = keys::job(&begun.cluster, &begun.id, &JobName::new("demo/a")?);
    for (base, version) in [(1, 2), (7, 3)] {
        let delta = JobVersion::Delta {
            base,
            epoch: 1,
            changes: vec![],
        };
        assert_eq!(
            lab.store.append(&job, version, &delta).await?,
            Appended::Won
        );
        let read = lab.store.read_job(&job).await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
    }
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_300_steps_writes_small_versions_and_is_read_from_few() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let worker = lab.worker().await?;
    let begun = lab.run(vec![demo("a", 300, 0, None, &[])?]).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    let record = begun.record("demo/a").await?.unwrap();
    assert_eq!(
        (record.status, record.steps.len()),
        (Status::Succeeded, 301)
    );
    steps_are_recorded_once(&lab, &begun).await?;
    // Whatever version were the last one, a resume would read a bounded number of objects.
    let mut full = 0;
    let history = lab.history(&begun, "demo/a")?;
    for (n, version) in &history {
        match &version.body {
            JobVersion::Full(_) => full = *n,
            JobVersion::Delta { base, changes, .. } => {
                assert_eq!(*base, full, "version {n} builds on the last full one");
                assert!(changes.len() <= 2, "version {n} holds {}", changes.len());
            }
        }
        assert!(n - full <= 301, "version {n} is {} from full", n - full);
    }
    let series = keys::job(&begun.cluster, &begun.id, &JobName::new("demo/a")?);
    let before = lab.sandbox.s3.stats();
    lab.store.read_job(&series).await?;
    let after = lab.sandbox.s3.stats();
    assert_eq!(after.get - before.get, 1, "a turn ends with a full version");
    // All full versions together are not more than a few records.
    let fulls = history
        .iter()
        .filter(|(_, v)| matches!(v.body, JobVersion::Full(_)))
        .count();
    assert!(fulls <= 8, "{fulls} full versions");
    lab.sandbox.stop().await
}
