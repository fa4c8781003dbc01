//! The binary from outside: exit codes, what it says, and what it leaves in the bucket. No test has
//! a broker; what runs, runs by `--here`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use jiff::Timestamp;
use jobs::ids::{ClusterName, JobName, RecoveryId};
use jobs::keys;
use jobs::message::{Job, OnNode};
use jobs::record::{
    ActiveRecord, Event, Failure, JobRecord, JobVersion, LeftBehind, Owner, RecoveryRecord, Status,
};
use jobs::store::Store;
use sandbox::clo::{Fault, Operation};
use sandbox::world::{Options, Sandbox};
use tempfile::TempDir;
use uuid::Uuid;

mod world;
use world::World;

/// A broker that nobody listens at: port 1 is reserved.
const NO_BROKER: (&str, &str) = ("AMQP_URL", "amqp://guest:hunter2@127.0.0.1:1/%2f");

const RECOVER: &str = "recover --cluster test --spec cluster.yaml --plan plan.yaml";

fn cluster() -> ClusterName {
    ClusterName::new("test").unwrap()
}

async fn active(store: &Store) -> RecoveryId {
    store.active(&cluster()).await.unwrap().expect("held")
}

/// Makes a recovery that no worker has seen: as `recover` does, without a broker to post to.
///
/// `--here` with a pause of an hour in each step, given up at once, would need a clock; so the
/// records are written by hand, the way the command writes them.
async fn idle(world: &World) -> (Store, RecoveryId) {
    let store = world.store().await;
    let id = RecoveryId::random();
    let plan = world
        .run("plan --spec cluster.yaml --output json")
        .await
        .exits(0)
        .json();
    let plan = serde_json::to_vec(&plan["jobs"]).unwrap();
    let record = RecoveryRecord {
        id: id.clone(),
        cluster: cluster(),
        purpose: "recover".into(),
        key: None,
        inputs: jobs::record::Inputs {
            spec: store.put_input(world::SPEC.into()).await.unwrap(),
            plan: store.put_input(plan.into()).await.unwrap(),
        },
        requester: jobs::record::Requester {
            user: "bob".into(),
            host: "ci".into(),
            ci_run: None,
        },
        created: Timestamp::now(),
        flags: Default::default(),
        finished: None,
    };
    store
        .append(&keys::recovery(&cluster(), &id), 1, &record)
        .await
        .unwrap();
    let held = ActiveRecord {
        recovery: Some(id.clone()),
        since: Timestamp::now(),
    };
    store
        .append(&keys::active(&cluster()), 1, &held)
        .await
        .unwrap();
    (store, id)
}

