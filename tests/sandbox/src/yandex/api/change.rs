//! Changes: what all of them have in common. Each that is not refused begins an operation.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::super::lifecycle;
use super::super::refusal::{Code, Refusal};
use super::super::sim::Inner;
use super::super::world::{Kind, Status, Thing, Verb, World};
use super::{Call, cluster, existing, given, network, node_group, view};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Update {
    /// The names of the fields that change, with commas between them.
    update_mask: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

pub(super) fn create(inner: &Arc<Inner>, call: &Call, kind: Kind) -> Result<Value, Refusal> {
    once(inner, call, None, |world| {
        let thing = match kind {
            Kind::Network => network::create(inner, world, &call.body),
            Kind::Subnet => network::create_subnet(inner, world, &call.body),
            Kind::Cluster => cluster::create(inner, world, &call.body),
            Kind::NodeGroup => node_group::create(inner, world, &call.body),
        }?;
        let id = world.add(thing);
        Ok(world.begin(Verb::Create, kind, &id))
    })
}

pub(super) fn change(
    inner: &Arc<Inner>,
    call: &Call,
    verb: Verb,
    kind: Kind,
    id: &str,
) -> Result<Value, Refusal> {
    once(inner, call, Some(id), |world| {
        let thing = existing(world, kind, id)?;
        if inner.options.busy_is_refused && world.is_busy(id) {
            let why = format!(
                "{} {id} is {}: another operation is in progress",
                kind.word(),
                thing.status.as_str()
            );
            return Err(Refusal::precondition(why));
        }
        match verb {
            Verb::Delete => {
                deletable(world, thing)?;
                let goes =
                    |thing: &&mut Thing| thing.id == id || thing.cluster.as_deref() == Some(id);
                for thing in world.things.iter_mut().filter(goes) {
                    thing.status = Status::Deleting;
                }
            }
            Verb::Create | Verb::Update => update(world, kind, id, &call.body)?,
        }
        Ok(world.begin(verb, kind, id))
    })
}

/// Does it, unless it was asked for with the same key before; answers with the operation.
fn once(
    inner: &Arc<Inner>,
    call: &Call,
    subject: Option<&str>,
    change: impl FnOnce(&mut World) -> Result<String, Refusal>,
) -> Result<Value, Refusal> {
    let mut world = inner.world();
    note_touch(&mut world, call, subject);
    let asked = format!("{} {} {}", call.method, call.path, call.body);
    if let Some(key) = &call.key {
        let id = uuid::Uuid::parse_str(key).ok();
        if id.is_none_or(|id| id.get_version_num() != 4) {
            return Err(Refusal::invalid("Idempotency-Key: it is no UUID v4"));
        }
        if let Some((before, operation)) = world.keys.get(key) {
            if *before != asked {
                let why = "Idempotency-Key: it was used for another request";
                return Err(Refusal::invalid(why));
            }
            let operation = world.operations.get(operation);
            let operation = operation
                .ok_or_else(|| Refusal::new(Code::Internal, "The operation was forgotten"))?;
            return Ok(view::operation(&inner.iam.account, operation));
        }
    }
    let operation = change(&mut world)?;
    if let Some(key) = &call.key {
        let kept = (asked, operation.clone());
        world.keys.insert(key.clone(), kept);
    }
    let answer = world.operations.get(&operation);
    let answer = answer.map(|operation| view::operation(&inner.iam.account, operation));
    drop(world);
    let ending = inner.faults.ending(&call.method, &call.path);
    inner.spawn(lifecycle::run(inner.clone(), operation, ending));
    Ok(answer.unwrap_or_default())
}

/// A stranger's thing is touched by whoever names it in a change, or builds upon it.
fn note_touch(world: &mut World, call: &Call, subject: Option<&str>) {
    let mut named = Vec::new();
    named.extend(subject);
    texts(&call.body, &mut named);
    let stranger = named.into_iter().find_map(|id| {
        let thing = world.thing(id).filter(|thing| thing.stranger)?;
        Some(format!("{} {}", thing.kind.word(), thing.name))
    });
    if let Some(whose) = stranger {
        let touch = format!("{} {}: {whose}", call.method, call.path);
        world.touches.push(touch);
    }
}

fn texts<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, into)),
        _ => {}
    }
}

fn deletable(world: &World, thing: &Thing) -> Result<(), Refusal> {
    let id = Some(thing.id.as_str());
    let why = match thing.kind {
        Kind::Network => world
            .things
            .iter()
            .any(|other| other.network.as_deref() == id)
            .then(|| format!("Network {} is not empty", thing.id)),
        Kind::Subnet => world
            .things
            .iter()
            .any(|other| other.subnets.contains(&thing.id))
            .then(|| format!("Subnet {} has addresses in use", thing.id)),
        Kind::NodeGroup => {
            let cluster = thing.cluster.as_deref().and_then(|id| world.thing(id));
            cluster
                .filter(|cluster| cluster.status == Status::Deleting)
                .map(|cluster| format!("Cluster {} is DELETING", cluster.id))
        }
        Kind::Cluster => None,
    };
    why.map_or(Ok(()), |why| Err(Refusal::precondition(why)))
}

fn update(world: &mut World, kind: Kind, id: &str, body: &Value) -> Result<(), Refusal> {
    let given: Update = given::read(body)?;
    given::check_common(kind, &given.name, &given.description, &given.labels)?;
    let Some(thing) = world.thing_mut(id) else {
        return Ok(());
    };
    for field in given.update_mask.split(',').map(str::trim) {
        match field {
            "name" => thing.name.clone_from(&given.name),
            "description" => thing.description.clone_from(&given.description),
            "labels" => thing.labels.clone_from(&given.labels),
            other => {
                let why = format!("the simulator cannot change {other:?}");
                return Err(Refusal::new(Code::Unimplemented, why));
            }
        }
    }
    Ok(())
}
