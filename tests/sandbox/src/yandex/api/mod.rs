//! What is answered: reads here, changes in one file for each kind. Everything is synchronous: it looks,
//! refuses or changes the world in one go, and leaves the rest to `lifecycle`.

mod change;
mod cluster;
mod given;
mod network;
mod node_group;
mod page;
mod view;

use std::sync::Arc;

use serde_json::{Value, json};

use super::refusal::{Code, Refusal};
use super::route::Route;
use super::sim::Inner;
use super::world::{Kind, Status, Thing, World};

pub(super) use self::view::thing as view_of;

/// A call as it came.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    /// The idempotency key.
    pub(super) key: Option<String>,
    pub(super) body: Value,
    /// The list is to lag.
    pub(super) hide_newest: bool,
    /// The list is to begin with a page that holds nothing.
    pub(super) empty_page: bool,
}

impl Call {
    /// A parameter of the query; empty when it is not there.
    fn parameter(&self, name: &str) -> &str {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Answers a call.
pub(super) fn handle(inner: &Arc<Inner>, route: &Route, call: &Call) -> Result<Value, Refusal> {
    match route {
        Route::Token => inner.iam.exchange(call.body.clone()),
        Route::List(kind) => {
            in_folder(inner, call.parameter("folderId"))?;
            let world = inner.world();
            page::list(inner, call, *kind, world.of(*kind))
        }
        Route::Below(kind, parent) => {
            let world = inner.world();
            let parent = match kind {
                Kind::NodeGroup => existing(&world, Kind::Cluster, parent)?,
                _ => existing(&world, Kind::Network, parent)?,
            };
            let below = world.of(*kind).filter(|thing| match kind {
                Kind::NodeGroup => thing.cluster.as_ref() == Some(&parent.id),
                _ => thing.network.as_ref() == Some(&parent.id),
            });
            page::list(inner, call, *kind, below)
        }
        Route::Get(kind, id) => {
            let world = inner.world();
            let thing = existing(&world, *kind, id)?;
            Ok(view::thing(&inner.folder, thing))
        }
        Route::Nodes(cluster) => nodes(inner, cluster),
        Route::Operation(id) => {
            let world = inner.world();
            let operation = world
                .operations
                .get(id)
                .ok_or_else(|| Refusal::new(Code::NotFound, format!("Operation {id} not found")))?;
            Ok(view::operation(&inner.iam.account, operation))
        }
        Route::Create(kind) => change::create(inner, call, *kind),
        Route::Change(verb, kind, id) => change::change(inner, call, *verb, *kind, id),
    }
}

/// All nodes of a cluster on one page.
fn nodes(inner: &Inner, cluster: &str) -> Result<Value, Refusal> {
    let world = inner.world();
    let cluster = existing(&world, Kind::Cluster, cluster)?;
    let of_cluster = |group: &&Thing| group.cluster.as_ref() == Some(&cluster.id);
    let groups = world.of(Kind::NodeGroup).filter(of_cluster);
    let nodes = groups.flat_map(|group| {
        let status = match group.status {
            Status::Running => "READY",
            Status::Provisioning | Status::Deleting => "PROVISIONING",
        };
        let nodes = group.nodes.iter();
        nodes.map(move |name| json!({ "status": status, "kubernetesStatus": { "id": name } }))
    });
    let nodes: Vec<Value> = nodes.collect();
    Ok(view::bare(&json!({ "nodes": nodes })))
}

/// Who names another folder, or none, learns nothing.
fn in_folder(inner: &Inner, folder: &str) -> Result<(), Refusal> {
    if folder.is_empty() {
        return Err(Refusal::invalid("folderId: it is required"));
    }
    if folder != inner.folder {
        return Err(Refusal::new(Code::PermissionDenied, "Permission denied"));
    }
    Ok(())
}

fn existing<'w>(world: &'w World, kind: Kind, id: &str) -> Result<&'w Thing, Refusal> {
    let found = world.thing(id).filter(|thing| thing.kind == kind);
    found.ok_or_else(|| not_found(kind, id))
}

fn not_found(kind: Kind, id: &str) -> Refusal {
    Refusal::new(Code::NotFound, format!("{} {id} not found", kind.word()))
}