/// Gives a job of the idle recovery a record that a worker left.
async fn leave(store: &Store, id: &RecoveryId, node: &str, event: Option<Event>) -> JobName {
    let payload = Job::Provision(OnNode {
        node: node.parse().unwrap(),
    });
    let name = payload.name();
    let mut record = JobRecord::new(name.clone(), payload);
    let owner = Owner {
        worker: Uuid::nil(),
        host: "worker-7".into(),
        realm: "other".into(),
        pid: 7,
        started: 1,
    };
    record.claim(owner, Timestamp::now()).unwrap();
    record.failure = Some(Failure {
        step: Some("create".into()),
        chain: vec!["create the server".into(), "quota exceeded".into()],
        left_behind: LeftBehind::Nothing,
        at: Timestamp::now(),
        host: "worker-7".into(),
    });
    if let Some(event) = event {
        record.release(event, Timestamp::now()).unwrap();
    }
    let (generation, stuck) = (record.generation, record.status.is_stuck());
    let series = keys::job(&cluster(), id, &name);
    store
        .append(&series, 1, &JobVersion::Full(Box::new(record)))
        .await
        .unwrap();
    if stuck {
        store
            .mark_failed(&cluster(), id, &name, generation)
            .await
            .unwrap();
    }
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_exit_2_and_name_the_path_of_each_problem() {
    let world = World::new().await;
    let bad = world::SPEC
        .replace("ram_gb: 2", "ram_gb: 2048")
        .replace("role: worker", "role: worker\n    taints: [x]");
    world.file("bad.yaml", &bad);
    let run = world.run("validate --spec bad.yaml").await.exits(2);
    let run = run
        .says("bad.yaml: groups[0].ram_gb: 2048 is more than 512")
        .says("groups[0].taints[0]");
    assert_eq!(run.stderr, "");
    let run = world
        .run("validate --spec bad.yaml --output json")
        .await
        .exits(2)
        .json();
    assert_eq!(run["valid"], false);
    assert_eq!(run["problems"][0]["path"], "groups[0].ram_gb");

    world.file(
        "bad-plan.yaml",
        "version: 1\njobs: [{job: mount, needs: [provision]}]\n",
    );
    world
        .run("validate --spec cluster.yaml --plan bad-plan.yaml")
        .await
        .exits(2)
        .says("bad-plan.yaml: jobs[0].needs[0]");
    world
        .run("validate --plan plan.yaml")
        .await
        .exits(0)
        .says("plan.yaml");
    world
        .run("validate --spec cluster.yaml")
        .await
        .exits(0)
        .says("2 nodes");
    world
        .run("validate --spec missing.yaml")
        .await
        .exits(2)
        .complains("missing.yaml");
    world
        .run("recover --cluster test --spec bad.yaml")
        .await
        .exits(2)
        .complains("groups[0].ram_gb");
    world
        .run("plan --spec bad.yaml")
        .await
        .exits(2)
        .complains("groups[0].ram_gb");
    assert_eq!(world.count(""), 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_exit_2_and_are_named() {
    let world = World::new().await;
    let run = world.run_with("list", &[("S3_BUCKET", "")]).await.exits(2);
    run.complains("S3_BUCKET").complains("--s3-bucket");
    let run = world
        .run_with("list", &[("S3_SECRET_KEY", "")])
        .await
        .exits(2);
    run.complains("S3_SECRET_KEY is not");
    world
        .run(RECOVER)
        .await
        .exits(2)
        .complains("AMQP_URL")
        .complains("--here");
    world
        .run_with(RECOVER, &[("AMQP_URL", "http://x")])
        .await
        .exits(2)
        .complains("AMQP_URL");
    world.run("status").await.exits(2).complains("--cluster");
    world
        .run("status --cluster Bad_Name")
        .await
        .exits(2)
        .complains("not a valid cluster name");
    world.run("nonsense").await.exits(2);
    world
        .run(&format!("{RECOVER} --wait --timeout soon"))
        .await
        .exits(2)
        .complains("30m");
    world.run("--help").await.exits(0).says("Exit codes:");
    let wrong = RECOVER.replace("cluster test", "cluster prod");
    let run = world.run(&format!("{wrong} --here")).await.exits(2);
    run.complains("`prod`").complains("`test`");
    assert_eq!(world.count("clusters/"), 0, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_never_shown() {
    let world = World::new().await;
    for args in ["recover --help", "doctor --help", RECOVER, "doctor"] {
        let run = world
            .run_with(
                args,
                &[
                    NO_BROKER,
                    ("CLO_AUTH_TOKEN", "hunter2"),
                    ("REKINDLE_LOG", "debug"),
                ],
            )
            .await;
        let all = run.stdout + &run.stderr;
        assert!(
            !all.contains("hunter2") && !all.contains(world.s3.secret_key()),
            "{all}"
        );
    }
}

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
    world.file("cluster.yaml", &format!("# changed\n{}", world::SPEC));
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

#[tokio::test(flavor = "multi_thread")]
async fn completions_are_made_for_every_shell() {
    let world = World::new().await;
    for shell in ["bash", "zsh", "fish"] {
        world
            .run(&format!("completions {shell}"))
            .await
            .exits(0)
            .says("rekindle");
    }
    assert!(world.path().exists());
}

/// A world with a cloud, and files that describe a cluster of one node in it.
async fn cloud() -> (Sandbox, TempDir) {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let spec = world::SPEC
        .replace("role: worker", "role: bastion")
        .replace("2: true", "2: false");
    std::fs::write(
        files.path().join("cluster.yaml"),
        spec + world::LOAD_BALANCER,
    )
    .unwrap();
    (sandbox, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_recovered_by_the_command_alone() {
    let (sandbox, files) = cloud().await;
    let environment = sandbox.environment();
    let run = |args: &'static str| world::run(args, files.path(), &environment);

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
    let run = |args: &'static str| world::run(args, files.path(), &environment);

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
