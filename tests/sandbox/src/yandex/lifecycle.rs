//! What an operation does in time: makes, deletes, fails, takes back.
//!
//! A change was accepted at once and only begins here. Each step looks again at the world before it acts:
//! a delete may have come in between.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::api::view_of;
use super::faults::Ending;
use super::kubernetes;
use super::refusal::Code;
use super::sim::Inner;
use super::world::{Kind, Operation, Status, Verb};
use crate::kube_sim::KubeSim;

/// Why an operation failed.
type Failure = (Code, String);

/// Carries an operation out.
pub(super) async fn run(inner: Arc<Inner>, operation: String, ending: Ending) {
    let Some(of) = inner.world().operations.get(&operation).cloned() else {
        return;
    };
    sleep(time(&inner, of.kind)).await;
    if !matches!(ending, Ending::RollsBack(..)) {
        inner.let_go().await;
    }
    let outcome = match ending {
        Ending::Stuck => return,
        Ending::Well => match of.verb {
            Verb::Create => make(&inner, &of).await,
            Verb::Update => Ok(shown(&inner, &of.subject)),
            Verb::Delete => {
                delete(&inner, &of.subject);
                Ok(json!({ "value": {} }))
            }
        },
        Ending::Fails(code, message) => {
            take_back(&inner, &of);
            Err((code, message))
        }
        Ending::RollsBack(code, message) => {
            show_error(&inner, &of, (code, message.clone()));
            sleep(time(&inner, of.kind)).await;
            inner.let_go().await;
            take_back(&inner, &of);
            Err((code, message))
        }
        Ending::Leaves(code, message) => Err((code, message)),
    };
    let is_made = of.verb == Verb::Create && outcome.is_ok();
    finish(&inner, &of, outcome);
    if is_made && of.kind == Kind::NodeGroup {
        kubernetes::show_nodes(&inner, &of.subject, false);
        sleep(inner.options.node_time.mul_f64(inner.options.pace)).await;
        inner.let_go().await;
        kubernetes::show_nodes(&inner, &of.subject, true);
    }
}

fn time(inner: &Inner, kind: Kind) -> Duration {
    let options = &inner.options;
    let time = match kind {
        Kind::Network | Kind::Subnet => options.network_time,
        Kind::Cluster => options.cluster_time,
        Kind::NodeGroup => options.node_group_time,
    };
    time.mul_f64(options.pace)
}

/// PROVISIONING → RUNNING.
async fn make(inner: &Arc<Inner>, of: &Operation) -> Result<Value, Failure> {
    let id = of.subject.as_str();
    check_wanted(inner, id)?;
    if of.kind == Kind::NodeGroup {
        let too_many = {
            let world = inner.world();
            let most = inner.options.max_nodes;
            most.is_some_and(|most| world.nodes() > most)
        };
        if too_many {
            delete(inner, id);
            let why = "Quota limit compute.instances.count exceeded";
            return Err((Code::ResourceExhausted, why.to_owned()));
        }
    }
    if of.kind == Kind::Cluster {
        let started = KubeSim::start().await;
        check_wanted(inner, id)?;
        let served = started.and_then(|api| kubernetes::serve(inner, id, api));
        if let Err(error) = served {
            inner.trouble("start a cluster", &error);
            return Err((Code::Internal, "Internal error".to_owned()));
        }
    }
    let runs = {
        let mut world = inner.world();
        let thing = world.thing_mut(id);
        let waiting = thing.filter(|thing| thing.status == Status::Provisioning);
        waiting.map(|thing| thing.status = Status::Running)
    };
    if runs.is_none() {
        // Whoever deleted it may have looked for its API before there was one.
        kubernetes::forget(inner, id);
        return Err(unwanted(id));
    }
    Ok(shown(inner, id))
}

/// Nobody has begun to delete it.
fn check_wanted(inner: &Inner, id: &str) -> Result<(), Failure> {
    let world = inner.world();
    let wanted = world.thing(id).map(|thing| thing.status) == Some(Status::Provisioning);
    match wanted {
        true => Ok(()),
        false => Err(unwanted(id)),
    }
}

fn unwanted(id: &str) -> Failure {
    (Code::Aborted, format!("{id} was deleted meanwhile"))
}

/// DELETING → gone, with all that belongs to it.
fn delete(inner: &Inner, id: &str) {
    let gone = inner.world().remove(id);
    kubernetes::end(inner, &gone);
}

/// A failed create leaves nothing; what was to be deleted stays.
fn take_back(inner: &Inner, of: &Operation) {
    match of.verb {
        Verb::Create => delete(inner, &of.subject),
        Verb::Update => {}
        Verb::Delete => {
            let of_subject = |id: &str, cluster: Option<&str>| {
                id == of.subject || cluster == Some(of.subject.as_str())
            };
            let mut world = inner.world();
            for thing in &mut world.things {
                let deleting = thing.status == Status::Deleting;
                if deleting && of_subject(&thing.id, thing.cluster.as_deref()) {
                    thing.status = Status::Running;
                }
            }
        }
    }
}

/// The service has failed, and is not done: it takes back what it made.
fn show_error(inner: &Inner, of: &Operation, failure: Failure) {
    let mut world = inner.world();
    if let Some(operation) = world.operations.get_mut(&of.id) {
        operation.error = Some(failure);
        operation.modified = Timestamp::now();
    }
    if of.verb == Verb::Create
        && let Some(thing) = world.thing_mut(&of.subject)
    {
        thing.status = Status::Deleting;
    }
}

fn finish(inner: &Inner, of: &Operation, outcome: Result<Value, Failure>) {
    let mut world = inner.world();
    let Some(operation) = world.operations.get_mut(&of.id) else {
        return;
    };
    operation.done = true;
    operation.modified = Timestamp::now();
    match outcome {
        Ok(response) => operation.response = Some(response),
        Err(failure) => operation.error = Some(failure),
    }
}

fn shown(inner: &Inner, id: &str) -> Value {
    let world = inner.world();
    let thing = world.thing(id);
    thing.map_or_else(|| json!({}), |thing| view_of(&inner.folder, thing))
}
