//! The cloud fails in every way it may, in the middle of a recovery: still exactly one of each.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::lab::{LONG, Lab, quick, small, steps_are_recorded_once, until};
use e2e::recovery::Begun;
use jobs::ids::NodeName;
use jobs::plan::{DEFAULT_PLAN, PlanFile, PlannedJob};
use jobs::record::{Origin, Status};
use jobs::spec::ClusterSpec;
use sandbox::clo::{CloOptions, Fault, Foreign, Operation};
use sandbox::world::Options;
use worker::engine::Options as EngineOptions;

/// One node's provision job of the small cluster, and nothing else.
fn only_the_cache() -> anyhow::Result<Vec<PlannedJob>> {
    let spec = ClusterSpec::parse(&small("test")).map_err(|p| anyhow::anyhow!("{p:?}"))?;
    let plan = PlanFile::parse(DEFAULT_PLAN)
        .and_then(|file| file.expand(&spec))
        .map_err(|p| anyhow::anyhow!("{p:?}"))?;
    let mut jobs = plan.jobs().to_vec();
    jobs.retain(|job| job.name.as_str() == "provision/test-cache-1");
    Ok(jobs)
}

async fn begin_the_cache(lab: &Lab) -> anyhow::Result<Begun> {
    let plan = Some(only_the_cache()?);
    e2e::recovery::begin(&lab.store, &lab.queue, &small("test"), plan).await
}

fn unused(lab: &Lab) {
    let unused = lab.sandbox.clo.faults().unused();
    assert!(unused.is_empty(), "faults that never struck: {unused:?}");
}

