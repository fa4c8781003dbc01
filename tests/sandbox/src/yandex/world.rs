//! What exists in the folder. Plain data; who may change it is decided in `api` and `lifecycle`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::refusal::Code;

/// The kinds of things there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Kind {
    Network,
    Subnet,
    Cluster,
    NodeGroup,
}

impl Kind {
    /// As it stands in messages and types.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Network => "Network",
            Self::Subnet => "Subnet",
            Self::Cluster => "Cluster",
            Self::NodeGroup => "NodeGroup",
        }
    }

    /// The field that holds the id of one.
    pub(super) fn id_field(self) -> &'static str {
        match self {
            Self::Network => "networkId",
            Self::Subnet => "subnetId",
            Self::Cluster => "clusterId",
            Self::NodeGroup => "nodeGroupId",
        }
    }

    /// The field that holds a list of them.
    pub(super) fn list_field(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Subnet => "subnets",
            Self::Cluster => "clusters",
            Self::NodeGroup => "nodeGroups",
        }
    }

    /// Where its messages are defined.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Network | Self::Subnet => "yandex.cloud.vpc.v1",
            Self::Cluster | Self::NodeGroup => "yandex.cloud.k8s.v1",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Network => "enp",
            Self::Subnet => "fl8",
            Self::Cluster | Self::NodeGroup => "cat",
        }
    }
}

/// How a thing is. Networks and subnets have one too, and do not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the API")]
pub enum Status {
    Provisioning,
    Running,
    Deleting,
}

impl Status {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Running => "RUNNING",
            Self::Deleting => "DELETING",
        }
    }
}

/// A network, subnet, cluster or node group.
#[derive(Clone, Debug)]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its name; may be empty.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How it is.
    pub status: Status,
    /// It belongs to somebody else.
    pub stranger: bool,
    /// Since when it is there.
    pub created: Timestamp,
    pub(super) description: String,
    /// Counts everything that was ever made; lists go by it.
    pub(super) number: u64,
    /// The network of a subnet or a cluster.
    pub(super) network: Option<String>,
    /// The cluster of a node group.
    pub(super) cluster: Option<String>,
    /// A cluster that is to be reached from outside.
    pub(super) public: bool,
    /// The subnets that a cluster or a node group lives in.
    pub(super) subnets: Vec<String>,
    /// The names of a node group's nodes.
    pub(super) nodes: Vec<String>,
    /// Everything else that the API shows of it.
    pub(super) detail: Value,
    /// The operation that works on it, or did so last.
    pub(super) operation: String,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Update,
    Delete,
}

impl Verb {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "Create",
            Self::Update => "Update",
            Self::Delete => "Delete",
        }
    }
}

/// A change that takes its time.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) verb: Verb,
    pub(super) kind: Kind,
    /// The id of what it changes.
    pub(super) subject: String,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) done: bool,
    pub(super) error: Option<(Code, String)>,
    pub(super) response: Option<Value>,
}

/// Everything in the folder, in order of creation.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) things: Vec<Thing>,
    pub(super) operations: BTreeMap<String, Operation>,
    /// What was asked with an idempotency key, and the operation that came of it.
    pub(super) keys: BTreeMap<String, (String, String)>,
    /// Of ours.
    pub(super) created: BTreeMap<Kind, u64>,
    /// Of ours, by whatever: asked for, taken along, rolled back.
    pub(super) deleted: BTreeMap<Kind, u64>,
    /// Every call that meant to change, or to build upon, what is somebody else's.
    pub(super) touches: Vec<String>,
    made: u64,
}

impl World {
    pub(super) fn thing(&self, id: &str) -> Option<&Thing> {
        self.things.iter().find(|thing| thing.id == id)
    }

    pub(super) fn thing_mut(&mut self, id: &str) -> Option<&mut Thing> {
        self.things.iter_mut().find(|thing| thing.id == id)
    }

    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Thing> {
        self.things.iter().filter(move |thing| thing.kind == kind)
    }

    /// How many nodes there are, or are to be.
    pub(super) fn nodes(&self) -> usize {
        self.things.iter().map(|thing| thing.nodes.len()).sum()
    }

    /// Puts a thing in; its id and number are chosen here.
    pub(super) fn add(&mut self, mut thing: Thing) -> String {
        self.made += 1;
        thing.number = self.made;
        thing.id = new_id(thing.kind.prefix());
        if !thing.stranger {
            *self.created.entry(thing.kind).or_default() += 1;
        }
        let id = thing.id.clone();
        self.things.push(thing);
        id
    }

    /// Takes a thing out, and a cluster's node groups with it; gives them.
    pub(super) fn remove(&mut self, id: &str) -> Vec<Thing> {
        let goes = |thing: &Thing| thing.id == id || thing.cluster.as_deref() == Some(id);
        let gone: Vec<Thing> = self.things.extract_if(.., |thing| goes(thing)).collect();
        for thing in gone.iter().filter(|thing| !thing.stranger) {
            *self.deleted.entry(thing.kind).or_default() += 1;
        }
        gone
    }

    /// Begins an operation on a thing.
    pub(super) fn begin(&mut self, verb: Verb, kind: Kind, subject: &str) -> String {
        let now = Timestamp::now();
        let id = new_id(kind.prefix());
        let operation = Operation {
            id: id.clone(),
            verb,
            kind,
            subject: subject.to_owned(),
            created: now,
            modified: now,
            done: false,
            error: None,
            response: None,
        };
        self.operations.insert(id.clone(), operation);
        if let Some(thing) = self.thing_mut(subject) {
            thing.operation = id.clone();
        }
        id
    }

    /// Whether an operation still works on this thing, or on a node group of it.
    pub(super) fn is_busy(&self, id: &str) -> bool {
        let open = |thing: &Thing| {
            let operation = self.operations.get(&thing.operation);
            operation.is_some_and(|operation| !operation.done)
        };
        let concerned = |thing: &&Thing| thing.id == id || thing.cluster.as_deref() == Some(id);
        self.things.iter().filter(concerned).any(open)
    }
}

impl Thing {
    /// A new one, without id and number.
    pub(super) fn new(kind: Kind, name: &str) -> Self {
        Self {
            kind,
            id: String::new(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            status: Status::Provisioning,
            stranger: false,
            created: Timestamp::now(),
            description: String::new(),
            number: 0,
            network: None,
            cluster: None,
            public: false,
            subnets: Vec::new(),
            nodes: Vec::new(),
            detail: Value::Null,
            operation: String::new(),
        }
    }
}

/// Twenty characters, as the cloud's ids have.
pub(super) fn new_id(prefix: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}{}", &random[..17])
}
