//! Records as commands and workers leave them, without either.

use jiff::Timestamp;
use jobs::ids::{JobName, RecoveryId};
use jobs::keys;
use jobs::message::{Job, OnNode};
use jobs::record::{
    ActiveRecord, Event, Failure, JobRecord, JobVersion, LeftBehind, Owner, RecoveryRecord,
};
use jobs::store::Store;
use uuid::Uuid;

use super::cluster;
use crate::world::World;

/// Makes a recovery that no worker has seen: as `recover` does, without a broker to post to.
///
/// `--here` with a pause of an hour in each step, given up at once, would need a clock; so the
/// records are written by hand, the way the command writes them.
pub(super) async fn idle(world: &World) -> (Store, RecoveryId) {
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
            spec: store.put_input(crate::world::SPEC.into()).await.unwrap(),
            plan: store.put_input(plan.into()).await.unwrap(),
            secrets: None,
            flux: None,
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
pub(super) async fn leave(
    store: &Store,
    id: &RecoveryId,
    node: &str,
    event: Option<Event>,
) -> JobName {
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
