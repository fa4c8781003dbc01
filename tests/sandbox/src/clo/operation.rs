//! The calls the simulator knows, and which path means which.
//!
//! Faults, counters and the dispatcher all use this one table, so that a rule in a test names a
//! call and not a spelling of its path.

use http::Method;

/// One call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Operation {
    ListProjects,
    ProjectDetail,
    ListServers,
    CreateServer,
    ServerDetail,
    RenameServer,
    DeleteServer,
    RebootServer,
    StartServer,
    StopServer,
    SetPassword,
    ListVolumes,
    CreateVolume,
    VolumeDetail,
    DeleteVolume,
    AttachVolume,
    DetachVolume,
    ListLocalDisks,
    LocalDiskDetail,
    ListAddresses,
    CreateAddress,
    AddressDetail,
    DeleteAddress,
    AttachAddress,
    DetachAddress,
    ListBalancers,
    CreateBalancer,
    BalancerDetail,
    RenameBalancer,
    DeleteBalancer,
    ListBalancerRules,
    ListProjectRules,
    CreateRule,
    RuleDetail,
    DeleteRule,
    ListKeypairs,
    CreateKeypair,
    KeypairDetail,
    DeleteKeypair,
    ListImages,
}

impl Operation {
    /// Whether the call changes the world.
    pub fn is_mutating(self) -> bool {
        use Operation::*;
        match self {
            ListProjects | ProjectDetail | ListServers | ServerDetail | ListVolumes
            | VolumeDetail | ListLocalDisks | LocalDiskDetail | ListAddresses | AddressDetail
            | ListBalancers | BalancerDetail | ListBalancerRules | ListProjectRules
            | RuleDetail | ListKeypairs | KeypairDetail | ListImages => false,
            CreateServer | RenameServer | DeleteServer | RebootServer | StartServer
            | StopServer | SetPassword | CreateVolume | DeleteVolume | AttachVolume
            | DetachVolume | CreateAddress | DeleteAddress | AttachAddress | DetachAddress
            | CreateBalancer | RenameBalancer | DeleteBalancer | CreateRule | DeleteRule
            | CreateKeypair | DeleteKeypair => true,
        }
    }
}

/// A request's operation with the ids of its path.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) operation: Operation,
    pub(super) project: Option<String>,
    /// The id of the thing itself; empty for calls on the project.
    pub(super) id: String,
}

/// Finds what a request means; `None` is a 404.
pub(super) fn route(method: &Method, path: &str) -> Option<Route> {
    use Operation::*;
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let ("v2", rest) = segments.split_first().map(|(v, rest)| (*v, rest))? else {
        return None;
    };
    let method = method.as_str();
    if rest == ["projects"] && method == "GET" {
        return Some(Route {
            operation: ListProjects,
            project: None,
            id: String::new(),
        });
    }
    if let ["projects", project, below @ ..] = rest {
        let operation = match (method, below) {
            ("GET", ["detail"]) => ProjectDetail,
            ("GET", ["servers"]) => ListServers,
            ("POST", ["servers"]) => CreateServer,
            ("GET", ["volumes"]) => ListVolumes,
            ("POST", ["volumes"]) => CreateVolume,
            ("GET", ["local-disks"]) => ListLocalDisks,
            ("GET", ["addresses"]) => ListAddresses,
            ("POST", ["addresses"]) => CreateAddress,
            ("GET", ["loadbalancers"]) => ListBalancers,
            ("POST", ["loadbalancers"]) => CreateBalancer,
            ("GET", ["loadbalancers", "rules"]) => ListProjectRules,
            ("GET", ["keypairs"]) => ListKeypairs,
            ("POST", ["keypairs"]) => CreateKeypair,
            ("GET", ["images"]) => ListImages,
            _ => return None,
        };
        return Some(Route {
            operation,
            project: Some((*project).to_owned()),
            id: String::new(),
        });
    }
    let (operation, id) = match (method, rest) {
        ("GET", ["servers", id, "detail"]) => (ServerDetail, id),
        ("PATCH", ["servers", id]) => (RenameServer, id),
        ("DELETE", ["servers", id]) => (DeleteServer, id),
        ("POST", ["servers", id, "reboot"]) => (RebootServer, id),
        ("POST", ["servers", id, "start"]) => (StartServer, id),
        ("POST", ["servers", id, "stop"]) => (StopServer, id),
        ("POST", ["servers", id, "password"]) => (SetPassword, id),
        ("GET", ["volumes", id, "detail"]) => (VolumeDetail, id),
        ("DELETE", ["volumes", id]) => (DeleteVolume, id),
        ("POST", ["volumes", id, "attach"]) => (AttachVolume, id),
        ("POST", ["volumes", id, "detach"]) => (DetachVolume, id),
        ("GET", ["local-disks", id, "detail"]) => (LocalDiskDetail, id),
        ("GET", ["addresses", id, "detail"]) => (AddressDetail, id),
        ("DELETE", ["addresses", id]) => (DeleteAddress, id),
        ("POST", ["addresses", id, "attach"]) => (AttachAddress, id),
        ("POST", ["addresses", id, "detach"]) => (DetachAddress, id),
        ("GET", ["loadbalancers", "rules", id]) => (RuleDetail, id),
        ("DELETE", ["loadbalancers", "rules", id]) => (DeleteRule, id),
        ("GET", ["loadbalancers", id, "detail"]) => (BalancerDetail, id),
        ("PATCH", ["loadbalancers", id]) => (RenameBalancer, id),
        ("DELETE", ["loadbalancers", id]) => (DeleteBalancer, id),
        ("GET", ["loadbalancers", id, "rules"]) => (ListBalancerRules, id),
        ("POST", ["loadbalancers", id, "rules"]) => (CreateRule, id),
        ("GET", ["keypairs", id, "detail"]) => (KeypairDetail, id),
        ("DELETE", ["keypairs", id]) => (DeleteKeypair, id),
        _ => return None,
    };
    Some(Route {
        operation,
        project: None,
        id: (*id).to_owned(),
    })
}
