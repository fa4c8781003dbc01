//! The handlers, one file per resource. Each is synchronous: it looks, refuses or changes the
//! world in one go, and leaves the rest to `lifecycle`.

mod addresses;
mod balancers;
mod catalog;
mod servers;
mod volumes;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::operation::{Operation, Route};
use super::sim::Inner;
use super::world::World;

/// A true answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    /// The id of what was made.
    pub(super) made: Option<String>,
}

impl Reply {
    /// `{"result": …}`
    fn one(result: Value) -> Self {
        Self {
            status: 200,
            body: Some(json!({ "result": result })),
            made: None,
        }
    }

    /// A create answers the id and nothing else.
    fn created(status: u16, id: &str) -> Self {
        Self {
            status,
            body: Some(json!({ "result": { "id": id } })),
            made: Some(id.to_owned()),
        }
    }

    /// Any 2xx, no body.
    fn empty(status: u16) -> Self {
        Self {
            status,
            body: None,
            made: None,
        }
    }
}

/// An honest refusal.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", format!("{what} not found"))
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "validation_error", message)
    }

    fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, "invalid_state", message)
    }
}

type Answer = Result<Reply, Refusal>;

/// What a list call asked for.
#[derive(Debug, Default)]
pub(super) struct Query {
    limit: Option<usize>,
    offset: usize,
    ordering: Option<String>,
    hide_newest: bool,
}

impl Query {
    pub(super) fn parse(query: &str, hide_newest: bool) -> Self {
        let mut parsed = Self {
            hide_newest,
            ..Self::default()
        };
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "limit" => parsed.limit = value.parse().ok(),
                "offset" => parsed.offset = value.parse().unwrap_or(0),
                "ordering" => parsed.ordering = Some(value.to_owned()),
                // Filters are not documented per list; the simulator knows none.
                _ => {}
            }
        }
        parsed
    }
}

/// Answers a call.
pub(super) fn handle(inner: &Arc<Inner>, route: &Route, query: &Query, body: Value) -> Answer {
    use Operation::*;
    if let Some(project) = &route.project
        && *project != inner.project
    {
        return Err(Refusal::not_found("project"));
    }
    let id = route.id.as_str();
    match route.operation {
        ListProjects => catalog::list_projects(inner, query),
        ProjectDetail => catalog::project(inner),
        ListServers => servers::list(inner, query),
        CreateServer => servers::create(inner, decode(body)?),
        ServerDetail => servers::detail(inner, id),
        RenameServer => servers::rename(inner, id, &body),
        DeleteServer => servers::delete(inner, id, decode(body)?),
        RebootServer => servers::reboot(inner, id),
        StartServer => servers::start(inner, id),
        StopServer => servers::stop(inner, id),
        SetPassword => servers::password(inner, id, &body),
        ListVolumes => volumes::list(inner, query, false),
        CreateVolume => volumes::create(inner, decode(body)?),
        VolumeDetail => volumes::detail(inner, id, false),
        DeleteVolume => volumes::delete(inner, id),
        AttachVolume => volumes::attach(inner, id, decode(body)?),
        DetachVolume => volumes::detach(inner, id),
        ListLocalDisks => volumes::list(inner, query, true),
        LocalDiskDetail => volumes::detail(inner, id, true),
        ListAddresses => addresses::list(inner, query),
        CreateAddress => addresses::create(inner, decode(body)?),
        AddressDetail => addresses::detail(inner, id),
        DeleteAddress => addresses::delete(inner, id),
        AttachAddress => addresses::attach(inner, id, decode(body)?),
        DetachAddress => addresses::detach(inner, id),
        ListBalancers => balancers::list(inner, query),
        CreateBalancer => balancers::create(inner, decode(body)?),
        BalancerDetail => balancers::detail(inner, id),
        RenameBalancer => balancers::rename(inner, id, &body),
        DeleteBalancer => balancers::delete(inner, id),
        ListBalancerRules => balancers::rules_of(inner, query, id),
        ListProjectRules => balancers::all_rules(inner, query),
        CreateRule => balancers::create_rule(inner, id, decode(body)?),
        RuleDetail => balancers::rule(inner, id),
        DeleteRule => balancers::delete_rule(inner, id),
        ListKeypairs => catalog::list_keypairs(inner, query),
        CreateKeypair => catalog::create_keypair(inner, decode(body)?),
        KeypairDetail => catalog::keypair(inner, id),
        DeleteKeypair => catalog::delete_keypair(inner, id),
        ListImages => catalog::list_images(inner, query),
    }
}

/// The names a fault or a log line may know a call by: the thing's own and its server's.
pub(super) fn names(world: &World, route: &Route, body: &Value) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    names.extend(body["name"].as_str().map(str::to_owned));
    for id in [
        route.id.as_str(),
        body["server_id"].as_str().unwrap_or_default(),
    ] {
        names.extend(world.server(id).map(|s| s.name.clone()));
        if let Some(volume) = world.volume(id) {
            names.push(volume.name.clone());
            let server = volume.attached.as_ref().and_then(|(s, _)| world.server(s));
            names.extend(server.map(|s| s.name.clone()));
        }
        names.extend(world.balancer(id).map(|b| b.name.clone()));
    }
    names
}

/// One page of a list. An empty list has no `result` at all, as the schema allows.
fn page(inner: &Inner, query: &Query, mut items: Vec<Value>) -> Reply {
    if query.hide_newest {
        items.pop();
    }
    if let Some(ordering) = &query.ordering {
        let field = ordering.trim_start_matches('-');
        items.sort_by_key(|item| item[field].to_string());
        if ordering.starts_with('-') {
            items.reverse();
        }
    }
    let limit = query
        .limit
        .unwrap_or(inner.options.page_size)
        .min(inner.options.max_page_size);
    let count = items.len();
    let result: Vec<Value> = items.into_iter().skip(query.offset).take(limit).collect();
    let mut body = json!({ "count": count, "x_took_ms": 3 });
    if !result.is_empty() {
        body["result"] = Value::Array(result);
    }
    Reply {
        status: 200,
        body: Some(body),
        made: None,
    }
}

fn decode<T: DeserializeOwned>(body: Value) -> Result<T, Refusal> {
    let body = match body {
        Value::Null => json!({}),
        body => body,
    };
    serde_json::from_value(body).map_err(|error| Refusal::bad(error.to_string()))
}

fn new_name(body: &Value) -> Result<String, Refusal> {
    match body["name"].as_str() {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(Refusal::bad("name: this field is required")),
    }
}
