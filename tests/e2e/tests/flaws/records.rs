//! Records: nothing is lost, and all of it is there in time.

use std::collections::BTreeSet;

use e2e::lab::{LONG, Lab, small};
use jobs::ids::NodeName;
use jobs::record::Status;
use sandbox::clo::{Fault, Operation};

use super::recovered;

#[tokio::test(flavor = "multi_thread")]
async fn flaw_17_many_writers_of_one_record_lose_no_word() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let series = jobs::keys::spec(&"test".parse()?);
    let writers = (0..12).map(|n| {
        let (store, series) = (lab.store.as_another_writer(), series.clone());
        tokio::spawn(async move {
            store
                .update(&series, |words: Option<Vec<u32>>| {
                    let mut words = words.unwrap_or_default();
                    words.push(n);
                    Ok::<_, jobs::store::StoreError>(Some(words))
                })
                .await
        })
    });
    let mut versions = BTreeSet::new();
    for writer in futures::future::join_all(writers).await {
        versions.insert(writer??.unwrap());
    }
    assert_eq!(
        versions,
        (1..=12).collect(),
        "each wrote a version of its own"
    );
    let mut words: Vec<u32> = lab.store.read(&series).await?.unwrap().body;
    words.sort_unstable();
    assert_eq!(words, (0..12).collect::<Vec<_>>());
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_19_records_of_nodes_that_failed_or_are_switched_off_stay() -> anyhow::Result<()> {
    let two = small("test").replace(
        "prefix: cache\n    role: worker\n    instances: { 1: true }",
        "prefix: cache\n    role: worker\n    instances: { 1: true, 2: true }",
    );
    let one_off = two.replace("{ 1: true, 2: true }", "{ 1: true, 2: false }");
    let lab = Lab::start().await?;
    let begun = recovered(&lab, &two).await?;
    let cluster = lab.cluster(&begun.cluster);
    let off = NodeName::new("test-cache-2")?;
    let (node, volumes) = (cluster.node(&off).await?, lab.data_volumes());
    recovered(&lab, &one_off).await?;
    assert_eq!(cluster.node(&off).await?, node, "switched off");
    assert_eq!(cluster.volumes().await?.len(), 2);
    assert_eq!(lab.data_volumes(), volumes, "its disk stays where it is");
    // A recovery that fails for one node says nothing about that node's records.
    lab.sandbox.clo.destroy_all_servers().await;
    let faults = lab.sandbox.clo.faults();
    faults.add(
        Fault::on(Operation::CreateServer)
            .named("test-cache-2")
            .answer(403)
            .always(),
    );
    let worker = lab.worker().await?;
    let failing = lab.recover(&two).await?;
    failing
        .reaches("provision/test-cache-2", &[Status::Failed], LONG)
        .await?;
    worker.stop().await?;
    assert_eq!(cluster.node(&off).await?, node, "failed");
    let ids = |volumes: &[sandbox::clo::VolumeView]| {
        let ids = volumes.iter().map(|v| v.id.clone());
        ids.collect::<BTreeSet<_>>()
    };
    let recorded = cluster.volumes().await?;
    assert!(recorded.iter().all(|v| v.formatted && v.fs_uuid.is_some()));
    let recorded: BTreeSet<String> = recorded.into_iter().map(|v| v.id).collect();
    assert_eq!(recorded, ids(&lab.data_volumes()));
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_20_progress_is_on_record_as_it_happens() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.sandbox.clo.faults().add(
        Fault::on(Operation::CreateServer)
            .named("test-cache-1")
            .after()
            .hang(),
    );
    let worker = lab.worker().await?;
    let begun = lab.recover(&small("test")).await?;
    lab.sandbox
        .clo
        .wait_until("the server", |s| {
            s.servers_named("test-cache-1").count() == 1
        })
        .await;
    worker.kill();
    // Not one answer was seen of the create; what it needs to be found again is on record.
    let record = begun.record("provision/test-cache-1").await?.unwrap();
    for step in [
        "image",
        "keypair",
        "volume-intent/data",
        "volume/data",
        "server-intent/0",
    ] {
        assert!(
            record.steps.contains_key(step),
            "{step}: {:?}",
            record.steps.keys()
        );
    }
    assert!(!record.steps.contains_key("server/0"));
    let intent = &record.steps["server-intent/0"].output;
    let shown = lab.hosts().host_key("test-cache-1");
    if let Some(shown) = shown {
        assert_eq!(intent["host_key"], shown.to_openssh()?);
    }
    let cluster = lab.cluster(&begun.cluster);
    let volumes = cluster.volumes().await?;
    assert_eq!(volumes.len(), 1);
    assert_eq!(volumes[0].id, lab.data_volumes()[0].id);
    lab.sandbox.stop().await
}
