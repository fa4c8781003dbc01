//! An operator retries, pauses and cancels.

use jobs::ids::JobName;
use jobs::keys;
use jobs::record::Event;

use super::by_hand::{idle, leave};
use super::{RECOVER, active, cluster};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_put_back_from_a_step_on() {
    let world = World::new().await;
    let run = world
        .run("demo --cluster test --steps 4 --step-ms 0 --fail-at 2 --here")
        .await
        .exits(1);
    run.says("demo failed").says("step 2 fails");
    world
        .run("watch --cluster test")
        .await
        .exits(1)
        .says("failed");
    world
        .run("retry --cluster test --here")
        .await
        .exits(2)
        .complains("--reason");
    let run = world
        .run("retry --cluster test --job demo --from step/9 --reason x --here")
        .await
        .exits(2);
    run.complains("no recorded step `step/9`")
        .complains("step/0, step/1");
    world
        .run("retry --cluster test --job nope --reason x --here")
        .await
        .exits(1)
        .complains("has no job `nope`");
    // It fails again, at the same place; from step/1 on it ran anew.
    world
        .run("retry --cluster test --job demo --from step/1 --reason again --here")
        .await
        .exits(1);
    let store = world.store().await;
    let id = active(&store).await;
    let series = keys::job(&cluster(), &id, &JobName::new("demo").unwrap());
    let record = store.read_job(&series).await.unwrap().unwrap().record;
    assert_eq!((record.generation, record.epoch), (1, 2));
    assert_eq!(record.retries[0].reason, "again");
    assert!(
        record.retries[0].by.starts_with("alice@"),
        "{:?}",
        record.retries
    );
    let epochs: Vec<u64> = record.steps.values().map(|step| step.epoch).collect();
    assert_eq!(epochs, [1, 2], "step/0 was kept, step/1 ran again");
    world
        .run("status --cluster test --job demo")
        .await
        .exits(0)
        .says("put back from `step/1` by alice@");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_not_put_back() {
    let world = World::new().await;
    let (store, id) = idle(&world).await;
    let name = leave(&store, &id, "test-web-1", None).await;
    let run = world
        .run(&format!(
            "retry --cluster test --job {name} --reason x --here"
        ))
        .await
        .exits(1);
    run.complains("is running on worker-7 (pid 7)");
    let pending = "retry --cluster test --job report --reason x --here";
    world.run(pending).await.exits(1).complains("has not begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_holds_and_resume_lets_go() {
    let world = World::new().await;
    let (store, id) = idle(&world).await;
    world
        .run("pause --cluster test --reason lunch")
        .await
        .exits(0)
        .says("paused");
    let record = store
        .recovery_record(&cluster(), &id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.flags.paused.as_deref(), Some("lunch"));
    world
        .run("status --cluster test")
        .await
        .exits(0)
        .says("paused: lunch");
    let run = world
        .run("watch --cluster test --timeout 1s")
        .await
        .exits(3);
    run.says("is not settled yet");
    let run = world.run("resume --cluster test").await.exits(2);
    run.complains("AMQP_URL");
    // Real jobs need a cloud, which this world has not: they fail, and that is an outcome.
    let run = world.run("resume --cluster test --here").await.exits(1);
    run.says("goes on; 2 due jobs posted");
    let record = store
        .recovery_record(&cluster(), &id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.flags.paused, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_a_recovery_that_nobody_works_on() {
    let world = World::new().await;
    let (store, id) = idle(&world).await;
    leave(&store, &id, "test-web-1", Some(Event::Yield)).await;
    world
        .run("cancel --cluster test --reason wrong-spec")
        .await
        .exits(0)
        .says("has ended");
    assert_eq!(store.active(&cluster()).await.unwrap(), None);
    world
        .run("watch --cluster test")
        .await
        .exits(1)
        .says("cancelled");
    world
        .run("cancel --cluster test --reason again")
        .await
        .exits(1)
        .complains("has ended: cancelled");
    world
        .run("retry --cluster test --reason x --here")
        .await
        .exits(1)
        .complains("has ended");
    let json = world
        .run("status --cluster test --output json")
        .await
        .exits(0)
        .json();
    let statuses: Vec<_> = json["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["status"])
        .collect();
    assert!(
        statuses.iter().all(|status| *status == "cancelled"),
        "{statuses:?}"
    );
    world.run(&format!("{RECOVER} --here")).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_leaves_a_running_job_to_its_worker() {
    let world = World::new().await;
    let (store, id) = idle(&world).await;
    let name = leave(&store, &id, "test-web-1", None).await;
    let run = world.run("cancel --cluster test --reason x").await.exits(0);
    run.says(&format!("{name} still run"));
    assert_eq!(active(&store).await, id);
    let record = store
        .recovery_record(&cluster(), &id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (record.flags.cancelled.as_deref(), record.finished),
        (Some("x"), None)
    );
    world
        .run("retry --cluster test --reason x --here")
        .await
        .exits(1)
        .complains("is cancelled");
}
