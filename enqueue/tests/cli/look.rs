//! What stands where: status, watch, doctor.

use jobs::record::Event;

use super::NO_BROKER;
use super::by_hand::{idle, leave};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn status_needs_neither_worker_nor_broker_and_says_why_each_job_waits() {
    let world = World::new().await;
    let (store, id) = idle(&world).await;
    leave(&store, &id, "test-web-1", Some(Event::Fail)).await;
    leave(&store, &id, "test-web-2", None).await;
    let run = world.run("status --cluster test").await.exits(0);
    let line = |job: &str| {
        let lines = run.stdout.lines();
        let mut found = lines.filter(|line| line.starts_with(job));
        found
            .next()
            .unwrap_or_else(|| panic!("{job} in {run:#?}"))
            .to_owned()
    };
    let check = |job: &str, want: &str| {
        let line = line(job);
        assert!(line.contains(want), "{line}");
    };
    check(
        "provision/test-web-1",
        "quota exceeded; mend the cause, then `rekindle retry`",
    );
    check("provision/test-web-2", "runs on worker-7 (pid 7), epoch 1");
    check(
        "reachability/test-web-1",
        "blocked  0      -         -     provision/test-web-1 did not succeed",
    );
    check("reachability/test-web-2", "waits for provision/test-web-2");
    check(
        "report",
        "waits for provision/test-web-2 and reachability/test-web-2",
    );

    let json = world
        .run("status --cluster test --output json")
        .await
        .exits(0)
        .json();
    assert_eq!(json["state"], "running");
    assert_eq!(json["progress"]["stuck"], 1);
    let run = world
        .run("status --cluster test --job provision/test-web-1")
        .await
        .exits(0);
    run.says("failed at `create` on worker-7")
        .says("  create the server\n    quota exceeded");
    world
        .run("status --cluster test --job mount/x")
        .await
        .exits(1)
        .complains("has no job `mount/x`");
    let run = world.run("list").await.exits(0);
    run.says(id.as_str()).says("active");
    world.run("list --output json").await.exits(0).json();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_cluster_or_recovery_is_said_to_be_unknown() {
    let world = World::new().await;
    for command in [
        "status",
        "watch",
        "cancel --reason x",
        "pause --reason x",
        "resume",
        "retry --reason x",
    ] {
        let run = world
            .run(&format!("{command} --cluster nope"))
            .await
            .exits(1);
        run.complains("knows no recovery of cluster `nope`")
            .complains("rekindle list");
    }
    world
        .run("status --cluster nope --recovery r-1")
        .await
        .exits(1)
        .complains("has no recovery `r-1`");
    world.run("list").await.exits(0).says("no recovery yet");
    world
        .run("provision --cluster nope --all --here")
        .await
        .exits(1)
        .complains("--spec");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_document_and_watch_prints_json_lines() {
    let world = World::new().await;
    let lines = world
        .run("demo --cluster test --steps 2 --step-ms 0 --here --output json")
        .await
        .exits(0)
        .lines();
    assert_eq!(lines[0]["purpose"], "demo");
    assert_eq!(lines.last().unwrap()["state"], "succeeded");
    for (command, key) in [
        ("status --cluster test", "jobs"),
        ("status --cluster test --job demo", "record"),
        ("list", "clusters"),
        ("plan --spec cluster.yaml", "jobs"),
        ("validate --spec cluster.yaml", "valid"),
        ("doctor", "checks"),
        ("schema", "properties"),
    ] {
        let run = world.run(&format!("{command} --output json")).await;
        assert!(!run.json()[key].is_null(), "{command}: {run:#?}");
    }
    let last = world
        .run("watch --cluster test --output json")
        .await
        .exits(0)
        .lines()
        .pop()
        .unwrap();
    assert_eq!(last["exit_code"], 0);
    let error = world
        .run("status --cluster nope --output json")
        .await
        .exits(1)
        .json();
    assert!(
        error["hint"].as_str().unwrap().contains("rekindle"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_queue_that_is_set_is_purged_and_only_by_its_name() {
    let world = World::new().await;
    let run = world.run_with("purge rekindle.job", &[NO_BROKER]).await;
    run.exits(2)
        .complains("`rekindle.job` is not the queue that is set")
        .complains("`rekindle.jobs`, and its dead queue is `rekindle.jobs.dead`");
    world.run_with("purge", &[NO_BROKER]).await.exits(2);
    let run = world.run_with("purge rekindle.jobs.dead", &[NO_BROKER]);
    run.await.exits(1).complains("the queue is not reachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    let world = World::new().await;
    let run = world.run_with("doctor", &[NO_BROKER]).await.exits(1);
    let run = run
        .says("ok     store")
        .says("WRONG  queue")
        .says("check AMQP_URL")
        .says("-      cloud");
    assert_eq!(run.stderr, "");
    assert_eq!(world.count(".probe/"), 0, "the probe cleans up");
    let no_sqs = [
        ("SQS_QUEUE", "rekindle-jobs"),
        ("SQS_ENDPOINT", "http://127.0.0.1:1"),
        ("SQS_ACCESS_KEY", "id"),
        ("SQS_SECRET_KEY", "hunter2"),
    ];
    let run = world.run_with("doctor", &no_sqs).await.exits(1);
    let run = run.says("WRONG  queue").says("check SQS_QUEUE");
    assert!(!run.stdout.contains("hunter2"), "{run:?}");
    let run = world
        .run_with("doctor", &[("S3_SECRET_KEY", "wrong")])
        .await
        .exits(1);
    run.says("WRONG  store").says("S3_SECRET_KEY");
}
