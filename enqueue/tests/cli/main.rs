//! The binary from outside: exit codes, what it says, and what it leaves in the bucket. No test has
//! a broker; what runs, runs by `--here`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod by_hand;
mod control;
mod here;
mod images;
mod input;
mod kubeconfig;
mod look;
mod recover;
mod secrets;
mod world;

use jobs::ids::{ClusterName, RecoveryId};
use jobs::store::Store;

/// A broker that nobody listens at: port 1 is reserved.
const NO_BROKER: (&str, &str) = ("AMQP_URL", "amqp://guest:hunter2@127.0.0.1:1/%2f");

const RECOVER: &str = "recover --cluster test --spec cluster.yaml --plan plan.yaml";

fn cluster() -> ClusterName {
    ClusterName::new("test").unwrap()
}

async fn active(store: &Store) -> RecoveryId {
    store.active(&cluster()).await.unwrap().expect("held")
}
