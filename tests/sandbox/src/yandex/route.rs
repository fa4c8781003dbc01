//! Which path means what.

use http::Method;

use super::world::{Kind, Verb};

/// One call of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Token,
    List(Kind),
    Get(Kind, String),
    Create(Kind),
    Change(Verb, Kind, String),
    /// Things of this kind below the thing with this id: subnets of a network, node groups of a cluster.
    Below(Kind, String),
    Nodes(String),
    Operation(String),
}

/// Reads a path; `None` where the simulator has nothing.
pub(super) fn route(method: &Method, path: &str) -> Option<Route> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (kind, rest) = match parts.as_slice() {
        ["iam", "v1", "tokens"] => return (method == Method::POST).then_some(Route::Token),
        ["operations", id] => {
            return (method == Method::GET).then(|| Route::Operation((*id).to_owned()));
        }
        ["vpc", "v1", "networks", rest @ ..] => (Kind::Network, rest),
        ["vpc", "v1", "subnets", rest @ ..] => (Kind::Subnet, rest),
        ["managed-kubernetes", "v1", "clusters", rest @ ..] => (Kind::Cluster, rest),
        ["managed-kubernetes", "v1", "nodeGroups", rest @ ..] => (Kind::NodeGroup, rest),
        _ => return None,
    };
    let is = |wanted: Method| *method == wanted;
    match (kind, rest) {
        (_, []) if is(Method::GET) => Some(Route::List(kind)),
        (_, []) if is(Method::POST) => Some(Route::Create(kind)),
        (_, [id]) if is(Method::GET) => Some(Route::Get(kind, (*id).to_owned())),
        (_, [id]) if is(Method::PATCH) => Some(Route::Change(Verb::Update, kind, (*id).to_owned())),
        (_, [id]) if is(Method::DELETE) => {
            Some(Route::Change(Verb::Delete, kind, (*id).to_owned()))
        }
        (Kind::Network, [id, "subnets"]) if is(Method::GET) => {
            Some(Route::Below(Kind::Subnet, (*id).to_owned()))
        }
        (Kind::Cluster, [id, "nodeGroups"]) if is(Method::GET) => {
            Some(Route::Below(Kind::NodeGroup, (*id).to_owned()))
        }
        (Kind::Cluster, [id, "nodes"]) if is(Method::GET) => Some(Route::Nodes((*id).to_owned())),
        _ => None,
    }
}

/// What a call is called, whatever the ids in it: `yandex GET clusters/*/nodeGroups`.
pub fn call_name(method: &str, target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    // The service and its version say nothing that the collection does not.
    if let Some(at) = parts.iter().position(|part| *part == "v1") {
        parts.drain(..=at);
    }
    if let Some(id) = parts.get_mut(1) {
        *id = "*";
    }
    format!("yandex {method} {}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_without_its_ids() {
        for (target, name) in [
            ("/iam/v1/tokens", "yandex GET tokens"),
            (
                "/vpc/v1/networks?folderId=b1g&pageSize=2",
                "yandex GET networks",
            ),
            (
                "/managed-kubernetes/v1/clusters/cat1/nodeGroups",
                "yandex GET clusters/*/nodeGroups",
            ),
            ("/operations/enp1", "yandex GET operations/*"),
        ] {
            assert_eq!(call_name("GET", target), name);
        }
    }
}
