//! A recovery is begun.

use jiff::Timestamp;
use jobs::ids::RecoveryId;
use jobs::keys;
use jobs::record::{ActiveRecord, RecoveryRecord};

use super::by_hand::idle;
use super::{NO_BROKER, RECOVER, active, cluster};
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_nothing_is_left_behind_that_is_in_the_way() {
    let world = World::new().await;
    let run = world.run_with(RECOVER, &[NO_BROKER]).await.exits(1);
    run.complains("the queue is not reachable")
        .complains("hint: `rekindle doctor`");
    assert_eq!(world.count("clusters/"), 0, "nothing was written");
    world
        .run(&format!("{RECOVER} --here"))
        .await
        .exits(0)
        .says("succeeded");
    let store = world.store().await;
    assert_eq!(
        store.active(&cluster()).await.unwrap(),
        None,
        "the cluster is free again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_completes_what_a_crash_of_the_command_left() {
    let world = World::new().await;
    let demo = "demo --cluster test --steps 3 --step-ms 0 --here --key";
    world.run(&format!("{demo} whole")).await.exits(0);
    let store = world.store().await;
    let whole = RecoveryId::from_key(&cluster(), "whole");
    let whole = store
        .recovery_record(&cluster(), &whole)
        .await
        .unwrap()
        .unwrap();
    // The command died after the recovery's record, or after taking the cluster.
    for (key, active) in [("record", false), ("active", true)] {
        let id = RecoveryId::from_key(&cluster(), key);
        let record = RecoveryRecord {
            id: id.clone(),
            key: Some(key.into()),
            finished: None,
            ..whole.clone()
        };
        store
            .append(&keys::recovery(&cluster(), &id), 1, &record)
            .await
            .unwrap();
        if active {
            let series = keys::active(&cluster());
            let next = store.last_version(&series).await.unwrap().unwrap() + 1;
            let held = ActiveRecord {
                recovery: Some(id.clone()),
                since: Timestamp::now(),
            };
            store.append(&series, next, &held).await.unwrap();
        }
        let run = world.run(&format!("{demo} {key}")).await.exits(0);
        run.says(&format!("attached to recovery {id}"))
            .says("1 posted")
            .says("succeeded");
        assert_eq!(store.active(&cluster()).await.unwrap(), None, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_recovery() {
    let world = World::new().await;
    let keyed = format!("{RECOVER} --key ci-1");
    world
        .run(&format!("{keyed} --here"))
        .await
        .exits(0)
        .says("started recovery");
    let before = world.count("clusters/");
    // Ended: no broker is needed to learn the outcome.
    let run = world.run_with(&keyed, &[NO_BROKER]).await.exits(0);
    run.says("has ended before: succeeded");
    assert_eq!(world.count("clusters/"), before, "nothing was written");

    let other = world
        .run("demo --cluster test --steps 3 --key ci-1 --here")
        .await
        .exits(2);
    other
        .complains("key `ci-1` belongs to recovery")
        .complains("it is for `recover`, not for `demo`")
        .complains("its plan is another one");
    world.file(
        "cluster.yaml",
        &format!("# changed\n{}", crate::world::SPEC),
    );
    world
        .run(&keyed)
        .await
        .exits(2)
        .complains("its spec is another one");
    // Another key, or none, is another recovery.
    world
        .run(&format!("{RECOVER} --key ci-2 --here"))
        .await
        .exits(0)
        .says("started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_cluster_names_its_holder_and_the_next_commands() {
    let world = World::new().await;
    let (store, id) = idle(&world).await;
    let before = world.count("");
    let run = world.run(&format!("{RECOVER} --here")).await.exits(1);
    let run = run
        .complains(&format!("is held by recovery {id}"))
        .complains("bob@ci")
        .complains("0 of 5 jobs done");
    run.complains("rekindle watch")
        .complains("rekindle retry")
        .complains("rekindle cancel");
    assert_eq!(world.count(""), before, "nothing was written");
    assert_eq!(active(&store).await, id);
    let json = world
        .run(&format!("{RECOVER} --here --output json"))
        .await
        .exits(1)
        .json();
    assert_eq!(json["exit_code"], 1);
    assert!(
        json["error"].as_str().unwrap().contains(id.as_str()),
        "{json}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_has_ended_is_not_in_the_way() {
    let world = World::new().await;
    world
        .run(&format!("{RECOVER} --key a --here"))
        .await
        .exits(0);
    let store = world.store().await;
    // As if the worker had died between the recovery's end and letting the cluster go.
    let series = keys::active(&cluster());
    let next = store.last_version(&series).await.unwrap().unwrap() + 1;
    let held = ActiveRecord {
        recovery: Some(RecoveryId::from_key(&cluster(), "a")),
        since: Timestamp::now(),
    };
    store.append(&series, next, &held).await.unwrap();
    world
        .run(&format!("{RECOVER} --key b --here"))
        .await
        .exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_jobs_make_a_plan_of_the_chosen_nodes_only() {
    let world = World::new().await;
    let provision = "provision --cluster test --spec cluster.yaml --here";
    world.run(provision).await.exits(2).complains("--node");
    let run = world
        .run(&format!("{provision} --node test-web-9"))
        .await
        .exits(2);
    run.complains("no switched-on node `test-web-9`")
        .complains("test-web-1, test-web-2");
    world
        .run(&format!("{provision} --group db"))
        .await
        .exits(2)
        .complains("there are web");
    let mount = provision.replace("provision", "mount");
    world
        .run(&format!("{mount} --all"))
        .await
        .exits(2)
        .complains("nothing to do");
    // There is no cloud: it fails, and what was recorded shows what was asked for.
    world
        .run(&format!("{provision} --node test-web-2"))
        .await
        .exits(1);
    let json = world
        .run("status --cluster test --output json")
        .await
        .exits(0)
        .json();
    assert_eq!(json["recovery"]["purpose"], "provision");
    let jobs: Vec<_> = json["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["job"])
        .collect();
    assert_eq!(jobs, ["provision/test-web-2"]);
    // The spec that was applied serves the next single job.
    world.run("cancel --cluster test --reason x").await.exits(0);
    world
        .run("demo --cluster test --all --steps 1 --here")
        .await
        .exits(0)
        .says("2 jobs");
}
