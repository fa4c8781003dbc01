//! Volumes: which are ours, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};

use e2e::lab::{LONG, Lab, small};
use jobs::record::{Origin, Status};
use sandbox::clo::{CloOptions, Fault, Foreign, Operation};
use sandbox::hosts::simulated::Seed;
use sandbox::world::Options;

use super::{recovered, strangers, theirs};

/// Recoveries, failures, retries and disasters among strangers.
#[tokio::test(flavor = "multi_thread")]
async fn flaw_01_nothing_that_is_not_ours_is_touched_and_no_volume_is_deleted() -> anyhow::Result<()>
{
    let lab = Lab::with(Options {
        clo: CloOptions {
            boot_disks_survive: true,
            ..CloOptions::default()
        },
        ..Options::default()
    })
    .await?;
    lab.sandbox.clo.foreign(strangers()).await?;
    let before = theirs(&lab);
    let faults = lab.sandbox.clo.faults();
    faults.build_error("test-master-1", 1);
    faults.add(Fault::on(Operation::CreateVolume).after().cut());
    faults.add(Fault::on(Operation::AttachVolume).answer(500));
    faults.add(Fault::on(Operation::ListVolumes).empty_page().times(5));
    recovered(&lab, &small("test")).await?;
    assert_eq!(theirs(&lab), before, "after a recovery with failures");
    lab.sandbox.clo.destroy_all_servers().await;
    recovered(&lab, &small("test")).await?;
    assert_eq!(theirs(&lab), before, "after a disaster");
    recovered(&lab, &small("test")).await?;
    assert_eq!(theirs(&lab), before, "after a recovery of what was whole");
    assert_eq!(lab.sandbox.clo.effects(Operation::DeleteVolume), 0);
    let of_strangers: BTreeSet<String> = before.0.servers.iter().map(|s| s.id.clone()).collect();
    for call in lab.sandbox.clo.log() {
        assert!(
            !call.id.as_ref().is_some_and(|id| of_strangers.contains(id)),
            "{call:?}"
        );
    }
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_02_a_free_volume_of_the_same_size_is_never_taken() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.sandbox.clo.foreign(strangers()).await?;
    let before = theirs(&lab);
    // Another cluster of ours had its disaster: its volume is free, and of the same size.
    recovered(&lab, &small("other")).await?;
    lab.sandbox.clo.destroy_all_servers().await;
    let free = lab.data_volumes();
    let disk = lab.hosts().disk(&free[0].id);
    recovered(&lab, &small("test")).await?;
    let now = lab.data_volumes();
    assert_eq!(now.len(), 2, "a new one was made");
    assert!(now.contains(&free[0]), "{now:?}");
    assert_eq!(lab.hosts().disk(&free[0].id), disk);
    assert_eq!(theirs(&lab), before);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_03_nodes_that_start_together_never_share_a_volume() -> anyhow::Result<()> {
    let spec = small("test").replace(
        "prefix: cache\n    role: worker\n    instances: { 1: true }",
        "prefix: cache\n    role: worker\n    instances: { 1: true, 2: true, 3: true, 4: true }",
    );
    let lab = Lab::start().await?;
    let (one, two) = (lab.worker().await?, lab.worker().await?);
    for _ in 0..2 {
        lab.recover(&spec).await?.finished(LONG).await?;
        let snapshot = lab.sandbox.clo.snapshot();
        let volumes = lab.data_volumes();
        assert_eq!(volumes.len(), 4);
        for volume in volumes {
            let server = volume.attached_to.as_deref().unwrap();
            let server = snapshot.servers.iter().find(|s| s.id == server).unwrap();
            assert_eq!(volume.name, format!("{}-data", server.name));
        }
        lab.sandbox.clo.destroy_all_servers().await;
    }
    one.stop().await?;
    two.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_04_a_node_without_its_disk_is_not_done() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let faults = lab.sandbox.clo.faults();
    faults.add(Fault::on(Operation::AttachVolume).answer(403).always());
    let worker = lab.worker().await?;
    let begun = lab.recover(&small("test")).await?;
    let record = begun
        .reaches("provision/test-cache-1", &[Status::Failed], LONG)
        .await?;
    assert!(record.failure.unwrap().to_string().contains("attach"));
    assert_eq!(begun.record("mount/test-cache-1").await?, None);
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_06_a_volume_with_data_is_kept_and_an_unknown_blank_one_is_not_formatted()
-> anyhow::Result<()> {
    for with_data in [true, false] {
        let lab = Lab::start().await?;
        // It has our name, and no record: from before this tool.
        lab.sandbox
            .clo
            .foreign(Foreign {
                volumes: vec![("test-cache-1-data".into(), 10)],
                ..Foreign::default()
            })
            .await?;
        let id = lab.sandbox.clo.snapshot().volumes[0].id.clone();
        if with_data {
            let files = BTreeMap::from([("/PG_VERSION".to_owned(), b"16".to_vec())]);
            let (uuid, label) = (uuid::Uuid::new_v4().to_string(), String::new());
            lab.hosts().seed(&id, Seed::Ext4 { uuid, label, files })?;
        }
        let worker = lab.worker().await?;
        let begun = lab.recover(&small("test")).await?;
        if with_data {
            begun.finished(LONG).await?;
            let there = lab
                .hosts()
                .file("test-cache-1", "/mnt/disks/data/PG_VERSION");
            assert_eq!(there.as_deref(), Some(&b"16"[..]));
        } else {
            let record = begun
                .reaches("mount/test-cache-1", &[Status::NeedsApproval], LONG)
                .await?;
            let text = record.failure.unwrap().to_string();
            assert!(text.contains("never format"), "{text}");
        }
        worker.stop().await?;
        assert_eq!(lab.hosts().disk(&id).unwrap().formatted, 0);
        let volume = lab.cluster(&begun.cluster).volume(&id).await?.unwrap();
        assert!(matches!(volume.origin, Origin::Adopted { .. }));
        assert_eq!(lab.sandbox.clo.effects(Operation::CreateVolume), 0);
        lab.sandbox.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_07_protection_stays_whatever_a_spec_says_later() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let open = small("test");
    let protected = open.replace(
        "mount: /mnt/disks/data,",
        "mount: /mnt/disks/data, protected: true,",
    );
    let off = open.replace(
        "prefix: cache\n    role: worker\n    instances: { 1: true }",
        "prefix: cache\n    role: worker\n    instances: { 1: false, 2: true }",
    );
    let begun = recovered(&lab, &protected).await?;
    let id = lab.data_volumes()[0].id.clone();
    let record = || async {
        let cluster = lab.cluster(&begun.cluster);
        anyhow::Ok(cluster.volume(&id).await?.unwrap())
    };
    let first = record().await?;
    assert!(first.protected && first.formatted && first.fs_uuid.is_some());
    // The spec forgets it; its server dies; its node is switched off.
    recovered(&lab, &open).await?;
    assert!(record().await?.protected, "after a spec without the word");
    lab.sandbox.clo.destroy_all_servers().await;
    recovered(&lab, &open).await?;
    assert!(record().await?.protected, "after a disaster");
    recovered(&lab, &off).await?;
    let last = record().await?;
    assert!(last.protected, "after its node was switched off");
    assert_eq!((last.origin, last.fs_uuid), (first.origin, first.fs_uuid));
    assert!(last.formatted);
    assert_eq!(lab.hosts().disk(&id).unwrap().formatted, 1);
    lab.sandbox.stop().await
}
