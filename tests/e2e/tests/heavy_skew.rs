//! Old workers that meet what a newer Rekindle has written, and jobs that kill their workers: both are
//! kept with their reason, nothing of them is changed or lost, and both come back by `rekindle retry`.
//!
//! There is no newer Rekindle yet. What it would write is the same with a higher number; that a newer
//! worker takes over is the same with the number that the worker knows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use e2e::history;
use e2e::lab::small;
use e2e::processes::{Workers, until};
use e2e::recovery::{Begun, begin};
use e2e::site::{Site, demo};
use jobs::ids::{JobName, StepKey};
use jobs::keys;
use jobs::message::JobMessage;
use jobs::queue::{Outgoing, Queue};
use jobs::record::{JobVersion, Status, StepRecord};
use jobs::store::Appended;
use serde_json::Value;

/// Only ends runs that are broken.
const LONG: Duration = Duration::from_secs(120);

/// A recovery of one demo job whose message nobody has taken.
async fn waiting(site: &Site, cluster: &str) -> anyhow::Result<(Begun, JobMessage)> {
    let queue = site.broker.queue()?;
    let store = site.sandbox.store().await?;
    let begun = begin(
        &store,
        &Nowhere,
        &small(cluster),
        Some(vec![demo("a", 3, 10, None)]),
    )
    .await?;
    queue.close().await;
    let job = begun.plan.jobs().first().context("it has a job")?;
    let message = JobMessage::new(
        &begun.cluster,
        &begun.id,
        job.name.clone(),
        job.payload.clone(),
        "0",
    );
    Ok((begun, message))
}

/// A queue that takes messages and keeps none: the test posts its own.
#[derive(Debug)]
struct Nowhere;

#[async_trait::async_trait]
impl Queue for Nowhere {
    async fn publish(&self, _: &Outgoing, _: Duration) -> Result<(), jobs::queue::QueueError> {
        Ok(())
    }
    async fn consume(
        &self,
        _: u16,
    ) -> Result<Box<dyn jobs::queue::Consumer>, jobs::queue::QueueError> {
        unreachable!("nobody consumes here")
    }
    async fn depth(&self) -> Result<jobs::queue::Depth, jobs::queue::QueueError> {
        Ok(jobs::queue::Depth::default())
    }
    async fn dead(&self, _: usize) -> Result<Vec<jobs::queue::Dead>, jobs::queue::QueueError> {
        Ok(Vec::new())
    }
    async fn purge(&self, _: jobs::queue::Pile) -> Result<(), jobs::queue::QueueError> {
        Ok(())
    }
    fn name(&self, _: jobs::queue::Pile) -> String {
        "nowhere".into()
    }
    async fn close(&self) {}
}

/// Everything of one cluster, and the inputs.
fn bucket(site: &Site, begun: &Begun) -> BTreeMap<String, Bytes> {
    let of_cluster = site
        .sandbox
        .s3
        .objects(&format!("clusters/{}/", begun.cluster));
    let inputs = site.sandbox.s3.objects("inputs/");
    of_cluster.into_iter().chain(inputs).collect()
}

/// Changes one field of an object; its bytes before.
fn patch(site: &Site, key: &str, field: &str, to: Value) -> anyhow::Result<Bytes> {
    let before = site
        .sandbox
        .s3
        .object(key)
        .with_context(|| key.to_owned())?;
    let mut value: Value = serde_json::from_slice(&before)?;
    *value.pointer_mut(field).context("it has the field")? = to;
    site.sandbox.s3.put_object(key, serde_json::to_vec(&value)?);
    Ok(before)
}

fn input(site: &Site, digest: &str) -> anyhow::Result<String> {
    let bytes = site.sandbox.s3.object(&keys::input(digest));
    Ok(String::from_utf8(bytes.context("it is there")?.to_vec())?)
}

/// Posts a body and waits until it is dead; its reason.
async fn dies(site: &Site, id: &str, body: &[u8]) -> anyhow::Result<String> {
    let queue = site.broker.queue()?;
    let dead = queue.dead(100).await?.len();
    let message = Outgoing {
        id: id.into(),
        body: Bytes::copy_from_slice(body),
    };
    queue.publish(&message, Duration::ZERO).await?;
    let all = until("it is in the dead queue", LONG, async || {
        let all = queue.dead(100).await?;
        Ok((all.len() > dead).then_some(all))
    })
    .await?;
    queue.close().await;
    let last = all.last().context("it is there")?;
    assert_eq!(last.body, body, "it is kept as it came");
    Ok(last.reason.clone())
}