/// A recovery of the small cluster while the first create of each kind meets a fault.
async fn recovered_with_each_create(spoil: impl Fn(Fault) -> Fault) -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    for operation in [
        Operation::CreateServer,
        Operation::CreateVolume,
        Operation::CreateBalancer,
        Operation::CreateKeypair,
    ] {
        lab.sandbox.clo.faults().add(spoil(Fault::on(operation)));
    }
    let worker = lab.worker().await?;
    let begun = lab.recover(&small("test")).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    unused(&lab);
    lab.is_whole(3, 1, 1)?;
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_create_is_answered_500_or_503_before_its_effect() -> anyhow::Result<()> {
    recovered_with_each_create(|fault| fault.answer(500)).await?;
    recovered_with_each_create(|fault| fault.answer(503)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_22_each_create_works_and_is_answered_500_or_504() -> anyhow::Result<()> {
    recovered_with_each_create(|fault| fault.after().answer(500)).await?;
    recovered_with_each_create(|fault| fault.after().answer(504)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_create_is_cut_off_before_or_after_its_effect() -> anyhow::Result<()> {
    recovered_with_each_create(Fault::cut).await?;
    recovered_with_each_create(|fault| fault.after().cut()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_22_each_create_is_never_answered_before_or_after_its_effect() -> anyhow::Result<()> {
    recovered_with_each_create(Fault::hang).await?;
    recovered_with_each_create(|fault| fault.after().hang()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_create_is_answered_in_broken_words() -> anyhow::Result<()> {
    recovered_with_each_create(Fault::malformed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_a_second_recovery_are_made_once_although_their_answers_are_lost()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let worker = lab.worker().await?;
    lab.recover(&small("test")).await?.finished(LONG).await?;
    lab.sandbox.clo.destroy_all_servers().await;
    let faults = lab.sandbox.clo.faults();
    faults.add(Fault::on(Operation::CreateRule).after().cut());
    faults.add(Fault::on(Operation::DeleteRule).after().answer(500));
    lab.recover(&small("test")).await?.finished(LONG).await?;
    worker.stop().await?;
    unused(&lab);
    assert_eq!(lab.created(), [6, 1, 1, 1], "new servers, all else is kept");
    assert_eq!(lab.sandbox.clo.effects(Operation::CreateRule), 1);
    let snapshot = lab.sandbox.clo.snapshot();
    let [rule] = snapshot.balancers[0].rules.as_slice() else {
        panic!("{:?}", snapshot.balancers);
    };
    let bastion = snapshot.servers_named("test-bastion-1").next().unwrap();
    assert_eq!(rule.server, bastion.id);
    lab.sandbox.stop().await
}

/// A create has its effect, its answer hangs, and the worker dies before it comes. The list lags
/// behind when the next worker looks.
async fn killed_in_the_middle_of(operation: Operation, list: Operation) -> anyhow::Result<Lab> {
    let lab = Lab::start().await?;
    let faults = lab.sandbox.clo.faults();
    faults.add(Fault::on(operation).after().hang());
    let first = lab.worker().await?;
    let begun = begin_the_cache(&lab).await?;
    until("the create has its effect", || async {
        Ok(lab.sandbox.clo.effects(operation) == 1)
    })
    .await?;
    first.kill();
    faults.add(Fault::on(list).hide_newest().times(3));
    let second = lab.worker().await?;
    begun.finished(LONG).await?;
    second.stop().await?;
    unused(&lab);
    assert_eq!(lab.sandbox.clo.effects(operation), 1, "{operation:?}");
    steps_are_recorded_once(&lab, &begun).await?;
    Ok(lab)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_create_nobody_lived_to_see_answered_is_found_with_its_host_key()
-> anyhow::Result<()> {
    let lab = killed_in_the_middle_of(Operation::CreateServer, Operation::ListServers).await?;
    let cluster = "test".parse()?;
    let node = lab
        .cluster(&cluster)
        .node(&NodeName::new("test-cache-1")?)
        .await?
        .unwrap();
    let shown = lab.hosts().host_key("test-cache-1").unwrap().to_openssh()?;
    assert_eq!(node.host_keys, [shown], "the key that was chosen before");
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_create_nobody_lived_to_see_answered_is_found() -> anyhow::Result<()> {
    let lab = killed_in_the_middle_of(Operation::CreateVolume, Operation::ListVolumes).await?;
    let [volume] = lab.data_volumes().try_into().expect("one volume");
    let cluster = "test".parse()?;
    let volume = lab.cluster(&cluster).volume(&volume.id).await?.unwrap();
    assert!(
        matches!(volume.origin, Origin::CreatedBlank { .. }),
        "made after the decision to make it: {volume:?}"
    );
    lab.sandbox.stop().await
}

/// The list shows it only when the decision to make one is on record. What is adopted is never
/// formatted (`flaw_06`).
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_the_list_hid_at_first_is_adopted() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.sandbox
        .clo
        .foreign(Foreign {
            volumes: vec![("test-cache-1-data".into(), 10)],
            ..Foreign::default()
        })
        .await?;
    let id = lab.sandbox.clo.snapshot().volumes[0].id.clone();
    let faults = lab.sandbox.clo.faults();
    faults.add(Fault::on(Operation::ListVolumes).hide_newest());
    let worker = lab.worker().await?;
    let begun = begin_the_cache(&lab).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    unused(&lab);
    let volume = lab.cluster(&begun.cluster).volume(&id).await?.unwrap();
    assert!(
        matches!(volume.origin, Origin::Adopted { .. }),
        "{volume:?}"
    );
    assert_eq!(lab.sandbox.clo.effects(Operation::CreateVolume), 0);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_pair_whose_create_nobody_lived_to_see_answered_is_found() -> anyhow::Result<()> {
    let lab = killed_in_the_middle_of(Operation::CreateKeypair, Operation::ListKeypairs).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_whose_create_nobody_lived_to_see_answered_is_found() -> anyhow::Result<()>
{
    let lab = Lab::start().await?;
    let faults = lab.sandbox.clo.faults();
    faults.add(Fault::on(Operation::CreateBalancer).after().hang());
    let first = lab.worker().await?;
    let begun = lab.recover(&small("test")).await?;
    until("the create has its effect", || async {
        Ok(lab.sandbox.clo.effects(Operation::CreateBalancer) == 1)
    })
    .await?;
    first.kill();
    faults.add(Fault::on(Operation::ListBalancers).hide_newest().times(3));
    let second = lab.worker().await?;
    begun.finished(LONG).await?;
    second.stop().await?;
    unused(&lab);
    lab.is_whole(3, 1, 1)?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_that_died_with_its_worker_is_replaced_and_both_are_on_record()
-> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let faults = lab.sandbox.clo.faults();
    faults.add(Fault::on(Operation::CreateServer).hang());
    let first = lab.worker().await?;
    let begun = begin_the_cache(&lab).await?;
    until("the create was sent", || async {
        Ok(lab
            .sandbox
            .clo
            .calls()
            .contains_key(&Operation::CreateServer))
    })
    .await?;
    first.kill();
    let second = lab.worker().await?;
    begun.finished(LONG).await?;
    second.stop().await?;
    let cluster = "test".parse()?;
    let node = lab
        .cluster(&cluster)
        .node(&NodeName::new("test-cache-1")?)
        .await?
        .unwrap();
    let shown = lab.hosts().host_key("test-cache-1").unwrap().to_openssh()?;
    // The first create might still have arrived: its key was ours, too.
    assert_eq!(node.host_keys.len(), 2);
    assert_eq!(node.host_keys[1], shown);
    assert_eq!(lab.created(), [1, 1, 0, 1]);
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_build_is_waited_for_over_many_turns() -> anyhow::Result<()> {
    let lab = Lab::with(Options {
        clo: CloOptions {
            boot_time: Duration::from_millis(2500),
            ..CloOptions::default()
        },
        ..Options::default()
    })
    .await?;
    let worker = lab
        .worker_with(EngineOptions {
            turn: Duration::from_millis(500),
            ..quick()
        })
        .await?;
    let begun = lab.recover(&small("test")).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    lab.is_whole(3, 1, 1)?;
    let record = begun.record("provision/test-cache-1").await?.unwrap();
    assert!(record.turn >= 3, "it had {} turns", record.turn);
    assert_eq!((record.attempts, record.crashes.in_a_row), (0, 0));
    let waited = &record.steps["active/0"];
    assert!(
        waited.ms >= 1500,
        "the time of all turns counts: {waited:?}"
    );
    steps_are_recorded_once(&lab, &begun).await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_error_is_replaced_with_its_own_boot_disk_and_nothing_else()
-> anyhow::Result<()> {
    for boot_disks_survive in [false, true] {
        let lab = Lab::with(Options {
            clo: CloOptions {
                boot_disks_survive,
                ..CloOptions::default()
            },
            ..Options::default()
        })
        .await?;
        lab.sandbox
            .clo
            .foreign(Foreign {
                boot_disks: vec![("old-boot".into(), 20), ("test-cache-1".into(), 20)],
                ..Foreign::default()
            })
            .await?;
        let before = lab.sandbox.clo.snapshot();
        lab.sandbox.clo.faults().build_error("test-cache-1", 2);
        let worker = lab.worker().await?;
        let begun = lab.recover(&small("test")).await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        assert_eq!(lab.created(), [5, 1, 1, 1]);
        assert_eq!(lab.sandbox.clo.effects(Operation::DeleteServer), 2);
        assert_eq!(lab.sandbox.clo.effects(Operation::DeleteVolume), 0);
        let after = lab.sandbox.clo.snapshot();
        for volume in &before.volumes {
            assert!(after.volumes.contains(volume), "{volume:?} has changed");
        }
        let boot = after.volumes.iter().filter(|v| v.bootable && !v.foreign);
        assert_eq!(boot.count(), 3, "no boot disk of a failed server is left");
        let data = lab.data_volumes();
        assert_eq!(lab.hosts().disk(&data[0].id).unwrap().formatted, 1);
        lab.sandbox.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_21_lists_that_fail_break_off_or_lag_make_no_duplicates() -> anyhow::Result<()> {
    for spoil in [
        Fault::malformed as fn(Fault) -> Fault,
        Fault::empty_page,
        |fault| fault.answer(500),
        // An error page of a proxy.
        |fault| fault.answer(404),
    ] {
        let lab = Lab::start().await?;
        for operation in [
            Operation::ListServers,
            Operation::ListVolumes,
            Operation::ListBalancers,
            Operation::ListKeypairs,
            Operation::ListAddresses,
            Operation::ListImages,
            Operation::ListBalancerRules,
        ] {
            // More often than one call is repeated, then now and then.
            let faults = lab.sandbox.clo.faults();
            faults.add(spoil(Fault::on(operation)).times(4));
            faults.add(spoil(Fault::on(operation)).every(9));
        }
        let worker = lab.worker().await?;
        let begun = lab.recover(&small("test")).await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        lab.sandbox.clo.faults().clear();
        lab.is_whole(3, 1, 1)?;
        lab.sandbox.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_entry_of_every_second_list_is_missing() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    for operation in [
        Operation::ListServers,
        Operation::ListVolumes,
        Operation::ListBalancers,
        Operation::ListKeypairs,
        Operation::ListAddresses,
        Operation::ListBalancerRules,
    ] {
        let fault = Fault::on(operation).hide_newest().every(2);
        lab.sandbox.clo.faults().add(fault);
    }
    let worker = lab.worker().await?;
    let begun = lab.recover(&small("test")).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    lab.is_whole(3, 1, 1)?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_waited_out() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    let faults = lab.sandbox.clo.faults();
    faults.add(Fault::anywhere().too_many(1).skip(10).times(3));
    faults.add(Fault::on(Operation::CreateServer).too_many(1));
    let worker = lab.worker().await?;
    let begun = lab.recover(&small("test")).await?;
    begun.finished(LONG).await?;
    worker.stop().await?;
    unused(&lab);
    lab.is_whole(3, 1, 1)?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_retry_after_gives_the_turn_back_and_is_kept() -> anyhow::Result<()> {
    let lab = Lab::start().await?;
    lab.sandbox
        .clo
        .faults()
        .add(Fault::on(Operation::ListImages).too_many(90));
    let worker = lab.worker().await?;
    let begun = begin_the_cache(&lab).await?;
    let record = begun
        .reaches("provision/test-cache-1", &[Status::Retrying], LONG)
        .await?;
    assert!(record.delay_ms >= 90_000, "{}", record.delay_ms);
    assert_eq!((record.attempts, record.owner), (1, None));
    lab.idle_but(1).await?;
    worker.stop().await?;
    lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_04_an_attach_that_fails_is_repeated_until_the_disk_is_in() -> anyhow::Result<()> {
    for spoil in [
        (|fault: Fault| fault.answer(409)) as fn(Fault) -> Fault,
        |fault| fault.after().cut(),
        Fault::hang,
    ] {
        let lab = Lab::start().await?;
        let fault = spoil(Fault::on(Operation::AttachVolume)).times(2);
        lab.sandbox.clo.faults().add(fault);
        let worker = lab.worker().await?;
        let begun = lab.recover(&small("test")).await?;
        begun.finished(LONG).await?;
        worker.stop().await?;
        unused(&lab);
        lab.is_whole(3, 1, 1)?;
        lab.sandbox.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn flaw_05_disks_are_known_by_identity_when_their_letters_move() -> anyhow::Result<()> {
    let one = "      - { name: data, size_gb: 10, mount: /mnt/disks/data,";
    let spec = small("test").replace(
        one,
        &format!("      - {{ name: more, size_gb: 10, mount: /mnt/disks/more }}\n{one}"),
    );
    let lab = Lab::start().await?;
    let worker = lab.worker().await?;
    lab.recover(&spec).await?.finished(LONG).await?;
    let devices = |lab: &Lab| -> BTreeMap<String, String> {
        let volumes = lab.data_volumes().into_iter();
        volumes.map(|v| (v.name, v.device.unwrap())).collect()
    };
    let first = devices(&lab);
    for place in ["data", "more"] {
        let path = format!("/mnt/disks/{place}/name");
        lab.hosts()
            .put_file("test-cache-1", &path, place.as_bytes())?;
    }
    lab.sandbox.clo.destroy_all_servers().await;
    // The letters change places: attached in the order of the names.
    let faults = lab.sandbox.clo.faults();
    for name in ["test-cache-1-more", "test-cache-1-data"] {
        faults.next_device("test-cache-1", &first[name]);
    }
    lab.recover(&spec).await?.finished(LONG).await?;
    worker.stop().await?;
    unused(&lab);
    let second = devices(&lab);
    assert_ne!(first, second, "the letters have moved");
    for place in ["data", "more"] {
        let path = format!("/mnt/disks/{place}/name");
        let there = lab.hosts().file("test-cache-1", &path);
        assert_eq!(there.as_deref(), Some(place.as_bytes()));
    }
    for volume in lab.data_volumes() {
        assert_eq!(lab.hosts().disk(&volume.id).unwrap().formatted, 1);
    }
    lab.sandbox.stop().await
}
