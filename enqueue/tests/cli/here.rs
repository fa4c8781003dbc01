//! Whole recoveries by `--here`.

use std::time::{Duration, Instant};

use jobs::ids::{JobName, RecoveryId};
use jobs::keys;
use jobs::record::Status;
use sandbox::clo::{Fault, Operation};
use sandbox::world::{Options, Sandbox};
use tempfile::TempDir;

use super::{active, cluster};
use crate::world::World;

/// A world with a cloud, and files that describe a cluster of one node in it.
pub(super) async fn cloud() -> (Sandbox, TempDir) {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let spec = crate::world::SPEC
        .replace("role: worker", "role: bastion")
        .replace("2: true", "2: false");
    std::fs::write(
        files.path().join("cluster.yaml"),
        spec + crate::world::LOAD_BALANCER,
    )
    .unwrap();
    (sandbox, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_recovered_by_the_command_alone() {
    let (sandbox, files) = cloud().await;
    let environment = sandbox.environment();
    let run = |args: &'static str| crate::world::run(args, files.path(), &environment);

    run("doctor")
        .await
        .says("ok     cloud")
        .says("ok     hosts");
    let before = run("plan --spec cluster.yaml --cloud").await.exits(0);
    before
        .says("  + server test-web-1")
        .says("  + load balancer test-main-lb");
    let ran = run("recover --cluster test --spec cluster.yaml --here")
        .await
        .exits(0);
    ran.says("4 jobs").says("succeeded; 4 of 4 jobs done");
    let after = run("plan --spec cluster.yaml --cloud --output json")
        .await
        .exits(0)
        .json();
    let acts: Vec<_> = after["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| &change["act"])
        .collect();
    assert_eq!(acts, ["keep", "keep"], "{after}");
    run("status --cluster test")
        .await
        .exits(0)
        .says("reachability/test-web-1  succeeded");
    sandbox.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_retry_the_report_is_written_again() {
    let (sandbox, files) = cloud().await;
    let refused = Fault::on(Operation::CreateServer).answer(403).times(1);
    sandbox.clo.faults().add(refused);
    let environment = sandbox.environment();
    let run = |args: &'static str| crate::world::run(args, files.path(), &environment);

    let ran = run("recover --cluster test --spec cluster.yaml --here")
        .await
        .exits(1);
    ran.says("provision/test-web-1 failed")
        .says("1 of 4 jobs done, 1 failed, 2 blocked");
    let report = || {
        let objects = sandbox.s3.objects("clusters/test/recoveries/");
        let mut reports = objects
            .into_iter()
            .filter(|(key, _)| key.ends_with("report.json"));
        let (_, bytes) = reports.next().expect("a report");
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
    };
    assert_eq!(report()["verdict"], "failed");
    let ran = run("retry --cluster test --reason quota-raised --here")
        .await
        .exits(0);
    ran.says("put back provision/test-web-1, report; 1 due jobs posted")
        .says("4 of 4 jobs done");
    assert_eq!(report()["verdict"], "passed");
    let store = sandbox.store().await.unwrap();
    assert_eq!(
        store.active(&cluster()).await.unwrap(),
        None,
        "the cluster is free"
    );
    sandbox.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_alone_tells_of_the_last_recovery_that_did_something() {
    let world = World::new().await;
    let alone = "report --cluster test --spec cluster.yaml --here --output json";
    let ran = world.run(alone).await.exits(1);
    assert!(ran.stdout.contains("nothing to report on"), "{ran:#?}");
    let cancelled = "cancel --cluster test --reason nothing-there";
    world.run(cancelled).await.exits(0);

    let demo = "demo --cluster test --steps 2 --step-ms 0 --here --output json";
    let of = |ran: &crate::world::Run| {
        let id = ran.lines()[0]["recovery"].as_str().unwrap().to_owned();
        RecoveryId::new(id).unwrap()
    };
    let demo = of(&world.run(demo).await.exits(0));
    let store = world.store().await;
    let record = store.recovery_record(&cluster(), &demo).await.unwrap();
    let record = record.expect("it is there");
    // Twice: the second one does not tell of the first.
    for _ in 0..2 {
        let own = of(&world.run(alone).await.exits(0));
        let key = keys::report(&cluster(), &own);
        let report = store.get(&key).await.unwrap().expect("a report");
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["recovery"], demo.as_str(), "{report:#}");
        assert_eq!(report["written_by"], own.as_str());
        assert_eq!(report["jobs"][0]["job"], "demo");
        assert_eq!(report["verdict"], "passed");
        let ended = record.finished.as_ref().unwrap().at;
        let took = ended.duration_since(record.created).as_secs();
        assert_eq!(report["rto_seconds"], took);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_carried_on_and_the_third_one_quarantines() {
    let world = World::new().await;
    let crash = world
        .run("demo --cluster test --steps 3 --step-ms 0 --abort-at 1 --here")
        .await;
    assert_eq!(crash.code, -1, "the process aborted: {crash:#?}");
    world
        .run("status --cluster test")
        .await
        .exits(0)
        .says("running");
    for _ in 0..2 {
        let crash = world
            .run("retry --cluster test --reason crash --here")
            .await;
        assert_eq!(crash.code, -1, "{crash:#?}");
    }
    let run = world
        .run("retry --cluster test --reason crash --here")
        .await
        .exits(1);
    run.says("demo quarantined")
        .says("crashed 3 times in a row");
    // Nothing runs, whatever the record of a dead process said: the cluster can be freed.
    world
        .run("cancel --cluster test --reason hopeless")
        .await
        .exits(0)
        .says("has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_gives_the_lease_back() {
    let world = World::new().await;
    let mut child = world.spawn("demo --cluster test --steps 60 --step-ms 50 --here");
    let began = || {
        world
            .s3
            .objects("clusters/test/")
            .iter()
            .any(|(key, _)| key.contains("/jobs/demo/"))
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !began() {
        assert!(Instant::now() < deadline, "the job did not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    let status = tokio::time::timeout(Duration::from_secs(60), child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let store = world.store().await;
    let series = keys::job(
        &cluster(),
        &active(&store).await,
        &JobName::new("demo").unwrap(),
    );
    let record = store.read_job(&series).await.unwrap().unwrap().record;
    assert_eq!((record.status, record.owner), (Status::Waiting, None));
    world
        .run("retry --cluster test --reason go-on --here")
        .await
        .exits(0)
        .says("succeeded");
    let record = store.read_job(&series).await.unwrap().unwrap().record;
    assert_eq!((record.epoch, record.crashes.in_a_row), (2, 0));
}
