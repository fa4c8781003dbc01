//! Hosts: mounts, boots and permissions.

use e2e::lab::{LONG, Lab, small, until};
use e2e::recovery::begin;
use jobs::ids::NodeName;
use jobs::message::{Job, OnNode};
use jobs::plan::PlannedJob;
use jobs::record::Status;
use sandbox::hosts::Hosts;

use super::{recovered, without_mounts};

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