/// `rekindle retry` brings it back and the recovery ends well.
async fn comes_back(site: &Site, begun: &Begun, more: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let args = format!(
        "retry --cluster {} --reason updated --wait --timeout 2m {more}",
        begun.cluster
    );
    let (code, said) = site.rekindle(folder.path(), &[], &args).await?;
    ensure!(code == 0, "{args}: {code} {said}");
    begun.finished(LONG).await
}

async fn worker(site: &Site) -> anyhow::Result<Workers> {
    // No sweep, which would post on its own.
    let mut workers = site.workers(&["--lease", "3", "--sweep", "0"])?;
    workers.spawn()?;
    Ok(workers)
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_what_a_newer_rekindle_wrote_is_left_alone_and_goes_on_later() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = worker(&site).await?;

    // A newer message.
    let (begun, message) = waiting(&site, "message").await?;
    let mut newer: Value = serde_json::from_slice(&message.encode())?;
    newer["schema"] = 2.into();
    newer["surprise"] = "a field of the future".into();
    let before = bucket(&site, &begun);
    let reason = dies(&site, "newer", &serde_json::to_vec(&newer)?).await?;
    ensure!(
        reason.contains("schema 2") && reason.contains("update the worker"),
        "{reason}"
    );
    assert_eq!(bucket(&site, &begun), before, "nothing is changed");
    comes_back(&site, &begun, "").await?;
    history::check(&site.sandbox, &begun.cluster, &begun.id)?;

    // A newer record of the recovery, of the job, and newer inputs. Each is named.
    for what in ["recovery", "job", "spec", "plan"] {
        eprintln!("a newer {what}");
        let (begun, message) = waiting(&site, &format!("newer-{what}")).await?;
        let store = site.sandbox.store().await?;
        let record = store
            .recovery_record(&begun.cluster, &begun.id)
            .await?
            .context("it has a record")?;
        let key = match what {
            "recovery" => keys::recovery(&begun.cluster, &begun.id).version(1),
            "job" => {
                let series = keys::job(&begun.cluster, &begun.id, &message.job);
                let fresh =
                    jobs::record::JobRecord::new(message.job.clone(), message.payload.clone());
                let full = JobVersion::Full(Box::new(fresh));
                ensure!(store.append(&series, 1, &full).await? == Appended::Won);
                series.version(1)
            }
            // Inputs never change: the newer ones are others, and the record names them.
            _ => keys::recovery(&begun.cluster, &begun.id).version(1),
        };
        let (known, word) = match what {
            "spec" => {
                let text = input(&site, &record.inputs.spec)?;
                let newer = text.replacen("version: 1", "version: 2", 1);
                let digest = store.put_input(newer.into()).await?;
                let known = patch(&site, &key, "/body/inputs/spec", digest.clone().into())?;
                (known, format!("inputs/{digest}` is not a record: version"))
            }
            "plan" => {
                let text = input(&site, &record.inputs.plan)?;
                let newer = text.replace("\"kind\":\"demo\"", "\"kind\":\"warp\"");
                ensure!(newer != text, "the plan names its kinds");
                let digest = store.put_input(newer.into()).await?;
                let known = patch(&site, &key, "/body/inputs/plan", digest.into())?;
                (known, "warp".to_owned())
            }
            _ => (patch(&site, &key, "/schema", 2.into())?, key.clone()),
        };
        let before = bucket(&site, &begun);
        let reason = dies(&site, what, &message.encode()).await?;
        eprintln!("{reason}");
        ensure!(reason.contains(&word), "no `{word}` in: {reason}");
        assert_eq!(bucket(&site, &begun), before, "nothing is changed");
        ensure!(workers.fallen()?.is_empty(), "the worker lives");
        // The newer worker.
        site.sandbox.s3.put_object(&key, known);
        comes_back(&site, &begun, "").await?;
        history::check(&site.sandbox, &begun.cluster, &begun.id)?;
    }
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_job_with_steps_of_a_newer_build_is_parked_and_comes_back() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let (begun, message) = waiting(&site, "steps").await?;
    let store = site.sandbox.store().await?;
    let series = keys::job(&begun.cluster, &begun.id, &JobName::new("demo/a")?);
    // A newer build has done a step that this one does not have.
    let mut record = jobs::record::JobRecord::new(message.job.clone(), message.payload.clone());
    record.steps.insert(
        StepKey::of("warp", 1),
        StepRecord {
            n: 1,
            output: Value::Null,
            at: jiff::Timestamp::now(),
            ms: 1,
            epoch: 0,
        },
    );
    let full = JobVersion::Full(Box::new(record));
    ensure!(store.append(&series, 1, &full).await? == Appended::Won);
    let workers = worker(&site).await?;
    let reason = dies(&site, "steps", &message.encode()).await?;
    ensure!(reason.contains("warp/1"), "{reason}");
    let parked = begun.record("demo/a").await?.context("it has a record")?;
    assert_eq!(parked.status, Status::Parked);
    ensure!(parked.steps.contains_key(&StepKey::of("warp", 1)), "kept");
    assert_eq!(parked.attempts, 0, "it is nobody's failure");

    let folder = tempfile::tempdir()?;
    let status = format!("status --cluster {}", begun.cluster);
    let (code, said) = site.rekindle(folder.path(), &[], &status).await?;
    ensure!(code == 0, "{said}");
    ensure!(said.contains("parked") && said.contains("warp/1"), "{said}");
    let watch = format!("watch --cluster {} --timeout 1m", begun.cluster);
    let (code, said) = site.rekindle(folder.path(), &[], &watch).await?;
    assert_eq!(code, 1, "{said}");
    // The operator gives the newer build's step up; all else is kept.
    comes_back(&site, &begun, "--job demo/a --from warp/1").await?;
    let record = begun.record("demo/a").await?.context("it has a record")?;
    assert_eq!((record.status, record.steps.len()), (Status::Succeeded, 4));
    workers.stop().await?;
    site.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_quarantined_job_says_why_and_comes_back_by_retry() -> anyhow::Result<()> {
    let site = Site::quick().await?;
    let mut workers = worker(&site).await?;
    let store = site.sandbox.store().await?;
    let queue = site.broker.queue()?;
    let plan = vec![demo("poison", 3, 10, Some(1))];
    let begun = begin(&store, queue.as_ref(), &small("poison"), Some(plan)).await?;
    let quarantined = until("it is quarantined", LONG, async || {
        for _ in workers.fallen()? {
            workers.spawn()?;
        }
        let record = begun.record("demo/poison").await?;
        Ok(record.filter(|r| r.status == Status::Quarantined))
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let told = |args: String| {
        let (site, folder) = (&site, folder.path());
        async move { site.rekindle(folder, &[], &args).await }
    };
    let (code, said) = told(format!("watch --cluster {} --timeout 1m", begun.cluster)).await?;
    assert_eq!(code, 1, "{said}");
    let (code, said) = told(format!("status --cluster {}", begun.cluster)).await?;
    ensure!(code == 0 && said.contains("quarantined"), "{said}");
    ensure!(
        said.contains("crashed 3 times") && said.contains("step/1"),
        "{said}"
    );
    let dead = queue.dead(10).await?;
    ensure!(
        dead.iter().any(|d| d.reason.contains("crashed 3 times")),
        "{dead:?}"
    );

    // Put back while nobody works: its steps and its history are kept, its crashes forgiven.
    workers.stop().await?;
    let (code, said) = told(format!("retry --cluster {} --reason fixed", begun.cluster)).await?;
    ensure!(code == 0, "{said}");
    let back = begun
        .record("demo/poison")
        .await?
        .context("it has a record")?;
    ensure!(
        !back.status.is_settled() && back.owner.is_none(),
        "{}",
        back.status
    );
    assert_eq!((back.crashes.in_a_row, back.steps.len()), (0, 1));
    assert_eq!(back.generation, quarantined.generation + 1);
    assert_eq!(queue.depth().await?.ready, 1, "its message is posted");
    queue.close().await;
    site.stop().await
}
