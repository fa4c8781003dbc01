//! The weaknesses of the tool that Rekindle follows, one test each. The numbers are those of the
//! list in the project's notes; other rows have their tests beside the code they are about
//! (`grep flaw_`). Rows about commands that do not exist here (deleting whole projects or free
//! disks) are held by what every test asserts: no code path deletes a volume.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};

use e2e::lab::{LONG, Lab, small, until};
use e2e::recovery::{Begun, begin};
use jobs::ids::NodeName;
use jobs::message::{Job, OnNode};
use jobs::plan::{DEFAULT_PLAN, Plan, PlanFile, PlannedJob};
use jobs::record::{Origin, Status};
use jobs::spec::ClusterSpec;
use sandbox::clo::{CloOptions, Fault, Foreign, Operation, Snapshot};
use sandbox::hosts::Hosts;
use sandbox::hosts::simulated::{DiskView, Seed};
use sandbox::world::Options;

/// Strangers with things of every size and kind that ours have.
fn strangers() -> Foreign {
    Foreign {
        servers: vec!["web".into(), "test-cache-9".into(), "shop-master-1".into()],
        volumes: vec![
            ("data".into(), 10),
            ("test-cache-1-data-old".into(), 10),
            ("shop-cache-1-data".into(), 10),
        ],
        boot_disks: vec![("boot".into(), 10), ("old-root".into(), 20)],
        addresses: 3,
    }
}

/// All that is not ours, with what is on the disks.
type Theirs = (Snapshot, BTreeMap<String, Option<DiskView>>);

fn theirs(lab: &Lab) -> Theirs {
    let mut snapshot = lab.sandbox.clo.snapshot();
    snapshot.servers.retain(|s| s.foreign);
    snapshot.volumes.retain(|v| v.foreign);
    snapshot.addresses.retain(|a| a.foreign);
    snapshot.balancers.retain(|b| b.foreign);
    snapshot.keypairs.retain(|k| k.name == "somebody-else");
    let disks = snapshot.volumes.iter();
    let disks = disks.map(|v| (v.id.clone(), lab.hosts().disk(&v.id)));
    let disks = disks.collect();
    (snapshot, disks)
}

/// The small cluster with its jobs up to reachability: nothing is mounted.
fn without_mounts(spec: &str) -> anyhow::Result<Vec<PlannedJob>> {
    let mut jobs = planned(spec)?.jobs().to_vec();
    jobs.retain(|job| !matches!(job.payload, Job::Mount(_) | Job::Report));
    Ok(jobs)
}

fn planned(spec: &str) -> anyhow::Result<Plan> {
    let spec = ClusterSpec::parse(spec).map_err(|p| anyhow::anyhow!("{p:?}"))?;
    PlanFile::parse(DEFAULT_PLAN)
        .and_then(|file| file.expand(&spec))
        .map_err(|p| anyhow::anyhow!("{p:?}"))
}

async fn recovered(lab: &Lab, spec: &str) -> anyhow::Result<Begun> {
    let worker = lab.worker().await?;
    let begun = lab.recover(spec).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    Ok(begun)
}

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

