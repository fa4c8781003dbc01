//! The administrator's kubeconfig: kept sealed, taken where no master gives its own away, or given.

use anyhow::{Context, ensure};
use jiff::Timestamp;
use jobs::keys;
use jobs::message::{Job, PutSecret};
use jobs::record::{JobRecord, KubeconfigRecord, Status};
use jobs::secrets::Identity;
use sandbox::hosts::simulated::CommandFault;
use sandbox::kube_api::Validity;
use sandbox::kube_sim::KubeSim;
use serde_json::json;
use worker::kube::kubeconfig::ADMIN_CONF;
use worker::kube::{Kubeconfig, kept};
use worker::net::Dialer;

use super::output;
use crate::world::Scene;

const MASTER: &str = "test-master-1";

/// Something small that needs the API: writes a key.
fn small_job() -> Job {
    Job::Secret(PutSecret {
        secret: "pg/keys".parse().unwrap(),
        keys: [("a".to_owned(), "BACKUP_KEY".to_owned())].into(),
    })
}

/// The record, and how many versions it has.
async fn known(scene: &Scene) -> anyhow::Result<Option<(u64, KubeconfigRecord)>> {
    let series = keys::kubeconfig(&"test".parse()?);
    let stored = scene.lab.store.read::<KubeconfigRecord>(&series).await?;
    Ok(stored.map(|stored| (stored.version, stored.body)))
}

/// No master lets anybody read it from here on.
fn unreadable(scene: &Scene) {
    let denied = "head: cannot open '/etc/kubernetes/admin.conf' for reading: Permission denied";
    let fault = CommandFault::on("head")
        .argument(ADMIN_CONF)
        .exits(1, denied);
    scene.lab.hosts().faults().add(fault.times(u64::MAX));
}

