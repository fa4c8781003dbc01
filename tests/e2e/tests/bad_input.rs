//! Bad messages: each gets its reason and a place in the dead queue, nothing is lost, and the
//! worker goes on.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use bytes::Bytes;
use e2e::lab::{LONG, Lab, demo, steps_are_recorded_once};
use jobs::ids::{ClusterName, RecoveryId};
use jobs::message::{Demo, Job, JobMessage};
use jobs::queue::{Outgoing, Queue};
use serde_json::{Value, json};

async fn post(lab: &Lab, body: impl Into<Bytes>) -> anyhow::Result<Bytes> {
    let body = body.into();
    let message = Outgoing {
        id: uuid::Uuid::new_v4().to_string(),
        body: body.clone(),
    };
    lab.queue.publish(&message, Duration::ZERO).await?;
    Ok(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_kept_with_their_reason_and_the_recovery_goes_on() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.queue.set_hold(true);
    let begun = lab.run(vec![demo("a", 3, 0, None, &[])?]).await?;
    let job = &begun.plan.jobs()[0];
    let message = JobMessage::new(
        &begun.cluster,
        &begun.id,
        job.name.clone(),
        job.payload.clone(),
        "1",
    );
    let good: Value = serde_json::from_slice(&message.encode())?;
    let with = |change: Value| {
        let mut bad = good.clone();
        for (field, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(bad.as_object_mut().unwrap().remove(field)),
                value => bad[field] = value.clone(),
            }
        }
        serde_json::to_vec(&bad).unwrap()
    };
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (b"hello".to_vec(), &["not a JSON object"]),
        (b"".to_vec(), &["not a JSON object"]),
        (b"\xff\xfe\x00".to_vec(), &["not a JSON object"]),
        (b"[1,2]".to_vec(), &["not a JSON object", "array"]),
        (
            with(json!({"schema": 2})),
            &["schema 2", "update the worker"],
        ),
        (with(json!({"schema": null})), &["`schema`", "missing"]),
        (
            with(json!({"kind": "warp"})),
            &["unknown kind `warp`", "provision"],
        ),
        (with(json!({"kind": null})), &["`kind`", "missing"]),
        (with(json!({"steps": "three"})), &["steps"]),
        (with(json!({"cluster": "../etc"})), &["cluster", "../etc"]),
        (with(json!({"job": "a/b/c"})), &["job", "a/b/c"]),
        (
            with(json!({"recovery": "r-none"})),
            &["no recovery `r-none`"],
        ),
        (
            with(json!({"cluster": "other"})),
            &["no recovery", "`other`"],
        ),
        (
            with(json!({"job": "demo/z", "node": "z"})),
            &["no job `demo/z`"],
        ),
        (with(json!({"steps": 4})), &["not what the plan says"]),
        (with(json!({"abort_at": 0})), &["not what the plan says"]),
        (
            with(json!({"kind": "load-balancer", "steps": null, "step_ms": null, "node": null})),
            &["`job`", "not the name of this payload"],
        ),
    ];
    let mut posted = Vec::new();
    for (body, _) in &cases {
        posted.push(post(&lab, body.clone()).await?);
    }
    lab.queue.set_hold(false);
    let worker = lab.worker().await?;
    begun.finished(LONG).await?;
    lab.idle().await?;
    worker.stop().await?;
    let dead = lab.dead().await?;
    assert_eq!(dead.len(), cases.len(), "{dead:#?}");
    for (body, words) in &cases {
        let found = dead.iter().find(|d| d.body == *body).expect("it is kept");
        for word in *words {
            assert!(found.reason.contains(word), "{word}: {}", found.reason);
        }
    }
    steps_are_recorded_once(&lab, &begun).await?;
    assert_eq!(
        lab.store.clusters().await?,
        std::slice::from_ref(&begun.cluster)
    );
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_recovery_whose_inputs_are_damaged_is_kept_with_the_reason()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let damaged = lab.run(vec![demo("a", 3, 0, None, &[])?]).await?;
    let record = lab
        .store
        .recovery_record(&damaged.cluster, &damaged.id)
        .await?
        .unwrap();
    let key = jobs::keys::input(&record.inputs.plan);
    lab.sandbox.s3.put_object(&key, "[]");
    let other = lab.recover(&e2e::lab::small("whole")).await?;
    let worker = lab.worker().await?;
    other.finished(LONG).await?;
    worker.stop().await?;
    let dead = lab.dead().await?;
    assert!(!dead.is_empty());
    for message in &dead {
        assert!(
            message.reason.contains(&key) && message.reason.contains("another digest"),
            "{}",
            message.reason
        );
    }
    assert!(damaged.record("demo/a").await?.is_none(), "nothing ran");
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_job_record_stops_its_job_only() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.queue.set_hold(true);
    let begun = lab
        .run(vec![
            demo("a", 3, 0, None, &[])?,
            demo("b", 3, 0, None, &[])?,
        ])
        .await?;
    let series = jobs::keys::job(&begun.cluster, &begun.id, &begun.plan.jobs()[0].name);
    lab.sandbox.s3.put_object(&series.version(1), "{}");
    // The message of the other one is lost: the sweep must get past the damaged record.
    lab.queue.wipe();
    lab.queue.set_hold(false);
    let worker = lab.worker().await?;
    begun
        .reaches("demo/b", &[jobs::record::Status::Succeeded], LONG)
        .await?;
    begun
        .post(&lab.queue, &begun.plan.jobs()[0], "again")
        .await?;
    e2e::lab::until("its message is in the dead queue", || async {
        let dead = lab.dead().await?;
        Ok(dead.iter().any(|d| d.reason.contains(&series.version(1))))
    })
    .await?;
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_a_recovery_that_has_ended_does_nothing() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let worker = lab.worker().await?;
    let begun = lab.run(vec![demo("a", 3, 0, None, &[])?]).await?;
    begun.finished(LONG).await?;
    let before = begun.record("demo/a").await?;
    let payload = Job::Demo(Demo {
        steps: 3,
        step_ms: 0,
        abort_at: None,
        fail_at: None,
        child: false,
        node: Some("a".parse()?),
    });
    let late = JobMessage::new(&begun.cluster, &begun.id, payload.name(), payload, "9");
    post(&lab, late.encode()).await?;
    lab.idle().await?;
    worker.stop().await?;
    assert_eq!(begun.record("demo/a").await?, before);
    assert!(lab.dead().await?.is_empty());
    let (cluster, id) = (ClusterName::new("demo")?, RecoveryId::new("r-none")?);
    assert_eq!(lab.store.recovery_record(&cluster, &id).await?, None);
    lab.sandbox.stop().await
}