#[tokio::test(flavor = "multi_thread")]
async fn flaw_11_a_disk_that_is_missing_at_mount_time_fails_the_job() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let spec = small("test");
    let worker = lab.worker().await?;
    let first = begin(&lab.store, &lab.queue, &spec, Some(without_mounts(&spec)?)).await?;
    first.finished(LONG).await?;
    // The cloud says that it is plugged in; the host does not see it.
    let volume = lab.data_volumes()[0].clone();
    let server = volume.attached_to.clone().unwrap();
    lab.hosts().detach(&server, &volume.id).await?;
    let second = lab.recover(&spec).await?;
    until("the mount looks for the disk", || async {
        let record = second.record("mount/test-cache-1").await?;
        Ok(record.is_some_and(|r| r.waits.contains_key("find/data")))
    })
    .await?;
    worker.stop().await?;
    lab.rewrite(&second, "mount/test-cache-1", |record| {
        record.waits.get_mut("find/data").unwrap().waited_ms = 5 * 60 * 1000 - 10;
    })
    .await?;
    let worker = lab.worker().await?;
    let record = second
        .reaches("mount/test-cache-1", &[Status::Failed], LONG)
        .await?;
    let text = record.failure.unwrap().to_string();
    let serial = &volume.id[..20];
    assert!(
        text.contains("find/data") && text.contains(serial),
        "{text}"
    );
    second.reaches("report", &[Status::Succeeded], LONG).await?;
    let report = lab.report(&second).unwrap();
    assert_eq!(report["verdict"], "failed");
    assert!(lab.hosts().mounts("test-cache-1").is_empty());
    // The disk is back: a retry mounts it.
    lab.hosts().attach(&server, &volume.id, "vdc").await?;
    lab.reopen(&second, "report", Some("write")).await?;
    lab.retry(&second, "mount/test-cache-1", None).await?;
    second.finished(LONG).await?;
    worker.stop().await?;
    assert_eq!(
        lab.hosts().mounts("test-cache-1").get("/mnt/disks/data"),
        Some(&volume.id)
    );
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_12_a_host_boots_without_its_data_disk_and_mounts_it_again_with_it()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    recovered(&lab, &small("test")).await?;
    let volume = lab.data_volumes()[0].clone();
    let uuid = lab.hosts().disk(&volume.id).unwrap().uuid.unwrap();
    let fstab = lab.hosts().file("test-cache-1", "/etc/fstab").unwrap();
    let fstab = String::from_utf8(fstab)?;
    let line = fstab
        .lines()
        .find(|line| line.contains("/mnt/disks/data"))
        .unwrap();
    assert!(line.starts_with(&format!("UUID={uuid} ")), "{line}");
    assert!(line.contains("nofail"), "{line}");
    let server = volume.attached_to.clone().unwrap();
    lab.hosts().reboot(&server).await?;
    assert!(lab.hosts().mounts(&server).contains_key("/mnt/disks/data"));
    lab.hosts().detach(&server, &volume.id).await?;
    lab.hosts().reboot(&server).await?;
    assert!(!lab.hosts().in_emergency(&server), "it boots all the same");
    assert!(lab.hosts().mounts(&server).is_empty());
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_13_permissions_change_the_mount_point_and_nothing_below() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let spec = small("test");
    recovered(&lab, &spec).await?;
    let run = |words: &'static [&'static str]| {
        let hosts = lab.hosts().clone();
        async move {
            let output = hosts.run("test-cache-1", words, b"").await;
            assert_eq!(output.status, 0, "{words:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        }
    };
    lab.hosts()
        .put_file("test-cache-1", "/mnt/disks/data/secret", b"live")?;
    run(&["chmod", "0600", "/mnt/disks/data/secret"]).await;
    run(&["chown", "26:26", "/mnt/disks/data/secret"]).await;
    let stat = &["stat", "-c", "%u %g %a", "/mnt/disks/data/secret"];
    let before = run(stat).await;
    // Somebody changed the mount point; the job sets it right again.
    run(&["chown", "7:7", "/mnt/disks/data"]).await;
    run(&["chmod", "0777", "/mnt/disks/data"]).await;
    let worker = lab.worker().await?;
    let payload = Job::Permissions(OnNode {
        node: NodeName::new("test-cache-1")?,
    });
    let job = PlannedJob {
        name: payload.name(),
        payload,
        needs: vec![],
        always: false,
    };
    let again = begin(&lab.store, &lab.queue, &spec, Some(vec![job.clone()])).await?;
    again.finished(LONG).await?;
    assert_eq!(run(stat).await, before, "what lies below is as it was");
    assert_eq!(before.trim(), "26 26 600");
    let mount = &["stat", "-c", "%u %g %a", "/mnt/disks/data"];
    assert_eq!(run(mount).await.trim(), "1000 1000 750");
    // What the spec does not name is left as it is.
    let silent = spec.replace(", owner: 1000, group: 1000, mode: \"0750\"", "");
    run(&["chown", "7:7", "/mnt/disks/data"]).await;
    let silent = begin(&lab.store, &lab.queue, &silent, Some(vec![job])).await?;
    silent.finished(LONG).await?;
    worker.stop().await?;
    assert_eq!(run(mount).await.trim(), "7 7 750");
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_14_a_server_that_never_came_leaves_no_nameless_volume() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let faults = lab.sandbox.clo.faults();
    faults.add(
        Fault::on(Operation::CreateServer)
            .named("test-cache-1")
            .answer(403)
            .times(1),
    );
    let worker = lab.worker().await?;
    let begun = lab.recover(&small("test")).await?;
    begun
        .reaches("provision/test-cache-1", &[Status::Failed], LONG)
        .await?;
    let volumes = lab.data_volumes();
    assert_eq!(volumes.len(), 1);
    let cluster = lab.cluster(&begun.cluster);
    let record = cluster.volume(&volumes[0].id).await?.unwrap();
    assert_eq!(
        (record.name.as_str(), record.node.as_str()),
        ("test-cache-1-data", "test-cache-1")
    );
    begun.reaches("report", &[Status::Succeeded], LONG).await?;
    lab.reopen(&begun, "report", Some("write")).await?;
    lab.retry(&begun, "provision/test-cache-1", None).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    lab.is_whole(3, 1, 1)?;
    assert_eq!(lab.data_volumes()[0].id, volumes[0].id, "the same volume");
    lab.sandbox.stop().await
}

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

#[tokio::test(flavor = "multi_thread")]
async fn flaw_23_ours_are_found_on_the_last_of_many_pages() -> anyhow::Result<()> {
    let lab = Lab::with(Options {
        clo: CloOptions {
            max_page_size: 7,
            ..CloOptions::default()
        },
        ..Options::default()
    })
    .await?;
    lab.sandbox
        .clo
        .foreign(Foreign {
            servers: (0..40).map(|n| format!("stranger-{n}")).collect(),
            volumes: (0..40).map(|n| (format!("stranger-{n}"), 10)).collect(),
            ..Foreign::default()
        })
        .await?;
    recovered(&lab, &small("test")).await?;
    recovered(&lab, &small("test")).await?;
    assert_eq!(lab.created(), [3, 1, 1, 1]);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_24_the_load_balancer_is_adopted_and_only_its_rules_change() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let spec = small("test");
    let begun = recovered(&lab, &spec).await?;
    let cluster = lab.cluster(&begun.cluster);
    let first = cluster.load_balancer().await?.unwrap();
    let more = spec.replace(
        "[{ port: 2205, to: 22 }]",
        "[{ port: 2206, to: 22 }, { port: 80, to: 30080 }]",
    );
    recovered(&lab, &more).await?;
    let second = cluster.load_balancer().await?.unwrap();
    assert_eq!((&second.id, &second.address), (&first.id, &first.address));
    let snapshot = lab.sandbox.clo.snapshot();
    assert_eq!(snapshot.balancers.len(), 1);
    let mut ports: Vec<u16> = snapshot.balancers[0]
        .rules
        .iter()
        .map(|r| r.external_port)
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [80, 2206]);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_24_another_clusters_load_balancer_is_left_alone() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let theirs = recovered(&lab, &small("theirs")).await?;
    let cluster = lab.cluster(&theirs.cluster);
    let balancer = cluster.load_balancer().await?.unwrap();
    let before = lab.sandbox.clo.snapshot().balancers;

    let same_name = format!("load_balancer: {{ name: {} }}", balancer.name);
    let spec = small("ours").replace("load_balancer: {}", &same_name);
    let worker = lab.worker().await?;
    let begun = lab.recover(&spec).await?;
    let record = begun
        .reaches("load-balancer", &[Status::NeedsApproval], LONG)
        .await?;
    let text = record.failure.unwrap().to_string();
    assert!(text.contains("belongs to cluster `theirs`"), "{text}");
    worker.stop().await?;
    assert_eq!(lab.sandbox.clo.snapshot().balancers, before);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_25_the_load_balancers_address_never_stands_in_a_node() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    for disaster in [false, true] {
        if disaster {
            lab.sandbox.clo.destroy_all_servers().await;
        }
        let begun = recovered(&lab, &small("test")).await?;
        let cluster = lab.cluster(&begun.cluster);
        let endpoint = cluster.load_balancer().await?.unwrap().address.ip;
        let snapshot = lab.sandbox.clo.snapshot();
        for node in cluster.nodes().await? {
            let server = snapshot.servers.iter().find(|s| s.id == node.server);
            assert_eq!(Some(node.internal.ip), server.unwrap().internal_ip);
            assert_ne!(node.internal.ip, endpoint);
            assert_ne!(node.external.map(|a| a.ip), Some(endpoint));
        }
    }
    lab.sandbox.stop().await
}