fn why(record: &JobRecord) -> String {
    record
        .failure
        .as_ref()
        .map_or_else(String::new, ToString::to_string)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_kept_sealed_and_refreshed_when_it_is_another_one() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    let record = scene.done(Job::FluxBootstrap).await?;
    let world = scene.world()?;
    let identity = world.identity.clone().context("a key")?;
    let (version, first) = known(&scene).await?.context("it is kept")?;
    let step = output(&record, "kubeconfig");
    assert_eq!(version, 1);
    assert_eq!(step["input"], json!(first.input));
    assert_eq!(first.recipient, identity.recipient().to_string());

    // The secrets of the recovery are gone with it; this one is not.
    let cluster = "test".parse()?;
    let store = &scene.lab.store;
    let opened = kept::open(store, &cluster, Some(&identity)).await?;
    let conf = scene.sim.admin_conf();
    assert_eq!(opened.config.text().reveal(), conf);
    let key = conf
        .lines()
        .find_map(|line| line.trim().strip_prefix("client-key-data: "));
    let key = key.context("a key")?;
    for (name, body) in scene.lab.sandbox.s3.objects("") {
        let text = String::from_utf8_lossy(&body);
        ensure!(!text.contains(&key[..40]), "{name} holds the key");
    }
    let other = kept::open(store, &cluster, Some(&Identity::generate())).await;
    let refused = other.err().context("it opens with any key")?.to_string();
    ensure!(refused.contains("another key"), "{refused}");

    // The same once more: nothing is written.
    scene.done(Job::FluxBootstrap).await?;
    assert_eq!(known(&scene).await?, Some((1, first.clone())));
    // The certificate was renewed: another one is kept, and the former one is no more.
    let renewed =
        scene
            .sim
            .kubeconfig("kubernetes-admin", Some("system:masters"), Validity::Good)?;
    scene
        .lab
        .hosts()
        .put_file(MASTER, ADMIN_CONF, renewed.as_bytes())?;
    scene.done(Job::FluxBootstrap).await?;
    let (version, second) = known(&scene).await?.context("it is kept")?;
    assert_eq!(version, 2);
    assert_eq!(second.authorities, first.authorities);
    assert_eq!(store.get(&keys::input(&first.input)).await?, None);
    let opened = kept::open(store, &cluster, Some(&identity)).await?;
    assert_eq!(opened.config.text().reveal(), renewed);

    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_master_gives_it_the_one_that_is_kept_is_good_enough() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    unreadable(&scene);
    // None is kept yet: what was tried is told.
    let record = scene.ends(small_job(), scene.world()?).await?;
    assert_eq!(record.status, Status::Failed);
    let said = why(&record);
    for part in [
        "none was given to this worker (--kubeconfig)",
        "test-master-1: ",
        "Permission denied",
        "the one that is kept: there is none on record yet",
    ] {
        ensure!(said.contains(part), "`{part}` is not in: {said}");
    }

    scene.lab.hosts().faults().clear();
    scene.done(Job::FluxBootstrap).await?;
    unreadable(&scene);
    scene.done(small_job()).await?;
    assert!(scene.sim.get("Secret", "pg", "keys").is_some());
    // Also the step that would keep it goes on with it.
    let record = scene.done(Job::FluxBootstrap).await?;
    let step = output(&record, "kubeconfig");
    assert_eq!(step["kept"], "no");
    ensure!(
        step["because"].to_string().contains("Permission denied"),
        "{step}"
    );
    assert_eq!(known(&scene).await?.map(|(version, _)| version), Some(1));

    // A damaged one is not taken for none, and says so.
    let (_, kept) = known(&scene).await?.context("it is kept")?;
    let key = keys::input(&kept.input);
    scene.lab.sandbox.s3.put_object(&key, "damaged");
    let record = scene.ends(small_job(), scene.world()?).await?;
    assert_eq!(record.status, Status::Failed);
    let said = why(&record);
    ensure!(
        said.contains("Permission denied") && said.contains(&key),
        "{said}"
    );
    scene.lab.sandbox.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_one_leads_straight_to_its_server_and_only_to_its_own_cluster() -> anyhow::Result<()>
{
    let scene = Scene::new().await?;
    let given = |sim: &KubeSim| anyhow::Ok(Kubeconfig::parse(&sim.direct_conf()?, "a test")?);
    // Without a way to any host; the API is where this test is.
    let mut world = scene.world()?;
    world.ssh_key = None;
    world.dialer = Dialer::direct();
    let right = given(&scene.sim)?;
    let record = KubeconfigRecord {
        input: "00".repeat(32),
        recipient: "somebody".into(),
        authorities: right.authorities().clone(),
        at: Timestamp::now(),
        recovery: "r1".parse()?,
    };
    world.kubeconfigs = [("test".parse()?, right.clone())].into();
    let done = scene.ends(Job::FluxBootstrap, world.clone()).await?;
    assert_eq!(done.status, Status::Succeeded, "{}", why(&done));
    // It is this worker's, and not kept.
    assert_eq!(output(&done, "kubeconfig")["kept"], "no");
    assert_eq!(known(&scene).await?, None);
    let series = keys::kubeconfig(&"test".parse()?);
    scene.lab.store.append(&series, 1, &record).await?;
    let done = scene.ends(small_job(), world.clone()).await?;
    assert_eq!(done.status, Status::Succeeded, "{}", why(&done));
    assert!(scene.sim.get("Secret", "pg", "keys").is_some());

    // One that was given for another cluster is not taken for this one.
    world.kubeconfigs = [("other".parse()?, right)].into();
    let failed = scene.ends(small_job(), world.clone()).await?;
    let said = why(&failed);
    ensure!(said.contains("this worker has no SSH key"), "{said}");

    // Another cluster's, under our name: nothing is asked of it.
    let other = KubeSim::start().await?;
    let asked = other.log().len();
    world.kubeconfigs = [("test".parse()?, given(&other)?)].into();
    let refused = scene.ends(small_job(), world).await?;
    assert_eq!(refused.status, Status::NeedsApproval);
    let said = why(&refused);
    ensure!(said.contains("is another cluster's"), "{said}");
    assert_eq!(other.log().len(), asked);
    scene.lab.sandbox.stop().await
}
